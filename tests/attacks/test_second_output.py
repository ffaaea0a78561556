"""Row 44, the other way round: a circuit admits several outputs, and a proof of one costs those with another nothing.

Each rescaling may be rounded up or down, so that whoever proves with another prover has another output, and a proof of
it. The mock here takes two outputs and no third; test_second_prover.py does it with a real circuit.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eth_hash.auto import keccak

from offchain.protocol.types import ZERO_ADDRESS, Address, Hold, Label, Link
from tests.attacks.mutant import Change, Mutant
from tests.contracts.contradicted import OTHER, WRONG, proof_of
from tests.contracts.record import compensations, holds_of, release_all
from tests.contracts.stage import FEE, OUTPUT, STAKES, Play, Stage, refused, with_policy
from tests.contracts.two_outputs import LIE, SECOND, SECOND_OUTPUT, own_proof, register_two_outputs
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

CONTRADICTION, CHALLENGER, BPS = 5_000, 3_000, 10_000  # migrations/config/local.json
NO_APPEAL = Mutant(Change("Staking.sol", "APPEAL_SECONDS = 1 days;", "APPEAL_SECONDS = 0;"))
ANY_OPENING = Mutant(
    Change(
        "Staking.sol",
        "if (linkIn != held.opening) revert IJobs.OpeningLinkMismatch(held.segment, held.opening, linkIn);",
    )
)
ANY_CLOSING = Mutant(
    Change(
        "Staking.sol", "if (linkOut != held.link) revert IJobs.ClosingLinkMismatch(held.segment, held.link, linkOut);"
    )
)
NEVER_OVER = Mutant(Change("Staking.sol", "        delete _isHeld[id];\n"))
INVENTED = Mutant(Change("Staking.sol", "if (!_isHeld[id]) revert NotHeld(held.jobId, held.segment, held.operator);"))


def bonds(stage: Stage) -> list[int]:
    return [stage.contracts.staking.active_of(worker.address) for worker in stage.workers]


def appeal(play: Play, hold: Hold) -> None:
    """The member proves what it revealed."""
    operator = play.stage.by_address(hold.operator)
    play.stage.contracts.staking.appeal(operator, hold, *own_proof(play, hold))


# --- who overturns an honest quorum -----------------------------------------------------------------------------------


def overturns_the_honest(stage: Stage) -> tuple[Play, InstantSender]:
    """The member with the least stake rounds otherwise than the two others, and proves it."""
    register_two_outputs(stage)
    attacker = stage.workers[0]
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    play.play_round({attacker.address: SECOND})
    assert play.round(0).settled_link == play.truth(0)
    play.challenge(0, attacker, instances=SECOND_OUTPUT)
    return play, attacker


def test_second_output__defence_removed__takes_the_stake_of_an_honest_quorum(build: Callable[..., Stage]) -> None:
    stage = build(NO_APPEAL, segments=1)
    play, attacker = overturns_the_honest(stage)
    staking = stage.contracts.staking
    for hold in holds_of(play):
        now = stage.chain.connection.timestamp() + 1
        with refused("AppealOver", releaseAt=hold.release_at, now_=now):
            appeal(play, hold)
        staking.release(attacker, hold)
    taken = [stake * CONTRADICTION // BPS for stake in STAKES[1:]]
    assert bonds(stage) == [STAKES[0], *(stake - part for stake, part in zip(STAKES[1:], taken, strict=True))]
    assert compensations(stage)[attacker.address] == sum(part * CHALLENGER // BPS for part in taken) > ETHER // 2
    staking.claim_compensation(attacker)


def test_second_output__costs_an_honest_quorum_nothing_and_pays_nobody(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    burnt = stage.chain.connection.balance(ZERO_ADDRESS)
    play, attacker = overturns_the_honest(stage)
    holds = holds_of(play)
    assert {hold.operator for hold in holds} == {worker.address for worker in stage.workers[1:]}
    for hold in holds:
        appeal(play, hold)
    assert bonds(stage) == list(STAKES)
    stage.chain.move_to(holds[0].release_at)
    for hold in holds:
        with refused("NotHeld", jobId=play.job, segment=0, operator=hold.operator):
            stage.contracts.staking.release(attacker, hold)
    assert (compensations(stage), stage.chain.connection.balance(ZERO_ADDRESS)) == ({}, burnt)
    # What is left to it is the fee of the segment that it proved.
    play.finalise()
    assert (play.round(0).settled_link, play.round(0).label) == (SECOND, Label.PROVED)
    assert sum(stage.credits().values()) == stage.credits()[attacker.address] == FEE


def test_second_output__of_one_that_does_not_appeal__is_paid_for_a_day_later(build: Callable[..., Stage]) -> None:
    """The contracts cannot tell it from a lie: who is away for a day loses what a liar loses."""
    stage = build(segments=1)
    play, _ = overturns_the_honest(stage)
    present, away = holds_of(play)
    appeal(play, present)
    stage.chain.move_to(away.release_at)
    with refused("AppealOver", releaseAt=away.release_at, now_=away.release_at + 1):
        appeal(play, away)
    stage.contracts.staking.release(stage.owner, away)
    assert sum(bonds(stage)) == sum(STAKES) - away.amount


# --- who burns an honest minority -------------------------------------------------------------------------------------


def burns_the_honest(stage: Stage) -> tuple[Play, InstantSender]:
    """A quorum that rounds otherwise is sampled, and proves it: the only other member is contradicted."""
    register_two_outputs(stage)
    honest, *cartel = stage.workers
    play = stage.request().to_committing()
    play.play_round({worker.address: SECOND for worker in cartel})
    play.draw()
    play.prove(0, instances=SECOND_OUTPUT)
    return play, honest


def test_second_output__of_a_quorum__defence_removed__burns_an_honest_minority(build: Callable[..., Stage]) -> None:
    stage = build(NO_APPEAL, segments=1)
    play, _ = burns_the_honest(stage)
    burnt = stage.chain.connection.balance(ZERO_ADDRESS)
    (hold,) = release_all(play)
    assert bonds(stage) == [STAKES[0] - hold.amount, *STAKES[1:]]
    assert stage.chain.connection.balance(ZERO_ADDRESS) == burnt + hold.amount == burnt + STAKES[0] // 2


def test_second_output__of_a_quorum__costs_an_honest_minority_nothing(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play, honest = burns_the_honest(stage)
    (hold,) = holds_of(play)
    assert hold.operator == honest.address
    appeal(play, hold)
    assert bonds(stage) == list(STAKES)


# --- appeals of those who lied ----------------------------------------------------------------------------------------


def liars_overturned(stage: Stage) -> tuple[Play, Hold]:
    """Two of three reveal what no honest prover can prove; the third overturns it."""
    register_two_outputs(stage)
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    play.play_round({worker.address: LIE for worker in stage.workers[1:]})
    play.challenge(0, stage.workers[0])
    return play, holds_of(play)[0]


def appeals_with_anothers_proof(stage: Stage) -> tuple[Play, Hold]:
    """A liar appeals with the proof that overturned it."""
    play, hold = liars_overturned(stage)
    stage.contracts.staking.appeal(stage.by_address(hold.operator), hold, *play.proof(0))
    return play, hold


def test_liars_appeal__defence_removed__anothers_proof_gives_the_stake_back(build: Callable[..., Stage]) -> None:
    stage = build(ANY_CLOSING, segments=1)
    _, hold = appeals_with_anothers_proof(stage)
    place = next(place for place, worker in enumerate(stage.workers) if worker.address == hold.operator)
    assert bonds(stage)[place] == STAKES[place]


def test_liars_appeal__with_anothers_proof__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    right = Link(keccak(b"".join(number.to_bytes(32, "big") for number in OUTPUT)))
    with refused("ClosingLinkMismatch", segment=0, expected=LIE, actual=right):
        appeals_with_anothers_proof(stage)
    assert sum(bonds(stage)) == sum(STAKES) - sum(stake // 2 for stake in STAKES[1:])


def test_liars_appeal__with_what_no_verifier_accepts__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play, hold = liars_overturned(stage)
    with refused("ProofRejected", modelId=stage.model, segment=0):
        appeal(play, hold)


def appeals_over_another_input(stage: Stage) -> None:
    """A liar reveals what the model makes of another input, and appeals with a proof of that."""
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    play.play_round({worker.address: WRONG for worker in stage.workers[1:]})
    play.challenge(0, stage.workers[0])
    for hold in holds_of(play):
        operator = stage.by_address(hold.operator)
        stage.contracts.staking.appeal(operator, hold, proof_of(play, opening=OTHER), ())


def test_liars_appeal__defence_removed__proof_over_another_input_gives_the_stake_back(
    build: Callable[..., Stage],
) -> None:
    stage = build(ANY_OPENING, segments=2)
    appeals_over_another_input(stage)
    assert bonds(stage) == list(STAKES)


def test_liars_appeal__with_a_proof_over_another_input__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=2)
    opening = Link(keccak(stage._boundary(0)))
    with refused("OpeningLinkMismatch", segment=0, expected=opening, actual=WRONG):
        appeals_over_another_input(stage)


# --- what was held, more than once or never ---------------------------------------------------------------------------


def appeals_again_and_again(play: Play) -> None:
    """A member whose output is provable appeals three times, and takes its bond home."""
    hold, staking = holds_of(play)[0], play.stage.contracts.staking
    operator = play.stage.by_address(hold.operator)
    for _ in range(3):
        appeal(play, hold)
    staking.start_unbonding(operator, staking.active_of(operator.address))
    play.stage.chain.move_to(staking.unbonding_of(operator.address)[1])
    staking.withdraw(operator)


def test_repeated_appeal__defence_removed__takes_the_bonds_of_others(build: Callable[..., Stage]) -> None:
    stage = build(NEVER_OVER, segments=1)
    play, _ = overturns_the_honest(stage)
    appeals_again_and_again(play)
    # Its own bond is out, and two halves of it besides.
    assert stage.chain.connection.balance(stage.contracts.staking.address) < sum(STAKES) - 1.9 * min(STAKES[1:])


def test_repeated_appeal__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play, _ = overturns_the_honest(stage)
    with refused("NotHeld", jobId=play.job, segment=0, operator=holds_of(play)[0].operator):
        appeals_again_and_again(play)
    assert max(bonds(stage)) <= max(STAKES)


def releases_what_nobody_holds(play: Play, attacker: InstantSender) -> None:
    """Somebody says that all the bonds there are were taken from a worker, by a challenge of its own."""
    stage, links = play.stage, (play.record.input_link, SECOND)
    victim, challenger = Address(stage.workers[0].address), Address(attacker.address)
    invented = Hold(play.job, stage.model, 0, 0, victim, *links, challenger, sum(bonds(stage)), 0, release_at=1)
    stage.contracts.staking.release(attacker, invented)


def test_invented_hold__defence_removed__empties_the_contract(build: Callable[..., Stage]) -> None:
    stage = build(INVENTED, segments=1)
    attacker, staking = stage.owner, stage.contracts.staking
    releases_what_nobody_holds(stage.request(requester=attacker), attacker)
    staking.claim_compensation(attacker)
    assert stage.chain.connection.balance(staking.address) == 0


def test_invented_hold__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play = stage.request(requester=stage.owner)
    with refused("NotHeld", jobId=play.job, segment=0, operator=stage.workers[0].address):
        releases_what_nobody_holds(play, stage.owner)
    assert stage.chain.connection.balance(stage.contracts.staking.address) == sum(STAKES)
