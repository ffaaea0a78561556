"""Rows 13 and 14: the same statement in other bytes, and bytes that say one thing to us and another to the verifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_hash.auto import keccak

from offchain.chain.errors import TransactionRefused
from offchain.protocol import hashing
from offchain.protocol.field import FIELD_MODULUS, encode_elements
from offchain.protocol.links import LinkKind
from offchain.protocol.types import ZERO_HASH, Address, JobId, Link
from tests.attacks.mutant import Change, Mutant, deploy_code
from tests.contracts.record import compensations, release_all
from tests.contracts.stage import OUTPUT, POLICY, PROOF_BYTES, Play, Stage, refused, spec, with_policy
from tests.local_chain import InstantSender

pytestmark = pytest.mark.integration

ANY_INSTANCE = Mutant(
    Change("Verifier.sol", "if (instances[i] >= FIELD_MODULUS) revert InstanceNotInField(segment, i, instances[i]);")
)
RAW_CALLDATA = Mutant(
    Change(
        "Verifier.sol",
        "abi.encodeCall(IHalo2Verifier.verifyProof, (proof, instances))",
        "bytes.concat(IHalo2Verifier.verifyProof.selector, msg.data[68:])",
    )
)
# What decodes our types is the compiler's; by hand one has to remember that a word may hold more than its type.
CUT_OFF = Mutant(
    Change(
        "jobs/JobQueue.sol",
        "Policy memory policy = what.policy;",
        """Policy memory policy;
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, 8) { i := add(i, 1) } {
                let mask := 0xffffffff
                if lt(i, 3) { mask := 0xffff }
                if iszero(i) { mask := 0xff }
                mstore(add(policy, mul(32, i)), and(calldataload(add(add(what, 160), mul(32, i))), mask))
            }
        }""",
    )
)
ANSWERS_TO_ANYTHING = Mutant(
    Change(
        "Jobs.sol",
        "contract Jobs is JobQueue, JobProofs {",
        "contract Jobs is JobQueue, JobProofs {\n    fallback() external payable {}",
    )
)

# --- row 13 -----------------------------------------------------------------------------------------------------------

RAISED = (OUTPUT[0] + FIELD_MODULUS, *OUTPUT[1:])
"""To a circuit the same numbers as ``OUTPUT``: a verifier that reduces them accepts the same proof."""


def raise_the_result(stage: Stage) -> tuple[Play, InstantSender]:
    """One of three reveals the honest result with the modulus added to a number, and challenges the others with it."""
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    attacker = play.members()[0]
    link = Link(keccak(b"".join(number.to_bytes(32, "big") for number in RAISED)))
    play.play_round({attacker.address: link})
    assert play.round(0).settled_link == play.truth(0)
    play.challenge(0, attacker, instances=RAISED)
    return play, attacker


def test_instance_over_the_modulus__defence_removed__honest_quorum_is_overturned(build: Callable[..., Stage]) -> None:
    stage = build(ANY_INSTANCE, segments=1)
    play, attacker = raise_the_result(stage)
    assert play.round(0).overturned
    assert play.round(0).settled_link != play.truth(0)
    release_all(play)
    assert compensations(stage)[attacker.address] > 0


def test_instance_over_the_modulus__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    with refused("InstanceNotInField", segment=0, index=0, value=RAISED[0]):
        raise_the_result(stage)


def test_instance_over_the_modulus__at_any_place__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    proof, instances = stage.request().proof(0)
    for index, value in product(range(len(OUTPUT)), (FIELD_MODULUS, 2 * FIELD_MODULUS, 2**256 - 1)):
        raised = [*instances[:index], value, *instances[index + 1 :]]
        with refused("InstanceNotInField", segment=0, index=index, value=value):
            stage.contracts.verifier.verify_segment(stage.model, 0, proof, raised)


# --- row 14: decoys ---------------------------------------------------------------------------------------------------

HONEST_OPENING = keccak(b"honest x") + keccak(b"honest y")
HONEST = HONEST_OPENING.ljust(PROOF_BYTES, b"\1")
DECOY_OPENING = keccak(b"decoy x") + keccak(b"decoy y")
DECOY, DECOY_OUTPUT = DECOY_OPENING.ljust(PROOF_BYTES, b"\2"), (1, 2, 3)

READS_AT_FIXED_PLACES = bytes.fromhex("6064357f") + HONEST[:32] + bytes.fromhex("145f5260205ff3")
"""As generated verifiers do: it takes the word at 0x64, where an ordinary encoding has the proof's first, whatever the
offsets say. ``PUSH1 0x64 CALLDATALOAD PUSH32 word EQ``, and return that."""
TAKES_NO_MORE_THAN_THE_PROOF = bytes.fromhex("366101e4145f5260205ff3")
"""``CALLDATASIZE PUSH2 484 EQ``, and return that: 484 bytes are the selector and the ordinary encoding."""


def stage_with(build: Callable[..., Stage], runtime: bytes, mutant: Mutant | None = None) -> Stage:
    """A stage whose model's only verifier has this code."""
    stage = build(mutant, segments=1)
    verifier, code_hash = deploy_code(stage.chain, stage.owner, runtime)
    stage.model = stage.register([spec(code_hash, output_kind=LinkKind.PUBLIC)], [verifier], "by hand")
    for worker in stage.workers:
        stage.contracts.staking.serve(worker, stage.model)
    return stage


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(32, "big") for value in values)


