from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from eth_hash.auto import keccak

from offchain.chain.connection import artefact
from offchain.chain.errors import TransactionRefused
from offchain.chain.events import read_events
from offchain.chain.jobs import JobRequest, Jobs
from offchain.chain.sender import Sender
from offchain.protocol import hashing
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, JobId, Link, ModelId, Phase
from tests.contracts.stage import FEE, POLICY, Stage, refused, with_policy
from tests.local_chain import ETHER

pytestmark = pytest.mark.integration

MINIMUM_FEE = 10**9
MINIMUM_WINDOW_SECONDS = 5
WINDOWS = ("input", "commit", "reveal", "prove", "challenge")
PARAMETERS = {
    "minimumStake": 10**18,
    "unbondingSeconds": 691_200,
    "minimumFeeWei": 10**9,
    "minimumWindowSeconds": MINIMUM_WINDOW_SECONDS,
    "maxRunningJobs": 64,
    "missPenaltyBps": 100,
    "contradictionPenaltyBps": 5000,
    "proverShareBps": 5000,
    "faultShareBps": 2000,
    "challengerShareBps": 3000,
    "requesterShareBps": 1000,
}
"""In the order of the contract's structure, by the names of what reads them."""


def test_request__within_bounds__escrows_the_fee_and_freezes_membership(stage: Stage) -> None:
    jobs = stage.contracts.jobs
    held = stage.chain.connection.balance(jobs.address)
    play = stage.request()
    block, now = stage.chain.connection.block_number(), stage.chain.connection.timestamp()
    job = play.record
    assert stage.chain.connection.balance(jobs.address) == held + FEE
    assert (job.requester, job.model_id, job.fee_wei, job.policy) == (
        stage.requester.address,
        stage.model,
        FEE,
        POLICY,
    )
    assert (job.phase, job.segment, job.segments, job.proofs_due) == (Phase.REQUESTED, 0, 3, 0)
    assert (job.frozen_block, job.seed_block, job.deadline) == (block - 1, block, now + POLICY.input_seconds)
    assert (job.input_cid, job.evidence_root, job.route_cid) == (ZERO_HASH, ZERO_HASH, ZERO_HASH)
    assert (job.ends_at, job.closed_at, job.redraws) == (now + LONGEST_JOB_SECONDS, 0, 0)
    assert job.attempts == (0, 0, 0)
    requested, started, seeded = read_events(stage.contracts, block, block)
    policy = {_camel(name): value for name, value in asdict(POLICY).items()}
    assert requested.arguments == {
        "jobId": play.job,
        "requester": stage.requester.address,
        "modelId": stage.model,
        "inputLink": job.input_link,
        "resultKey": job.result_key,
        "routeCid": ZERO_HASH,
        "feeWei": FEE,
        "policy": policy,
    }
    assert (started.name, started.arguments) == (
        "JobStarted",
        {"jobId": play.job, "frozenBlock": block - 1, "endsAt": now + LONGEST_JOB_SECONDS},
    )
    assert seeded.arguments == {"jobId": play.job, "segment": 0, "seedBlock": block}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def test_request__route_document__is_kept_and_announced(stage: Stage) -> None:
    play = stage.request(route_cid=keccak(b"route"))
    block = stage.chain.connection.block_number()
    assert play.record.route_cid == keccak(b"route")
    assert next(iter(read_events(stage.contracts, block, block))).arguments["routeCid"] == keccak(b"route")


def test_request__same_salt__is_refused_for_the_same_requester_alone(stage: Stage) -> None:
    salt = keccak(b"salt")
    play = stage.request(salt=salt)
    with refused("JobAlreadyRequested", jobId=play.job):
        stage.request(salt=salt)
    stage.request(requester=stage.owner, salt=salt)


def test_request__salt_of_a_job_that_failed__is_still_refused(stage: Stage) -> None:
    salt = keccak(b"salt")
    play = stage.request(salt=salt)
    play.lapse()
    play.expire()
    with refused("JobAlreadyRequested", jobId=play.job):
        stage.request(salt=salt)


