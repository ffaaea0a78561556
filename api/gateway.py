"""Everything that one gateway process holds, built once from its configuration."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from api.config import GatewayConfig
from api.database import Database
from api.driver import Driver
from api.health import HealthService
from api.jobs.rows import JobRows
from api.jobs.service import JobService
from api.models.registrar import Registrar
from api.models.rows import ModelRows
from api.models.service import ModelService
from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.chain.deployment import Deployment
from offchain.chain.sender import Sender
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.srs import load_srs
from offchain.requester.requester import Requester
from offchain.storage.ipfs import IpfsStore
from offchain.storage.local import CachedStore
from offchain.storage.sealing import Identity
from offchain.worker.config import open_keystore

IPFS_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Gateway:
    """A gateway.

    Args:
        jobs, models, health: what the endpoints ask.
        driver, registrar: what goes on in the background.
        stopping: set when the process is to end.
    """

    config: GatewayConfig
    database: Database
    jobs: JobService
    models: ModelService
    health: HealthService
    driver: Driver
    registrar: Registrar
    stopping: threading.Event

    def start(self) -> None:
        """Start what goes on in the background."""
        self.driver.start()
        self.registrar.start()

    def stop(self) -> None:
        """End everything; whatever is under way goes on at the next start."""
        self.stopping.set()
        self.driver.stop()
        self.registrar.stop()
        self.database.close()


def build_gateway(config: GatewayConfig) -> Gateway:
    """Connect a gateway to everything that its configuration names.

    Raises:
        InterlockError: something that it names is missing or wrong.
    """
    directories = {name: config.state_directory / name for name in ("uploads", "identities", "content")}
    for directory in (config.state_directory, *directories.values()):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not config.identity.exists():
        config.identity.parent.mkdir(parents=True, exist_ok=True)
        Identity.generate().save(config.identity)
    account = open_keystore(config.keystore, config.password_file)
    srs = None if config.srs is None else load_srs(config.srs, config.srs_origin)  # type: ignore[arg-type]
    connection = Connection(config.rpc_url)
    contracts = Contracts.connect(connection, Deployment.load(config.deployment))
    store = CachedStore(IpfsStore(config.ipfs_url, IPFS_TIMEOUT_SECONDS), directories["content"])
    prover = EzklProver(ArtefactCache(config.cache_directory))
    sender = Sender(connection, account)
    requester = Requester(contracts, store, prover, sender, Identity.load(config.identity))

    database = Database(config.state_directory / "gateway.sqlite")
    database.belong_to(f"{connection.chain_id}:{contracts.jobs.address}:{requester.address}")
    job_rows, model_rows = JobRows(database), ModelRows(database)
    registrar = Registrar(
        model_rows,
        contracts,
        store,
        prover,
        sender,
        directories["uploads"],
        directories["identities"],
        srs,
        config.max_log_rows,
    )
    driver = Driver(database, job_rows, model_rows, contracts, store, requester, sender, registrar, config.poll_seconds)
    return Gateway(
        config=config,
        database=database,
        jobs=JobService(config, contracts, requester, store, job_rows, driver.wake),
        models=ModelService(config, contracts, requester, model_rows, directories["uploads"], registrar.wake),
        health=HealthService(contracts, store, requester.address, job_rows, model_rows, driver, registrar),
        driver=driver,
        registrar=registrar,
        stopping=threading.Event(),
    )
