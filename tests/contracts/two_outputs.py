"""A verifier that accepts two outputs, as circuits do that round: one number of the second is off by one."""

from __future__ import annotations

from eth_hash.auto import keccak

from offchain.protocol.field import encode_elements
from offchain.protocol.links import LinkKind
from offchain.protocol.types import Hold, Link
from tests.contracts.stage import OUTPUT, PROOF_BYTES, Play, Stage, spec

SECOND_OUTPUT = (OUTPUT[0], OUTPUT[1] + 1, OUTPUT[2])
SECOND = Link(keccak(encode_elements(SECOND_OUTPUT)))
LIE_OUTPUT = (OUTPUT[0], OUTPUT[1] + 2, OUTPUT[2])
LIE = Link(keccak(encode_elements(LIE_OUTPUT)))
ACCEPTS_TWO = bytes.fromhex("6101a435") + bytes.fromhex("60011c6004145f5260205ff3")
"""Whether the second number, halved and rounded down, is four. ``PUSH2 0x1a4 CALLDATALOAD PUSH1 1 SHR PUSH1 4 EQ``, and
return that: behind the selector, two offsets and the proof with its length comes the length of the instances."""
assert 4 + 2 * 32 + 32 + PROOF_BYTES + 32 + 32 == 0x1A4
assert (OUTPUT[1] // 2, SECOND_OUTPUT[1] // 2, LIE_OUTPUT[1] // 2) == (4, 4, 5)


def register_two_outputs(stage: Stage) -> None:
    """Register a model of one segment behind such a verifier, and have everybody on the stage serve it."""
    creation = b"\x60" + bytes([len(ACCEPTS_TWO)]) + bytes.fromhex("8060095f395ff3") + ACCEPTS_TWO
    sent = {"from": stage.owner.address, "data": "0x" + creation.hex()}
    address = stage.owner.send_raw("create", sent).contract
    assert address is not None
    stage.model = stage.register([spec(keccak(ACCEPTS_TWO), output_kind=LinkKind.PUBLIC)], [address], "two outputs")
    for worker in stage.workers:
        stage.contracts.staking.serve(worker, stage.model)


def own_proof(play: Play, hold: Hold) -> tuple[bytes, tuple[int, ...]]:
    """A proof of what was held against, where that is one of the outputs above."""
    output = next(each for each in (OUTPUT, SECOND_OUTPUT, LIE_OUTPUT) if keccak(encode_elements(each)) == hold.link)
    return play.proof(hold.segment)[0], output
