"""The policy router: from what is demanded and what is to be had, the evidence to ask for, and why.

A pure function: the same inputs give the same route, byte for byte, so that an auditor can route again. It fails
closed: where the path that a demand calls for cannot be had it refuses, and never takes a weaker one.

Source: the paper (arXiv 2407.19401) chooses by criticality, its companion documents by model size; this takes both.
The levels, the margins and the default windows are ours.
"""

from __future__ import annotations

from offchain.protocol.economics import (
    BPS,
    PERMILLE,
    Deterrence,
    Unroutable,
    least_fee_wei,
    least_proof_permille,
    member_reward_wei,
    require_deterrence,
    slashed_wei,
)
from offchain.protocol.route_terms import (
    Conditions,
    Criticality,
    Demand,
    Evidence,
    ModelSize,
    Privacy,
    Route,
    Windows,
    check_conditions,
    check_demand,
)
from offchain.protocol.types import Policy

COMMITTEE_SIZE = 3
QUORUM_BPS = 6000
"""Two of three, even after one of them was penalised and weighs a little less."""
MAX_WINDOW_SECONDS = 3600
"""As in ``Policies.sol``."""
USUAL_TURN_SECONDS = 120
USUAL_PROVE_SECONDS = 300
"""Windows as long as these wait for nobody longer than is useful; a demand's latency may only shorten them."""
PROVING_MARGIN = 2
"""Predicted proving times were seen to be off by half."""


def route(demand: Demand, conditions: Conditions) -> Route:
    """Choose the evidence, the policy and the fee that a demand calls for.

    Raises:
        Unroutable: they cannot be had; the error names the field, the numbers and the mend.
        RateTooLow: likewise, of the rate at which proofs are drawn.
    """
    check_demand(demand)
    check_conditions(conditions, demand.model.segments)
    reasons = [_size_reason(demand.model, conditions), _admit_privacy(demand, conditions)]
    has_proofs = demand.criticality is not Criticality.LOW or bool(demand.proof_permille)
    if has_proofs:
        _require_provable(demand, conditions)
    fee_wei, fee_reason = _fee(demand, conditions, has_proofs)
    deterrence = _deterrence(demand, conditions, fee_wei)
    evidence = Evidence.PROOF if deterrence.permille == PERMILLE else Evidence.AGREEMENT
    quorum_bps, committee_reason = _quorum(conditions, evidence)
    windows, latency_reason = _windows(demand, conditions, deterrence.permille)
    reasons += [_criticality_reason(demand, deterrence), committee_reason, fee_reason, latency_reason]
    return Route(
        policy=_build_policy(COMMITTEE_SIZE, quorum_bps, deterrence.permille, windows),
        challenge_seconds=windows.challenge,
        fee_wei=fee_wei,
        evidence=(evidence,) * demand.model.segments,
        deterrence=deterrence,
        scheduled_seconds=windows.scheduled_seconds(demand.model.segments, deterrence.permille),
        reasons=tuple(reasons),
    )


def _build_policy(committee_size: int, quorum_bps: int, proof_permille: int, windows: Windows) -> Policy:
    values = {"committee_size": committee_size, "quorum_bps": quorum_bps, "proof_permille": proof_permille}
    values |= {f"{name}_seconds": seconds for name, seconds in windows._asdict().items()}
    return Policy(**{name: values[name] for name in Policy.__dataclass_fields__})


# --- what can be had at all -----------------------------------------------------------------------------------------


def _size_reason(model: ModelSize, conditions: Conditions) -> str:
    provable = sum(_is_provable(model, conditions, index) for index in range(model.segments))
    rows = ", ".join(f"2^{log_rows}" for log_rows in model.log_rows)
    limit = f"up to 2^{conditions.max_log_rows}"
    return f"model size: {model.segments} segments of {rows} rows; {provable} can be proved ({limit} rows)"


def _is_provable(model: ModelSize, conditions: Conditions, index: int) -> bool:
    return model.provable[index] and model.log_rows[index] <= conditions.max_log_rows


