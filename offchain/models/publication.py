"""Publishing a prepared model: pinned, verifiers deployed, registered, and its key granted to workers."""

from __future__ import annotations

from collections.abc import Sequence

from eth_hash.auto import keccak

from offchain.chain.contracts import Contracts
from offchain.chain.events import read_events
from offchain.chain.sender import Sender
from offchain.models.preparation import PreparedModel, Progress, no_progress
from offchain.protocol.manifest import model_id_of
from offchain.protocol.types import ModelId
from offchain.storage.cid import Cid, cid_of, cid_to_digest
from offchain.storage.port import ContentStore
from offchain.storage.sealing import EncryptionKey, Identity, seal, usable_keys


def publish(
    prepared: PreparedModel,
    store: ContentStore,
    contracts: Contracts,
    sender: Sender,
    *,
    progress: Progress = no_progress,
) -> ModelId:
    """Pin a prepared model, deploy its verifiers, register it, and grant its key to every known worker.

    May be repeated after an interruption: what is done is not done again.

    Raises:
        StoreUnreachable, ChainUnreachable: nothing is lost; call it again.
        TransactionRefused: the registry refuses the model.
    """
    manifest = prepared.manifest.to_bytes()
    manifest_cid = cid_to_digest(cid_of(manifest))
    model_id = model_id_of(manifest, manifest_cid, prepared.manifest)
    for index, content in enumerate(prepared.contents.values()):
        progress("pinning", 0.4 * index / len(prepared.contents))
        store.put(content)
    if not contracts.registry.is_registered(model_id):
        verifiers = []
        for index, verifier in enumerate(prepared.verifiers):
            progress("deploying verifiers", 0.4 + 0.4 * index / len(prepared.verifiers))
            factory = contracts.connection.web3.eth.contract(abi=list(verifier.abi), bytecode=verifier.creation_code)
            receipt = sender.send(factory.constructor())
            assert receipt.contract is not None
            verifiers.append(receipt.contract)
        progress("registering", 0.8)
        contracts.registry.register_model(
            sender,
            keccak(manifest),
            manifest_cid,
            [segment.spec() for segment in prepared.manifest.segments],
            verifiers,
            prepared.manifest.trials.answer_hashes(),
        )
    progress("granting access", 0.9)
    grant(model_id, prepared.identity, announced_keys(contracts), store, contracts, sender)
    progress("registered", 1.0)
    return model_id


def announced_keys(contracts: Contracts) -> tuple[EncryptionKey, ...]:
    """The newest encryption key of every operator that has the minimum at stake; unusable ones are passed over.

    Weights go to those only who have something to lose.
    """
    keys: dict[str, bytes] = {}
    for event in read_events(contracts, contracts.deployment.block, contracts.connection.block_number()):
        if event.name == "EncryptionKeySet":
            keys[event.arguments["operator"]] = event.arguments["encryptionKey"]
    staking, minimum = contracts.staking, contracts.staking.minimum_stake()
    return usable_keys([key for operator, key in keys.items() if staking.active_of(operator) >= minimum])


def grant(
    model_id: ModelId,
    identity: Identity,
    keys: Sequence[EncryptionKey],
    store: ContentStore,
    contracts: Contracts,
    sender: Sender,
) -> Cid | None:
    """Seal a model's secret key to workers and announce where it lies. Does nothing without a worker."""
    if not keys:
        return None
    cid = store.put(seal(identity.secret.encode("ascii"), keys))
    contracts.registry.grant_access(sender, model_id, cid_to_digest(cid))
    return cid
