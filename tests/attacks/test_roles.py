"""Row 25: nobody has a special role. Whoever deployed the contracts can do nothing with them that a stranger cannot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.chain.connection import artefact
from offchain.chain.errors import TransactionRefused
from offchain.protocol.field import encode_elements
from offchain.protocol.links import LinkKind
from offchain.protocol.types import Address, Hold, Link, Phase
from tests.attacks.mutant import Change, Mutant
from tests.contracts.record import holds_of
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, as_abi, refused, spec
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

CONTRACTS = ("registry", "verifier", "staking", "jobs")
ANYBODY_SLASHES = Mutant(
    Change(
        "Staking.sol",
        "if (msg.sender != slasher) revert NotSlasher(msg.sender);\n        taken = _take(account,",
        "taken = _take(account,",
    )
)
ANYBODY_HOLDS = Mutant(
    Change(
        "Staking.sol",
        "if (msg.sender != slasher) revert NotSlasher(msg.sender);\n        taken = _take(held.operator,",
        "taken = _take(held.operator,",
    )
)
ALWAYS = {"registerModel", "grantAccess", "setEncryptionKey", "bond", "refreshWeights", "request", "appeal"}
"""What anybody may do at any time, for itself; or with a proof of what another revealed, for that one."""
OPERATORS = {"startUnbonding", "stopServing"}
"""What whoever serves may do besides."""
NEVER = re.compile(r"pause|upgrade|owner|admin|role|initiali|migrate|rescue|sweep|withdrawall|transfer|setfee", re.I)
SSTORE, RETURN, DELEGATECALL, CALLCODE, SELFDESTRUCT = 0x55, 0xF3, 0xF4, 0xF2, 0xFF


@dataclass(frozen=True)
class Answer:
    """What a contract answers to a call: an error, or none."""

    error: str | None
    arguments: Mapping[str, object]


SECOND_OUTPUT = (4, 5, 6)
"""What a mock proves as well."""


def contradicted(stage: Stage) -> Hold:
    """What a proof took of one whose output can be proved too, in a job that is over."""
    play = stage.request(requester=stage.chain.instant("earlier requester")).to_committing()
    second = Link(keccak(encode_elements(SECOND_OUTPUT)))
    play.play_round({stage.workers[0].address: second}).draw()
    play.prove(0)
    play.finalise()
    (held,) = holds_of(play)
    return held


def proof_of_its_own(play: Play, held: Hold) -> tuple[bytes, list[int]]:
    assert play.record.segments == 1
    return play.proof(held.segment)[0], list(SECOND_OUTPUT)


def wanted(play: Play, victim: str, challenger: InstantSender) -> Hold:
    """What the job contract would ask for, if a proof of the challenger's contradicted the victim."""
    opening = play.record.input_link
    links = (opening, Link(keccak(b"what it revealed")))
    return Hold(play.job, play.stage.model, 0, 0, Address(victim), *links, Address(challenger.address), ETHER)


def arguments_of(
    stage: Stage, play: Play, queued: Play, held: Hold, caller: InstantSender
) -> dict[str, tuple[Any, ...]]:
    """Of every function that changes anything, arguments that are right for whoever may call it now."""
    address, code_hash = (
        stage.verifiers[0],
        bytes(stage.contracts.registry.segment_of(stage.model, 0).verifier_code_hash),
    )
    record, segment = play.record, play.record.segment
    victim = stage.workers[1].address
    link, salt = play.secrets.get((segment, play.attempt(segment), caller.address), (play.truth(segment), bytes(32)))
    policy = tuple(vars(POLICY).values())
    proof, instances = play.proof(0)
    return {
        "registerModel": (
            keccak(b"new"),
            keccak(b"new"),
            as_abi([spec(code_hash, output_kind=LinkKind.PUBLIC)]),
            [address],
            [],
        ),
        "grantAccess": (stage.model, keccak(b"grant")),
        "setEncryptionKey": (keccak(b"key"),),
        "bond": (),
        "startUnbonding": (1,),
        "withdraw": (),
        "slash": (victim, ETHER, stage.model),
        "hold": (astuple(wanted(play, victim, caller)),),
        "appeal": (astuple(held), *proof_of_its_own(play, held)),
        "release": (astuple(held),),
        "commend": (caller.address, stage.model),
        "reportEquivocation": (
            play.job,
            0,
            0,
            victim,
            [keccak(b"one"), keccak(b"two")],
            [keccak(b"no") + bytes(33), keccak(b"signature") + bytes(33)],
        ),
        "refreshWeights": (victim,),
        "serve": (stage.model,),
        "stopServing": (stage.model,),
        "commitTrial": (stage.model, 0, keccak(b"commitment")),
        "passTrial": (stage.model, keccak(b"answer"), bytes(32)),
        "request": ((stage.model, record.input_link, keccak(b"key"), keccak(b"fresh"), bytes(32), policy),),
        "admit": (stage.model,),
        "cancel": (queued.job,),
        "draw": (play.job,),
        "provideInput": (play.job, keccak(b"input")),
        "reseal": (play.job, keccak(b"resealed")),
        "commit": (play.job, *play.under_way, keccak(b"commitment")),
        "reveal": (play.job, link, salt, keccak(b"activation")),
        "settle": (play.job,),
        "announce": (play.job, 0, keccak(b"announcement")),
        "prove": (play.job, 0, proof, list(instances), keccak(b"proof")),
        "challenge": (play.job, 0, proof, list(instances), keccak(b"proof")),
        "finalise": (play.job,),
        "expire": (play.job,),
        "staking.claim": (),
        "jobs.claim": (),
    }


