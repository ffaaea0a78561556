"""Tests of the audit: a valid job is valid, and whatever was altered is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from rich.console import Console

from offchain.audit import AuditReport, audit, render
from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.protocol import hashing
from offchain.protocol.field import dequantise, encode_elements
from offchain.protocol.types import ModelId, Phase
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Proof
from offchain.storage.cid import Cid, cid_of, cid_to_digest, digest_to_cid
from offchain.storage.ipfs import IpfsStore
from offchain.storage.port import ContentStore, ContentUnavailable, StoreHealth
from offchain.storage.sealing import Identity, unseal
from tests.harness import Play, ReadyModel
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration

SETTLED_LINK = 1
"""Place of the field within ``Round`` in ``IJobs.sol``."""


class AlteringStore:
    """A store that hands out other content than it is asked for, and does not check."""

    def __init__(self, inner: ContentStore, altered: dict[Cid, bytes | None]) -> None:
        self._inner = inner
        self._altered = altered

    def get(self, cid: Cid, *, max_bytes: int) -> bytes:
        if cid not in self._altered:
            return self._inner.get(cid, max_bytes=max_bytes)
        content = self._altered[cid]
        if content is None:
            raise ContentUnavailable(cid, "the fault says so")
        return content

    def put(self, content: bytes) -> Cid:
        return self._inner.put(content)

    def pin(self, cid: Cid) -> None:
        self._inner.pin(cid)

    def unpin(self, cid: Cid) -> None:
        self._inner.unpin(cid)

    def pinned(self) -> tuple[Cid, ...]:
        return self._inner.pinned()

    def health(self) -> StoreHealth:
        return self._inner.health()


@pytest.fixture
def audited(contracts: Contracts, store: IpfsStore, prover: EzklProver, finished: Play) -> Callable[..., AuditReport]:
    """Audit the finished job, with some content altered (None: gone), or another one."""

    def run(altered: dict[Cid, bytes | None] | None = None, play: Play = finished, **options: object) -> AuditReport:
        return audit(contracts, AlteringStore(store, altered or {}), prover, play.job, **options)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def rounds_slot(chain: LocalChain, contracts: Contracts, finished: Play) -> int:
    """The storage slot of ``Jobs._rounds``, found by what it must hold."""
    settled = finished.view().rounds[0].settled_link
    for slot in range(16):
        place = round_place(finished.job, 0, slot) + SETTLED_LINK
        if storage(chain.connection, contracts, place) == settled:
            return slot
    raise AssertionError("the rounds are in none of the first slots")


def round_place(job: bytes, segment: int, slot: int, attempt: int = 0) -> int:
    """Where a round begins. Source: Solidity documentation, "Layout of State Variables in Storage"."""
    of_job = keccak(encode(["bytes32", "uint256"], [job, slot]))
    of_segment = keccak(encode(["uint256", "bytes32"], [segment, of_job]))
    return int.from_bytes(keccak(encode(["uint256", "bytes32"], [attempt, of_segment])), "big")


def storage(connection: Connection, contracts: Contracts, place: int) -> bytes:
    return bytes(connection.web3.eth.get_storage_at(contracts.jobs.address, place)).rjust(32, b"\0")  # type: ignore[arg-type]


@contextmanager
def overwritten(chain: LocalChain, contracts: Contracts, place: int, value: bytes) -> Iterator[None]:
    """Change one word of the job contract's storage for a while."""
    before = storage(chain.connection, contracts, place)
    chain.rpc("anvil_setStorageAt", contracts.jobs.address, f"0x{place:064x}", "0x" + value.hex())
    try:
        yield
    finally:
        chain.rpc("anvil_setStorageAt", contracts.jobs.address, f"0x{place:064x}", "0x" + before.hex())


def failed(report: AuditReport) -> set[str]:
    return {name for name, _ in report.failures}


def text_of(report: AuditReport) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(report))
    return console.export_text()


def proof_cid(play: Play, segment: int) -> Cid:
    return digest_to_cid(play.view().rounds[segment].proof_cid)


def test_audit__proved_job__is_valid_with_the_result(
    audited: Callable[..., AuditReport], finished: Play, model: ReadyModel
) -> None:
    report = audited()
    assert (report.failures, report.verdict) == ((), "valid")
    scale = model.manifest.segments[-1].output_scale
    assert report.result == dequantise(finished.inputs[3], scale)
    assert [segment.label for segment in report.segments] == ["proved"] * 3
    links = [report.segments[0].link_in, *(segment.link_out for segment in report.segments)]
    assert [segment.link_in for segment in report.segments] == links[:3]


