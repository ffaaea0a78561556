"""What each entry point costs, by the size of the committees and the number of segments, with mock verifiers.

``INTERLOCK_REWRITE_GAS=1 CI=true make test PYTEST_ARGS=tests/contracts/test_gas.py`` writes what was measured to
``gas.json``, which is committed together with what moved it. A real verifier adds its own cost to ``Jobs.prove`` and
``Jobs.challenge``. A job has 192 members at most: at sixteen segments the largest committee has twelve, not 21.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from eth_hash.auto import keccak

from offchain.chain.sender import Receipt
from offchain.protocol import hashing
from offchain.protocol.types import UNAVAILABLE, ZERO_HASH, Link, Phase
from tests.contracts.record import holds_of, penalties
from tests.contracts.stage import Play, Stage, commitment_link, with_policy
from tests.contracts.test_jobs_queue import gas_of_newest, with_capacity
from tests.contracts.test_staking_equivocation import both, report
from tests.local_chain import ETHER, GAS_CAP, InstantSender

pytestmark = pytest.mark.integration

SNAPSHOT = Path(__file__).parent / "gas.json"
REWRITE = "INTERLOCK_REWRITE_GAS"
TOLERANCE = 0.02
DRAWN_TOLERANCE = 0.1
SLASHED_TOLERANCE = 0.3
"""Who is drawn differs from run to run, and with it how much of the tree of stakes the slashed ones share."""
SLASHES = ("silent", "gives a committee up", "challenge", "no proof made", "withheld", "Equivocation")
MAX_MEMBERS = 192
SIZES, SEGMENTS = (3, 7, 21), (1, 4, 16)
WRONG = commitment_link(b"wrong".ljust(64))
Note = Callable[[str, Receipt], None]


class Ledger:
    """Gas by entry point and case; the highest where a case occurs several times."""

    def __init__(self) -> None:
        self.gas: dict[str, int] = {}

    def note(self, case: str, receipt: Receipt) -> None:
        self.gas[case] = max(self.gas.get(case, 0), receipt.gas_used)


def gas_only(stage: Stage) -> Receipt:
    """The newest transaction, of which nothing but its gas is asked."""
    return Receipt("", 0, gas_of_newest(stage), "")


def measure_once(stage: Stage, note: Note) -> None:
    """Entry points whose cost depends on no committee."""
    staking, registry = stage.contracts.staking, stage.contracts.registry
    worker = stage.chain.instant("gas")
    tried = stage.register_segments(3, "gas", trials=[hashing.answer_hash(keccak(b"answer"))])
    note("Registry.registerModel", gas_only(stage))
    note("Registry.grantAccess", registry.grant_access(stage.owner, stage.model, keccak(b"grant")))
    note("Staking.setEncryptionKey", staking.set_encryption_key(worker, keccak(b"key")))
    note("Staking.bond", staking.bond(worker, 2 * ETHER))
    note("Staking.serve", staking.serve(worker, stage.model))
    note("Staking.bond (serving)", staking.bond(worker, ETHER))
    note("Staking.startUnbonding", staking.start_unbonding(worker, ETHER))
    note("Staking.stopServing", staking.stop_serving(worker, stage.model))
    stage.chain.advance(700_000)
    note("Staking.withdraw", staking.withdraw(worker))
    staking.serve(worker, tried)
    place = (stage.chain.connection.chain_id, staking.address, tried, 0, worker.address)
    word = hashing.trial_commitment(*place, keccak(b"answer"), keccak(b"salt"))  # type: ignore[arg-type]
    note("Staking.commitTrial", staking.commit_trial(worker, tried, 0, word))
    note("Staking.passTrial", staking.pass_trial(worker, tried, keccak(b"answer"), keccak(b"salt")))
    note("Staking.refreshWeights", staking.refresh_weights(stage.owner, worker.address))


def measure_queue(stage: Stage, note: Note) -> None:
    """Jobs that wait, the last behind as many cancelled ones as one call passes over."""
    narrow = with_capacity(Stage(**vars(stage)), 1)
    jobs, running = narrow.contracts.jobs, narrow.request()
    waiting = narrow.request(fee_wei=2**62)
    note("Jobs.request (queued)", gas_only(stage))
    cancelled = [narrow.request(fee_wei=2**60) for _ in range(63)]
    for play in cancelled:
        note("Jobs.cancel", jobs.cancel(narrow.requester, play.job))
    narrow.request(fee_wei=2**58)
    running.lapse()
    running.expire()
    note("Jobs.admit", jobs.admit(narrow.owner, narrow.model))
    waiting.lapse()
    waiting.expire()
    note("Jobs.admit (63 cancelled)", jobs.admit(narrow.owner, narrow.model))
    assert jobs.load_of(narrow.model) == (1, 0)


def play_round(play: Play, segment: int, note: Note, votes: Mapping[str, Link] | None = None, attempt: int = 0) -> None:
    """One whole segment: as ``Play.play_round``, but asking the chain for next to nothing."""
    votes, members = votes or {}, play.members(segment)
    secrets = {worker.address: (votes.get(worker.address, play.truth(segment)), keccak(b"salt")) for worker in members}
    place = (play.stage.chain.connection.chain_id, play.jobs.address, play.job, segment, attempt)
    for worker in members:
        word = hashing.commitment(*place, worker.address, *secrets[worker.address])  # type: ignore[arg-type]
        is_last = worker == members[-1]
        note(
            "Jobs.commit (last)" if is_last else "Jobs.commit",
            play.jobs.commit(worker, play.job, *play.under_way, word),
        )
    if segment + 1 < play.record.segments:
        note("Jobs.draw (next committee)", play.draw())
    for worker in members:
        link, salt = secrets[worker.address]
        cid = ZERO_HASH if link == UNAVAILABLE else keccak(b"cid")
        receipt = play.jobs.reveal(worker, play.job, link, salt, cid)
        contests = worker == members[-1] and len(set(votes.values())) > 1
        settles = "Jobs.reveal (contests)" if contests else "Jobs.reveal (settles)"
        note(settles if worker == members[-1] else "Jobs.reveal", receipt)


def measure_honest(stage: Stage, size: int, segments: int, note: Note) -> None:
    """A job of which every segment is proved."""
    play = stage.request(with_policy(committee_size=size, input_seconds=3600))
    note("Jobs.request", gas_only(stage))
    note("Jobs.draw (first committee)", play.draw())
    note("Jobs.provideInput", play.provide_input())
    for segment in range(segments):
        play_round(play, segment, note)
    note("Jobs.draw (proofs)", play.draw())
    with stage.chain.isolated():
        play.lapse()
        note("Jobs.expire (no proof made)", play.expire())
    for segment in range(segments):
        note("Jobs.prove", play.prove(segment))
    note("Jobs.finalise (proved)", play.finalise())
    note("Jobs.claim", stage.contracts.jobs.claim(stage.by_address(play.round(0).members[0].operator)))


def measure_overturned(stage: Stage, size: int, segments: int, note: Note) -> None:
    """A job that reached its end: its first segment is overturned by one against all others, and it goes on."""
    play = stage.request(with_policy(committee_size=size, quorum_bps=5001, proof_permille=0, input_seconds=3600))
    play.draw()
    play.provide_input()
    challenger, *liars = play.members()

    def nothing(case: str, receipt: Receipt) -> None:
        """Measured elsewhere."""

    for segment in range(segments):
        play_round(play, segment, nothing, {liar.address: WRONG for liar in liars} if segment == 0 else None)
    with stage.chain.isolated():
        note("Jobs.finalise (agreed)", play.pass_challenges().finalise())
    note("Jobs.announce", play.announce(0, challenger))
    note("Jobs.challenge (overturns the first segment)", play.challenge(0, challenger, announced=True))
    assert len(penalties(play)) == size - 1
    with stage.chain.isolated():
        measure_hold(play, segments, note)
    if segments == 1:
        return
    with stage.chain.isolated():
        play_round(play, 1, nothing, {worker.address: UNAVAILABLE for worker in play.members(1)[:-1]}, attempt=1)
        assert play.phase is Phase.CONTESTED
        play.lapse()
        note("Jobs.expire (withheld)", play.expire())
    play.commit(play.members(1)[0])
    play.lapse()
    note("Jobs.draw (gives a committee up)", play.draw())
    note("Jobs.draw (another committee)", play.draw())
    note("Jobs.reseal", play.reseal(challenger))


def measure_hold(play: Play, segments: int, note: Note) -> None:
    """What is held of one that revealed another output is given back, or shared and claimed."""
    staking, hold = play.stage.contracts.staking, holds_of(play)[0]
    if segments > 1:
        proof = play.proof(0)[0][:64] + b"wrong".ljust(64) + play.proof(0)[0][128:]
        with play.stage.chain.isolated():
            note("Staking.appeal", staking.appeal(play.stage.owner, hold, proof, ()))
    play.stage.chain.move_to(hold.release_at)
    note("Staking.release", staking.release(play.stage.owner, hold))
    note("Staking.claim", staking.claim_compensation(play.stage.requester))


def measure_contested(stage: Stage, size: int, note: Note) -> None:
    """A job whose first segment has as many outputs as members."""
    play = stage.request(with_policy(committee_size=size, quorum_bps=5001, input_seconds=3600))
    play.draw()
    play.provide_input()
    prover, *others = play.members()
    outputs = {worker.address: Link(keccak(worker.address.encode())) for worker in others}
    play_round(play, 0, note, outputs)
    assert play.phase is Phase.CONTESTED
    note("Staking.reportEquivocation", reported(play, others[-1]))
    note("Jobs.challenge (decides a contested segment)", play.challenge(0, prover))


def measure_silent(stage: Stage, size: int, note: Note) -> None:
    """A round in which all but one are silent, and a requester that never provides its input."""
    play = stage.request(with_policy(committee_size=size, quorum_bps=5001, input_seconds=3600)).to_committing()
    for worker in play.members():
        play.commit(worker)
    if play.phase is Phase.DRAWING:
        play.draw()
    # Always the same one of those: see the tolerance.
    play.reveal(min(play.members(0), key=stage.workers.index))
    play.lapse()
    note("Jobs.settle (all but one silent)", play.settle())
    assert len(penalties(play)) == size - 1
    play = stage.request(with_policy(committee_size=size))
    play.draw()
    play.lapse()
    note("Jobs.expire (no input)", play.expire())


def reported(play: Play, worker: InstantSender) -> Receipt:
    report(play, worker, *both(play, worker))
    return gas_only(play.stage)


def committee_for(size: int, segments: int) -> int:
    """The largest committee that such a job may have."""
    return min(size, MAX_MEMBERS // segments)


def tolerance_of(case: str) -> float:
    """How far a case of a job may be from what was recorded."""
    return SLASHED_TOLERANCE if any(word in case for word in SLASHES) else DRAWN_TOLERANCE


def compare(measured: dict[str, dict[str, int]]) -> None:
    """Hold sections of the snapshot against what was measured, and the cap."""
    recorded: dict[str, dict[str, int]] = json.loads(SNAPSHOT.read_text())
    if os.environ.get(REWRITE):
        recorded |= measured
        SNAPSHOT.write_text(json.dumps(recorded, indent=2) + "\n")
    moved = {}
    for section, gas in measured.items():
        before = recorded.get(section, {})
        for case in sorted(gas.keys() | before.keys()):
            tolerance = TOLERANCE if section == "any" else tolerance_of(case)
            if abs(gas.get(case, 0) - before.get(case, 0)) > tolerance * before.get(case, 0):
                moved[f"{section}: {case}"] = (before.get(case), gas.get(case))
        assert max(gas.values()) < GAS_CAP, section
    mend = f"{REWRITE}=1 CI=true make test PYTEST_ARGS=tests/contracts/test_gas.py"
    assert not moved, f"gas moved (recorded, measured): {moved}; if that is meant, rewrite the snapshot: {mend}"


def test_gas__entry_points_without_a_committee__are_what_was_recorded(stage: Stage) -> None:
    ledger = Ledger()
    with stage.chain.isolated():
        measure_once(stage, ledger.note)
    with stage.chain.isolated():
        measure_queue(stage, ledger.note)
    compare({"any": dict(sorted(ledger.gas.items()))})


@pytest.mark.parametrize(
    ("size", "segments"),
    [
        pytest.param(size, segments, marks=[pytest.mark.slow] if size * segments > 12 else [])
        for segments in SEGMENTS
        for size in SIZES
    ],
)
def test_gas__every_entry_point_of_a_job__is_what_was_recorded(stage: Stage, size: int, segments: int) -> None:
    size = committee_for(size, segments)
    stage.model = stage.register_segments(segments, f"gas {segments}")
    # Enough for disjoint committees.
    stage.workers = tuple(stage.chain.instant(f"gas {index}") for index in range(size * segments))
    for worker in stage.workers:
        stage.join(worker, 2 * ETHER)
    ledger = Ledger()
    for measure in (measure_honest, measure_overturned):
        with stage.chain.isolated():
            measure(stage, size, segments, ledger.note)
    for measure_one in (measure_contested, measure_silent):
        with stage.chain.isolated():
            measure_one(stage, size, ledger.note)
    compare({f"{size} workers x {segments} segments": dict(sorted(ledger.gas.items()))})


def test_settle__largest_committee_of_the_busiest_workers__fits_in_a_transaction(stage: Stage) -> None:
    # A settling that no transaction can hold would lock the fee until the job lapses: a round has no other way out.
    models = [stage.register_segments(1, f"busy {index}") for index in range(16)]
    stage.workers = tuple(stage.chain.instant(f"busy {index}") for index in range(21))
    for worker in stage.workers:
        stage.join(worker, 2 * ETHER, models[0])
        for model in models[1:]:
            stage.contracts.staking.serve(worker, model)
    play = stage.request(with_policy(committee_size=21), model_id=models[0]).to_committing().commit_all()
    # Where nobody shows an output nobody is penalised, so one reveals.
    play.reveal(play.members()[0])
    play.lapse()
    assert play.settle().gas_used < GAS_CAP // 3
    assert play.phase is Phase.CONTESTED
    assert len(penalties(play)) == 20


def test_gas__jobs_before_and_beside__change_nothing(stage: Stage) -> None:
    """What a step costs depends on its own job: not on how many there were, wait or run, nor on long histories."""

    def steps() -> dict[str, int]:
        ledger = Ledger()
        with stage.chain.isolated():
            play = stage.request(with_policy(input_seconds=3600), salt=b"\1" * 32)
            ledger.note("request", gas_only(stage))
            ledger.note("draw", play.draw())
            ledger.note("input", play.provide_input())
            for segment in range(3):
                play_round(play, segment, ledger.note)
            ledger.note("proofs", play.draw())
            for segment in range(3):
                ledger.note("prove", play.prove(segment))
            ledger.note("finalise", play.finalise())
        return ledger.gas

    stage.request().play_on()  # whatever is written for the first time, is
    few = steps()
    for _ in range(20):
        stage.request()
    for _ in range(3):
        stage.request().play_on()
    for index in range(40):  # a long history of weights
        stage.contracts.staking.bond(stage.workers[index % 3], 1)
        stage.chain.mine()
    many = steps()
    # Who is drawn differs, and a weight is looked up in a longer history: a few steps more, by its logarithm.
    bound = {step: 1.15 if step in ("draw", "Jobs.draw (next committee)") else 1.05 for step in few}
    assert {step: (gas, many[step]) for step, gas in few.items() if many[step] > bound[step] * gas} == {}
