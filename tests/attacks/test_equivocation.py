"""Rows 4 and 27: two signed results cost stake, once; one signature, in whatever disguise, costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from eth_hash.auto import keccak
from eth_keys.datatypes import Signature

from offchain.chain.staking import Staking
from offchain.protocol.types import Link
from tests.attacks.mutant import Change, Mutant, deploy
from tests.contracts.stage import Play, Stage, refused
from tests.local_chain import InstantSender, LocalChain

pytestmark = pytest.mark.integration

HERE, THERE = Link(keccak(b"result here")), Link(keccak(b"result there"))
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1 (SEC 2, section 2.4.1)."""

NOT_ONCE = Mutant(
    Change("Staking.sol", "if (_hasEquivocated[round][account]) revert AlreadyPenalised(jobId, segment, account);")
)
NO_DOMAIN = Mutant(
    Change("Staking.sol", 'keccak256("1"), block.chainid, address(this))', 'keccak256("1"), uint256(0), address(0))')
)
ANY_SIGNER = Mutant(Change("Staking.sol", "if (signer != account) revert SignatureMismatch(account, signer);"))
SIGNATURES_COMPARED = Mutant(
    Change(
        "Staking.sol",
        "if (links[0] == links[1]) revert",
        "if (keccak256(signatures[0]) == keccak256(signatures[1])) revert",
    ),
    Change(
        "Staking.sol",
        "ECDSA.recover(resultDigestOf(jobId, segment, attempt, links[i]), signatures[i]);",
        "ecrecover(resultDigestOf(jobId, segment, attempt, links[i]), uint8(signatures[i][64]),"
        " bytes32(signatures[i][0:32]), bytes32(signatures[i][32:64]));",
    ),
)


def signed(staking: Staking, worker: InstantSender, play: Play, link: Link) -> bytes:
    """A worker's signature over a result, for the deployment and the chain that there is now."""
    digest = bytes(staking.contract.functions.resultDigestOf(play.job, 0, 0, link).call())
    return bytes(worker.account.unsafe_sign_hash(digest).signature)


def signer_of(staking: Staking, play: Play, link: Link, signature: bytes) -> str:
    """Whom the contract will take for the signer."""
    digest = bytes(staking.contract.functions.resultDigestOf(play.job, 0, 0, link).call())
    raw = signature[:64] + bytes([signature[64] - 27])
    return Signature(raw).recover_public_key_from_msg_hash(digest).to_checksum_address()


def report(play: Play, accused: InstantSender, links: tuple[Link, Link], signatures: tuple[bytes, bytes]) -> Any:
    stage = play.stage
    return stage.contracts.staking.report_equivocation(stage.owner, play.job, 0, 0, accused.address, links, signatures)


@pytest.fixture
def open_job(build: Callable[..., Stage]) -> Callable[..., tuple[Play, InstantSender, Staking]]:
    """Opens a job of one segment, drawn, and names one of its members."""

    def run(mutant: Mutant | None = None) -> tuple[Play, InstantSender, Staking]:
        stage = build(mutant, segments=1)
        play = stage.request().to_committing()
        return play, stage.workers[1], stage.contracts.staking

    return run


def penalty(play: Play, accused: InstantSender) -> int:
    weight = next(member.weight for member in play.round(0).members if member.operator == accused.address)
    return weight * 5_000 // 10_000  # migrations/config/local.json: contradiction_penalty_bps


# --- row 4: slashed, and once -----------------------------------------------------------------------------------------