def test_to_json__proved_job__has_the_promised_form(audited: Callable[..., AuditReport], finished: Play) -> None:
    document = audited().to_json()
    assert json.loads(json.dumps(document)) == document
    assert set(document) == {
        "verdict", "job", "model", "result", "segments", "srs", "outputs", "checks", "chain_id", "block",
    }  # fmt: skip
    assert document["outputs"] == [document["result"]]
    assert document["job"] == "0x" + finished.job.hex()
    for segment in document["segments"]:
        assert set(segment) == {
            "index", "label", "link_in", "link_out", "proof_cid", "stake_for", "stake_total", "checks",
        }  # fmt: skip
        assert all(set(check) == {"ok", "detail"} for check in segment["checks"].values())
    assert document["srs"]["origin"] == "insecure-dev"
    assert "can forge any proof" in document["srs"]["warning"]


def test_render__proved_job__shows_verdicts_and_the_warning(
    audited: Callable[..., AuditReport], finished: Play
) -> None:
    report = audited()
    shown = text_of(report)
    assert shown.count("proved") >= 3
    assert f"VALID: job 0x{finished.job.hex()}" in shown
    assert "INVALID" not in shown
    assert "WARNING: the SRS is insecure-dev" in shown


def test_render__invalid_job__names_the_failed_check(audited: Callable[..., AuditReport], finished: Play) -> None:
    shown = text_of(audited({proof_cid(finished, 1): None}))
    assert "INVALID: job" in shown
    assert "segments[1].proof" in shown


def test_audit__agreed_job__is_valid_without_a_result(audited: Callable[..., AuditReport], agreed: Play) -> None:
    report = audited(play=agreed)
    assert report.failures == ()
    assert report.result is None
    assert "0x" + report.segments[-1].link_out.hex() in report.checks["result"].detail
    assert [segment.label for segment in report.segments] == ["agreed"] * 3


def test_audit__reports_progress__from_start_to_end(audited: Callable[..., AuditReport]) -> None:
    shares: list[float] = []
    audited(progress=lambda step, share: shares.append(share))
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


# --- IPFS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("segment", "place"), [(0, 0), (1, 1_000), (2, -1)])
def test_audit__proof_byte_altered__is_named(
    audited: Callable[..., AuditReport], finished: Play, segment: int, place: int
) -> None:
    proof = finished.proof(segment)
    changed = bytearray(proof.proof)
    changed[place] ^= 1
    report = audited({proof_cid(finished, segment): replace(proof, proof=bytes(changed)).to_json()})
    expected = {f"segments[{segment}].proof"} | ({"result"} if segment == 2 else set())
    assert failed(report) == expected
    assert "altered" in report.segments[segment].checks["proof"].detail


def test_audit__proof_missing__is_named(audited: Callable[..., AuditReport], finished: Play) -> None:
    report = audited({proof_cid(finished, 1): None})
    assert failed(report) == {"segments[1].proof"}
    assert "unavailable" in report.segments[1].checks["proof"].detail


def test_audit__other_proof_pinned_than_proved__is_named(
    audited: Callable[..., AuditReport],
    new_job: Callable[..., Play],
    contracts: Contracts,
    store: IpfsStore,
    isolation: None,
) -> None:
    """The prover itself names the CID: only the hash ties it to what the chain verified."""
    play = new_job().run(until=Phase.PROVING)
    genuine, pinned = play.proof(1), Proof(play.proof(1).proof[:-1] + b"\0", ())
    cid = cid_to_digest(store.put(pinned.to_json()))
    contracts.jobs.prove(play.prover_of(1).sender, play.job, 1, genuine.proof, genuine.instances, cid)
    report = audited(play=play.run())
    assert failed(report) == {f"segments[1].{name}" for name in ("proof_hash", "verified", "verified_on_chain")}


def test_audit__key_altered__is_named(audited: Callable[..., AuditReport], model: ReadyModel) -> None:
    cid = Cid(model.manifest.segments[1].verification_key_cid)
    other = model.circuits[0].vk.read_bytes()
    report = audited({cid: other})
    assert failed(report) == {"segments[1].verification_key", "segments[1].verified"}


@pytest.mark.parametrize("forgery", ["name", "another model's"])
def test_audit__manifest_forged__is_named(audited: Callable[..., AuditReport], model: ReadyModel, forgery: str) -> None:
    content = model.manifest.to_bytes()
    if forgery == "name":
        other = replace(model.manifest, name="forged").to_bytes()
    else:
        other = replace(model.manifest, segments=model.manifest.segments[2:]).to_bytes()
    report = audited({cid_of(content): other})
    assert "model" in failed(report)
    assert report.result is None
    assert report.srs is None
    assert "altered" in report.checks["model"].detail