def test_request__fee_below_the_minimum__is_refused(stage: Stage) -> None:
    with refused("FeeTooLow", required=MINIMUM_FEE, actual=MINIMUM_FEE - 1):
        stage.request(fee_wei=MINIMUM_FEE - 1)
    stage.request(fee_wei=MINIMUM_FEE)


def test_request__unknown_model__is_refused(stage: Stage) -> None:
    with refused("UnknownModel", modelId=keccak(b"unknown")):
        stage.request(model_id=ModelId(keccak(b"unknown")))


@pytest.mark.parametrize(("field", "name"), [("input_link", "inputLink"), ("result_key", "resultKey")])
def test_request__missing_value__is_refused_by_name(stage: Stage, field: str, name: str) -> None:
    with refused("ValueIsZero", field=name):
        stage.request(**{field: ZERO_HASH})


@pytest.mark.parametrize(
    ("change", "error", "arguments"),
    [
        ({"committee_size": 0}, "CommitteeSizeOutOfRange", {"actual": 0, "maximum": 21}),
        ({"committee_size": 22}, "CommitteeSizeOutOfRange", {"actual": 22, "maximum": 21}),
        ({"quorum_bps": 5000}, "QuorumOutOfRange", {"actualBps": 5000}),
        ({"quorum_bps": 10_001}, "QuorumOutOfRange", {"actualBps": 10_001}),
        ({"proof_permille": 1001}, "ProofRateOutOfRange", {"actualPermille": 1001}),
        *[
            (
                {f"{name}_seconds": seconds},
                "WindowOutOfRange",
                {"actualSeconds": seconds, "minimum": MINIMUM_WINDOW_SECONDS, "maximum": 3600},
            )
            for name in WINDOWS
            for seconds in (0, MINIMUM_WINDOW_SECONDS - 1, 3601, 2**32 - 1)
        ],
    ],
)
def test_request__policy_out_of_bounds__is_refused(
    stage: Stage, change: dict[str, int], error: str, arguments: dict[str, int]
) -> None:
    with refused(error, **arguments):
        stage.request(with_policy(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"committee_size": 1},
        {"committee_size": 21},
        {"quorum_bps": 5001},
        {"quorum_bps": 10_000},
        {"proof_permille": 0},
        *[{f"{name}_seconds": seconds} for name in WINDOWS for seconds in (MINIMUM_WINDOW_SECONDS, 3600)],
    ],
)
def test_request__policy_at_a_bound__is_accepted(stage: Stage, change: dict[str, int]) -> None:
    assert stage.request(with_policy(**change)).phase is Phase.REQUESTED


@pytest.mark.parametrize(("segments", "maximum"), [(10, 19), (16, 12)])
def test_request__more_members_than_a_draw_can_pass_over__is_refused(stage: Stage, segments: int, maximum: int) -> None:
    model = stage.register_segments(segments, "members")
    with refused("CommitteeSizeOutOfRange", actual=maximum + 1, maximum=maximum):
        stage.request(with_policy(committee_size=maximum + 1), model_id=model)
    assert stage.request(with_policy(committee_size=maximum), model_id=model).phase is Phase.REQUESTED


def test_request__largest_committees_of_nine_segments__are_accepted(stage: Stage) -> None:
    model = stage.register_segments(9, "nine")
    assert stage.request(with_policy(committee_size=21), model_id=model).phase is Phase.REQUESTED


def test_reads__unknown_job__are_empty_or_refused(stage: Stage) -> None:
    jobs, unknown = stage.contracts.jobs, JobId(keccak(b"unknown"))
    assert jobs.phase_of(unknown) is Phase.NONE
    assert jobs.round_of(unknown, 0).members == ()
    assert jobs.round_of(unknown, 0).prover == ZERO_ADDRESS
    assert jobs._read("labelOf", unknown, 0) == 0
    with refused("UnknownJob", jobId=unknown):
        jobs.job_of(unknown)


