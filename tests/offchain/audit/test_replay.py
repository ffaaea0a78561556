"""Tests of the replay: whatever history the contracts let a job have, its record follows from its events.

Mock verifiers stand in for proofs: what is replayed are the contracts' decisions. Proofs: ``test_histories.py``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from eth_hash.auto import keccak

from offchain.audit.record import read_record, read_standings
from offchain.audit.replay import Replay, Topic, replay
from offchain.chain.contracts import Contracts
from offchain.chain.errors import TransactionRefused
from offchain.chain.staking import hold_of
from offchain.protocol import hashing
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_ADDRESS, ZERO_HASH, Link, Phase
from tests.contracts.stage import Play, Stage, with_policy
from tests.local_chain import ETHER, InstantSender, LocalChain

pytestmark = pytest.mark.integration

SEGMENTS = 3
WRONG, OTHER = Link(keccak(b"wrong")), Link(keccak(b"wrong in another way"))


@pytest.fixture(scope="module")
def shared_stage(chain: LocalChain, contracts: Contracts) -> Stage:
    stage = Stage(chain, contracts, requester=chain.instant("replay requester"), owner=chain.instant("replay owner"))
    stage.model = stage.register_segments(SEGMENTS, "replayed")
    stage.workers = tuple(chain.instant(f"replay worker {index}") for index in range(8))
    for index, worker in enumerate(stage.workers):
        stage.join(worker, ETHER + index * ETHER // 7)
    return stage


@pytest.fixture
def stage(shared_stage: Stage, chain: LocalChain) -> Iterator[Stage]:
    with chain.isolated():
        yield Stage(**vars(shared_stage))


def replayed(play: Play) -> Replay:
    record = read_record(play.stage.contracts, play.job)
    run = replay(record, read_standings(record))
    assert dict(run.findings.faults) == {}
    return run


class Walk:
    """A job whose members do whatever comes into their minds."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.chance = random.Random(seed)
        self.stage = stage
        self.policy = with_policy(
            proof_permille=self.chance.choice((0, 300, 1000)), quorum_bps=self.chance.choice((5001, 6700, 10_000))
        )
        self.honesty = self.chance.choice((0.5, 0.75, 0.95))
        self.conspired = self.chance.random() < 0.5
        self.diligence = self.chance.choice((0.8, 0.97))
        self.play = stage.request(self.policy)

    def step(self) -> None:
        """One move, refused or not."""
        with suppress(TransactionRefused, StopIteration, KeyError):
            self._move(self.play.phase)

    def _move(self, phase: Phase) -> None:
        play, chance = self.play, self.chance
        if phase.is_open and chance.random() < 0.1:
            return self._challenge()
        if play.record.deadline and chance.random() > self.diligence:
            return self._wait(chance.choice((0, 0, play.record.policy.prove_seconds)))
        if phase in (Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING):
            if chance.random() < 0.05:
                self.stage.chain.mine(260)
            play.draw()
        elif phase is Phase.AWAITING_INPUT:
            play.provide_input()
        elif phase is Phase.COMMITTING:
            self._commit()
        elif phase is Phase.REVEALING:
            play.reveal(chance.choice(play.members()))
        elif phase is Phase.SETTLING:
            play.settle()
        elif phase is Phase.CONTESTED:
            self._challenge()
        elif phase is Phase.PROVING:
            self._prove()
        elif phase is Phase.CHALLENGEABLE:
            self._wait(0)
        elif phase is Phase.FINALISABLE:
            play.finalise()
        elif phase is Phase.EXPIRED:
            play.expire()
        return None

    def _wait(self, spare_seconds: int) -> None:
        chain = self.stage.chain
        chain.move_to(max(chain.head()[1] + 1, self.play.record.deadline - spare_seconds))

    def _commit(self) -> None:
        play, chance, segment = self.play, self.chance, self.play.record.segment
        if segment and chance.random() < 0.3:
            play.reseal(chance.choice(play.members(segment - 1)))
            return
        lies = (WRONG, WRONG, WRONG, OTHER, UNAVAILABLE, BAD_INPUT)
        member = chance.choice(play.members())
        link = play.truth(segment) if chance.random() < self.honesty else chance.choice(lies)
        if self.conspired and play.attempt(segment) == 0:  # all but one member say the same, and wrong
            link = play.truth(segment) if member is play.members()[0] else WRONG
        play.commit(member, link)

    def _prove(self) -> None:
        play, chance = self.play, self.chance
        due = [index for index in range(SEGMENTS) if int(play.round(index).prover, 16)]
        segment = chance.choice(due)
        worker = self.stage.by_address(play.round(segment).prover)
        if chance.random() < 0.3:
            worker = chance.choice(play.members(segment))
        if chance.random() < 0.5:
            play.announce(segment, worker)
        play.prove(segment, worker)

    def _challenge(self) -> None:
        play = self.play
        segment = self.chance.randrange(play.record.segment + 1)
        truth = play.truth(segment)
        knowing = [member.operator for member in play.round(segment).members if member.link == truth]
        play.challenge(segment, self.stage.by_address(self.chance.choice(knowing or [ZERO_ADDRESS])))


