"""Two results for one attempt at a segment, both signed by one operator, cost it its stake, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak

from offchain.protocol.types import Link
from tests.contracts.record import CONTRADICTION_BPS, newest_events, share
from tests.contracts.stage import STAKES, Play, Stage, refused
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1 (SEC 2, section 2.4.1)."""
RESULT = [
    {"name": "jobId", "type": "bytes32"},
    {"name": "segment", "type": "uint256"},
    {"name": "attempt", "type": "uint256"},
    {"name": "link", "type": "bytes32"},
]
ONE, OTHER = Link(keccak(b"one result")), Link(keccak(b"another"))


def sign(
    play: Play, worker: InstantSender, link: bytes, domain: Mapping[str, Any] | None = None, **changes: Any
) -> bytes:
    """What the worker's wallet signs (EIP-712), made by eth_account and nothing of ours."""
    contracts = play.stage.contracts
    fields = {
        "name": "Interlock",
        "version": "1",
        "chainId": contracts.connection.chain_id,
        "verifyingContract": contracts.staking.address,
    } | dict(domain or {})
    message = {"jobId": play.job, "segment": 0, "attempt": 0, "link": link} | changes
    return bytes(worker.account.sign_message(encode_typed_data(fields, {"Result": RESULT}, message)).signature)


def report(
    play: Play, worker: InstantSender, *signatures: bytes, links: tuple[Link, Link] = (ONE, OTHER), **at: int
) -> None:
    place = (play.job, at.get("segment", 0), at.get("attempt", 0), worker.address)
    staking = play.stage.contracts.staking
    staking.report_equivocation(play.stage.owner, *place, links, signatures)  # type: ignore[arg-type]


def both(play: Play, worker: InstantSender, **changes: Any) -> tuple[bytes, bytes]:
    """Two results, signed."""
    return sign(play, worker, ONE, **changes), sign(play, worker, OTHER, **changes)


@pytest.fixture
def play(stage: Stage) -> Play:
    """A job whose first committee everybody is in."""
    return stage.request().to_committing()


def test_report_equivocation__two_signed_results__burns_the_stake_and_takes_the_weight(play: Play) -> None:
    stage, worker = play.stage, play.stage.workers[0]
    staking, connection = stage.contracts.staking, stage.chain.connection
    held, nobody = connection.balance(staking.address), connection.balance("0x" + "00" * 20)
    before = staking.total_weight_at(stage.model, connection.block_number())
    report(play, worker, *both(play, worker))
    taken = share(STAKES[0], CONTRADICTION_BPS)
    names = [name for name, _ in newest_events(stage)]
    assert names == ["Slashed", "WeightChanged", "EquivocationPenalised"]
    assert newest_events(stage)[-1][1] == {
        "jobId": play.job,
        "segment": 0,
        "operator": worker.address,
        "attempt": 0,
        "amount": taken,
    }
    assert staking.active_of(worker.address) == STAKES[0] - taken
    assert connection.balance(staking.address) == held - taken
    assert connection.balance("0x" + "00" * 20) == nobody + taken, "whoever reports it gains nothing"
    assert set(stage.credits().values()) == {0}
    weight = STAKES[0] - taken if STAKES[0] - taken >= ETHER else 0
    assert staking.total_weight_at(stage.model, connection.block_number()) == before - STAKES[0] + weight


def test_report_equivocation__again__is_refused_whatever_is_signed(play: Play) -> None:
    worker, third = play.stage.workers[0], Link(keccak(b"a third"))
    report(play, worker, *both(play, worker))
    refusal = {"jobId": play.job, "segment": 0, "operator": worker.address}
    with refused("AlreadyPenalised", **refusal):
        report(play, worker, *both(play, worker))
    with refused("AlreadyPenalised", **refusal):
        report(play, worker, *reversed(both(play, worker)), links=(OTHER, ONE))
    with refused("AlreadyPenalised", **refusal):
        report(play, worker, sign(play, worker, ONE), sign(play, worker, third), links=(ONE, third))
    # Another member is another matter.
    report(play, play.stage.workers[1], *both(play, play.stage.workers[1]))


