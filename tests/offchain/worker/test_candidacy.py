"""New workers answer a real model's trials on a real chain; nothing else lets their stake count."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from eth_hash.auto import keccak

from offchain.chain.contracts import Contracts
from offchain.chain.errors import ChainUnreachable, TransactionRefused
from offchain.chain.events import read_events
from offchain.chain.sender import Sender
from offchain.models.trials import answer_trials
from offchain.protocol import hashing
from offchain.protocol.types import Address, ModelId
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import ProverFailed
from offchain.storage.ipfs import IpfsStore
from offchain.storage.node import start_node
from offchain.storage.sealing import Identity
from offchain.toolchain import project_root
from offchain.worker import candidacy as module
from offchain.worker.candidacy import Candidacies, Candidacy
from tests.faults.dying_candidate import DEATHS
from tests.harness import ReadyModel, ready_model, test_prover
from tests.local_chain import ETHER, LocalChain
from tests.models import tiny_mlp

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("isolation")]

SALT = bytes(31) + b"\7"
Make = Callable[[Sender], Candidacy]


@pytest.fixture(scope="module")
def prover() -> EzklProver:
    return test_prover()


@pytest.fixture(scope="module")
def ipfs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_node(tmp_path_factory.mktemp("ipfs"), fetch_timeout_seconds=0.5) as node:
        yield node.api_url


@pytest.fixture(scope="module")
def store(ipfs_url: str) -> IpfsStore:
    return IpfsStore(ipfs_url, timeout_seconds=60)


@pytest.fixture(scope="module")
def model(prover: EzklProver, store: IpfsStore, contracts: Contracts, deployer: Sender) -> ReadyModel:
    """A model of two segments with two trials."""
    onnx = tiny_mlp(seed=11)
    return ready_model(onnx, "trials", prover, store, contracts, deployer, segments=2, trials=2)


@pytest.fixture(scope="module")
def answers(prover: EzklProver, model: ReadyModel) -> tuple[bytes, ...]:
    """What its owner knows."""
    return answer_trials(model.manifest.trials, range(2), model.circuits, prover)


@pytest.fixture
def make(
    prover: EzklProver, store: IpfsStore, contracts: Contracts, model: ReadyModel, tmp_path: Path
) -> Iterator[Make]:
    """Make the candidacy of an operator; made again, it is the next life of the first."""
    made = []

    def run(sender: Sender) -> Candidacy:
        candidacies = Candidacies(tmp_path / f"{sender.address}.sqlite")
        made.append(Candidacy(contracts, sender, store, prover, lambda _: model.circuits, candidacies))
        return made[-1]

    yield run
    for candidacy in made:
        candidacy.stop()


def serve(contracts: Contracts, sender: Sender, model: ModelId) -> Sender:
    """Have an account bond and serve."""
    contracts.staking.bond(sender, ETHER)
    contracts.staking.set_encryption_key(sender, Identity.generate().encryption_key)
    contracts.staking.serve(sender, model)
    return sender


def drawn(chain: LocalChain, contracts: Contracts, model: ModelId) -> set[Address]:
    """Whoever could be in a committee of the model now."""
    chain.mine()
    head = contracts.connection.block_number()
    return {operator for operator, _ in contracts.staking.draw(model, head - 1, bytes(32), 16, [])}


def step(candidacy: Candidacy, model: ModelId) -> bool:
    """Attend once more, after what was looked for is found."""
    candidacy.wait()
    return candidacy.attend(model)


def commit(contracts: Contracts, sender: Sender, model: ModelId, trial: int, answer: bytes) -> None:
    """Commit to an answer."""
    chain_id, staking = contracts.connection.chain_id, contracts.staking
    operator = Address(sender.address)
    commitment = hashing.trial_commitment(chain_id, staking.address, model, trial, operator, answer, SALT)
    staking.commit_trial(sender, model, trial, commitment)


def test_publish__model_with_trials__registers_the_manifests_answers(contracts: Contracts, model: ReadyModel) -> None:
    assert contracts.registry.trials_of(model.id) == model.manifest.trials.answer_hashes()
    assert len(model.manifest.trials.answers) == 2


def test_attend__candidate__counts_in_draws_once_it_has_passed(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, make: Make
) -> None:
    sender = serve(contracts, chain.sender("candidate"), model.id)
    candidacy = make(sender)
    assert drawn(chain, contracts, model.id) == set()

    assert not candidacy.attend(model.id)
    assert candidacy, "it looks for an answer beside the cycle"
    assert not step(candidacy, model.id)
    assert not candidacy, "it has committed"
    assert drawn(chain, contracts, model.id) == set()
    assert candidacy.attend(model.id)

    assert drawn(chain, contracts, model.id) == {sender.address}
    assert candidacy.attend(model.id)
    assert sorted(bool(contracts.staking.trial_answered_at(model.id, trial)) for trial in (0, 1)) == [False, True]


def test_attend__no_block_since_the_commitment__waits(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, make: Make
) -> None:
    sender = serve(contracts, chain.sender("patient"), model.id)
    candidacy = make(sender)
    candidacy.attend(model.id)
    for _ in range(3):
        assert not step(candidacy, model.id)
    chain.mine()
    assert candidacy.attend(model.id)


def test_attend__model_without_trials__is_admitted_at_once(
    chain: LocalChain,
    contracts: Contracts,
    prover: EzklProver,
    store: IpfsStore,
    deployer: Sender,
    make: Make,
) -> None:
    free = ready_model(tiny_mlp(seed=11), "no trials", prover, store, contracts, deployer, segments=2)
    assert free.manifest.trials.answers == ()
    candidacy = make(serve(contracts, chain.instant("free"), free.id))
    assert candidacy.attend(free.id)
    assert not candidacy


def test_attend__operator_that_does_not_serve__finds_nothing(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, make: Make
) -> None:
    candidacy = make(chain.instant("stranger"))
    assert not candidacy.attend(model.id)
    assert not candidacy


def test_pass_trial__wrong_answer__is_refused(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, answers: tuple[bytes, ...]
) -> None:
    guesser = serve(contracts, chain.instant("guesser"), model.id)
    for trial, answer in ((0, keccak(b"guess")), (1, answers[0])):
        commit(contracts, guesser, model.id, trial, answer)
        with pytest.raises(TransactionRefused) as refused:
            contracts.staking.pass_trial(guesser, model.id, answer, SALT)
        assert refused.value.error == "WrongAnswer"
        assert refused.value.arguments == {
            "modelId": model.id,
            "trial": trial,
            "expected": model.manifest.trials.answer_hashes()[trial],
            "actual": hashing.answer_hash(answer),
        }
    assert drawn(chain, contracts, model.id) == set()


def test_pass_trial__answer_copied_from_who_showed_it__is_refused(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, answers: tuple[bytes, ...]
) -> None:
    first, copier = (serve(contracts, chain.instant(f"copy {name}"), model.id) for name in ("first", "copier"))
    commit(contracts, first, model.id, 0, answers[0])
    # The copier sees the answer on its way, and gets its commitment into the very block that shows it.
    chain.rpc("evm_setAutomine", False)
    try:
        staking = contracts.staking.contract
        operator = Address(copier.address)
        commitment = hashing.trial_commitment(
            contracts.connection.chain_id, contracts.staking.address, model.id, 0, operator, answers[0], SALT
        )
        for sender, call, tip in (
            (copier, staking.functions.commitTrial(model.id, 0, commitment), 3),
            (first, staking.functions.passTrial(model.id, answers[0], SALT), 2),
        ):
            transaction = {"from": sender.address, "to": staking.address, "data": call._encode_transaction_data()}
            fees = {"maxPriorityFeePerGas": hex(tip * 10**9), "maxFeePerGas": hex(10**11), "gas": hex(500_000)}
            chain.rpc("eth_sendTransaction", transaction | fees)
        chain.mine()
    finally:
        chain.rpc("evm_setAutomine", True)
    shown = contracts.staking.trial_answered_at(model.id, 0)
    assert contracts.staking.is_admitted(first.address, model.id)
    committed = [event for event in read_events(contracts, shown, shown) if event.name == "TrialCommitted"]
    assert [event.arguments["operator"] for event in committed] == [copier.address]

    with pytest.raises(TransactionRefused) as refused:
        contracts.staking.pass_trial(copier, model.id, answers[0], SALT)
    assert refused.value.error == "TrialAnswered"
    assert refused.value.arguments == {"modelId": model.id, "trial": 0, "answeredAt": shown}
    with pytest.raises(TransactionRefused) as refused:
        commit(contracts, copier, model.id, 0, answers[0])
    assert refused.value.error == "TrialAnswered"
    assert drawn(chain, contracts, model.id) == {first.address}


@pytest.mark.parametrize("when", ["before the commitment", "behind the commitment", "before both"])
def test_attend__another_answers_first__passes_as_long_as_the_chain_lets_it(
    chain: LocalChain,
    contracts: Contracts,
    model: ReadyModel,
    answers: tuple[bytes, ...],
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    slow, quick = (serve(contracts, chain.instant(f"race {name}"), model.id) for name in ("slow", "quick"))
    candidacy = make(slow)
    monkeypatch.setattr(module.secrets, "randbelow", lambda count: 0)  # trial 0 first
    if when == "before both":
        answer_as(contracts, quick, model.id, 0, answers)
    candidacy.attend(model.id)
    candidacy.wait()
    if when == "before the commitment":
        answer_as(contracts, quick, model.id, 0, answers)
    assert not step(candidacy, model.id)
    if when == "behind the commitment":
        answer_as(contracts, quick, model.id, 0, answers)
    for _ in range(6):
        step(candidacy, model.id)
    assert candidacy.attend(model.id)
    assert drawn(chain, contracts, model.id) == {slow.address, quick.address}
    passed = [
        (event.arguments["operator"], event.arguments["trial"])
        for event in read_events(contracts, contracts.deployment.block, contracts.connection.block_number())
        if event.name == "TrialPassed"
    ]
    assert passed == [(quick.address, 0), (slow.address, 0 if when == "behind the commitment" else 1)]


def test_attend__all_trials_answered__says_so_and_asks_seldom(
    chain: LocalChain,
    contracts: Contracts,
    model: ReadyModel,
    answers: tuple[bytes, ...],
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for trial in (0, 1):
        quick = serve(contracts, chain.instant(f"all {trial}"), model.id)
        answer_as(contracts, quick, model.id, trial, answers)
    late = serve(contracts, chain.instant("all late"), model.id)
    candidacy = make(late)
    searches: list[ModelId] = []
    find = candidacy._answer
    monkeypatch.setattr(candidacy, "_answer", lambda model_id: (searches.append(model_id), find(model_id))[1])
    now = 1_000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    for _ in range(5):
        assert not step(candidacy, model.id)
    assert len(searches) == 1
    said = [record for record in caplog.records if "admits nobody any more" in record.message]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert model.id.hex() in said[0].message
    now += module.SELDOM_SECONDS
    for _ in range(5):
        assert not step(candidacy, model.id)
    assert len(searches) == 2
    assert late.address not in drawn(chain, contracts, model.id)


def test_attend__owner_named_a_wrong_answer__takes_another_trial(
    chain: LocalChain,
    contracts: Contracts,
    model: ReadyModel,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    candidacy = make(serve(contracts, chain.instant("cheated"), model.id))
    monkeypatch.setattr(module, "PUT_OFF_SECONDS", 0.0)
    monkeypatch.setattr(module.secrets, "randbelow", lambda count: 0)
    honest = module.answer_trials
    monkeypatch.setattr(
        module,
        "answer_trials",
        lambda trials, wanted, *rest: [bytes(32)] if 0 in wanted else honest(trials, wanted, *rest),
    )
    for _ in range(5):
        step(candidacy, model.id)
    assert candidacy.attend(model.id)
    assert contracts.staking.trial_answered_at(model.id, 1) != 0
    assert "another answer than its owner says" in caplog.text


@pytest.mark.parametrize("error", [ProverFailed("witness", "memory", "none left"), RuntimeError("odd")])
def test_attend__search_fails__is_logged_and_tried_again(
    chain: LocalChain,
    contracts: Contracts,
    model: ReadyModel,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    candidacy = make(serve(contracts, chain.instant("unwell"), model.id))
    monkeypatch.setattr(module, "PUT_OFF_SECONDS", 0.0)
    errors, find = [error], candidacy._answer

    def answer(model_id: ModelId) -> module.Attempt:
        if errors:
            raise errors.pop()
        return find(model_id)

    monkeypatch.setattr(candidacy, "_answer", answer)
    for _ in range(4):
        step(candidacy, model.id)
    assert candidacy.attend(model.id)
    assert "is put off" in caplog.text


@pytest.mark.parametrize("call", ["is_admitted", "is_serving", "pass_trial"])
def test_attend__chain_away__is_left_to_the_caller(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, make: Make, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    candidacy = make(serve(contracts, chain.instant("cut off"), model.id))
    candidacy.enter(model.id)
    candidacy._candidacies.save(model.id, module.Attempt(0, bytes(32), bytes(32)))

    def away(*arguments: object) -> None:
        raise ChainUnreachable("rpc", "away")

    monkeypatch.setattr(contracts.staking, call, away)
    with pytest.raises(ChainUnreachable):
        candidacy.attend(model.id)


def test_attend_all__next_life__goes_on_and_forgets_once_it_is_settled(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, make: Make
) -> None:
    sender = serve(contracts, chain.instant("reborn"), model.id)
    make(sender).enter(model.id)
    candidacy = make(sender)
    for _ in range(3):
        candidacy.attend_all()
        candidacy.wait()
    attempt = candidacy._candidacies.attempt(model.id)
    assert attempt is not None
    with chain.isolated():
        make(sender).attend_all()
        assert contracts.staking.is_admitted(sender.address, model.id)
    # The chain was reorganised, and the same answer is shown again.
    candidacy.attend_all()
    assert contracts.staking.is_admitted(sender.address, model.id)
    candidacy.attend_all()
    assert candidacy._candidacies.models() == (model.id,)
    chain.mine(module.REORGANISATION_DEPTH)
    candidacy.attend_all()
    assert candidacy._candidacies.models() == ()
    assert candidacy._candidacies.attempt(model.id) is None


@pytest.mark.slow
def test_attend__killed_at_every_step__is_admitted_by_its_first_answer(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, ipfs_url: str, tmp_path: Path
) -> None:
    mortal = chain.account("mortal")
    serve(contracts, chain.instant("mortal"), model.id)
    (tmp_path / "prepared").write_bytes(pickle.dumps(model.prepared))
    config = {
        "rpc_url": contracts.connection.rpc_url,
        "deployment": asdict(contracts.deployment),
        "key": mortal.key.hex(),
        "ipfs_url": ipfs_url,
        "prepared": str(tmp_path / "prepared"),
        "model": model.id.hex(),
        "deaths": list(DEATHS),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    first = contracts.connection.block_number()
    command = [sys.executable, "-m", "tests.faults.dying_candidate", str(tmp_path / "config.json")]
    remembered = set()
    for _ in DEATHS:
        life = subprocess.run(command, cwd=project_root(), env=os.environ, capture_output=True, text=True, check=False)
        assert life.returncode == -signal.SIGKILL, life.stderr
        attempt = Candidacies(tmp_path / "candidacies.sqlite").attempt(model.id)
        remembered |= set() if attempt is None else {attempt}
    assert subprocess.run(command, cwd=project_root(), env=os.environ, check=False).returncode == 0

    assert json.loads((tmp_path / "config.json").read_text())["deaths"] == []
    assert len(remembered) == 1, "what was on disk was never replaced"
    names = [event.name for event in read_events(contracts, first + 1, contracts.connection.block_number())]
    assert (names.count("TrialCommitted"), names.count("TrialPassed")) == (1, 1)
    assert drawn(chain, contracts, model.id) == {mortal.address}


def answer_as(contracts: Contracts, sender: Sender, model: ModelId, trial: int, answers: tuple[bytes, ...]) -> None:
    """Answer a trial by hand."""
    commit(contracts, sender, model, trial, answers[trial])
    contracts.staking.pass_trial(sender, model, answers[trial], SALT)
