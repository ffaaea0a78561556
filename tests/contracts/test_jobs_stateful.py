"""Moves on the contracts and on the executable specification: whatever either answers, the other answers too.

Who moves is in ``players.py``, what is compared after each move in ``comparison.py``; ``courses.py`` leads to where
random moves hardly ever come. The invariants are listed in ``INVARIANTS.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stretch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from migrations.ledger import parameters
from migrations.steps import migrate_all
from offchain.chain.connection import artefact
from offchain.chain.contracts import Contracts
from offchain.protocol.machine import Model, Parameters
from offchain.protocol.types import ZERO_HASH, Phase
from tests.contracts import appeals
from tests.contracts.comparison import Comparison, Mover
from tests.contracts.courses import COURSES
from tests.contracts.players import ANSWERS, FALSE, KINDS, TRIALS, Players
from tests.contracts.stage import STAKES, Stage
from tests.local_chain import ETHER, LocalChain

pytestmark = pytest.mark.integration

EXAMPLES, STEPS = (150, 40) if os.environ.get("CI") == "true" else (40, 25)
ODD = {
    "max_running_jobs": 2,
    "miss_penalty_bps": 137,
    "contradiction_penalty_bps": 4999,
    "prover_share_bps": 3333,
    "fault_share_bps": 2003,
    "challenger_share_bps": 3001,
    "requester_share_bps": 997,
}
"""Shares that every amount is rounded by, and so few jobs at a time that others wait."""
WORKERS = 8
FOREIGN = {"UnknownTrial", "ProofRejected"}
"""Refusals of the registry and the verifier."""
NOT_MET = {
    # when the contracts are deployed: tests/offchain/protocol/test_machine.py has these
    *("UnbondingTooShort", "ShareOutOfRange", "CountIsZero"),
    # of what only one contract may ask of the other, and of accounts that refuse ether
    *("NotSlasher", "TransferFailed", "ClaimFailed", "ReentrancyGuardReentrantCall"),
    # of signatures that are none; the specification is told who signed
    *("ECDSAInvalidSignature", "ECDSAInvalidSignatureS"),
    # of a read that compares nothing but known jobs, of the 65,537th leaf, and of what never happens
    *("UnknownJob", "TreeFull", "CheckpointUnorderedInsertion"),
}

anybody = st.integers(0, WORKERS + 3)
any_job = st.sampled_from([0, 0, 0, 1, 1, 2, -1])
any_segment = st.integers(0, 3)
rarely = st.integers(0, 7).map(lambda number: number == 0)
outputs = st.sampled_from([0, 0, 0, 1, 2])
votes = st.sampled_from(["ttt", "ttt", "ttt", "wwt", "wtw", "twt", "wvt", "uut", "uuu", "bbb", "bub", "tub", "ubw"])
rounds_beside = st.sampled_from([(0, 0), (0, 0), (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
silent = st.sampled_from([0, 0, 0, 0, 1, 2, 4, 3, 5, 6, 7])


@pytest.fixture(scope="module")
def players(clockwork: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Players]:
    """Contracts of odd parameters; a model of three segments, and one of two with trials, whose proofs all fail."""
    with clockwork.isolated():
        record = tmp_path_factory.mktemp("odd") / "record.json"
        inputs = parameters() | ODD
        deployment = migrate_all(clockwork.sender("deployer"), record, inputs)
        contracts = Contracts.connect(clockwork.connection, deployment)
        stage = Stage(clockwork, contracts, clockwork.instant("requester"), clockwork.instant("owner"))
        comparison = Comparison(clockwork, contracts, Parameters(**inputs))
        names = ["stranger", "asker", *(f"player {index}" for index in range(WORKERS + 2))]
        comparison.accounts = [Mover(clockwork, clockwork.account(name)) for name in names]
        comparison.register(stage.register_segments(3, "plain"), Model(3))
        comparison.register(stage.register_segments(2, "tried", FALSE, TRIALS), Model(2, TRIALS))
        built = Players(comparison, stage)
        built.settle_in([STAKES[index % 3] + index for index in range(WORKERS)])
        yield built


class MoveMachine(RuleBasedStateMachine):
    """Makes any move at any time."""

    shared: Players

    def __init__(self) -> None:
        super().__init__()
        self.isolation = self.shared.sides.chain.isolated()
        self.isolation.__enter__()
        self.play = self.shared.copy()

    def teardown(self) -> None:
        self.isolation.__exit__(None, None, None)

    @initialize(
        size=st.sampled_from([3, 3, 3, 1, 2]),
        permille=st.sampled_from([1000, 500, 0]),
        steps=st.lists(st.tuples(votes, silent), max_size=20),
    )
    def open_one(self, size: int, permille: int, steps: list[tuple[str, int]]) -> None:
        """Open a job, and play it up to some point, from which on anything may happen."""
        self.play.request(0, 10**15 + 7, size, permille)
        for votes, silent in steps:
            self.play.go_on(0, votes, silent)

    # --- jobs come in -------------------------------------------------------------------------------------------------

    @rule(
        model=st.sampled_from([0, 0, 0, 1]),
        fee=st.sampled_from([1, 10**9, 10**15, 10**15 + 7, 2 * 10**15]),
        size=st.sampled_from([3, 3, 1, 2, 0, 22]),
        permille=st.sampled_from([1000, 1000, 500, 0, 1001]),
        fault=st.sampled_from([None] * 6 + list(KINDS)),
        again=rarely,
    )
    def request(self, model: int, fee: int, size: int, permille: int, fault: str | None, again: bool) -> None:
        self.play.request(model, fee, size, permille, fault, again)

    @rule(model=st.sampled_from([0, 0, 0, 1]))
    def admit(self, model: int) -> None:
        self.play.admit(model)

    @rule(job=any_job, who=st.sampled_from([1, 1, 1, 0]))
    def cancel(self, job: int, who: int) -> None:
        self.play.simple("cancel", job, who)

    # --- the course of a job ------------------------------------------------------------------------------------------

    @rule(job=any_job, steps=st.integers(1, 5), votes=votes, silent=silent)
    def go_on(self, job: int, steps: int, votes: str, silent: int) -> None:
        """What its players do next: without it random moves hardly ever get past the first segment."""
        for _ in range(steps):
            self.play.go_on(job, votes, silent)

    @rule(steps=st.integers(2, 14), votes=votes)
    def go_on_further(self, steps: int, votes: str) -> None:
        """The same with nobody silent, for the job that was opened first."""
        for _ in range(steps):
            self.play.go_on(0, votes, 0)

    @rule(job=any_job, who=anybody)
    def draw(self, job: int, who: int) -> None:
        self.play.draw(job, who)

    @rule(job=any_job, who=st.sampled_from([1, 1, 1, 0, 2]), zero=rarely)
    def provide_input(self, job: int, who: int, zero: bool) -> None:
        self.play.simple("provide_input", job, who, ZERO_HASH if zero else b"\5" * 32)

    @rule(job=any_job, who=anybody, vote=st.sampled_from("ttwvub"), zero=rarely, beside=rounds_beside)
    def commit(self, job: int, who: int, vote: str, zero: bool, beside: tuple[int, int]) -> None:
        self.play.commit(job, who, vote, zero, beside)

    @rule(job=any_job, who=anybody, fault=st.sampled_from([None, None, None, "link", "salt", "cid"]))
    def reveal(self, job: int, who: int, fault: str | None) -> None:
        self.play.reveal(job, who, fault)

    @rule(job=any_job, who=anybody, zero=rarely)
    def reseal(self, job: int, who: int, zero: bool) -> None:
        self.play.simple("reseal", job, who, ZERO_HASH if zero else b"\6" * 32)

    @rule(job=any_job)
    def reseal_all(self, job: int) -> None:
        self.play.reseal_all(job)

    @rule(job=any_job, name=st.sampled_from(["settle", "finalise", "expire"]), who=anybody)
    def conclude(self, job: int, name: str, who: int) -> None:
        self.play.simple(name, job, who)

    @rule(who=anybody)
    def claim(self, who: int) -> None:
        self.play.claim(who)

    # --- proofs -------------------------------------------------------------------------------------------------------

    @rule(job=any_job, segment=any_segment, who=anybody, zero=rarely)
    def announce(self, job: int, segment: int, who: int, zero: bool) -> None:
        self.play.announce(job, segment, who, self.play.proof(job, segment, who), zero)

    @rule(
        name=st.sampled_from(["prove", "challenge"]),
        job=any_job,
        segment=any_segment,
        who=anybody,
        opening=st.sampled_from([None, None, None, 1]),
        closing=st.sampled_from([None, None, None, 0, 1]),
        announced=st.sampled_from([True, True, False]),
        zero=rarely,
    )
    def show(self, name: str, announced: bool, zero: bool, **which: Any) -> None:
        """Prove or challenge, with any proof, announced or not."""
        self.play.show(name, announced=announced, zero=zero, **which)

    @rule(job=any_job, late=st.booleans())
    def prove_all(self, job: int, late: bool) -> None:
        self.play.prove_all(job, late)

    @rule(job=any_job)
    def dissent(self, job: int) -> None:
        """Whoever revealed another output than what was settled proves it."""
        self.play.dissent(job)

    @rule(index=st.integers(0, 3), who=anybody, wrong=st.sampled_from([None, None, None, 0, 1, 2]), opening=rarely)
    def appeal(self, index: int, who: int, wrong: int | None, opening: bool) -> None:
        hold = appeals.any_hold(self.play, index)
        if hold is not None:
            appeals.appeal(self.play, hold, who, 2 if opening else None, wrong)

    @rule(index=st.integers(0, 3), who=anybody, spare=st.sampled_from([0, 0, 1, 2, 80_000]))
    def release(self, index: int, who: int, spare: int) -> None:
        """At the end of the time for an appeal, or a second or two before, or long before."""
        hold = appeals.any_hold(self.play, index)
        if hold is not None:
            self.play.sides.move_to(max(hold.release_at - 1 - spare, self.play.sides.head.timestamp + 1))
            appeals.release(self.play, hold, who)

    @rule(who=anybody)
    def claim_compensation(self, who: int) -> None:
        appeals.claim(self.play, who)

    # --- stake --------------------------------------------------------------------------------------------------------

    @rule(who=anybody, amount=st.sampled_from([0, 1, ETHER]))
    def bond(self, who: int, amount: int) -> None:
        self.play.stake("bond", who, amount)

    @rule(who=anybody, amount=st.sampled_from([0, 1, ETHER, 2 * ETHER, 3 * ETHER]))
    def start_unbonding(self, who: int, amount: int) -> None:
        self.play.stake("start_unbonding", who, amount)

    @rule(who=anybody, name=st.sampled_from(["serve", "stop_serving"]), model=st.integers(0, 2))
    def serve(self, who: int, name: str, model: int) -> None:
        self.play.stake(name, who, self.play.model(model))

    @rule(who=anybody, name=st.sampled_from(["withdraw", "refresh_weights", "set_encryption_key"]), zero=st.booleans())
    def look_after_stake(self, who: int, name: str, zero: bool) -> None:
        self.play.look_after(name, who, zero)

    @rule(who=anybody, model=st.sampled_from([1, 1, 1, 0]), trial=st.integers(0, 2), answer=st.sampled_from(ANSWERS))
    def commit_trial(self, who: int, model: int, trial: int, answer: bytes) -> None:
        self.play.commit_trial(who, model, trial, answer)

    @rule(who=anybody, model=st.sampled_from([1, 1, 1, 0]), answer=st.sampled_from(ANSWERS))
    def pass_trial(self, who: int, model: int, answer: bytes) -> None:
        self.play.pass_trial(who, model, answer)

    @rule(who=st.integers(WORKERS + 2, WORKERS + 3), trial=st.integers(0, 1), honest=st.booleans())
    def try_out(self, who: int, trial: int, honest: bool) -> None:
        """A newcomer takes a trial from beginning to end."""
        self.play.try_out(who, trial, honest)

    @rule(
        job=any_job,
        segment=any_segment,
        attempt=st.sampled_from([0, 0, 1]),
        member=st.integers(0, 3),
        links=st.tuples(outputs, outputs),
        forged=st.sampled_from([None, None, None, 0, 1]),
        revealed=st.booleans(),
    )
    def report_equivocation(self, **which: Any) -> None:
        self.play.report_equivocation(**which)

    # --- time ---------------------------------------------------------------------------------------------------------

    @rule(job=any_job, spare=st.sampled_from([0, 0, 0, 1, 2, -1]))
    def lapse(self, job: int, spare: int) -> None:
        """To the deadline, or a second to either side of it."""
        self.play.lapse(job, spare)

    @rule(seconds=st.sampled_from([1, 50, 300, 400, 1000]))
    def wait(self, seconds: int) -> None:
        self.play.sides.move_to(self.play.sides.head.timestamp + seconds)

    @rule(blocks=st.sampled_from([254, 255, 256, 300]))
    def let_hashes_pass(self, blocks: int) -> None:
        self.play.sides.mine(blocks)

    @rule(job=any_job, seconds=st.sampled_from([1, 200, 500]))
    def hasten(self, job: int, seconds: int) -> None:
        """Have a job's end come sooner, as if it had begun a week ago."""
        self.play.hasten(job, seconds)


@pytest.mark.parametrize("name", COURSES)
def test_course__of_any_kind__is_the_same_on_both_sides(players: Players, name: str) -> None:
    with players.sides.chain.isolated():
        COURSES[name](players.copy())
    players.played.add(name)


def test_courses__together__meet_every_phase_event_and_refusal(players: Players) -> None:
    if players.played != set(COURSES):
        pytest.skip("only where all courses were played before")
    entries = [entry for name in ("Staking", "Jobs") for entry in artefact(name)["abi"]]
    assert players.sides.phases == set(Phase) - {Phase.NONE}
    assert players.sides.events == {entry["name"] for entry in entries if entry["type"] == "event"}
    errors = {entry["name"] for entry in entries if entry["type"] == "error"}
    assert players.sides.refusals - FOREIGN == errors - NOT_MET


@pytest.mark.timeout(1200)
def test_moves__any_in_any_order__are_answered_as_the_specification_says(players: Players) -> None:
    machine = type("MoveMachineOnChain", (MoveMachine,), {"shared": players})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            # A move takes a while: what fails is shown as it is, and not for the hour that it takes to shorten it.
            phases=(Stretch.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