def test_report_equivocation__signed_and_revealed__needs_one_signature(play: Play) -> None:
    worker = play.stage.workers[0]
    play.to_revealing()
    truth = play.truth(0)
    signed = sign(play, worker, ONE)
    with refused("ECDSAInvalidSignatureLength", length=0):  # it has not revealed yet
        report(play, worker, signed, b"", links=(ONE, truth))
    play.reveal(worker)
    with refused("ECDSAInvalidSignatureLength", length=0):  # only the second may be left out
        report(play, worker, b"", signed, links=(truth, ONE))
    with refused("ECDSAInvalidSignatureLength", length=0):  # it did not reveal that
        report(play, worker, signed, b"", links=(ONE, OTHER))
    report(play, worker, signed, b"", links=(ONE, truth))
    assert play.stage.contracts.staking.active_of(worker.address) == STAKES[0] - share(STAKES[0], CONTRADICTION_BPS)


def test_report_equivocation__nothing_signed__is_refused_whatever_was_revealed(play: Play) -> None:
    worker = play.stage.workers[0]
    play.to_revealing()
    play.reveal(worker)
    truth = play.truth(0)
    for links in ((ONE, truth), (truth, ONE), (ONE, OTHER)):
        with refused("ECDSAInvalidSignatureLength", length=0):
            report(play, worker, b"", b"", links=links)


def test_report_equivocation__nothing_revealed__zero_is_no_result(play: Play) -> None:
    worker = play.stage.workers[0]
    with refused("ECDSAInvalidSignatureLength", length=0):
        report(play, worker, sign(play, worker, ONE), b"", links=(ONE, Link(bytes(32))))


def test_report_equivocation__same_result_twice__is_none(play: Play) -> None:
    worker = play.stage.workers[0]
    signed = sign(play, worker, ONE)
    with refused("NoEquivocation", jobId=play.job, segment=0, operator=worker.address):
        report(play, worker, signed, signed, links=(ONE, ONE))


def malleate(signature: bytes) -> bytes:
    """The other signature of the same message by the same key: anybody can make it (EIP-2)."""
    r, s, v = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64]
    return r + (ORDER - s).to_bytes(32, "big") + bytes([27 + 28 - v])


def test_report_equivocation__twin_with_a_high_s__is_refused(play: Play) -> None:
    worker = play.stage.workers[0]
    one, other = both(play, worker)
    twin = malleate(other)
    with refused("ECDSAInvalidSignatureS", s=twin[32:64]):
        report(play, worker, one, twin)
    with refused("ECDSAInvalidSignatureS", s=malleate(one)[32:64]):
        report(play, worker, malleate(one), other)
    assert malleate(twin) == other


def test_report_equivocation__malformed_signature__is_refused(play: Play) -> None:
    worker = play.stage.workers[0]
    one, other = both(play, worker)
    for length in (1, 64, 66):
        with refused("ECDSAInvalidSignatureLength", length=length):
            report(play, worker, one, (other + b"\0")[:length])
    with refused("ECDSAInvalidSignature"):
        report(play, worker, one, other[:64] + b"\x1d")


def signer_found(play: Play, signature: bytes) -> str:
    """Whom the contract takes for the signer of the first result: some account that nobody has, if it was another."""
    digest = bytes(play.stage.contracts.staking._read("resultDigestOf", play.job, 0, 0, ONE))
    found: str = Account._recover_hash(digest, signature=signature)
    return found


@pytest.mark.parametrize(
    "domain",
    [
        {"chainId": 1},
        {"verifyingContract": "0x" + "11" * 20},
        {"name": "interlock"},
        {"version": "2"},
    ],
    ids=["other chain", "other contract", "other name", "other version"],
)
def test_report_equivocation__signed_for_elsewhere__is_no_evidence(play: Play, domain: dict[str, Any]) -> None:
    worker = play.stage.workers[0]
    one, other = both(play, worker, domain=domain)
    with refused("SignatureMismatch", expected=worker.address, actual=signer_found(play, one)):
        report(play, worker, one, other)
    assert play.stage.contracts.staking.active_of(worker.address) == STAKES[0]


