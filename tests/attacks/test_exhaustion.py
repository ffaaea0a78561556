"""Row 21: nothing that others can add to without limit has to be walked through by anybody.

That the largest of everything that the bounds allow fits into a transaction is measured elsewhere:
``tests/contracts/test_gas.py`` and what ``tests/contracts/INVARIANTS.md`` names under *Draws*.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offchain.chain.sender import Receipt
from offchain.protocol.links import LinkKind
from offchain.protocol.types import Phase
from tests.attacks.mutant import Change, Mutant
from tests.contracts.stage import FEE, Play, Stage, refused, spec, with_policy
from tests.local_chain import GAS_CAP

pytestmark = pytest.mark.integration

MAX_SKIPS = 64
SKIPS_ALL = Mutant(
    Change("jobs/JobQueue.sol", "uint256 public constant MAX_SKIPS = 64;", "uint256 public constant MAX_SKIPS = 1e9;")
)
ANY_COMMITTEE = Mutant(
    Change("libraries/Policies.sol", "if (policy.committeeSize * segments > MAX_MEMBERS) {", "if (segments == 0) {")
)


def behind_cancelled_jobs(stage: Stage, cancelled: int) -> tuple[Play, Receipt]:
    """An honest job behind so many that offered more and were taken back; what admitting costs then."""
    running = stage.request(requester=stage.owner)
    honest = stage.request()
    for _ in range(cancelled):
        withdrawn = stage.request(fee_wei=2 * FEE, requester=stage.owner)
        stage.contracts.jobs.cancel(stage.owner, withdrawn.job)
    running.lapse()
    running.expire()
    return honest, stage.contracts.jobs.admit(stage.workers[0], stage.model)


def test_cancelled_jobs__defence_removed__make_a_queue_that_no_transaction_gets_through(
    build: Callable[..., Stage],
) -> None:
    stage = build(SKIPS_ALL, segments=1, max_running_jobs=1)
    gas = {}
    for cancelled in (10, 80):
        with stage.chain.isolated():
            _, receipt = behind_cancelled_jobs(stage, cancelled)
            gas[cancelled] = receipt.gas_used
    each = (gas[80] - gas[10]) // 70
    assert GAS_CAP // each < 10_000, "jobs to cancel; their fees come back"


def test_cancelled_jobs__hold_nobody_up_for_more_than_a_call_in_64(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, max_running_jobs=1)
    honest, receipt = behind_cancelled_jobs(stage, MAX_SKIPS + 1)
    assert (honest.phase, stage.contracts.jobs.load_of(stage.model)) == (Phase.QUEUED, (0, 2))
    assert receipt.gas_used < GAS_CAP // 10
    stage.contracts.jobs.admit(stage.workers[0], stage.model)
    assert (honest.phase, stage.contracts.jobs.load_of(stage.model)) == (Phase.REQUESTED, (1, 0))


def test_waiting_jobs__cost_the_next_requester_nothing(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, max_running_jobs=1)
    gas = []
    for _ in range(40):
        head = stage.contracts.connection.block_number()
        stage.request(requester=stage.owner)
        mined = stage.chain.rpc("eth_getBlockByNumber", hex(head + 1), False)
        gas.append(int(mined["gasUsed"], 16))
    # The first runs at once, the second finds a queue that was never used.
    assert max(gas[2:]) - min(gas[2:]) < 100


# --- bounds of what can be asked for ----------------------------------------------------------------------------------


def test_members__defence_removed__job_of_336_members_is_taken(build: Callable[..., Stage]) -> None:
    """The draws that ``tests/contracts`` measures for 189 are near what a transaction may use already."""
    stage = build(ANY_COMMITTEE, segments=16, stakes=())
    assert stage.request(with_policy(committee_size=21)).phase is Phase.REQUESTED


@pytest.mark.parametrize(("segments", "size", "maximum"), [(16, 13, 12), (10, 21, 19), (1, 22, 21), (1, 0, 21)])
def test_members__refused_over_the_bound(build: Callable[..., Stage], segments: int, size: int, maximum: int) -> None:
    stage = build(segments=segments, stakes=())
    with refused("CommitteeSizeOutOfRange", actual=size, maximum=maximum):
        stage.request(with_policy(committee_size=size))


def test_registration__more_of_anything_than_the_bound__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    address, code_hash = stage.mock()
    with refused("SegmentCountOutOfRange", count=17, maximum=16):
        stage.register([spec(code_hash)] * 17, [address] * 17, "long")
    last = spec(code_hash, output_kind=LinkKind.PUBLIC)
    with refused("TrialCountOutOfRange", count=257, maximum=256):
        stage.register([last], [address], "tried", [bytes(32)] * 257)
    with refused("ProofLengthOutOfRange", segment=0, proofBytes=(1 << 16) + 1):
        stage.register([last | {"proof_bytes": (1 << 16) + 1}], [address], "wordy")
    for shape in ([1] * 9, [1 << 11, 1 << 10], [0]):
        with refused("ShapeOutOfRange", segment=0):
            stage.register([last | {"output_shape": shape}], [address], "wide")