@pytest.mark.parametrize("seed", range(6))
def test_replay__random_history__leads_to_the_record(stage: Stage, seed: int) -> None:
    walk = Walk(stage, seed)
    for moves in range(400):
        if walk.play.phase.is_terminal:
            break
        walk.step()
        if moves % 20 == 7:
            replayed(walk.play)
    replayed(walk.play)


# --- histories of one kind ------------------------------------------------------------------------------------------


def outvote(play: Play) -> InstantSender:
    """All but the first member of the round under way lie; return that one."""
    honest, *liars = play.members()
    play.play_round({liar.address: WRONG for liar in liars})
    return honest


def through(play: Play, *, until: Phase = Phase.FINALISED) -> Play:
    """Everybody does what is right, as long as there is something to do."""
    chain = play.stage.chain
    while (phase := play.phase) is not until and not phase.is_terminal:
        segment = play.record.segment
        if phase in (Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING):
            play.draw()
        elif phase is Phase.AWAITING_INPUT:
            play.provide_input()
        elif phase is Phase.COMMITTING:
            play.commit_all()
        elif phase is Phase.REVEALING:
            for worker in play.members(segment):
                play.reveal(worker)
        elif phase is Phase.PROVING:
            play.prove(next(i for i in range(SEGMENTS) if is_due(play, i)))
        elif phase is Phase.FINALISABLE:
            play.finalise()
        else:
            chain.move_to(max(chain.head()[1] + 1, play.record.deadline))
    return play


def is_due(play: Play, segment: int) -> bool:
    round_ = play.round(segment)
    return round_.prover != ZERO_ADDRESS and round_.proof_hash == ZERO_HASH


@pytest.mark.parametrize("permille", [0, 1000])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("segment", range(SEGMENTS))
def test_replay__overturned_segment__leads_to_the_record(stage: Stage, segment: int, late: bool, permille: int) -> None:
    """Right after the quorum's word, or when all was already settled, and proofs were due."""
    play = stage.request(with_policy(proof_permille=permille, quorum_bps=5001)).to_committing()
    for _ in range(segment):
        play.play_round()
    honest = outvote(play)
    if late:
        through(play, until=Phase.PROVING if permille else Phase.CHALLENGEABLE)
    play.challenge(segment, honest)
    run = replayed(play)
    assert run.round(segment).overturned
    assert run.holds
    run = replayed(through(play))
    assert run.job.phase is Phase.FINALISED
    assert run.job.attempts == tuple(
        int(index > segment and (late or index == segment + 1)) for index in range(SEGMENTS)
    )


def test_replay__prover_drawn_before_a_later_segment_was_overturned__stays_drawn(stage: Stage) -> None:
    play = stage.request(with_policy(quorum_bps=5001)).to_committing()
    play.play_round()
    honest = outvote(play)
    through(play, until=Phase.PROVING)
    sticky = play.round(0).prover
    play.challenge(1, honest)
    run = replayed(through(play))
    assert [event.arguments["prover"] for event in run.record.all("ProverDrawn", 0)] == [sticky, sticky]
    assert "as drawn before" in run.findings.verdict(Topic("sample", 0))


