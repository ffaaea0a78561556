"""``python -m offchain.worker CONFIG.json``: run one worker until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.chain.deployment import Deployment
from offchain.chain.sender import Sender
from offchain.errors import InterlockError
from offchain.process import log_to_stderr, sole_use
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.service import ProverService
from offchain.storage.ipfs import IpfsStore
from offchain.storage.local import CachedStore
from offchain.storage.sealing import Identity
from offchain.worker.candidacy import Candidacies, Candidacy
from offchain.worker.config import WorkerConfig, open_keystore
from offchain.worker.daemon import Settings, Worker
from offchain.worker.early import EarlyBounds
from offchain.worker.executor import Executor
from offchain.worker.memory import Memory
from offchain.worker.predictions import Predictions
from offchain.worker.progress import ProgressWriter

IPFS_TIMEOUT_SECONDS = 10.0


def build_worker(config: WorkerConfig, worker_class: type[Worker] = Worker) -> Worker:
    """Connect a worker to everything that its configuration names.

    Raises:
        InterlockError: something that it names is missing or wrong.
    """
    config.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not config.identity.exists():
        Identity.generate().save(config.identity)
    identity = Identity.load(config.identity)
    if not config.trusted_srs:
        logging.getLogger("offchain.worker").warning(
            "any SRS is trusted: whoever knows the secret behind one can take this stake; see `trusted_srs`"
        )
    account = open_keystore(config.keystore, config.password_file)
    connection = Connection(config.rpc_url)
    contracts = Contracts.connect(connection, Deployment.load(config.deployment))
    store = CachedStore(IpfsStore(config.ipfs_url, IPFS_TIMEOUT_SECONDS), config.state_directory / "content")
    prover = EzklProver(ArtefactCache(config.cache_directory), threads=config.prover_threads)
    sender = Sender(connection, account)
    predictions = Predictions()
    predictions.learn(prover, may_measure=config.measure_machine)
    service = ProverService(
        prover,
        memory_bytes=config.prover_memory_bytes,
        slots=config.prover_slots,
        predict=predictions.prove_bytes,
        predict_seconds=predictions.prove_seconds,
    )
    ProgressWriter(service.progress, config.state_directory).start()
    executor = Executor(contracts, store, prover, service, identity, config.trusted_srs, predictions)
    candidacies = Candidacies(config.state_directory / "candidacies.sqlite")
    return worker_class(
        contracts,
        sender,
        store,
        executor,
        Memory(config.state_directory / "memory.sqlite"),
        identity,
        Settings(
            config.stake_wei,
            config.models,
            config.poll_seconds,
            config.turn_seconds,
            config.claim_above_wei,
            config.least_prove_seconds,
            EarlyBounds(config.early_proofs, config.early_proof_permille),
        ),
        Candidacy(contracts, sender, store, prover, executor.circuits, candidacies),
    )


def run(config_path: Path, worker_class: type[Worker] = Worker) -> int:
    """Run a worker; returns the process's exit code."""
    log_to_stderr()
    stop = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, end)
    try:
        config = WorkerConfig.load(config_path)
        with sole_use(config.state_directory, "worker"):
            build_worker(config, worker_class).run(stop)
    except InterlockError as error:
        logging.getLogger("offchain.worker").error("%s", error)
        return 1
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m offchain.worker", description=__doc__)
    parser.add_argument("config", type=Path, help="the worker's JSON configuration")
    return run(parser.parse_args().config)


if __name__ == "__main__":
    sys.exit(main())
