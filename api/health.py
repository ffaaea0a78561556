"""``/v1/health``: whether this gateway can do its work now."""

from __future__ import annotations

from pydantic import BaseModel, Field

from api.driver import Driver
from api.jobs.rows import JobRows
from api.models.registrar import Registrar
from api.models.rows import ModelRows
from offchain.chain.contracts import Contracts
from offchain.errors import RecoverableError
from offchain.storage.port import ContentStore


class ChainHealth(BaseModel):
    """The chain."""

    id: int
    is_reachable: bool
    block: int | None
    driven_block: int = Field(description="The newest block at which every job was looked at; −1 before the first.")


class StoreHealthAnswer(BaseModel):
    """The IPFS node."""

    is_reachable: bool
    agent: str | None


class AccountHealth(BaseModel):
    """The account that pays."""

    address: str
    balance_wei: str | None


class QueueLengths(BaseModel):
    """What is under way."""

    jobs_accepted: int = Field(description="Not on the chain yet.")
    jobs_open: int
    registrations: int


class Health(BaseModel):
    """How the gateway is."""

    is_healthy: bool
    chain: ChainHealth
    ipfs: StoreHealthAnswer
    account: AccountHealth
    queues: QueueLengths


class HealthService:
    """Asks everything that the gateway depends on."""

    def __init__(
        self,
        contracts: Contracts,
        store: ContentStore,
        address: str,
        jobs: JobRows,
        models: ModelRows,
        driver: Driver,
        registrar: Registrar,
    ) -> None:
        self._contracts = contracts
        self._store = store
        self._address = address
        self._jobs = jobs
        self._models = models
        self._driver = driver
        self._registrar = registrar

    def check(self) -> Health:
        """Ask chain, store and threads how they are."""
        connection = self._contracts.connection
        block, balance_wei, agent = None, None, None
        try:
            block = connection.block_number()
            balance_wei = str(connection.balance(self._address))
        except RecoverableError:
            pass  # shows as unreachable
        try:
            agent = self._store.health().agent
        except RecoverableError:
            pass  # shows as unreachable
        has_chain = block is not None and balance_wei is not None
        return Health(
            is_healthy=has_chain and agent is not None and self._driver.is_alive and self._registrar.is_alive,
            chain=ChainHealth(
                id=connection.chain_id, is_reachable=has_chain, block=block, driven_block=self._driver.last_block
            ),
            ipfs=StoreHealthAnswer(is_reachable=agent is not None, agent=agent),
            account=AccountHealth(address=self._address, balance_wei=balance_wei),
            queues=QueueLengths(
                jobs_accepted=len(self._jobs.unsent()),
                jobs_open=len(self._jobs.open()),
                registrations=len(self._models.unfinished()),
            ),
        )
