"""One model, nine workers and a job that waits for all its proofs, on a real chain and a real IPFS node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from offchain.chain.contracts import Contracts
from offchain.chain.sender import Sender
from offchain.protocol.types import Address, Phase
from offchain.proving.ezkl_prover import EzklProver
from offchain.storage.ipfs import IpfsStore
from offchain.storage.sealing import Identity
from tests.attacks.mutant import Mutant, build_stage, running_theatre
from tests.contracts.stage import Stage
from tests.harness import Play, ReadyModel, Worker, enroll, ready_model, running_store, test_prover
from tests.local_chain import LocalChain
from tests.models import mlp

VALUES = (0.7, -1.2, 0.3, 1.9)
OTHER_VALUES = (-0.4, 0.9, 1.1, -1.6)


@pytest.fixture(scope="session")
def prover() -> EzklProver:
    """The prover, with a cache that outlives the run."""
    return test_prover()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IpfsStore]:
    """A real IPFS node."""
    with running_store(tmp_path_factory.mktemp("ipfs")) as running:
        yield running


@pytest.fixture(scope="session")
def model(prover: EzklProver, store: IpfsStore, contracts: Contracts, deployer: Sender) -> ReadyModel:
    """A network of three linear layers, one a segment."""
    return ready_model(mlp((4, 6, 5, 3), seed=3), "attacked", prover, store, contracts, deployer)


@pytest.fixture(scope="session")
def other_weights(prover: EzklProver, store: IpfsStore, contracts: Contracts, deployer: Sender) -> ReadyModel:
    """The same architecture with other weights."""
    return ready_model(mlp((4, 6, 5, 3), seed=4), "attacked", prover, store, contracts, deployer)


@pytest.fixture(scope="session")
def workers(chain: LocalChain, contracts: Contracts, model: ReadyModel) -> dict[Address, Worker]:
    """As many as three disjoint committees of three take."""
    return enroll(chain, contracts, model, 9, "attacked worker")


@pytest.fixture(scope="session")
def requester(chain: LocalChain) -> Worker:
    """Who asks for jobs and reads results."""
    return Worker(chain.instant("attacked requester"), Identity.generate())


@pytest.fixture(scope="session")
def proving(
    contracts: Contracts,
    store: IpfsStore,
    prover: EzklProver,
    model: ReadyModel,
    workers: dict[Address, Worker],
    requester: Worker,
) -> Play:
    """A job whose three segments have settled and must all be proved."""
    return Play(contracts, store, prover, model, workers, requester, VALUES).run(until=Phase.PROVING)


@pytest.fixture(scope="session")
def theatre() -> Iterator[LocalChain]:
    """A chain for contracts with and without their defences; the verifiers on it are mocks."""
    with running_theatre() as chain:
        yield chain


@pytest.fixture(scope="session")
def standing(theatre: LocalChain) -> dict[object, Stage]:
    """Stages that tests asked for before, by what they asked for: deploying one takes longer than most attacks."""
    return {}


@pytest.fixture
def build(theatre: LocalChain, standing: dict[object, Stage]) -> Iterator[Callable[..., Stage]]:
    """Build stages, see :func:`tests.attacks.mutant.build_stage`; what the test does to them is taken back."""
    with ExitStack() as stack:
        built: list[Stage] = []

        def run(mutant: Mutant | None = None, **options: Any) -> Stage:
            # Only the first lies below the snapshot that the test ends with.
            if built:
                return build_stage(theatre, mutant, **options)
            asked = (mutant, *sorted(options.items()))
            if asked not in standing:
                standing[asked] = build_stage(theatre, mutant, **options)
            stack.enter_context(theatre.isolated())
            built.append(Stage(**vars(standing[asked])))
            return built[0]

        yield run