@pytest.mark.parametrize("function", ["draw", "settle", "finalise", "expire"])
def test_moves__unknown_job__are_refused(stage: Stage, function: str) -> None:
    unknown = keccak(b"unknown")
    with refused("WrongPhase", jobId=unknown, actual=Phase.NONE):
        stage.contracts.jobs._write(stage.owner, function, unknown)


def test_moves_of_members__unknown_job__are_refused(stage: Stage) -> None:
    jobs, unknown, word = stage.contracts.jobs, JobId(keccak(b"unknown")), keccak(b"word")
    refusal = {"jobId": unknown, "actual": Phase.NONE}
    with refused("WrongPhase", **refusal):
        jobs.provide_input(stage.requester, unknown, word)
    with refused("WrongPhase", **refusal):
        jobs.commit(stage.workers[0], unknown, 0, 0, word)
    with refused("WrongPhase", **refusal):
        jobs.reveal(stage.workers[0], unknown, Link(word), word, word)
    for proving in (jobs.prove, jobs.challenge):
        with refused("WrongPhase", **refusal):
            proving(stage.workers[0], unknown, 0, b"", (), word)
    with refused("WrongPhase", **refusal):
        jobs.announce(stage.workers[0], unknown, 0, word)
    with refused("WrongPhase", **refusal):
        jobs.reseal(stage.workers[0], unknown, word)
    with refused("WrongPhase", **refusal):
        jobs.cancel(stage.requester, unknown)


def test_constructor__unbonding_shorter_than_the_longest_job__is_refused(stage: Stage) -> None:
    with refused("UnbondingTooShort", actualSeconds=3600, longestJobSeconds=LONGEST_JOB_SECONDS):
        deploy(stage, unbondingSeconds=3600)
    with refused("UnbondingTooShort", actualSeconds=LONGEST_JOB_SECONDS - 1, longestJobSeconds=LONGEST_JOB_SECONDS):
        deploy(stage, unbondingSeconds=LONGEST_JOB_SECONDS - 1)
    deploy(stage, unbondingSeconds=LONGEST_JOB_SECONDS)


LONGEST_JOB_SECONDS = 7 * 24 * 3600
"""When a job lapses whatever happens to it, counted from its start."""


@pytest.mark.parametrize("name", ["missPenaltyBps", "contradictionPenaltyBps", "proverShareBps", "faultShareBps"])
def test_constructor__share_above_the_whole__is_refused(stage: Stage, name: str) -> None:
    with refused("ShareOutOfRange", actualBps=10_001):
        deploy(stage, **{name: 10_001})
    deploy(stage, **{name: 10_000})


def test_constructor__less_than_half_of_a_slashed_stake_burnt__is_refused(stage: Stage) -> None:
    # Whoever has its own stake slashed by its own proof has to lose by it.
    with refused("ShareOutOfRange", actualBps=5001):
        deploy(stage, challengerShareBps=5001, requesterShareBps=0)
    with refused("ShareOutOfRange", actualBps=5001):
        deploy(stage, challengerShareBps=3000, requesterShareBps=2001)
    with refused("ShareOutOfRange", actualBps=5001):
        deploy(stage, challengerShareBps=0, requesterShareBps=5001)
    deploy(stage, challengerShareBps=3000, requesterShareBps=2000)
    deploy(stage, challengerShareBps=0, requesterShareBps=0)


def test_constructor__no_job_may_run__is_refused(stage: Stage) -> None:
    with refused("CountIsZero", field="maxRunningJobs"):
        deploy(stage, maxRunningJobs=0)
    assert deploy(stage, maxRunningJobs=1).max_running_jobs() == 1


@pytest.mark.parametrize("minimum", [1, 3600])
def test_constructor__least_window__holds_for_every_job(stage: Stage, minimum: int) -> None:
    jobs = deploy(stage, minimumWindowSeconds=minimum)
    assert jobs.minimum_window_seconds() == minimum
    hours = dict.fromkeys((f"{window}_seconds" for window in WINDOWS), 3600)
    for window in WINDOWS:
        policy = with_policy(**hours | {f"{window}_seconds": minimum - 1})
        what = JobRequest(stage.model, Link(keccak(b"in")), keccak(b"key"), keccak(window.encode()), policy)
        with refused("WindowOutOfRange", actualSeconds=minimum - 1, minimum=minimum, maximum=3600):
            jobs.request(stage.requester, what, FEE)
        least = with_policy(**hours | {f"{window}_seconds": minimum})
        jobs.request(stage.requester, replace(what, policy=least), FEE)


