"""Finished jobs to be audited, on a real chain and a real IPFS node, with real proofs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from offchain.chain.contracts import Contracts
from offchain.chain.sender import Sender
from offchain.protocol.types import Address
from offchain.proving.ezkl_prover import EzklProver
from offchain.storage.ipfs import IpfsStore
from offchain.storage.sealing import Identity
from tests.harness import (
    ALL_PROVED,
    NONE_PROVED,
    Play,
    ReadyModel,
    Worker,
    enroll,
    ready_model,
    running_store,
    test_prover,
)
from tests.local_chain import LocalChain
from tests.models import mlp

VALUES = (0.7, -1.2, 0.3, 1.9)


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
def grantee() -> Identity:
    """The identity of a worker that was granted the model's key."""
    return Identity.generate()


@pytest.fixture(scope="session")
def model(
    prover: EzklProver, store: IpfsStore, contracts: Contracts, deployer: Sender, chain: LocalChain, grantee: Identity
) -> ReadyModel:
    """A network of three linear layers, one a segment, granted to one worker."""
    operator = chain.instant("audited grantee")
    contracts.staking.bond(operator, contracts.staking.minimum_stake())
    contracts.staking.set_encryption_key(operator, grantee.encryption_key)
    return ready_model(mlp((4, 6, 5, 3), seed=3), "audited", prover, store, contracts, deployer)


@pytest.fixture(scope="session")
def workers(chain: LocalChain, contracts: Contracts, model: ReadyModel) -> dict[Address, Worker]:
    """As many as three disjoint committees of three take."""
    return enroll(chain, contracts, model, 9, "audited worker")


@pytest.fixture(scope="session")
def new_job(
    contracts: Contracts,
    store: IpfsStore,
    prover: EzklProver,
    model: ReadyModel,
    workers: dict[Address, Worker],
    chain: LocalChain,
) -> Callable[..., Play]:
    """Make a job that was not requested yet."""
    requester = Worker(chain.instant("audited requester"), Identity.generate())

    def make(**changes: object) -> Play:
        play = Play(contracts, store, prover, model, workers, requester, VALUES)
        for name, value in changes.items():
            setattr(play, name, value)
        return play

    return make


@pytest.fixture(scope="session")
def finished(new_job: Callable[..., Play]) -> Play:
    """A finalised job, every segment proved."""
    return new_job(policy=ALL_PROVED).run()


@pytest.fixture(scope="session")
def agreed(new_job: Callable[..., Play]) -> Play:
    """A finalised job, no segment proved."""
    return new_job(policy=NONE_PROVED).run()