def test_equivocation__defence_removed__one_fault_takes_everything(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job(NOT_ONCE)
    evidence = (signed(staking, accused, play, HERE), signed(staking, accused, play, THERE))
    report(play, accused, (HERE, THERE), evidence)
    report(play, accused, (HERE, THERE), evidence)
    assert staking.active_of(accused.address) <= 1


def test_equivocation__slashed_once_and_refused_ever_after(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job()
    bond = staking.active_of(accused.address)
    here, there, third = (signed(staking, accused, play, link) for link in (HERE, THERE, play.truth(0)))
    report(play, accused, (HERE, THERE), (here, there))
    assert staking.active_of(accused.address) == bond - penalty(play, accused)
    assert staking.reputation_of(accused.address, play.stage.model) == 0

    again = {"jobId": play.job, "segment": 0, "operator": accused.address}
    with refused("AlreadyPenalised", **again):
        report(play, accused, (HERE, THERE), (here, there))
    with refused("AlreadyPenalised", **again):
        report(play, accused, (THERE, HERE), (there, here))
    with refused("AlreadyPenalised", **again):
        report(play, accused, (HERE, play.truth(0)), (here, third))
    play.to_revealing()
    play.reveal(accused)
    with refused("AlreadyPenalised", **again):
        report(play, accused, (HERE, play.truth(0)), (here, b""))
    assert staking.active_of(accused.address) == bond - penalty(play, accused)


def test_equivocation__signed_one_result_and_revealed_another__is_slashed(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job()
    bond = staking.active_of(accused.address)
    signature = signed(staking, accused, play, HERE)
    play.to_revealing()
    with refused("ECDSAInvalidSignatureLength", length=0):
        report(play, accused, (HERE, play.truth(0)), (signature, b""))
    play.reveal(accused)
    report(play, accused, (HERE, play.truth(0)), (signature, b""))
    assert staking.active_of(accused.address) == bond - penalty(play, accused)


def test_equivocation__by_nobody_of_the_round__is_refused(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job()
    stranger = play.stage.owner
    evidence = (signed(staking, stranger, play, HERE), signed(staking, stranger, play, THERE))
    with refused("NotMember", jobId=play.job, segment=0, caller=stranger.address):
        report(play, stranger, (HERE, THERE), evidence)


# --- row 27: signatures -----------------------------------------------------------------------------------------------


def twin_of(signature: bytes) -> bytes:
    """The other signature that fits the same digest and key: (r, n - s) with the other parity."""
    s = int.from_bytes(signature[32:64], "big")
    return signature[:32] + (CURVE_ORDER - s).to_bytes(32, "big") + bytes([27 + 28 - signature[64]])


def test_malleable_signature__defence_removed__one_honest_result_costs_stake(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job(SIGNATURES_COMPARED)
    bond = staking.active_of(accused.address)
    signature = signed(staking, accused, play, play.truth(0))
    report(play, accused, (play.truth(0), play.truth(0)), (signature, twin_of(signature)))
    assert staking.active_of(accused.address) == bond - penalty(play, accused)


def test_malleable_signature__refused_because_one_result_is_no_contradiction(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job()
    signature = signed(staking, accused, play, play.truth(0))
    with refused("NoEquivocation", jobId=play.job, segment=0, operator=accused.address):
        report(play, accused, (play.truth(0), play.truth(0)), (signature, twin_of(signature)))


def test_malleable_signature__of_a_true_contradiction__refused_because_s_is_high(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job()
    first, second = (signed(staking, accused, play, link) for link in (HERE, THERE))
    assert signer_of(staking, play, THERE, twin_of(second)) == accused.address
    with refused("ECDSAInvalidSignatureS", s=twin_of(second)[32:64]):
        report(play, accused, (HERE, THERE), (first, twin_of(second)))


def test_anybodys_signature__defence_removed__honest_member_loses_stake(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job(ANY_SIGNER)
    bond, forger = staking.active_of(accused.address), play.stage.owner
    report(play, accused, (HERE, THERE), (signed(staking, forger, play, HERE), signed(staking, forger, play, THERE)))
    assert staking.active_of(accused.address) < bond


def test_anybodys_signature__refused_by_the_signers_name(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job()
    forger = play.stage.owner
    forged = (signed(staking, forger, play, HERE), signed(staking, forger, play, THERE))
    with refused("SignatureMismatch", expected=accused.address, actual=forger.address):
        report(play, accused, (HERE, THERE), forged)


@contextmanager
def on_another_chain(chain: LocalChain) -> Iterator[None]:
    """A fork of this chain, with all its contracts and jobs at their addresses."""
    here = chain.connection.chain_id
    chain.rpc("anvil_setChainId", here + 1)
    try:
        yield
    finally:
        chain.rpc("anvil_setChainId", here)


def results_on_two_chains(play: Play, worker: InstantSender, staking: Staking) -> tuple[bytes, bytes]:
    """An honest worker, on two forks where the segment's input was not the same: one result on each."""
    with on_another_chain(play.stage.chain):
        there = signed(staking, worker, play, THERE)
    return signed(staking, worker, play, HERE), there


def test_signature_of_another_chain__defence_removed__honest_member_loses_stake(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job(NO_DOMAIN)
    bond = staking.active_of(accused.address)
    report(play, accused, (HERE, THERE), results_on_two_chains(play, accused, staking))
    assert staking.active_of(accused.address) == bond - penalty(play, accused)


def test_signature_of_another_chain__refused_because_the_chain_is_inside(open_job: Callable[..., Any]) -> None:
    play, accused, staking = open_job()
    here, there = results_on_two_chains(play, accused, staking)
    actual = signer_of(staking, play, THERE, there)
    with refused("SignatureMismatch", expected=accused.address, actual=actual):
        report(play, accused, (HERE, THERE), (here, there))


def test_signature_for_another_contract__defence_removed__honest_member_loses_stake(
    open_job: Callable[..., Any], theatre: LocalChain
) -> None:
    play, accused, staking = open_job(NO_DOMAIN)
    bond, other = staking.active_of(accused.address), deploy(theatre, NO_DOMAIN).staking
    evidence = (signed(staking, accused, play, HERE), signed(other, accused, play, THERE))
    report(play, accused, (HERE, THERE), evidence)
    assert staking.active_of(accused.address) == bond - penalty(play, accused)


def test_signature_for_another_contract__refused_because_the_contract_is_inside(
    open_job: Callable[..., Any], theatre: LocalChain
) -> None:
    play, accused, staking = open_job()
    there = signed(deploy(theatre).staking, accused, play, THERE)
    actual = signer_of(staking, play, THERE, there)
    with refused("SignatureMismatch", expected=accused.address, actual=actual):
        report(play, accused, (HERE, THERE), (signed(staking, accused, play, HERE), there))
