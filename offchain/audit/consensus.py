"""Recomputing what the contracts decided: draws, votes, tallies, penalties, payments and the evidence root.

Every function returns what it found in one clause, or raises what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from offchain.audit.record import ChainRecord, calldata_of, ordered_before, read_number
from offchain.audit.report import CheckFailed, require_equal
from offchain.chain.events import Event, read_events
from offchain.protocol import hashing, sortition, tally
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Phase, Policy, Reason

BPS = 10_000
SEED_LIFETIME_BLOCKS = 256
"""How long a contract can see a block's hash. Source: Solidity documentation, ``blockhash``."""


def check_phase(record: ChainRecord) -> str:
    """The job is finalised."""
    require_equal("phase", Phase.FINALISED.name, record.phase.name)
    job = record.job
    left = (job.segment, job.proofs_due, job.seed_block, job.deadline)
    require_equal("last segment, proofs due, seed block and deadline", (job.segments - 1, 0, 0, 0), left)
    return "finalised"


def check_block(record: ChainRecord) -> str:
    """The block at which everything was read is still part of the chain."""
    now = record.contracts.connection.block_hash(record.block_number)
    require_equal(f"hash of block {record.block_number}", record.block_hash, now)
    return f"read at block {record.block_number}"


def check_request(record: ChainRecord) -> str:
    """The stored job is the one that was requested."""
    job, event = record.job, record.one("JobRequested")
    asked = event.arguments
    for name, stored in (
        ("requester", job.requester),
        ("modelId", job.model_id),
        ("inputLink", job.input_link),
        ("resultKey", job.result_key),
        ("feeWei", job.fee_wei),
        ("frozenBlock", job.frozen_block),
    ):
        require_equal(name, asked[name], stored)
    policy = asked["policy"]
    require_equal("policy", Policy(*(policy.values() if hasattr(policy, "values") else policy)), job.policy)
    require_equal("frozen block", event.block_number - 1, job.frozen_block)
    if record.all("InputProvided") or job.input_cid != ZERO_HASH:
        require_equal("input CID", record.one("InputProvided").arguments["inputCid"], job.input_cid)
    return f"requested by {job.requester} in block {event.block_number}"


def check_committee(record: ChainRecord, weights: Sequence[tuple[Address, int]], segment: int) -> str:
    """The committee is the one that the seed block's hash draws from the frozen weights."""
    event = record.one("CommitteeDrawn", segment)
    entropy = _entropy(record, event)
    seed = hashing.committee_seed(record.chain_id, record.jobs, record.job.id, segment, entropy)
    require_equal("seed", seed, event.arguments["seed"])
    earlier = [member.operator for round_ in record.rounds[:segment] for member in round_.members]
    expected = sortition.draw_committee(weights, seed, record.job.policy.committee_size, earlier)
    announced = zip(event.arguments["operators"], event.arguments["weights"], strict=True)
    require_equal("drawn committee", expected, tuple((Address(operator), weight) for operator, weight in announced))
    members = record.rounds[segment].members
    require_equal("committee", expected, tuple((member.operator, member.weight) for member in members))
    again = len({operator for operator, _ in expected} & set(earlier))
    if again:
        return f"{len(members)} members, {again} of them in an earlier committee: too few workers for disjoint ones"
    return f"{len(members)} members, none in an earlier committee"


def check_votes(record: ChainRecord, segment: int) -> str:
    """What members committed to and revealed is what they sent, and each reveal opens its commitment."""
    members = record.rounds[segment].members
    committed = {event.arguments["operator"]: event for event in record.all("Committed", segment)}
    revealed = {event.arguments["operator"]: event for event in record.all("Revealed", segment)}
    opened = 0
    for member in members:
        vote, reveal = committed.pop(member.operator, None), revealed.pop(member.operator, None)
        sent = vote.arguments["commitment"] if vote else ZERO_HASH
        require_equal(f"commitment of {member.operator}", sent, member.commitment)
        said = (reveal.arguments["link"], reveal.arguments["activationCid"]) if reveal else (ZERO_HASH, ZERO_HASH)
        require_equal(f"reveal of {member.operator}", said, (member.link, member.activation_cid))
        if reveal is None:
            continue
        call = calldata_of(record, reveal, "reveal")
        if call is None:  # an operator may be a contract: the salt is somewhere inside its own calldata
            continue
        opening = hashing.commitment(
            record.chain_id,
            record.jobs,
            record.job.id,
            segment,
            record.job.attempts[segment],
            member.operator,
            member.link,
            call["salt"],
        )
        require_equal(f"opening of {member.operator}'s commitment", member.commitment, opening)
        opened += 1
    require_equal("votes of strangers", [], [*committed, *revealed])
    return f"{sum(member.commitment != ZERO_HASH for member in members)} committed, {opened} opened"


def check_tally(record: ChainRecord, segment: int) -> str:
    """The settled output is the one that a quorum of the drawn stake revealed."""
    round_ = record.rounds[segment]
    total = sum(member.weight for member in round_.members)
    link, weight = tally.leading(round_.members)
    require_equal("total stake", total, round_.total_weight)
    require_equal("stake for the leading output", weight, round_.settled_weight)
    require_equal("leading output", link, round_.settled_link)
    quorum = record.job.policy.quorum_bps
    if not tally.is_quorum(weight, total, quorum):
        raise CheckFailed("stake for the settled output", f"at least {quorum} bps of {total}", weight)
    event = record.one("SegmentSettled", segment).arguments
    announced = (event["link"], event["stakeFor"], event["stakeTotal"])
    require_equal("announced tally", announced, (link, weight, total))
    return f"{weight} of {total} wei for it, {quorum} bps needed"


