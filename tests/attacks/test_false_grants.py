"""Anyone may announce a grant: false ones keep no worker from the true one before them."""

from __future__ import annotations

import pytest

from offchain.chain.contracts import Contracts
from offchain.models.loading import find_identity
from offchain.models.publication import grant
from offchain.storage.cid import cid_of, cid_to_digest
from offchain.storage.ipfs import IpfsStore
from offchain.storage.port import ContentUnavailable
from offchain.storage.sealing import Identity, seal
from tests.harness import ReadyModel
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("kind", ["content that nobody has", "no sealed content", "another key", "no key"])
def test_find_identity__false_grant_behind_the_true_one__finds_the_true_one(
    chain: LocalChain, contracts: Contracts, store: IpfsStore, model: ReadyModel, isolation: None, kind: str
) -> None:
    worker, stranger = Identity.generate(), chain.instant("granting stranger")
    grant(model.id, model.prepared.identity, [worker.encryption_key], store, contracts, stranger)
    announce_falsely(kind, contracts, store, model, worker, stranger)
    assert find_identity(contracts, store, model.id, model.manifest, worker) == model.prepared.identity


def test_find_identity__only_content_that_nobody_has__says_so(
    chain: LocalChain, contracts: Contracts, store: IpfsStore, model: ReadyModel, isolation: None
) -> None:
    """The grant may be there and slow: that is no refusal."""
    worker, stranger = Identity.generate(), chain.instant("granting stranger")
    assert find_identity(contracts, store, model.id, model.manifest, worker) is None
    announce_falsely("content that nobody has", contracts, store, model, worker, stranger)
    with pytest.raises(ContentUnavailable):
        find_identity(contracts, store, model.id, model.manifest, worker)


def announce_falsely(
    kind: str, contracts: Contracts, store: IpfsStore, model: ReadyModel, worker: Identity, stranger: object
) -> None:
    if kind == "content that nobody has":
        cid = cid_of(b"never added")
    elif kind == "no sealed content":
        cid = store.put(b"not sealed at all")
    else:
        secret = Identity.generate().secret.encode() if kind == "another key" else "ключ".encode()
        cid = store.put(seal(secret, [worker.encryption_key]))
    contracts.registry.grant_access(stranger, model.id, cid_to_digest(cid))  # type: ignore[arg-type]