def functions_of(stage: Stage) -> dict[str, Any]:
    """Every function that changes anything, of every contract, by name; with the contract's where two have it."""
    found: dict[str, Any] = {}
    for name in CONTRACTS:
        contract = getattr(stage.contracts, name).contract
        for entry in contract.abi:
            if entry["type"] == "function" and entry["stateMutability"] in ("nonpayable", "payable"):
                called = f"{name}.claim" if entry["name"] == "claim" else entry["name"]
                assert called not in found
                found[called] = (contract.functions[entry["name"]], entry["stateMutability"] == "payable")
    return found


def matrix(stage: Stage, play: Play, queued: Play, held: Hold, caller: InstantSender) -> dict[str, Answer]:
    """What every function answers to this caller now; nothing is sent."""
    answers = {}
    arguments = arguments_of(stage, play, queued, held, caller)
    functions = functions_of(stage)
    assert functions.keys() == arguments.keys(), "a function came or went: say here who may call it"
    for name, (function, takes_ether) in functions.items():
        options = {"from": caller.address, "value": FEE if takes_ether else 0, "gas": 16_000_000}
        try:
            with stage.contracts.connection.translated(name):
                function(*arguments[name]).call(options)
            answers[name] = Answer(None, {})
        except TransactionRefused as caught:
            plain = {
                key: "the caller" if value == caller.address.lower() or value == caller.address else value
                for key, value in caught.arguments.items()
            }
            answers[name] = Answer(caught.error, plain)
    return answers


def allowed(answers: Mapping[str, Answer]) -> set[str]:
    return {name for name, answer in answers.items() if answer.error is None}


MOMENTS = ("requested", "awaiting input", "committing", "revealing", "proving", "finalisable")


def at(stage: Stage, moment: str) -> tuple[Play, Play, Hold]:
    """A job at some moment of its life, one that waits behind it, and what is held after one before it."""
    held = contradicted(stage)
    play, queued = stage.request(), stage.request()
    assert queued.phase is Phase.QUEUED
    if moment == "awaiting input":
        play.draw()
    elif moment == "committing":
        play.to_committing()
    elif moment == "revealing":
        play.to_committing().to_revealing()
    elif moment == "proving":
        play.to_proving()
    elif moment == "finalisable":
        play.to_finalisable()
    return play, queued, held