def with_decoys(head: bytes, before: int, after: bytes = b"") -> bytes:
    """Arguments whose offsets lead past an honest proof, at its ordinary place, to another one behind it.

    Args:
        head: the arguments before proof and instances.
        before: words of the whole head.
        after: the arguments behind proof and instances.
    """
    first = 32 * before
    honest = words(PROOF_BYTES) + HONEST + words(len(OUTPUT), *OUTPUT)
    decoy = words(PROOF_BYTES) + DECOY
    offsets = words(first + len(honest), first + len(honest) + len(decoy))
    return head + offsets + after + honest + decoy + words(len(DECOY_OUTPUT), *DECOY_OUTPUT)


def links_that_the_adapter_vouches_for(stage: Stage, arguments: bytes) -> tuple[bytes, bytes]:
    """Call ``verifySegment`` with arguments encoded by hand."""
    verifier = stage.contracts.verifier
    selector = keccak(b"verifySegment(bytes32,uint256,bytes,uint256[])")[:4]
    sent: Any = {"to": verifier.address, "data": selector + arguments}
    with stage.contracts.connection.translated("verifySegment"):
        return decode(["bytes32", "bytes32"], bytes(stage.contracts.connection.web3.eth.call(sent)))


def test_decoys__defence_removed__adapter_vouches_for_links_that_nobody_proved(build: Callable[..., Stage]) -> None:
    stage = stage_with(build, READS_AT_FIXED_PLACES, RAW_CALLDATA)
    links = links_that_the_adapter_vouches_for(stage, with_decoys(stage.model + words(0), 4))
    assert links == (keccak(DECOY_OPENING), keccak(encode_elements(DECOY_OUTPUT)))


def test_decoys__refused_because_the_verifier_sees_what_we_read(build: Callable[..., Stage]) -> None:
    stage = stage_with(build, READS_AT_FIXED_PLACES)
    with refused("ProofRejected", modelId=stage.model, segment=0):
        links_that_the_adapter_vouches_for(stage, with_decoys(stage.model + words(0), 4))
    honest = stage.contracts.verifier.verify_segment(stage.model, 0, HONEST, OUTPUT)
    assert honest == (keccak(HONEST_OPENING), keccak(encode_elements(OUTPUT)))


def proving_by_hand(stage: Stage) -> tuple[Play, InstantSender]:
    play = stage.request(input_link=Link(keccak(HONEST_OPENING))).to_proving()
    return play, stage.by_address(play.round(0).prover)


def send_prove(play: Play, prover: InstantSender, arguments: bytes) -> None:
    selector = keccak(b"prove(bytes32,uint256,bytes,uint256[],bytes32)")[:4]
    data = "0x" + (selector + arguments).hex()
    prover.send_raw("prove", {"from": prover.address, "to": play.jobs.address, "data": data})


def test_decoys__in_a_transaction_that_proves__refused(build: Callable[..., Stage]) -> None:
    play, prover = proving_by_hand(stage_with(build, READS_AT_FIXED_PLACES))
    with refused("ProofRejected", modelId=play.stage.model, segment=0):
        send_prove(play, prover, with_decoys(play.job + words(0), 5, after=keccak(b"proof")))
    assert play.round(0).proof_hash == ZERO_HASH


# --- row 14: trailing bytes -------------------------------------------------------------------------------------------


def encoded(*head: bytes | int) -> bytes:
    """The ordinary encoding of an honest proof behind some arguments."""
    kinds = ["bytes32" if isinstance(value, bytes) else "uint256" for value in head]
    return encode([*kinds, "bytes", "uint256[]"], [*head, HONEST, OUTPUT])


def test_trailing_bytes__defence_removed__reach_the_verifier(build: Callable[..., Stage]) -> None:
    """What nobody hashed, and nobody can see in the arguments, decides whether a proof is one."""
    stage = stage_with(build, TAKES_NO_MORE_THAN_THE_PROOF, RAW_CALLDATA)
    links_that_the_adapter_vouches_for(stage, encoded(stage.model, 0))
    with refused("ProofRejected", modelId=stage.model, segment=0):
        links_that_the_adapter_vouches_for(stage, encoded(stage.model, 0) + b"junk")