def _require_provable(demand: Demand, conditions: Conditions) -> None:
    """A sample may fall on any segment, so one that cannot be proved would stop the job."""
    model = demand.model
    for index in range(model.segments):
        if _is_provable(model, conditions, index):
            continue
        why = f"2^{model.log_rows[index]} rows, where workers prove up to 2^{conditions.max_log_rows}"
        raise Unroutable(
            f"model.segments[{index}]",
            f"criticality {demand.criticality.value} calls for proofs, and this segment cannot be proved "
            f"({why if model.provable[index] else 'it has no circuit'})",
            "cut the model into smaller segments, or accept agreement alone (criticality low, no proof_permille)",
        )


def _admit_privacy(demand: Demand, conditions: Conditions) -> str:
    privacy, segments, workers = demand.privacy, demand.model.segments, conditions.workers
    if privacy in (Privacy.CLIENT_HEAD, Privacy.ATTESTED):
        missing = {Privacy.CLIENT_HEAD: "a head that the client runs", Privacy.ATTESTED: "attestation of workers"}
        raise Unroutable(
            "privacy", f"{privacy.value} needs {missing[privacy]}, which cannot be had", "use open or split, or wait"
        )
    if workers < COMMITTEE_SIZE:
        raise Unroutable(
            "conditions.workers",
            f"{workers} serve the model, and a committee takes {COMMITTEE_SIZE}",
            f"wait for {COMMITTEE_SIZE - workers} more to join",
        )
    needed = COMMITTEE_SIZE * segments
    if privacy is Privacy.OPEN:
        return f"privacy open: workers may see everything; each segment's input is shown to {COMMITTEE_SIZE}"
    if segments < 2:
        raise Unroutable("privacy", "split, but the model is one segment: its workers see all", "cut the model")
    if workers < needed:
        raise Unroutable(
            "conditions.workers",
            f"privacy split takes {COMMITTEE_SIZE} * {segments} = {needed} workers, and {workers} serve the model",
            f"wait for {needed - workers} more to join, or use privacy open",
        )
    return (
        f"privacy split: {workers} workers >= {COMMITTEE_SIZE} * {segments} = {needed}, so committees share nobody and "
        f"no worker sees two segments; the first {COMMITTEE_SIZE} see the input (obfuscation, not confidentiality)"
    )


# --- proofs and agreement -------------------------------------------------------------------------------------------


def _deterrence(demand: Demand, conditions: Conditions, fee_wei: int) -> Deterrence:
    deployment, asked = conditions.deployment, demand.proof_permille
    reward = member_reward_wei(
        fee_wei,
        demand.model.segments,
        COMMITTEE_SIZE,
        deployment.prover_share_bps,
        deployment.minimum_stake_wei,
        conditions.largest_weight_wei,
    )
    slashed = slashed_wei(deployment.minimum_stake_wei, deployment.contradiction_penalty_bps)

    def at(permille: int) -> Deterrence:
        return Deterrence(permille, conditions.collusion_bps, reward, slashed, conditions.cost_wei)

    if demand.criticality is Criticality.CRITICAL:
        if asked not in (None, PERMILLE):
            problem = f"{asked} permille, but criticality critical has every segment proved"
            raise Unroutable("proof_permille", problem, f"ask for {PERMILLE}, or leave it out")
        return at(PERMILLE)
    if demand.criticality is Criticality.LOW and not asked:
        return at(0)
    if asked is None:
        # Where no rate deters, the refusal shows the numbers of the highest.
        asked = least_proof_permille(conditions.collusion_bps, reward, slashed, conditions.cost_wei) or PERMILLE
    chosen = at(asked)
    require_deterrence(chosen)
    return chosen


def _criticality_reason(demand: Demand, deterrence: Deterrence) -> str:
    head = f"criticality {demand.criticality.value}:"
    if deterrence.permille == 0:
        return f"{head} agreement alone, on the assumption that most of the stake drawn is honest; no proof deters"
    if demand.criticality is Criticality.CRITICAL:
        effect = "not computing loses as well" if deterrence.deters else "not computing would not lose, but cannot pass"
        return f"{head} every segment is proved, whatever a quorum says; {effect}: {deterrence}"
    asked = "as asked for" if demand.proof_permille is not None else "the least that deters"
    return f"{head} each segment is proved with a chance of {deterrence.permille} permille, {asked}: {deterrence}"