def test_replay__votes_in_place_of_outputs__leads_to_the_record(stage: Stage) -> None:
    for segment, vote, reason in ((0, UNAVAILABLE, 4), (1, UNAVAILABLE, 4), (1, BAD_INPUT, 5)):
        with stage.chain.isolated():
            play = stage.request(with_policy(quorum_bps=5001)).to_committing()
            for _ in range(segment):
                play.play_round()
            play.play_round({member.address: vote for member in play.members()})
            if segment:  # the lie that may be behind it can still be challenged
                assert play.phase is Phase.CONTESTED
                replayed(play)
                stage.chain.move_to(play.record.deadline)
                play.expire()
            run = replayed(play)
            assert run.record.one("JobFailed").arguments["reason"] == reason
            assert "3 without an output" in run.findings.verdict(Topic("votes", segment))


def test_replay__contested_segment__is_decided_by_a_proof(stage: Stage) -> None:
    play = stage.request(with_policy(quorum_bps=10_000)).to_committing()
    honest = outvote(play)
    assert play.phase is Phase.CONTESTED
    play.challenge(0, honest)
    run = replayed(through(play))
    assert run.contested == {(0, 0)}
    assert "decided by a proof" in run.findings.verdict(Topic("tally", 0))


def test_replay__queued_job__starts_from_later_stakes(chain: LocalChain, stage: Stage) -> None:
    running = [stage.request() for _ in range(stage.contracts.jobs.max_running_jobs())]
    play = stage.request(fee_wei=10**16 + 3)
    assert play.phase is Phase.QUEUED
    assert replayed(play).findings.verdict(Topic("start"), "not started") == "not started"
    stage.join(chain.instant("came later"), ETHER)
    running[0].lapse()
    running[0].expire()
    stage.contracts.jobs.admit(stage.owner, stage.model)
    run = replayed(play.to_committing())
    assert run.job.frozen_block > run.record.one("JobRequested").block_number
    assert len(run.weights) == len(stage.workers) + 1


def test_replay__cancelled_job__gives_the_fee_back(stage: Stage) -> None:
    for _ in range(stage.contracts.jobs.max_running_jobs()):
        stage.request()
    play = stage.request()
    stage.contracts.jobs.cancel(play.requester, play.job)
    assert "failed (CANCELLED)" in replayed(play).findings.verdict(Topic("payouts"))


def test_replay__two_signed_results__leads_to_the_record(stage: Stage, chain: LocalChain) -> None:
    play = stage.request().to_committing()
    member = play.members()[0]
    play.play_round()
    account = chain.account(f"replay worker {stage.workers.index(member)}")
    contracts = stage.contracts
    digest = hashing.result_digest(contracts.connection.chain_id, contracts.staking.address, play.job, 0, 0, WRONG)
    signature = bytes(account.unsafe_sign_hash(digest).signature)
    links = (WRONG, play.truth(0))
    contracts.staking.report_equivocation(stage.owner, play.job, 0, 0, member.address, links, (signature, b""))
    run = replayed(through(play))
    assert f"{member.address} signed two results" in run.findings.verdict(Topic("penalties", 0))


def test_replay__committee_replaced__is_drawn_apart_from_the_one_before(stage: Stage) -> None:
    play = stage.request(with_policy(committee_size=2)).to_committing()
    before = {member.operator for member in play.round(0).members}
    play.lapse()
    play.draw()
    run = replayed(through(play, until=Phase.AWAITING_INPUT))
    assert run.job.attempts[0] == run.job.redraws == 1
    assert not before & {member.operator for member in run.round(0).members}


