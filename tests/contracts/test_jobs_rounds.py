from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.chain.events import job_events
from offchain.protocol import hashing, sortition
from offchain.protocol.types import ZERO_HASH, Label, Link, Phase, Reason
from tests.contracts.record import failure
from tests.contracts.stage import POLICY, STAKES, Play, Stage, refused, with_policy
from tests.local_chain import ETHER

pytestmark = pytest.mark.integration

WRONG = Link(keccak(b"wrong"))
MISS_BPS = 100


def names_of(play: Play) -> list[str]:
    stage = play.stage
    head = stage.contracts.connection.block_number()
    return [event.name for event in job_events(stage.contracts, play.job, stage.contracts.deployment.block, head)]


def penalties_of(play: Play) -> list[tuple[str, Reason, int]]:
    stage = play.stage
    head = stage.contracts.connection.block_number()
    return [
        (event.arguments["operator"], Reason(event.arguments["reason"]), event.arguments["amount"])
        for event in job_events(stage.contracts, play.job, stage.contracts.deployment.block, head)
        if event.name == "OperatorPenalised"
    ]


def test_job__everybody_honest__passes_every_phase_in_order(stage: Stage) -> None:
    play = stage.request()
    phases = [play.phase]

    def note() -> None:
        if play.phase is not phases[-1]:
            phases.append(play.phase)

    play.draw()
    note()
    play.provide_input()
    note()
    for _ in range(3):
        play.commit_all()
        note()
        if play.phase is Phase.DRAWING:
            play.draw()
            note()
        for worker in play.members():
            play.reveal(worker)
        note()
    play.draw()
    note()
    for segment in range(3):
        play.prove(segment)
    note()
    play.finalise()
    note()
    one_round = [Phase.COMMITTING, Phase.DRAWING, Phase.REVEALING]
    assert phases == [
        Phase.REQUESTED,
        Phase.AWAITING_INPUT,
        *one_round,
        *one_round,
        Phase.COMMITTING,
        Phase.REVEALING,
        Phase.SAMPLING,
        Phase.PROVING,
        Phase.FINALISABLE,
        Phase.FINALISED,
    ]
    round_events = ["Committed"] * 3 + ["SeedBlockSet", "CommitteeDrawn"] + ["Revealed"] * 3 + ["SegmentSettled"]
    assert names_of(play) == [
        *("JobRequested", "JobStarted", "SeedBlockSet", "CommitteeDrawn", "InputProvided"),
        *round_events,
        *round_events,
        *("Committed",) * 3,
        *("Revealed",) * 3,
        *("SegmentSettled", "SeedBlockSet"),
        *("ProverDrawn",) * 3,
        *("SegmentProved",) * 3,
        "JobFinalised",
    ]
    assert penalties_of(play) == []


def test_draw__first_committee__is_what_anybody_can_recompute(stage: Stage) -> None:
    play = stage.request()
    seed_block = play.record.seed_block
    play.draw()
    connection = stage.chain.connection
    entropy = connection.block_hash(seed_block)
    seed = hashing.committee_seed(connection.chain_id, play.jobs.address, play.job, 0, entropy)
    weights = [(worker.address, stake) for worker, stake in zip(stage.workers, STAKES, strict=True)]
    expected = sortition.draw(weights, seed, 3)  # type: ignore[arg-type]
    assert tuple((member.operator, member.weight) for member in play.round(0).members) == expected
    assert play.round(0).total_weight == sum(STAKES)
    (event,) = [
        event
        for event in job_events(stage.contracts, play.job, seed_block, connection.block_number())
        if event.name == "CommitteeDrawn"
    ]
    assert (event.arguments["seed"], event.arguments["segment"]) == (seed, 0)
    assert list(zip(event.arguments["operators"], event.arguments["weights"], strict=True)) == list(expected)


def test_draw__in_the_seed_block_itself__is_refused(stage: Stage) -> None:
    # Two transactions in one block: the seed block's hash does not exist yet.
    play = stage.request()
    block = stage.chain.connection.block_number()
    draw = play.jobs.contract.functions.draw(play.job)._encode_transaction_data()
    call = {"from": stage.owner.address, "to": play.jobs.address, "data": draw}
    with refused("SeedNotReady", seedBlock=block, current=block), stage.chain.connection.translated("draw"):
        stage.chain.connection.web3.manager.request_blocking("eth_call", [call, "latest", {}, {"number": hex(block)}])


