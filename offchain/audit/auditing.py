"""The audit of one job, from the chain and IPFS alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from offchain.audit import consensus, evidence
from offchain.audit.record import ChainRecord, frozen_weights, read_record
from offchain.audit.rederivation import model_identity, rederive
from offchain.audit.report import AuditReport, CheckFailed, Checklist, SegmentAudit, require_equal
from offchain.chain.contracts import Contracts
from offchain.models.loading import fetch_manifest, fetch_srs, fetch_verifying_key
from offchain.protocol.manifest import Manifest
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, JobId, Phase
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
    weights: tuple[tuple[Address, int], ...] = ()
    identity: Identity | None = None
    last_proof: Proof | None = None

    def model(self) -> None:
        """Check what the job ran: the model as it is registered and described, and the SRS under its keys."""
        record, contracts, checks = self.record, self.record.contracts, self.checks
        checks.check("phase", lambda: consensus.check_phase(record))
        checks.check("request", lambda: consensus.check_request(record))
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
        self.weights = (
            checks.obtain(
                "stakes",
                lambda: frozen_weights(record),
                lambda it: f"{len(it)} operators at block {record.job.frozen_block}",
            )
            or ()
        )
        if self.holder is not None and manifest is not None:
            holder = self.holder
            self.identity = checks.obtain(
                "identity",
                lambda: model_identity(contracts, self.store, model_id, manifest, holder),
                lambda it: "opens the model's segments",
            )

    def segment(self, index: int) -> SegmentAudit:
        """Check one segment: as registered, as drawn, voted and settled, and as proved."""
        record, checks = self.record, Checklist()
        self.progress(f"checking segment {index}", 0.1 + 0.8 * index / record.job.segments)
        round_ = record.rounds[index]
        self._registered(index, checks)
        if round_.members:
            checks.check("committee", lambda: consensus.check_committee(record, self.weights, index))
            checks.check("votes", lambda: consensus.check_votes(record, index))
        if round_.settled_link == ZERO_HASH:
            checks.fail("settled", f"no output has settled: the job is {record.phase.name}")
        else:
            checks.check("tally", lambda: consensus.check_tally(record, index))
            checks.check("penalties", lambda: consensus.check_penalties(record, index))
            if record.phase in (Phase.PROVING, Phase.FINALISABLE, Phase.FINALISED):
                checks.check("sample", lambda: consensus.check_sample(record, index))
        if round_.proof_hash != ZERO_HASH:
            self._proof(index, checks)
        elif round_.prover != ZERO_ADDRESS:
            checks.fail("proof", f"{round_.prover} was drawn to prove it, and no proof is recorded")
        return SegmentAudit(
            index=index,
            label=round_.label.name.lower(),
            link_in=record.opening_link(index),
            link_out=round_.settled_link,
            proof_cid=None if round_.proof_cid == ZERO_HASH else digest_to_cid(round_.proof_cid),
            stake_for=round_.settled_weight,
            stake_total=round_.total_weight,
            checks=checks.checks,
        )

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

    def _proof(self, index: int, checks: Checklist) -> None:
        """Check a proof off chain and on, and the interlock with its neighbours."""
        record = self.record
        proof = checks.obtain("proof", lambda: evidence.fetch_proof(record, index, self.store), _describe_proof)
        key = self._verifying_key(index, checks)
        if proof is None:
            return
        is_same = checks.check("proof_hash", lambda: evidence.check_proof_hash(record, index, proof))
        is_verified = checks.check("verified", lambda: self._verify(key, proof))
        registry, model_id = record.contracts.registry, record.job.model_id
        facts = checks.obtain(
            "links", lambda: evidence.read_links(proof, registry.segment_of(model_id, index)), lambda it: "read"
        )
        if facts is None:
            return
        checks.check("link_in", lambda: evidence.check_link_in(record, index, facts))
        checks.check("link_out", lambda: evidence.check_link_out(record, index, facts))
        checks.check("verified_on_chain", lambda: evidence.check_on_chain(record, index, facts))
        if is_same and is_verified and index == record.job.segments - 1:
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
            checks.check("payouts", lambda: consensus.check_payouts(record))
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