def test_trailing_bytes__go_no_further_than_our_own_encoding(build: Callable[..., Stage]) -> None:
    play, prover = proving_by_hand(stage_with(build, TAKES_NO_MORE_THAN_THE_PROOF))
    links_that_the_adapter_vouches_for(play.stage, encoded(play.stage.model, 0) + b"junk")
    arguments = encode(
        ["bytes32", "uint256", "bytes", "uint256[]", "bytes32"], [play.job, 0, HONEST, OUTPUT, keccak(b"proof")]
    )
    send_prove(play, prover, arguments + b"junk")
    assert play.round(0).proof_hash == hashing.proof_hash(HONEST, OUTPUT)


# --- row 14: encodings that are none ----------------------------------------------------------------------------------


def test_offset_out_of_the_calldata__refused(build: Callable[..., Stage]) -> None:
    play, prover = proving_by_hand(stage_with(build, READS_AT_FIXED_PLACES))
    arguments = encode(
        ["bytes32", "uint256", "bytes", "uint256[]", "bytes32"], [play.job, 0, HONEST, OUTPUT, keccak(b"proof")]
    )
    of_the_proof, of_the_instances = 2, 3
    for place, offset in product((of_the_proof, of_the_instances), (2**256 - 32, 2**64, 10_000)):
        moved = arguments[: 32 * place] + words(offset) + arguments[32 * place + 32 :]
        with pytest.raises(TransactionRefused) as caught:
            send_prove(play, prover, moved)
        assert caught.value.error == "unknown"
    assert play.round(0).proof_hash == ZERO_HASH


POLICY_TYPES = b"uint8,uint16,uint16,uint32,uint32,uint32,uint32,uint32"


def send_request(stage: Stage, policy: Sequence[int]) -> JobId:
    """Request a job with these words for a policy."""
    selector = keccak(b"request((bytes32,bytes32,bytes32,bytes32,bytes32,(" + POLICY_TYPES + b")))")[:4]
    before = selector + stage.model + keccak(b"in") + keccak(b"key") + keccak(b"salt") + bytes(32)
    owner, jobs = stage.owner, stage.contracts.jobs
    sent = {"from": owner.address, "to": jobs.address, "value": hex(10**18)}
    owner.send_raw("request", {**sent, "data": "0x" + (before + words(*policy)).hex()})
    chain_id = stage.contracts.connection.chain_id
    return hashing.job_id(chain_id, jobs.address, Address(owner.address), keccak(b"salt"))


def test_dirty_high_bits__defence_removed__committee_is_not_what_the_transaction_says(
    build: Callable[..., Stage],
) -> None:
    """A committee of 259 is not one of three."""
    stage = build(CUT_OFF, segments=1, stakes=())
    clean = list(vars(POLICY).values())
    job = send_request(stage, [clean[0] + 256, *clean[1:]])
    assert stage.contracts.jobs.job_of(job).policy == POLICY


def test_dirty_high_bits__of_a_policy__refused_and_not_cut_off(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    clean = list(vars(POLICY).values())
    for field, kind in enumerate(POLICY_TYPES.split(b",")):
        dirty = [*clean[:field], clean[field] + (1 << int(kind.removeprefix(b"uint"))), *clean[field + 1 :]]
        with pytest.raises(TransactionRefused) as caught:
            send_request(stage, dirty)
        assert caught.value.error == "unknown"
    assert stage.contracts.jobs.job_of(send_request(stage, clean)).policy == POLICY


UNKNOWN_SELECTORS = ("0x12", "0x123456", "0xdeadbeef", "0xffffffff", "0x00000000" + "00" * 64)


def send_unknown(stage: Stage, name: str, data: str, amount_wei: int) -> None:
    """Call a function that a contract does not have."""
    sent = {"from": stage.owner.address, "to": getattr(stage.contracts, name).address, "data": data}
    stage.owner.send_raw("unknown", {**sent, "value": hex(amount_wei)})


def test_unknown_selector__defence_removed__what_is_sent_along_is_lost(build: Callable[..., Stage]) -> None:
    stage = build(ANSWERS_TO_ANYTHING, segments=1, stakes=())
    jobs = stage.contracts.jobs.address
    for data in UNKNOWN_SELECTORS:
        send_unknown(stage, "jobs", data, amount_wei=1)
    held = int(stage.chain.rpc("eth_getBalance", jobs, "latest"), 16)
    assert (held, sum(stage.credits().values())) == (len(UNKNOWN_SELECTORS), 0)


def test_unknown_selector__refused_by_every_contract(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    for name, data, amount_wei in product(("registry", "verifier", "staking", "jobs"), UNKNOWN_SELECTORS, (0, 1)):
        with pytest.raises(TransactionRefused) as caught:
            send_unknown(stage, name, data, amount_wei)
        assert caught.value.error == "unknown"