@pytest.mark.parametrize("minimum", [0, 3601])
def test_constructor__least_window_that_is_none__is_refused(stage: Stage, minimum: int) -> None:
    # A window of nothing is over before it starts, and a time to reveal of nothing divides by zero.
    with refused("WindowOutOfRange", actualSeconds=minimum, minimum=1, maximum=3600):
        deploy(stage, minimumWindowSeconds=minimum)


def deploy(stage: Stage, **changes: int) -> Jobs:
    """Deploy with the usual parameters, but for some."""
    assert changes.keys() <= PARAMETERS.keys()
    address = stage.chain.deploy(stage.owner, "Jobs", *references(stage), tuple((PARAMETERS | changes).values()))
    return Jobs(stage.chain.connection, address)


def references(stage: Stage) -> tuple[str, str]:
    return stage.contracts.registry.address, stage.contracts.verifier.address


def test_constructor__parameters__are_what_was_given(stage: Stage) -> None:
    jobs, staking = stage.contracts.jobs, stage.contracts.staking
    assert jobs._read("staking") == staking.address
    assert (jobs._read("registry"), jobs._read("verifier")) == references(stage)
    of_staking = ("minimumStake", "unbondingSeconds", "challengerShareBps", "requesterShareBps")
    read = {name: (staking if name in of_staking else jobs)._read(name) for name in PARAMETERS}
    assert read == PARAMETERS
    assert staking._read("equivocationPenaltyBps") == PARAMETERS["contradictionPenaltyBps"]
    assert staking._read("slasher") == jobs.address
    assert (staking._read("registry"), staking._read("verifier")) == references(stage)


def test_receive__ether_from_anybody__is_refused(stage: Stage) -> None:
    jobs = stage.contracts.jobs
    held = stage.chain.connection.balance(jobs.address)
    for sender in (stage.owner.address, stage.contracts.registry.address, stage.contracts.staking.address):
        stage.chain.fund(sender, ETHER)
        with pytest.raises(TransactionRefused):
            stage.owner.send_raw("receive", {"from": sender, "to": jobs.address, "value": hex(1)})
    assert stage.chain.connection.balance(jobs.address) == held


def test_tags__contract__are_those_of_python(stage: Stage) -> None:
    # Those inside are compared by what they make: committees, samples and provers in test_jobs_rounds.py and
    # test_jobs_proofs.py, evidence in test_jobs_payment.py, ids and commitments in tests/vectors.
    assert bytes(stage.contracts.registry._read("MODEL_TAG")) == hashing.MODEL_TAG
    for name in ("TRIAL_TAG", "ANSWER_TAG", "RESULT_TYPEHASH"):
        assert bytes(stage.contracts.staking._read(name)) == getattr(hashing, name)


def test_request__through_the_signing_sender__is_the_same_job(stage: Stage) -> None:
    sender = Sender(stage.chain.connection, stage.requester.account)
    request = JobRequest(stage.model, Link(keccak(b"in")), keccak(b"key"), keccak(b"salt"), POLICY)
    stage.contracts.jobs.request(sender, request, FEE)
    job = hashing.job_id(
        stage.contracts.connection.chain_id,
        stage.contracts.jobs.address,
        sender.address,  # type: ignore[arg-type]
        request.salt,
    )
    assert stage.contracts.jobs.job_of(job).requester == sender.address


def test_code_size__deployed_contracts__are_below_the_limit() -> None:
    for name in ("Registry", "Verifier", "Staking", "Jobs"):
        assert len(artefact(name)["deployedBytecode"]) // 2 <= 24_576, name
