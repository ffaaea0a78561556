"""A job in which a proof took stake of two of three, and the moves of whoever wants it back, or shared."""

from __future__ import annotations

from eth_hash.auto import keccak

from offchain.chain.sender import Receipt
from offchain.protocol.types import Hold
from tests.contracts.record import holds_of
from tests.contracts.stage import PROOF_BYTES, Play, Stage, commitment_link, with_policy

OTHER = keccak(b"other x") + keccak(b"other y")
WRONG = commitment_link(OTHER)
"""What two of three reveal; mocks prove it as well."""
DAY = 86_400


def proof_of(play: Play, opening: bytes | None = None, closing: bytes = OTHER, segment: int = 0) -> bytes:
    """A proof of an output that is not the usual one."""
    return ((opening or play.stage._boundary(segment)) + closing).ljust(PROOF_BYTES, b"\1")


def appeal(play: Play, hold: Hold, proof: bytes | None = None) -> Receipt:
    """Anybody appeals, with a proof of what two of three revealed."""
    proof = proof_of(play) if proof is None else proof
    return play.stage.contracts.staking.appeal(play.stage.owner, hold, proof, ())


def release(play: Play, hold: Hold) -> Receipt:
    """Anybody releases."""
    return play.stage.contracts.staking.release(play.stage.owner, hold)


def overturned(stage: Stage, permille: int = 1000) -> Play:
    """A job whose first segment two of three settled, and the third, `stage.workers[0]`, overturned."""
    play = stage.request(with_policy(proof_permille=permille)).to_committing()
    play.play_round({worker.address: WRONG for worker in stage.workers[1:]})
    play.challenge(0, stage.workers[0])
    return play


def hold_against(play: Play, place: int, segment: int = 0, attempt: int = 0) -> Hold:
    """What is held of a worker of the stage."""
    operator = play.stage.workers[place].address
    (found,) = (
        hold for hold in holds_of(play) if (hold.operator, hold.segment, hold.attempt) == (operator, segment, attempt)
    )
    return found


def of_nobodys_bond(stage: Stage) -> int:
    """What the bonds' contract holds that is in no worker's bond."""
    staking = stage.contracts.staking
    bonds = sum(staking.active_of(who.address) + staking.unbonding_of(who.address)[0] for who in stage.workers)
    return stage.chain.connection.balance(staking.address) - bonds