def test_audit__model_registered_with_anothers_manifest__is_named(
    contracts: Contracts, store: IpfsStore, prover: EzklProver, finished: Play, model: ReadyModel, chain: LocalChain
) -> None:
    """The registry cannot read manifests: it believes the hash and the CID that it is given."""
    owner, specs = chain.instant("forger"), [segment.spec() for segment in model.manifest.segments]
    verifiers = [contracts.registry.segment_of(model.id, index).verifier for index in range(3)]
    with chain.isolated():
        forged = replace(model.manifest, name="forged").to_bytes()
        digest = cid_to_digest(cid_of(model.manifest.to_bytes()))
        contracts.registry.register_model(owner, keccak(forged), digest, specs, verifiers)
        model_id = ModelId(hashing.model_id(keccak(forged), digest, specs))
        play = replace(finished, model=replace(model, id=model_id), job=b"", salt=bytes(31) + b"\x01")
        for worker in play.workers.values():
            contracts.staking.serve(worker.sender, model_id)
        report = audit(contracts, store, prover, play.run().job)
    assert "model" in failed(report)
    assert "hash is not the registered one" in report.checks["model"].detail


def test_audit__srs_swapped__is_named(
    contracts: Contracts, store: IpfsStore, finished: Play, model: ReadyModel, tmp_path: object
) -> None:
    cid, content = Cid(model.manifest.srs.cid), model.circuits[0].srs.path.read_bytes()
    fresh = EzklProver(ArtefactCache(tmp_path))  # type: ignore[arg-type]
    swapped = content[:-1] + bytes([content[-1] ^ 1])
    report = audit(contracts, AlteringStore(store, {cid: swapped}), fresh, finished.job)
    assert failed(report) == {"srs", "result", *(f"segments[{index}].verified" for index in range(3))}


def test_audit__srs_swapped_in_the_cache__is_named(
    contracts: Contracts, store: IpfsStore, finished: Play, tmp_path: object
) -> None:
    fresh = EzklProver(ArtefactCache(tmp_path))  # type: ignore[arg-type]
    assert audit(contracts, store, fresh, finished.job).is_valid
    (cached,) = fresh.cache.root.glob("entries/*/srs")
    content = cached.read_bytes()
    cached.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "srs" in failed(audit(contracts, store, fresh, finished.job))


# --- the chain ------------------------------------------------------------------------------------------------------


def test_audit__settled_link_altered__is_named(
    audited: Callable[..., AuditReport], chain: LocalChain, contracts: Contracts, finished: Play, rounds_slot: int
) -> None:
    place = round_place(finished.job, 1, rounds_slot) + SETTLED_LINK
    with overwritten(chain, contracts, place, keccak(b"another link")):
        names = failed(audited())
    assert {"segments[1].tally", "segments[1].link_out", "segments[2].link_in", "evidence_root"} <= names
    assert not any(name.startswith("segments[0]") for name in names)
    assert audited().is_valid


@pytest.mark.parametrize("code", ["0x", "0x60016000526020" + "6000f3"])
def test_audit__verifier_code_replaced__is_named(
    audited: Callable[..., AuditReport], chain: LocalChain, contracts: Contracts, model: ReadyModel, code: str
) -> None:
    """Without code every call succeeds; the other code answers every proof with true."""
    address = contracts.registry.segment_of(model.id, 1).verifier
    genuine = bytes(chain.connection.web3.eth.get_code(address))  # type: ignore[arg-type]
    chain.rpc("anvil_setCode", address, code)
    try:
        names = failed(audited())
    finally:
        chain.rpc("anvil_setCode", address, "0x" + genuine.hex())
    assert names == {"segments[1].verifier_code", "segments[1].verified_on_chain"}


def test_audit__job_not_finalised__names_the_phase(
    audited: Callable[..., AuditReport], new_job: Callable[..., Play], isolation: None
) -> None:
    play = new_job()
    nothing_settled = {f"segments[{index}].settled" for index in range(3)}
    for phase, expected in (
        (Phase.AWAITING_INPUT, nothing_settled),
        (Phase.REVEALING, nothing_settled),
        (Phase.PROVING, {f"segments[{index}].proof" for index in range(3)}),
        (Phase.FINALISABLE, set()),
    ):
        report = audited(play=play.run(until=phase))
        assert report.verdict == "invalid"
        assert phase.name in report.checks["phase"].detail
        assert failed(report) == {"phase"} | expected