def test_draw__after_256_blocks__sets_a_new_seed_block_and_then_works(stage: Stage) -> None:
    play = stage.request()
    deadline, first = play.record.deadline, play.record.seed_block
    stage.chain.mine(256)
    play.draw()
    renewed = play.record
    assert (renewed.phase, renewed.seed_block) == (Phase.REQUESTED, stage.chain.connection.block_number())
    assert renewed.seed_block > first
    assert renewed.deadline == deadline, "a new seed block buys no time"
    play.draw()
    assert play.phase is Phase.AWAITING_INPUT


def test_draw__last_block_whose_hash_is_known__is_used(stage: Stage) -> None:
    play = stage.request()
    stage.chain.mine(255)
    play.draw()
    assert play.phase is Phase.AWAITING_INPUT


def test_draw__too_few_workers__ends_the_job_and_the_fee_comes_back(stage: Stage) -> None:
    play = stage.request(with_policy(committee_size=4))
    play.draw()
    # Stakes are frozen: no later draw could do better.
    assert (play.phase, failure(play)) == (Phase.FAILED, (Reason.TOO_FEW_ACTED, play.record.fee_wei))
    assert stage.contracts.jobs.load_of(stage.model) == (0, 0)
    assert stage.contracts.jobs.credit_of(stage.requester.address) == play.record.fee_wei


@pytest.mark.parametrize("workers", [5, 9])
def test_draw__later_committees__are_apart_where_there_are_workers_enough(stage: Stage, workers: int) -> None:
    more = tuple(stage.chain.instant(f"more {index}") for index in range(workers - 3))
    for worker in more:
        stage.join(worker, ETHER)
    stage.workers += more
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    for _ in range(3):
        play.play_round()
    committees = [{member.operator for member in play.round(segment).members} for segment in range(3)]
    assert all(len(committee) == 3 for committee in committees)
    assert len(set.union(*committees)) == (9 if workers == 9 else len(set.union(*committees)))
    if workers == 5:
        assert len(set.union(*committees)) <= 5


def test_draw__whoever_joined_left_or_was_slashed_since__changes_nothing(stage: Stage) -> None:
    play = stage.request()
    staking = stage.contracts.staking
    stage.join(stage.chain.instant("late"), 100 * ETHER)
    staking.stop_serving(stage.workers[0], stage.model)
    staking.start_unbonding(stage.workers[1], STAKES[1])
    staking.bond(stage.workers[2], 50 * ETHER)
    play.draw()
    assert {(m.operator, m.weight) for m in play.round(0).members} == {
        (worker.address, stake) for worker, stake in zip(stage.workers, STAKES, strict=True)
    }


def test_provide_input__anybody_else_or_nothing__is_refused(stage: Stage) -> None:
    play = stage.request()
    play.draw()
    with refused("NotRequester", jobId=play.job, caller=stage.owner.address):
        play.jobs.provide_input(stage.owner, play.job, keccak(b"input"))
    with refused("ValueIsZero", field="inputCid"):
        play.jobs.provide_input(stage.requester, play.job, ZERO_HASH)
    play.provide_input()
    assert play.record.input_cid == keccak(b"input")
    with refused("WrongPhase", jobId=play.job, actual=Phase.COMMITTING):
        play.provide_input()


def test_commit__outsider_nothing_or_twice__is_refused(stage: Stage) -> None:
    play = stage.request(with_policy(committee_size=2)).to_committing()
    members = play.members()
    (outsider,) = [worker for worker in stage.workers if worker not in members]
    with refused("NotMember", jobId=play.job, segment=0, caller=outsider.address):
        play.jobs.commit(outsider, play.job, *play.under_way, keccak(b"commitment"))
    with refused("ValueIsZero", field="commitment"):
        play.jobs.commit(members[0], play.job, *play.under_way, ZERO_HASH)
    play.commit(members[0])
    with refused("AlreadyCommitted", jobId=play.job, segment=0, operator=members[0].address):
        play.commit(members[0])


def test_commit__for_another_round_than_the_one_under_way__is_refused(stage: Stage) -> None:
    # What was sent for a round that a proof has overtaken must not take the place of what is due now.
    play, word = stage.request().to_committing().play_round(), keccak(b"commitment")
    worker = stage.workers[0]
    for segment, attempt in ((0, 0), (2, 0), (1, 1), (2**200, 0), (1, 2**16)):
        with refused("WrongRound", jobId=play.job, segment=1, attempt=0):
            play.jobs.commit(worker, play.job, segment, attempt, word)
    play.lapse()
    play.draw()
    play.draw()
    with refused("WrongRound", jobId=play.job, segment=1, attempt=1):
        play.jobs.commit(worker, play.job, 1, 0, word)
    play.jobs.commit(worker, play.job, 1, 1, word)


