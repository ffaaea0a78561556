"""The audit of one job, from the chain and IPFS alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from offchain.audit import consensus, evidence
from offchain.audit.record import ChainRecord, read_record, read_standings
from offchain.audit.rederivation import model_identity, rederive
from offchain.audit.replay import Replay, Topic, replay
from offchain.audit.report import AuditReport, CheckFailed, Checklist, SegmentAudit, require_equal
from offchain.audit.route import check_route, fetch_route
from offchain.chain.contracts import Contracts
from offchain.models.loading import fetch_manifest, fetch_srs, fetch_verifying_key
from offchain.protocol.manifest import Manifest
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, JobId, Phase, Round
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Proof, Srs, VerifyingKey
from offchain.storage.cid import digest_to_cid
from offchain.storage.port import ContentReader
from offchain.storage.sealing import Identity

Progress = Callable[[str, float], None]
"""Called with the step under way and the share of the whole that is done, 0 to 1."""


def no_progress(step: str, share: float) -> None:
    """Report nothing."""


def audit(
    contracts: Contracts,
    store: ContentReader,
    prover: EzklProver,
    job_id: JobId,
    *,
    rederive: Identity | None = None,
    progress: Progress = no_progress,
) -> AuditReport:
    """Derive and check again everything that a job's record rests on.

    Nothing that is at fault stops it: a check that cannot be made has failed, and the report says why.

    Args:
        contracts: on a chain RPC of the auditor's choice.
        store: an IPFS node of the auditor's choice; it is not believed.
        prover: verifies proofs; of its cache only the SRS is used, and that only if its digest is right.
        rederive: the model's own identity, or one that was granted access: compile every segment again as well.
    """
    checks = Checklist()
    progress("reading the chain", 0.0)
    record = checks.obtain("record", lambda: read_record(contracts, job_id), lambda it: f"{len(it.events)} events")
    if record is None:
        return AuditReport(job_id, None, None, (), None, checks.checks, contracts.connection.chain_id, None)
    run = _Audit(record, evidence.CheckedStore(store), prover, checks, rederive, progress)
    run.model()
    segments = tuple(run.segment(index) for index in range(record.job.segments))
    result = run.whole()
    progress("audited", 1.0)
    return AuditReport(
        job=job_id,
        model=record.job.model_id,
        result=result,
        segments=segments,
        srs=None if run.manifest is None else run.manifest.srs,
        checks=checks.checks,
        chain_id=record.chain_id,
        block=record.block_number,
        batch=1 if run.manifest is None else run.manifest.batch,
    )


@dataclass
class _Audit:
    """An audit on its way: what earlier checks gave to later ones; None where they failed."""

    record: ChainRecord
    store: evidence.CheckedStore
    prover: EzklProver
    checks: Checklist
    holder: Identity | None
    progress: Progress
    manifest: Manifest | None = None
    srs: Srs | None = None
    history: Replay | None = None
    identity: Identity | None = None
    last_proof: Proof | None = None

    def model(self) -> None:
        """Check what the job ran: the model as it is registered and described, and the SRS under its keys."""
        record, contracts, checks = self.record, self.record.contracts, self.checks
        checks.check("phase", lambda: consensus.check_phase(record))
        self._replay()
        self.progress("fetching the model", 0.05)
        model_id = record.job.model_id
        self.manifest = manifest = checks.obtain(
            "model",
            lambda: fetch_manifest(contracts, self.store, model_id),
            lambda it: f"{it.name}: manifest and id agree",
        )
        if manifest is not None:
            checks.check("segments", lambda: _count(record, len(manifest.segments)))
            cache = self.prover.cache
            self.srs = checks.obtain(
                "srs", lambda: fetch_srs(manifest, self.store, cache), lambda it: f"{it.origin}, {it.log_rows} log-rows"
            )
        if record.job.route_cid != ZERO_HASH:
            route = checks.obtain("route", lambda: fetch_route(record, self.store), lambda it: "decided again")
            if route is not None:
                document = route
                checks.check("route", lambda: check_route(record, document, manifest))
        if self.holder is not None and manifest is not None:
            holder = self.holder
            self.identity = checks.obtain(
                "identity",
                lambda: model_identity(contracts, self.store, model_id, manifest, holder),
                lambda it: "opens the model's segments",
            )

    def _replay(self) -> None:
        """Go through the job's history again, from its events."""
        record, checks = self.record, self.checks
        self.progress("replaying the job", 0.02)
        standings = checks.obtain(
            "stakes",
            lambda: read_standings(record),
            lambda it: f"{len(it.weights_at(record.job.frozen_block))} operators at block {record.job.frozen_block}",
        )
        self.history = history = checks.obtain(
            "history", lambda: replay(record, standings), lambda it: f"{len(record.events)} events replayed"
        )
        if history is not None:
            for name, nothing in (("request", ""), ("start", "not started"), ("state", "as the events lead to")):
                checks.check(name, lambda name=name, nothing=nothing: history.findings.verdict(Topic(name), nothing))  # type: ignore[misc]

    def segment(self, index: int) -> SegmentAudit:
        """Check one segment: as registered, and every attempt at it as drawn, voted, settled and proved."""
        record, checks = self.record, Checklist()
        self.progress(f"checking segment {index}", 0.1 + 0.8 * index / record.job.segments)
        round_, last = record.rounds[index], record.job.attempts[index]
        self._registered(index, checks)
        for attempt, tried in enumerate(record.attempts[index]):
            self._attempt(index, attempt, tried, checks)
        if round_.settled_link == ZERO_HASH:
            checks.fail("settled", f"no output has settled: the job is {record.phase.name}")
        if round_.prover != ZERO_ADDRESS and round_.proof_hash == ZERO_HASH:
            checks.fail("proof", f"{round_.prover} was drawn to prove it, and no proof is recorded")
        befell = [f"attempt {last + 1}"] if last else []
        if self.history is not None and (index, last) in self.history.contested:
            befell.append("contested")
        if round_.overturned:
            befell.append("overturned")
        return SegmentAudit(
            index=index,
            label=round_.label.name.lower(),
            link_in=record.opening_link(index),
            link_out=round_.settled_link,
            proof_cid=None if round_.proof_cid == ZERO_HASH else digest_to_cid(round_.proof_cid),
            stake_for=round_.settled_weight,
            stake_total=round_.total_weight,
            checks=checks.checks,
            history=tuple(befell),
        )

    def _attempt(self, index: int, attempt: int, round_: Round, checks: Checklist) -> None:
        """Check one attempt at a segment. Those that others took the place of carry their number."""
        counts = attempt == self.record.job.attempts[index]
        prefix = "" if counts else f"attempt[{attempt}]."
        history = self.history
        if history is not None:
            findings = history.findings
            for name in ("committee", "votes", "tally", "sample", "proving", "penalties"):
                topic = Topic(name, index, attempt)
                if findings.has(topic) or (name == "penalties" and round_.members):
                    checks.check(prefix + name, lambda topic=topic: findings.verdict(topic, "nobody"))  # type: ignore[misc]
        if round_.proof_hash == ZERO_HASH:
            return
        event, opening = None, self.record.opening_link(index)
        if history is not None and (index, attempt) in history.proved:
            event, opened = history.proved[index, attempt]
            opening = opening if counts else opened
        self._proof(evidence.ProvedAttempt(index, round_, counts, opening, event), prefix, checks)

    def _registered(self, index: int, checks: Checklist) -> None:
        record, manifest = self.record, self.manifest
        described = None if manifest is None or index >= len(manifest.segments) else manifest.segments[index]
        registered = checks.obtain(
            "registry", lambda: record.contracts.registry.segment_of(record.job.model_id, index), lambda it: it.verifier
        )
        if registered is not None:
            checks.check("verifier_code", lambda: evidence.check_verifier_code(record, registered, described))
        if registered is None or described is None or manifest is None:
            checks.fail("registered", "unavailable: there is nothing to compare the registry with")
            return
        checks.check("registered", lambda: evidence.check_registered(registered, described))
        if self.identity is not None and self.srs is not None:
            rederive(index, described, manifest, self.srs, self.store, self.prover, self.identity, checks)
        elif self.holder is not None:
            checks.fail("rederived_key", "unavailable: there is no identity or no SRS to derive it with")

    def _proof(self, attempt: evidence.ProvedAttempt, prefix: str, checks: Checklist) -> None:
        """Check a proof off chain and on, and the interlock with its neighbours."""
        record, index = self.record, attempt.segment
        proof = checks.obtain(prefix + "proof", lambda: evidence.fetch_proof(attempt, self.store), _describe_proof)
        key = self._verifying_key(index, checks)
        if proof is None:
            return
        is_same = checks.check(prefix + "proof_hash", lambda: evidence.check_proof_hash(attempt, proof))
        is_verified = checks.check(prefix + "verified", lambda: self._verify(key, proof))
        registry, model_id = record.contracts.registry, record.job.model_id
        facts = checks.obtain(
            prefix + "links",
            lambda: evidence.read_links(proof, registry.segment_of(model_id, index)),
            lambda it: "read",
        )
        if facts is None:
            return
        checks.check(prefix + "link_in", lambda: evidence.check_link_in(attempt, facts))
        checks.check(prefix + "link_out", lambda: evidence.check_link_out(attempt, facts))
        checks.check(prefix + "verified_on_chain", lambda: evidence.check_on_chain(record, index, facts))
        if attempt.counts and is_same and is_verified and index == record.job.segments - 1:
            self.last_proof = proof

    def _verifying_key(self, index: int, checks: Checklist) -> VerifyingKey | None:
        manifest = self.manifest
        if manifest is None or index >= len(manifest.segments):
            return None
        described = manifest.segments[index]
        return checks.obtain(
            "verification_key",
            lambda: fetch_verifying_key(index, described, self.store),
            lambda it: f"{len(it.key)} bytes",
        )

    def _verify(self, key: VerifyingKey | None, proof: Proof) -> str:
        if key is None or self.srs is None:
            raise CheckFailed("verification", "a verdict", "unavailable: no verification key, or no SRS to verify with")
        self.prover.verify(key, self.srs, proof)
        return "accepted off chain"

    def whole(self) -> tuple[float, ...] | None:
        """Check what follows from all segments together, and read the result."""
        record, checks = self.record, self.checks
        self.progress("checking the whole", 0.9)
        result = None
        if record.phase is Phase.FINALISED:
            result = self._result()
            checks.check("evidence_root", lambda: consensus.check_evidence_root(record))
        if self.history is not None:
            findings = self.history.findings
            for name in ("payouts", "reputation"):
                if findings.has(Topic(name)) or record.phase is Phase.FINALISED:
                    checks.check(name, lambda name=name: findings.verdict(Topic(name)))  # type: ignore[misc]
        checks.check("block", lambda: consensus.check_block(record))
        return result

    def _result(self) -> tuple[float, ...] | None:
        record, manifest, proof = self.record, self.manifest, self.last_proof
        last = record.rounds[-1]
        if last.proof_hash == ZERO_HASH:
            link = "0x" + last.settled_link.hex()
            self.checks.check("result", lambda: f"agreed and not proved: sealed to the requester; its link is {link}")
            return None
        if manifest is None or proof is None:
            self.checks.fail("result", "unavailable: the last segment's proof did not verify")
            return None
        return self.checks.obtain(
            "result",
            lambda: evidence.read_result(record, manifest, proof),
            lambda it: f"{len(it)} values, as the last proof says",
        )


def _count(record: ChainRecord, described: int) -> str:
    registered = record.contracts.registry.segment_count(record.job.model_id)
    require_equal("number of segments", (described, described), (registered, record.job.segments))
    return f"{described} segments"


def _describe_proof(proof: Proof) -> str:
    return f"{len(proof.proof)} bytes, {len(proof.instances)} instances"
