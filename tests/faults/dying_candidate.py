"""A candidate that is killed at chosen instructions: ``python -m tests.faults.dying_candidate CONFIG.json``.

Its configuration lists the instructions under ``deaths``. At the first it kills itself with SIGKILL, as a power cut
would, after striking it off; whoever starts it again sees its next life go on, until it is admitted.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eth_account import Account

from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.chain.deployment import Deployment
from offchain.chain.sender import Sender
from offchain.models.preparation import PreparedModel
from offchain.protocol.types import ModelId
from offchain.storage.ipfs import IpfsStore
from offchain.worker.candidacy import Candidacies, Candidacy
from tests.harness import test_prover
from tests.local_chain import LocalChain

DEATHS = ("answered", "remembered", "commitTrial sent", "passTrial sent")
"""An answer is known, on disk, its commitment sent, the answer itself sent. The next life finds mined what was sent."""


def main(path: Path) -> None:
    """Live until admitted, or until the next death."""
    config = json.loads(path.read_text())
    chain = LocalChain(Connection(config["rpc_url"]))
    contracts = Contracts.connect(chain.connection, Deployment(**config["deployment"]))
    sender = Sender(chain.connection, Account.from_key(config["key"]))
    store = IpfsStore(config["ipfs_url"], 10.0)
    prepared: PreparedModel = pickle.loads(Path(config["prepared"]).read_bytes())
    candidacies = Candidacies(path.with_name("candidacies.sqlite"))
    candidacy = Candidacy(contracts, sender, store, test_prover(), lambda _: prepared.circuits, candidacies)

    def die(instruction: str) -> None:
        if instruction in config["deaths"]:
            config["deaths"].remove(instruction)
            path.write_text(json.dumps(config))
            os.kill(os.getpid(), signal.SIGKILL)

    def then_die(function: Callable[..., Any], instruction: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            answer = function(*arguments)
            die(instruction)
            return answer

        return call

    wait = sender._wait

    def wait_or_die(name: str, hashes: list[str]) -> Any:
        die(f"{name} sent")
        return wait(name, hashes)

    sender._wait = wait_or_die  # type: ignore[method-assign]
    candidacy._answer = then_die(candidacy._answer, "answered")  # type: ignore[method-assign]
    candidacies.save = then_die(candidacies.save, "remembered")  # type: ignore[method-assign]

    model_id = ModelId(bytes.fromhex(config["model"]))
    while not candidacy.attend(model_id):
        candidacy.wait()
        chain.mine()
    candidacy.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