def test_reveal__anything_but_what_was_committed__is_refused(stage: Stage) -> None:
    play = stage.request().to_committing()
    with refused("WrongPhase", jobId=play.job, actual=Phase.COMMITTING):
        play.jobs.reveal(stage.workers[0], play.job, WRONG, keccak(b"salt"), keccak(b"cid"))
    play.to_revealing()
    first, second, third = play.members()
    link, salt = play.secrets[0, 0, first.address]
    cid = keccak(b"cid")
    own = play.commitment(first, 0, link, salt)
    with refused("ValueIsZero", field="link"):
        play.jobs.reveal(first, play.job, Link(ZERO_HASH), salt, cid)
    with refused("ValueIsZero", field="activationCid"):
        play.jobs.reveal(first, play.job, link, salt, ZERO_HASH)
    with refused("NotMember", jobId=play.job, segment=0, caller=stage.owner.address):
        play.jobs.reveal(stage.owner, play.job, link, salt, cid)
    with refused("CommitmentMismatch", expected=own, actual=play.commitment(first, 0, WRONG, salt)):
        play.jobs.reveal(first, play.job, WRONG, salt, cid)
    with refused("CommitmentMismatch", expected=own, actual=play.commitment(first, 0, link, keccak(b"other"))):
        play.jobs.reveal(first, play.job, link, keccak(b"other"), cid)
    play.jobs.reveal(first, play.job, link, salt, cid)
    with refused("AlreadyRevealed", jobId=play.job, segment=0, operator=first.address):
        play.jobs.reveal(first, play.job, link, salt, cid)
    assert play.round(0).member(first.address).activation_cid == cid  # type: ignore[union-attr]


@pytest.mark.parametrize(("segment", "attempt"), [(0, 1), (1, 0)])
def test_commit__meant_for_another_round__is_refused(stage: Stage, segment: int, attempt: int) -> None:
    """A proof may overtake a commitment that is on its way: it must not take the place of the one that is due then."""
    play = stage.request().to_committing()
    with refused("WrongRound", jobId=play.job, segment=0, attempt=0):
        play.jobs.commit(play.members()[0], play.job, segment, attempt, keccak(b"commitment"))
    assert play.round().members[0].commitment == ZERO_HASH


def test_reveal__copied_commitment__cannot_be_opened(stage: Stage) -> None:
    play = stage.request().to_committing()
    honest, copier, third = play.members()
    play.commit(honest)
    copied = play.round(0).member(honest.address).commitment  # type: ignore[union-attr]
    play.jobs.commit(copier, play.job, *play.under_way, copied)
    play.commit(third)
    play.draw()
    play.reveal(honest)
    link, salt = play.secrets[0, 0, honest.address]
    with refused("CommitmentMismatch", expected=copied, actual=play.commitment(copier, 0, link, salt)):
        play.jobs.reveal(copier, play.job, link, salt, keccak(b"cid"))


def test_settle__one_wrong_of_three__is_outvoted(stage: Stage) -> None:
    play = stage.request().to_committing()
    liar = stage.workers[0]
    play.play_round({liar.address: WRONG})
    settled = play.round(0)
    assert settled.settled_link == play.truth(0)
    assert (settled.settled_weight, settled.total_weight) == (sum(STAKES) - STAKES[0], sum(STAKES))
    assert settled.label is Label.AGREED
    assert play.jobs._read("labelOf", play.job, 0) == Label.AGREED
    assert penalties_of(play) == [], "without a proof nobody is said to be wrong"
    assert (play.phase, play.record.segment) == (Phase.COMMITTING, 1)


def test_settle__no_quorum__waits_for_a_proof_and_then_fails_and_refunds(stage: Stage) -> None:
    play = stage.request().to_committing()
    votes = {worker.address: Link(keccak(b"%d" % index)) for index, worker in enumerate(stage.workers)}
    play.play_round(votes)
    assert play.phase is Phase.CONTESTED
    assert play.record.deadline == stage.chain.connection.timestamp() + 2 * POLICY.prove_seconds
    assert names_of(play)[-1] == "SegmentContested"
    assert play.round(0).label is Label.NONE
    play.lapse()
    assert play.phase is Phase.EXPIRED
    play.expire()
    assert play.phase is Phase.FAILED
    assert stage.credits()[stage.requester.address] == play.record.fee_wei
    assert names_of(play)[-1] == "JobFailed"
    assert penalties_of(play) == []