def check_sample(record: ChainRecord, segment: int) -> str:
    """Whether the segment had to be proved, and by whom, is what the seed drawn after the last reveal says."""
    round_, policy = record.rounds[segment], record.job.policy
    expected = ZERO_ADDRESS
    if policy.proof_permille:
        last = record.one("SegmentSettled", record.job.segments - 1)
        seeds = [event for event in record.all("SeedBlockSet") if not ordered_before(last)(event)]
        if not seeds:
            raise CheckFailed("seed block of the sample", "set after the last reveal", "none")
        entropy = record.contracts.connection.block_hash(seeds[-1].arguments["seedBlock"])
        sample = hashing.sample_seed(record.chain_id, record.jobs, record.job.id, segment, entropy)
        if sortition.is_sampled(sample, policy.proof_permille):
            expected = sortition.draw_prover(round_.members, round_.settled_link, sample)
    require_equal("drawn prover", expected, round_.prover)
    announced = [event.arguments["prover"] for event in record.all("ProverDrawn", segment)]
    require_equal("announced prover", [] if expected == ZERO_ADDRESS else [expected], announced)
    return "not drawn for proving" if expected == ZERO_ADDRESS else f"to be proved by {expected}"


def check_penalties(record: ChainRecord, segment: int) -> str:
    """Exactly those lost stake who were silent, late, or contradicted by a proof."""
    round_ = record.rounds[segment]
    has_committed, has_revealed = tally.participation(round_.members)
    expected = []
    for member in round_.members:
        if member.commitment == ZERO_HASH:
            if has_committed:
                expected.append((member.operator, Reason.MISSED_COMMIT))
        elif member.link == ZERO_HASH:
            if has_revealed:
                expected.append((member.operator, Reason.MISSED_REVEAL))
        elif round_.proof_hash != ZERO_HASH and member.link != round_.settled_link:
            expected.append((member.operator, Reason.CONTRADICTED_PROOF))
    if round_.proof_hash != ZERO_HASH and round_.proved_by != round_.prover:
        expected.append((round_.prover, Reason.MISSED_PROOF))
    fined = [
        (Address(event.arguments["operator"]), Reason(event.arguments["reason"]))
        for event in record.all("OperatorPenalised", segment)
    ]
    describe = [f"{operator} {reason.name}" for operator, reason in sorted(expected)]
    require_equal("penalties", describe, [f"{operator} {reason.name}" for operator, reason in sorted(fined)])
    return ", ".join(describe) or "nobody"


def check_evidence_root(record: ChainRecord) -> str:
    """The recorded root is over exactly this record."""
    root = hashing.evidence_root(record.chain_id, record.jobs, record.job, record.rounds)
    require_equal("evidence root", root, record.job.evidence_root)
    announced = record.one("JobFinalised").arguments
    require_equal("announced evidence root", root, announced["evidenceRoot"])
    require_equal("announced result", record.rounds[-1].settled_link, announced["resultLink"])
    return "0x" + root.hex()


def check_payouts(record: ChainRecord) -> str:
    """Finalising credited exactly the fee, and each account its share."""
    finalised = record.one("JobFinalised")
    block = finalised.block_number
    credited = [
        (Address(event.arguments["account"]), int(event.arguments["amount"]))
        for event in read_events(record.contracts, block, block)
        if event.name == "Credited"
        and event.address == record.jobs
        and event.transaction_hash == finalised.transaction_hash
        and ordered_before(finalised)(event)
    ]
    expected = _payouts(record)
    # One transaction may hold more than this call: its credits are the last ones before the event.
    require_equal("credits", expected, credited[-len(expected) :])
    require_equal("sum of credits", record.job.fee_wei, sum(amount for _, amount in credited[-len(expected) :]))
    return f"{record.job.fee_wei} wei to {len({account for account, _ in expected})} accounts"


def _payouts(record: ChainRecord) -> list[tuple[Address, int]]:
    """Split the fee as ``Jobs.finalise`` does: rounded down throughout, the rest goes back to the requester."""
    job, share = record.job, read_number(record, "proverShareBps")
    fee = job.fee_wei // job.segments
    credits: list[tuple[Address, int]] = []
    for round_ in record.rounds:
        for_prover = fee * share // BPS if round_.proved_by != ZERO_ADDRESS else 0
        credits.append((round_.proved_by, for_prover))
        for member in round_.supporters:
            credits.append((member.operator, (fee - for_prover) * member.weight // round_.settled_weight))
    credits.append((job.requester, job.fee_wei - sum(amount for _, amount in credits)))
    return [(account, amount) for account, amount in credits if amount]


def _entropy(record: ChainRecord, drawn: Event) -> bytes:
    """The hash of the seed block that was set last before a draw."""
    seeds = [event for event in record.all("SeedBlockSet") if ordered_before(drawn)(event)]
    if not seeds:
        raise CheckFailed("seed block", "set before the draw", "none")
    seed_block = seeds[-1].arguments["seedBlock"]
    if not seed_block < drawn.block_number <= seed_block + SEED_LIFETIME_BLOCKS:
        raise CheckFailed("block of the draw", f"within {SEED_LIFETIME_BLOCKS} after {seed_block}", drawn.block_number)
    return record.contracts.connection.block_hash(seed_block)