BY_ANYBODY = {"requested": {"draw"}, "finalisable": {"finalise"}}
BY_THE_REQUESTER = {"awaiting input": {"provideInput"}}
BY_A_MEMBER = {
    "awaiting input": {"announce"},
    "committing": {"announce", "commit"},
    "revealing": {"announce", "reveal"},
    "proving": {"announce", "prove"},
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_roles__deployer_and_registrant_can_do_what_a_stranger_can_and_no_more(
    build: Callable[..., Stage], moment: str
) -> None:
    stage = build(segments=1, max_running_jobs=1)
    moved = at(stage, moment)
    stranger = stage.chain.instant("stranger")
    expected = matrix(stage, *moved, stranger)
    assert allowed(expected) == ALWAYS | BY_ANYBODY.get(moment, set())
    assert (expected["hold"].error, expected["release"].error) == ("NotSlasher", "StillHeld")
    deployer, registrant = stage.chain.instant("deployer"), stage.owner
    assert matrix(stage, *moved, deployer) == expected
    assert matrix(stage, *moved, registrant) == expected


@pytest.mark.parametrize("moment", MOMENTS)
def test_roles__requester_and_member_can_do_their_part_and_no_more(build: Callable[..., Stage], moment: str) -> None:
    stage = build(segments=1, max_running_jobs=1)
    play, queued, held = at(stage, moment)
    everybody = ALWAYS | BY_ANYBODY.get(moment, set())
    asked = allowed(matrix(stage, play, queued, held, stage.requester))
    assert asked == everybody | {"cancel"} | BY_THE_REQUESTER.get(moment, set())
    worker = stage.by_address(play.round(0).prover) if moment == "proving" else stage.workers[1]
    expected = everybody | OPERATORS | {"jobs.claim"} | BY_A_MEMBER.get(moment, set())
    assert allowed(matrix(stage, play, queued, held, worker)) == expected


def slash(stage: Stage, attacker: InstantSender) -> None:
    victim = stage.workers[0].address
    function = stage.contracts.staking.contract.functions.slash
    attacker.send(function(victim, stage.contracts.staking.active_of(victim), stage.model))


def test_slash__defence_removed__anybody_takes_anybodys_stake(build: Callable[..., Stage]) -> None:
    stage = build(ANYBODY_SLASHES, segments=1)
    slash(stage, stage.owner)
    assert stage.contracts.staking.active_of(stage.workers[0].address) == 0


@pytest.mark.parametrize("name", ["deployer", "stranger", "requester", "worker 1"])
def test_slash__by_anybody_but_the_job_contract__refused(build: Callable[..., Stage], name: str) -> None:
    stage = build(segments=1)
    caller = stage.chain.instant(name)
    with refused("NotSlasher", caller=caller.address):
        slash(stage, caller)
    with refused("NotSlasher", caller=caller.address):
        caller.send(stage.contracts.staking.contract.functions.commend(caller.address, stage.model))


def hold_and_release(stage: Stage, attacker: InstantSender) -> int:
    """The attacker says that a proof of its own took stake of somebody; what that is worth to it."""
    staking, play = stage.contracts.staking, stage.request(requester=attacker)
    forged = wanted(play, stage.workers[0].address, attacker)
    attacker.send(staking.contract.functions.hold(astuple(forged)))
    release_at = stage.chain.connection.timestamp() + staking._read("APPEAL_SECONDS")
    stage.chain.move_to(release_at)
    staking.release(attacker, replace(forged, release_at=release_at))
    return staking.compensation_of(attacker.address)


def test_hold__defence_removed__anybody_is_paid_out_of_anybodys_stake(build: Callable[..., Stage]) -> None:
    stage = build(ANYBODY_HOLDS, segments=1)
    assert hold_and_release(stage, stage.owner) == ETHER * 4_000 // 10_000


def test_hold__by_anybody_but_the_job_contract__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    for attacker in (stage.owner, stage.chain.instant("deployer"), stage.workers[1]):
        with refused("NotSlasher", caller=attacker.address):
            hold_and_release(stage, attacker)
    assert stage.contracts.staking.active_of(stage.workers[0].address) == STAKES[0]


def test_abi__no_function_is_for_an_administrator(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    abis = [getattr(stage.contracts, part).contract.abi for part in CONTRACTS]
    names = {entry["name"] for abi in abis for entry in abi if entry["type"] == "function"}
    assert {"slash", "claim", "registerModel", "verifySegment"} <= names
    assert not [name for name in names if NEVER.search(name)]


@pytest.mark.parametrize("name", ["Registry", "Verifier", "Staking", "Jobs", "VerifiedInference", "ValidationRegistry"])
def test_code__cannot_be_replaced(name: str) -> None:
    """No instruction that runs other code in a contract's place, or removes it; and a view keeps nothing."""
    found = set(instructions(bytes.fromhex(artefact(name)["deployedBytecode"].removeprefix("0x"))))
    assert RETURN in found
    assert not found & {DELEGATECALL, CALLCODE, SELFDESTRUCT}
    assert (SSTORE in found) == (name in ("Registry", "Staking", "Jobs"))


def instructions(code: bytes) -> list[int]:
    """The operations of runtime code, without what they push and without the metadata behind them."""
    end = len(code) - 2 - int.from_bytes(code[-2:], "big")
    place, found = 0, []
    while place < end:
        found.append(code[place])
        place += 1 + max(0, code[place] - 0x5F if 0x60 <= code[place] <= 0x7F else 0)
    return found