@pytest.mark.parametrize(("quorum_bps", "settles"), [(7500, True), (7501, False)])
def test_settle__exactly_the_quorum__settles(stage: Stage, quorum_bps: int, settles: bool) -> None:
    model = stage.register_segments(1, "exact")
    for index in range(4):
        worker = stage.chain.instant(f"equal {index}")
        stage.join(worker, ETHER, model)
        stage.workers += (worker,)
    policy = with_policy(committee_size=4, quorum_bps=quorum_bps, proof_permille=0)
    play = stage.request(policy, model_id=model).to_committing()
    play.play_round({play.members()[0].address: WRONG})
    assert play.phase is (Phase.CHALLENGEABLE if settles else Phase.CONTESTED)


def test_job__without_proofs__is_finalisable_when_the_time_for_challenges_is_over(stage: Stage) -> None:
    play = stage.request(with_policy(proof_permille=0)).to_challengeable()
    assert play.record.deadline == stage.chain.connection.timestamp() + POLICY.challenge_seconds
    with refused("WrongPhase", jobId=play.job, actual=Phase.CHALLENGEABLE):
        play.finalise()
    play.pass_challenges()
    assert (play.phase, play.record.phase) == (Phase.FINALISABLE, Phase.CHALLENGEABLE)
    assert play.record.seed_block == 0
    with refused("WrongPhase", jobId=play.job, actual=Phase.FINALISABLE):
        play.prove(0, stage.workers[0])
    play.finalise()
    assert [play.round(segment).label for segment in range(3)] == [Label.AGREED] * 3


def test_job__single_worker_and_single_segment__is_finalised(stage: Stage) -> None:
    model = stage.register_segments(1, "single")
    stage.contracts.staking.serve(stage.workers[0], model)
    play = stage.request(with_policy(committee_size=1, quorum_bps=10_000), model_id=model)
    play.to_finalisable().finalise()
    assert play.phase is Phase.FINALISED


def test_moves__in_any_other_phase__are_refused(stage: Stage) -> None:
    play = stage.request()
    word = keccak(b"word")
    moves = {
        "draw": lambda: play.draw(),
        "provide_input": lambda: play.jobs.provide_input(stage.requester, play.job, word),
        "commit": lambda: play.jobs.commit(stage.workers[0], play.job, *play.under_way, word),
        "reveal": lambda: play.jobs.reveal(stage.workers[0], play.job, Link(word), word, word),
        "settle": lambda: play.settle(),
        "reseal": lambda: play.reseal(stage.workers[0]),
        "cancel": lambda: play.jobs.cancel(stage.requester, play.job),
        "announce": lambda: play.jobs.announce(stage.workers[0], play.job, 0, word),
        "challenge": lambda: play.jobs.challenge(stage.workers[0], play.job, 0, b"", (), word),
        "prove": lambda: play.jobs.prove(stage.workers[0], play.job, 0, b"", (), word),
        "finalise": lambda: play.finalise(),
        "expire": lambda: play.expire(),
    }

    def only(*allowed: str) -> None:
        for name, move in moves.items():
            if name not in allowed:
                with refused("WrongPhase", jobId=play.job, actual=play.phase):
                    move()

    # While a job is open, a member may announce a proof, and what it may challenge depends on the segment.
    open_job = ("announce", "challenge")
    only("draw")
    play.draw()
    only("provide_input", *open_job)
    play.provide_input()
    only("commit", "reseal", *open_job)
    play.commit_all()
    assert play.phase is Phase.DRAWING
    only("draw", *open_job)
    play.draw()
    only("reveal", *open_job)
    for worker in play.members():
        play.reveal(worker)
    play.play_round().play_round()
    assert play.phase is Phase.SAMPLING
    only("draw", *open_job)
    play.draw()
    only("prove", *open_job)
    for segment in range(3):
        play.prove(segment)
    only("finalise")
    play.finalise()
    only()


def test_moves__expired_or_failed__are_refused(stage: Stage) -> None:
    play = stage.request()
    play.lapse()
    assert play.phase is Phase.EXPIRED
    for move in (play.draw, play.settle, play.finalise, play.provide_input):
        with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
            move()
    play.expire()
    for move in (play.draw, play.settle, play.finalise, play.provide_input, play.expire):
        with refused("WrongPhase", jobId=play.job, actual=Phase.FAILED):
            move()
