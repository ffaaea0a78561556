"""Jobs beside a small Python model: random moves, and after each of them phase, tally and balances are compared.

The model is told what was drawn (that draws are right is tested in ``test_draw_properties.py``) and works out the rest
by itself. The invariants are listed in ``INVARIANTS.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from offchain.chain.errors import TransactionRefused
from offchain.protocol import tally
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Link, Member, Phase
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, with_policy
from tests.contracts.test_jobs_payment import PROVER_SHARE_BPS
from tests.contracts.test_jobs_proofs import CONTRADICTION_BPS
from tests.contracts.test_jobs_rounds import MISS_BPS, WRONG

pytestmark = pytest.mark.integration

SEGMENTS = 2
WAITS = st.sampled_from([1, 1, 50, POLICY.commit_seconds, POLICY.reveal_seconds, POLICY.prove_seconds])


@dataclass
class RoundModel:
    """One segment as the model sees it: votes by operator, None until revealed."""

    weights: dict[str, int]
    committed: dict[str, Link] = field(default_factory=dict)
    revealed: dict[str, Link] = field(default_factory=dict)
    settled: Link = Link(ZERO_HASH)
    prover: str = ZERO_ADDRESS
    proved_by: str = ZERO_ADDRESS

    def members(self) -> list[Member]:
        return [
            Member(Address(operator), weight, ZERO_HASH, self.revealed.get(operator, Link(ZERO_HASH)), ZERO_HASH)
            for operator, weight in self.weights.items()
        ]


@dataclass
class JobModel:
    """The rules of a job, in plain Python."""

    requester: str
    permille: int
    stakes: dict[str, int]
    phase: Phase = Phase.REQUESTED
    deadline: int = 0
    segment: int = 0
    rounds: list[RoundModel] = field(default_factory=list)
    credits: dict[str, int] = field(default_factory=dict)
    burnt: int = 0
    closed: bool = False

    def phase_at(self, now: int) -> Phase:
        if not self.deadline or now < self.deadline:
            return self.phase
        lapsed: list[Phase] = []
        if self.phase is Phase.REVEALING:
            lapsed = [Phase.SETTLING]
        if self.phase is Phase.COMMITTING:
            lapsed = [Phase.REVEALING, Phase.SETTLING] if self.segment == SEGMENTS - 1 else [Phase.DRAWING]
        for index, phase in enumerate(lapsed, 1):
            if now < self.deadline + index * POLICY.reveal_seconds:
                return phase
        return Phase.EXPIRED

    def enter(self, phase: Phase, now: int, window: int = 0) -> None:
        self.phase, self.deadline = phase, now + window if window else 0

    def credit(self, account: str, amount: int) -> None:
        self.credits[account] = self.credits.get(account, 0) + amount

    def penalise(self, operator: str, weight: int, bps: int) -> None:
        taken = min(weight * bps // 10_000, self.stakes[operator])
        self.stakes[operator] -= taken
        self.burnt += taken

    def fail(self) -> None:
        self.enter(Phase.FAILED, 0)
        self.credit(self.requester, FEE)
        self.closed = True

    def settle(self, now: int) -> None:
        current = self.rounds[self.segment]
        for operator, weight in current.weights.items():
            done = current.revealed if operator in current.committed else current.committed
            if operator not in done and done:
                self.penalise(operator, weight, MISS_BPS)
        link, weight = tally.leading(current.members())
        if not tally.is_quorum(weight, sum(current.weights.values()), POLICY.quorum_bps):
            return self.fail()
        current.settled = link
        if self.segment < SEGMENTS - 1:
            self.segment += 1
            return self.enter(Phase.COMMITTING, now, POLICY.commit_seconds)
        if self.permille:
            return self.enter(Phase.SAMPLING, now, POLICY.input_seconds)
        return self.enter(Phase.FINALISABLE, now)

    def finalise(self) -> None:
        fee = FEE // SEGMENTS
        paid = 0
        for current in self.rounds:
            for_prover = fee * PROVER_SHARE_BPS // 10_000 if current.proved_by != ZERO_ADDRESS else 0
            if for_prover:
                self.credit(current.proved_by, for_prover)
            supporters = [operator for operator, link in current.revealed.items() if link == current.settled]
            behind = sum(current.weights[operator] for operator in supporters)
            paid += for_prover
            for operator in supporters:
                share = (fee - for_prover) * current.weights[operator] // behind
                paid += share
                self.credit(operator, share)
        self.credit(self.requester, FEE - paid)
        self.enter(Phase.FINALISED, 0)
        self.closed = True


class JobMachine(RuleBasedStateMachine):
    """Makes any move at any time; the model says whether the contract must take it."""

    shared: Stage
    seen: set[Phase]

    def __init__(self) -> None:
        super().__init__()
        self.isolation = self.shared.chain.isolated()
        self.isolation.__enter__()
        self.stage = Stage(**vars(self.shared))
        self.held = self.stage.chain.connection.balance(self.stage.contracts.jobs.address)
        self.burnt = self.stage.chain.connection.balance(ZERO_ADDRESS)

    def teardown(self) -> None:
        self.isolation.__exit__(None, None, None)

    @property
    def now(self) -> int:
        return self.stage.chain.head()[1]

    @property
    def expected(self) -> Phase:
        """The phase that the next block sees."""
        return self.model.phase_at(self.now + 1)

    @initialize(permille=st.sampled_from([1000, 1000, 0]), honest_steps=st.integers(0, 11), liar=st.booleans())
    def request(self, permille: int, honest_steps: int, liar: bool) -> None:
        """Open a job, and play it honestly up to some point, from which on anything may happen."""
        self.play: Play = self.stage.request(with_policy(proof_permille=permille), model_id=self.stage.model)
        stakes = {worker.address: stake for worker, stake in zip(self.stage.workers, STAKES, strict=True)}
        self.model = JobModel(self.stage.requester.address, permille, stakes)
        self.model.enter(Phase.REQUESTED, self.now, POLICY.input_seconds)
        for step in range(honest_steps):
            if liar and step == 2:
                self.commit(0, True)
            self.go_on(1)

    def attempt(self, allowed: bool, move: Any) -> bool:
        """Make a move, which the contract must take exactly if it is allowed."""
        try:
            move()
        except TransactionRefused:
            assert not allowed, f"refused in {self.expected.name}"
            return False
        assert allowed, f"accepted in {self.expected.name}"
        return True

    @rule(seconds=WAITS)
    def wait(self, seconds: int) -> None:
        self.stage.chain.advance(seconds)

    @rule(then=st.integers(0, 1))
    def lapse(self, then: int) -> None:
        """Let the present deadline pass, and perhaps clean up."""
        if self.model.deadline > self.now:
            self.stage.chain.move_to(self.model.deadline)
        self.go_on(then)

    @rule()
    def draw(self) -> None:
        phase = self.expected
        lapsed = self.model.phase is Phase.COMMITTING
        if not self.attempt(phase in (Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING), self.play.draw):
            return
        if lapsed:
            self.model.enter(Phase.DRAWING, self.now, POLICY.reveal_seconds)
        elif phase is Phase.SAMPLING:
            for segment, current in enumerate(self.model.rounds):
                current.prover = self.play.round(segment).prover
                assert current.revealed[current.prover] == current.settled
            self.model.enter(Phase.PROVING, self.now, 2 * POLICY.prove_seconds)
        else:
            drawn = self.play.round(len(self.model.rounds)).members
            self.model.rounds.append(RoundModel({member.operator: member.weight for member in drawn}))
            if phase is Phase.REQUESTED:
                self.model.enter(Phase.AWAITING_INPUT, self.now, POLICY.input_seconds)
            else:
                self.model.enter(Phase.REVEALING, self.now, POLICY.reveal_seconds)

    @rule()
    def provide_input(self) -> None:
        if self.attempt(self.expected is Phase.AWAITING_INPUT, self.play.provide_input):
            self.model.enter(Phase.COMMITTING, self.now, POLICY.commit_seconds)

    @rule(index=st.integers(0, 2), lies=st.integers(0, 4).map(lambda number: number == 0))
    def commit(self, index: int, lies: bool) -> None:
        worker, current = self.stage.workers[index], self._current()
        link = WRONG if lies else self.play.truth(self.model.segment)
        allowed = self.expected is Phase.COMMITTING and worker.address not in current.committed
        known = dict(self.play.secrets)
        if not self.attempt(allowed, lambda: self.play.commit(worker, link)):
            self.play.secrets = known
            return
        current.committed[worker.address] = link
        if len(current.committed) == len(current.weights):
            last = self.model.segment == SEGMENTS - 1
            self.model.enter(Phase.REVEALING if last else Phase.DRAWING, self.now, POLICY.reveal_seconds)

    @rule()
    def commit_all(self) -> None:
        for index in range(3):
            if self.expected is Phase.COMMITTING:
                self.commit(index, False)

    @rule(index=st.integers(0, 2))
    def reveal(self, index: int) -> None:
        worker, current = self.stage.workers[index], self._current()
        if worker.address not in current.committed:
            return
        allowed = self.expected is Phase.REVEALING and worker.address not in current.revealed
        if not self.attempt(allowed, lambda: self.play.reveal(worker)):
            return
        current.revealed[worker.address] = current.committed[worker.address]
        if self.model.phase is Phase.COMMITTING:
            self.model.phase = Phase.REVEALING
            self.model.deadline += POLICY.reveal_seconds
        if current.revealed.keys() == current.committed.keys():
            self.model.settle(self.now)

    @rule()
    def reveal_all(self) -> None:
        for index in range(3):
            if self.expected is Phase.REVEALING:
                self.reveal(index)

    @rule()
    def settle(self) -> None:
        if self.attempt(self.expected is Phase.SETTLING, self.play.settle):
            self.model.settle(self.now)

    @rule(index=st.integers(0, 2), segment=st.integers(0, SEGMENTS - 1))
    def prove(self, index: int, segment: int) -> None:
        worker = self.stage.workers[index]
        if segment >= len(self.model.rounds):
            return
        current, opening = self.model.rounds[segment], segment == 0 or self._settled_truth(segment - 1)
        is_open = self.now + 1 + POLICY.prove_seconds >= self.model.deadline
        may = worker.address == current.prover or (is_open and current.revealed.get(worker.address) == current.settled)
        due = self.expected is Phase.PROVING and current.proved_by == ZERO_ADDRESS
        allowed = due and may and opening and self._settled_truth(segment)
        if not self.attempt(allowed, lambda: self.play.prove(segment, worker)):
            return
        current.proved_by = worker.address
        if worker.address != current.prover:
            self.model.penalise(current.prover, current.weights[current.prover], MISS_BPS)
        for operator, link in current.revealed.items():
            if link != current.settled:
                self.model.penalise(operator, current.weights[operator], CONTRADICTION_BPS)
        if all(other.proved_by != ZERO_ADDRESS for other in self.model.rounds):
            self.model.enter(Phase.FINALISABLE, self.now)

    @rule()
    def prove_by_the_drawn(self) -> None:
        for segment, current in enumerate(self.model.rounds):
            if current.prover != ZERO_ADDRESS:
                worker = self.stage.by_address(current.prover)
                self.prove(self.stage.workers.index(worker), segment)

    @rule()
    def finalise(self) -> None:
        if self.attempt(self.expected is Phase.FINALISABLE, self.play.finalise):
            self.model.finalise()

    @rule()
    def expire(self) -> None:
        if self.attempt(self.expected is Phase.EXPIRED, self.play.expire):
            self.model.fail()

    @rule(steps=st.integers(1, 4))
    def go_on(self, steps: int) -> None:
        """What the honest do next: without it random moves hardly ever get past the first segment."""
        moves = {
            **dict.fromkeys((Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING), self.draw),
            Phase.AWAITING_INPUT: self.provide_input,
            Phase.COMMITTING: self.commit_all,
            Phase.REVEALING: self.reveal_all,
            Phase.SETTLING: self.settle,
            Phase.PROVING: self.prove_by_the_drawn,
            Phase.FINALISABLE: self.finalise,
            Phase.EXPIRED: self.expire,
        }
        for _ in range(steps):
            if self.expected in moves:
                moves[self.expected]()

    @rule(steps=st.integers(1, 4))
    def go_on_further(self, steps: int) -> None:
        """The same, so that it is chosen more often."""
        self.go_on(steps)

    def _current(self) -> RoundModel:
        return self.model.rounds[self.model.segment] if self.model.rounds else RoundModel({})

    def _settled_truth(self, segment: int) -> bool:
        return self.model.rounds[segment].settled == self.play.truth(segment)

    @invariant()
    def phase_is_the_models(self) -> None:
        if hasattr(self, "model"):
            assert self.play.phase is self.model.phase_at(self.now)
            self.seen.add(self.play.phase)

    @invariant()
    def tally_is_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.play.record.segment == self.model.segment
        for segment, current in enumerate(self.model.rounds):
            round_ = self.play.round(segment)
            link, weight = tally.leading(current.members())
            assert round_.settled_link == current.settled
            assert round_.settled_weight == (weight if current.settled != ZERO_HASH else 0)
            assert current.settled in (ZERO_HASH, link)
            assert {member.operator: member.link for member in round_.members if member.link != ZERO_HASH} == (
                current.revealed
            )

    @invariant()
    def balances_are_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        jobs, staking = self.stage.contracts.jobs, self.stage.contracts.staking
        connection = self.stage.chain.connection
        credits = {account: amount for account, amount in self.stage.credits().items() if amount}
        assert credits == {account: amount for account, amount in self.model.credits.items() if amount}
        escrow = 0 if self.model.closed else FEE
        assert connection.balance(jobs.address) == self.held + escrow + sum(credits.values())
        assert sum(credits.values()) == (FEE if self.model.closed else 0)
        assert connection.balance(staking.address) == sum(self.model.stakes.values()) == sum(STAKES) - self.model.burnt
        assert connection.balance(ZERO_ADDRESS) == self.burnt + self.model.burnt
        for operator, stake in self.model.stakes.items():
            assert staking.active_of(operator) == stake


def test_job__any_moves_in_any_order__is_what_the_model_says(stage: Stage) -> None:
    stage.model = stage.register_segments(SEGMENTS, "stateful")
    for worker in stage.workers:
        stage.contracts.staking.serve(worker, stage.model)
    machine = type("JobMachineOnStage", (JobMachine,), {"shared": stage, "seen": set()})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=24, stateful_step_count=10, deadline=None, derandomize=True)
    )
    assert machine.seen == set(Phase) - {Phase.NONE}  # type: ignore[attr-defined]