def test_replay__overturned_while_the_next_one_reveals__reopens_what_was_drawn_ahead(stage: Stage) -> None:
    play = stage.request(with_policy(quorum_bps=5001)).to_committing()
    honest = outvote(play)
    play.to_revealing()
    play.challenge(0, honest)
    run = replayed(through(play))
    reopened = [
        (event.arguments["segment"], event.arguments["sameCommittee"]) for event in run.record.all("SegmentReopened")
    ]
    assert reopened == [(1, True), (2, False)]


def test_replay__reputation_of_liars__is_gone(stage: Stage) -> None:
    for _ in range(3):
        through(stage.request(with_policy(proof_permille=0)))
    play = stage.request(with_policy(quorum_bps=5001)).to_committing()
    honest, *liars = play.members()
    before = [stage.contracts.staking.reputation_of(liar.address, stage.model) for liar in liars]
    assert max(before) > 1
    outvote(play)
    play.challenge(0, honest)
    replayed(play)
    assert [stage.contracts.staking.reputation_of(liar.address, stage.model) for liar in liars] == [0, 0]


def test_replay__stake_given_back_and_shared__follows_from_the_events(stage: Stage, chain: LocalChain) -> None:
    """Two members are contradicted; the mock verifiers take a proof of what one of them revealed, too."""
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    first, second, honest = play.members()
    boundary = keccak(b"another x") + keccak(b"another y")
    also_right = Link(keccak(boundary))
    votes = {first.address: also_right, second.address: also_right, honest.address: play.truth(0)}
    play.play_round(votes)
    play.challenge(0, honest)
    record = read_record(stage.contracts, play.job)
    appellant, liar = (hold_of(event.arguments) for event in record.all("SlashHeld"))
    opening = bytes(play.proof(0)[0][:64])
    proof = (opening + boundary).ljust(256, b"\1")
    stage.contracts.staking.appeal(stage.owner, appellant, proof, ())
    run = replayed(play)
    assert "this circuit admits both" in run.findings.verdict(Topic("penalties", 0))
    assert run.holds.keys() == {(0, 0, liar.operator)}
    chain.move_to(liar.release_at)
    stage.contracts.staking.release(stage.owner, liar)
    run = replayed(play)
    assert "shared" in run.findings.verdict(Topic("penalties", 0))
    assert run.holds == {}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("SlashHeld", {"hold": "amount"}),
        ("SlashHeld", {"hold": "opening"}),
        ("SlashHeld", {"hold": "challenger"}),
        ("SlashAppealed", {"amount": 1}),
        ("SlashAppealed", {"operator": ZERO_ADDRESS}),
        ("SlashReleased", {"forChallenger": 1}),
        ("SlashReleased", {"forRequester": 1}),
    ],
)
def test_replay__end_of_a_hold_altered__is_a_fault(
    stage: Stage, chain: LocalChain, name: str, changes: dict[str, object]
) -> None:
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    first, second, honest = play.members()
    boundary = keccak(b"another x") + keccak(b"another y")
    votes = {first.address: Link(keccak(boundary)), second.address: Link(keccak(boundary))}
    play.play_round(votes | {honest.address: play.truth(0)})
    play.challenge(0, honest)
    holds = [hold_of(it.arguments) for it in read_record(stage.contracts, play.job).all("SlashHeld")]
    proof = (bytes(play.proof(0)[0][:64]) + boundary).ljust(256, b"\1")
    stage.contracts.staking.appeal(stage.owner, holds[0], proof, ())
    chain.move_to(holds[1].release_at)
    stage.contracts.staking.release(stage.owner, holds[1])
    record = read_record(stage.contracts, play.job)
    event = record.all(name)[0]
    arguments = dict(event.arguments)
    for field, value in changes.items():
        if field == "hold":
            altered = {"amount": 1, "opening": bytes(32), "challenger": ZERO_ADDRESS}
            arguments["hold"] = {**arguments["hold"], str(value): altered[str(value)]}
        else:
            arguments[field] = value
    events = tuple(replace(it, arguments=arguments) if it is event else it for it in record.events)
    run = replay(replace(record, events=events), read_standings(record))
    assert any(topic.name == "penalties" for topic in run.findings.faults)