def test_audit__unknown_job__says_so(contracts: Contracts, store: IpfsStore, prover: EzklProver) -> None:
    report = audit(contracts, store, prover, keccak(b"no job"))  # type: ignore[arg-type]
    assert report.verdict == "invalid"
    assert "UnknownJob" in report.checks["record"].detail


def test_audit__nothing_on_ipfs__is_unavailable_throughout(
    contracts: Contracts, finished: Play, prover: EzklProver
) -> None:
    nowhere = IpfsStore("http://127.0.0.1:9", timeout_seconds=1)
    report = audit(contracts, nowhere, prover, finished.job)
    assert report.verdict == "invalid"
    assert "unavailable" in report.checks["model"].detail
    # What the chain alone can show still holds.
    assert all(segment.checks["committee"].ok and segment.checks["tally"].ok for segment in report.segments)


# --- dishonest members ----------------------------------------------------------------------------------------------


def test_audit__outvoted_and_slashed_member__is_valid_and_told(
    audited: Callable[..., AuditReport], new_job: Callable[..., Play], isolation: None
) -> None:
    def answer(segment: int, place: int, outputs: tuple[int, ...]) -> tuple[int, ...]:
        return (outputs[0] + 1, *outputs[1:]) if (segment, place) == (1, 0) else outputs

    play = new_job(answer=answer).run()
    report = audited(play=play)
    assert report.failures == ()
    assert report.segments[1].stake_for < report.segments[1].stake_total
    assert "CONTRADICTED_PROOF" in report.segments[1].checks["penalties"].detail


def test_audit__silent_member_and_late_prover__is_valid_and_told(
    audited: Callable[..., AuditReport], new_job: Callable[..., Play], chain: LocalChain, isolation: None
) -> None:
    """Every lapse leads another way through the contract: draws of later seed blocks, other provers, penalties."""
    play = new_job(silent=frozenset({(0, 1), (2, 0)}))
    for segment in (0, 2):
        play.run(until=Phase.COMMITTING)
        while play.view().job.segment != segment:
            play.step(play.view())
        play.step(play.view())
        chain.advance(play.policy.commit_seconds + 1)
        play.step(play.view())
    play.run(until=Phase.PROVING)
    chain.advance(play.policy.prove_seconds + 1)
    round_ = play.view().rounds[1]
    late = round_.prover
    substitute = next(member.operator for member in round_.supporters if member.operator != late)
    play.announce(1, play.workers[substitute])
    play.prove(1, sender=play.workers[substitute].sender)
    report = audited(play=play.run())
    assert report.failures == ()
    assert "MISSED_COMMIT" in report.segments[0].checks["penalties"].detail
    assert "MISSED_COMMIT" in report.segments[2].checks["penalties"].detail
    assert report.segments[1].checks["penalties"].detail == f"{late} MISSED_PROOF"


# --- rederivation ---------------------------------------------------------------------------------------------------


def test_audit__rederived_by_a_grantee__compares_keys_and_verifiers(
    audited: Callable[..., AuditReport], grantee: Identity
) -> None:
    report = audited(rederive=grantee)
    assert report.failures == ()
    for segment in report.segments:
        assert segment.checks["rederived_key"].ok
        assert segment.checks["rederived_verifier"].ok


def test_audit__rederived_by_a_stranger__is_named(audited: Callable[..., AuditReport]) -> None:
    report = audited(rederive=Identity.generate())
    assert failed(report) == {"identity", *(f"segments[{index}].rederived_key" for index in range(3))}


def test_audit__rederived_from_other_weights__is_named(
    audited: Callable[..., AuditReport], agreed: Play, model: ReadyModel, store: IpfsStore
) -> None:
    """Settings of another segment compile to another key."""
    first, second = model.manifest.segments[:2]
    settings = store.get(Cid(first.settings_cid), max_bytes=1 << 20)
    assert unseal(store.get(Cid(first.onnx_sealed_cid), max_bytes=1 << 20), model.prepared.identity)
    report = audited({Cid(second.settings_cid): settings}, play=agreed, rederive=model.prepared.identity)
    assert failed(report) == {"segments[1].rederived_key"}


def test_harness__sealed_result__opens_for_the_requester(agreed: Play, store: IpfsStore) -> None:
    last = agreed.view().rounds[-1].supporters[0]
    content = store.get(digest_to_cid(last.activation_cid), max_bytes=1 << 20)
    assert unseal(content, agreed.requester.identity) == encode_elements(agreed.inputs[3])