def _quorum(conditions: Conditions, evidence: Evidence) -> tuple[int, str]:
    """Agreement takes two: where one member may outweigh the usual quorum alone, the quorum rises above it."""
    largest, least = conditions.largest_weight_wei, conditions.deployment.minimum_stake_wei
    total = largest + (COMMITTEE_SIZE - 1) * least
    quorum_bps = QUORUM_BPS
    if evidence is Evidence.AGREEMENT:
        quorum_bps = max(QUORUM_BPS, largest * BPS // total + 1)
    reason = (
        f"committee: {COMMITTEE_SIZE} of {conditions.workers} workers a segment, quorum {quorum_bps} bps of their "
        f"stake; the heaviest alone may hold {largest}/{total} of it"
    )
    return quorum_bps, reason


# --- fee and time ---------------------------------------------------------------------------------------------------


def _fee(demand: Demand, conditions: Conditions, has_proofs: bool) -> tuple[int, str]:
    deployment, segments = conditions.deployment, demand.model.segments
    proof_cost_wei = max(conditions.proof_costs_wei) if has_proofs else None
    share_bps = deployment.prover_share_bps
    least = least_fee_wei(segments, COMMITTEE_SIZE, share_bps, conditions.cost_wei, proof_cost_wei)
    if least is None:
        raise Unroutable(
            "conditions.deployment.prover_share_bps",
            f"at {share_bps} one side is paid nothing for what it spends",
            "use a deployment that shares the fee between provers and committees",
        )
    fee_wei = max(least, conditions.fee_wei, deployment.minimum_fee_wei)
    numbers = (
        f"{fee_wei} wei is the most of {conditions.fee_wei} (going), {deployment.minimum_fee_wei} (minimum) and "
        f"{least} ({segments} segments, {COMMITTEE_SIZE} * {conditions.cost_wei} wei to compute one, "
        f"{proof_cost_wei or 0} wei to prove one)"
    )
    if fee_wei > demand.budget_wei:
        raise Unroutable("budget_wei", f"{demand.budget_wei} does not pay the fee: {numbers}", f"allow {fee_wei} wei")
    return fee_wei, f"fee: {numbers}; budget {demand.budget_wei} wei"


def _windows(demand: Demand, conditions: Conditions, permille: int) -> tuple[Windows, str]:
    """Make the windows as long as is useful, but no longer than the latency allows, nor shorter than workers need."""
    segments, minimum = demand.model.segments, conditions.deployment.minimum_window_seconds
    turn = max(minimum, conditions.turn_seconds)
    proving = _proving_seconds(demand.model, conditions)
    prove = max(minimum, conditions.turn_seconds + PROVING_MARGIN * proving)
    # A challenger announces its proof first, which is a turn more.
    least = Windows(turn, turn, turn, prove, max(minimum, prove + conditions.turn_seconds))
    if max(least) > MAX_WINDOW_SECONDS:
        problem = f"a window of {max(least)} s is needed (proving {proving} s, turn {conditions.turn_seconds} s)"
        mend = f"cut the model into smaller segments: contracts allow {MAX_WINDOW_SECONDS} s"
        raise Unroutable("conditions.proving_seconds", problem, mend)
    needed, latency = least.scheduled_seconds(segments, permille), demand.latency_seconds
    if needed > latency:
        problem = (
            f"{latency} s are too few: {segments} segments at {turn} s a turn, {permille} permille proofs "
            f"at {prove} s a prover and {least.challenge} s for challenges take {needed} s"
        )
        raise Unroutable("latency_seconds", problem, f"allow {needed} s")
    usual = Windows(*[USUAL_TURN_SECONDS] * 3, *[USUAL_PROVE_SECONDS] * 2)
    windows = Windows(
        *(max(short, min(wanted, short * latency // needed)) for short, wanted in zip(least, usual, strict=True))
    )
    scheduled = windows.scheduled_seconds(segments, permille)
    reason = (
        f"latency: {scheduled} s of {latency} s (at least {needed} s) with windows of {windows.input} s for input, "
        f"{windows.commit} s to commit, {windows.reveal} s to reveal, {windows.prove} s a prover, "
        f"{windows.challenge} s for challenges; proving is predicted to take {proving} s"
    )
    return windows, reason


def _proving_seconds(model: ModelSize, conditions: Conditions) -> int:
    """What one worker may have to prove in one window: where committees may share members, everything."""
    times = [
        conditions.proving_seconds[index] for index in range(model.segments) if _is_provable(model, conditions, index)
    ]
    is_disjoint = conditions.workers >= COMMITTEE_SIZE * model.segments
    return max(times, default=0) if is_disjoint else sum(times)