@pytest.mark.parametrize(
    "changes", [{"segment": 1}, {"attempt": 1}, {"jobId": keccak(b"another job")}], ids=["segment", "attempt", "job"]
)
def test_report_equivocation__signed_for_another_round__is_no_evidence(play: Play, changes: dict[str, Any]) -> None:
    worker = play.stage.workers[0]
    one, other = both(play, worker, **changes)
    with refused("SignatureMismatch", expected=worker.address, actual=signer_found(play, one)):
        report(play, worker, one, other)


def test_report_equivocation__somebody_elses_signature__is_named(play: Play) -> None:
    worker, other = play.stage.workers[:2]
    mismatch = {"expected": worker.address, "actual": other.address}
    with refused("SignatureMismatch", **mismatch):
        report(play, worker, sign(play, other, ONE), sign(play, worker, OTHER))
    with refused("SignatureMismatch", **mismatch):
        report(play, worker, sign(play, worker, ONE), sign(play, other, OTHER))
    # Both say something else: that is a disagreement, and no equivocation.
    with refused("SignatureMismatch", **mismatch):
        report(play, worker, sign(play, other, ONE), sign(play, worker, ONE), links=(ONE, OTHER))


def test_report_equivocation__not_in_the_committee__is_refused(play: Play) -> None:
    outsider = play.stage.owner
    with refused("NotMember", jobId=play.job, segment=0, caller=outsider.address):
        report(play, outsider, *both(play, outsider))
    worker = play.stage.workers[0]
    for at in ({"segment": 1}, {"attempt": 1}):  # rounds that there are not
        with refused("NotMember", jobId=play.job, segment=at.get("segment", 0), caller=worker.address):
            report(play, worker, *both(play, worker, **at), **at)


def test_report_equivocation__attempt_that_is_over__still_counts_and_each_counts_once(play: Play) -> None:
    worker, staking = play.stage.workers[0], play.stage.contracts.staking
    play.lapse()
    play.draw()
    play.draw()
    assert play.record.attempts == (1, 0, 0)
    report(play, worker, *both(play, worker))
    report(play, worker, *both(play, worker, attempt=1), attempt=1)
    assert staking.active_of(worker.address) == STAKES[0] - 2 * share(STAKES[0], CONTRADICTION_BPS)


def test_report_equivocation__after_the_job_while_unbonding__still_costs(play: Play) -> None:
    stage, worker = play.stage, play.stage.workers[0]
    staking = stage.contracts.staking
    signatures = both(play, worker)
    play.play_on()
    staking.start_unbonding(worker, STAKES[0])
    report(play, worker, *signatures)
    assert staking.unbonding_of(worker.address)[0] == STAKES[0] - share(STAKES[0], CONTRADICTION_BPS)


def test_report_equivocation__nothing_left_to_take__is_recorded_all_the_same(play: Play) -> None:
    stage, worker = play.stage, play.stage.workers[0]
    staking = stage.contracts.staking
    staking.start_unbonding(worker, STAKES[0])
    stage.chain.advance(staking._read("unbondingSeconds"))
    staking.withdraw(worker)
    report(play, worker, *both(play, worker))
    assert newest_events(stage)[-1][1]["amount"] == 0


def test_result_digest_of__contract__is_what_eth_account_signs(play: Play) -> None:
    stage, worker = play.stage, play.stage.workers[0]
    digest = bytes(stage.contracts.staking._read("resultDigestOf", play.job, 2, 3, ONE))
    signed = worker.account.unsafe_sign_hash(digest)
    assert bytes(signed.signature) == sign(play, worker, ONE, segment=2, attempt=3)
