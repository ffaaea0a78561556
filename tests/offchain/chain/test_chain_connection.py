from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.chain.connection import Connection, decode_error
from offchain.chain.contracts import Contracts
from offchain.chain.deployment import Deployment
from offchain.chain.errors import ChainUnreachable, InsufficientFunds, TransactionRefused, WrongChain
from offchain.chain.jobs import JobRequest
from offchain.chain.sender import Sender
from offchain.errors import InvalidInputError
from offchain.protocol.types import JobId, Link, ModelId, Policy
from tests.local_chain import LocalChain, running_anvil

pytestmark = pytest.mark.integration

NOBODY = "0x" + "00" * 19 + "99"


def test_decode_error__error_of_any_contract__is_named_with_its_arguments() -> None:
    selector = keccak(b"FeeTooLow(uint256,uint256)")[:4]
    assert decode_error(selector + encode(["uint256", "uint256"], [7, 3])) == (
        "FeeTooLow",
        {"required": 7, "actual": 3},
    )


def test_decode_error__selector_of_nobody__is_unknown_and_kept() -> None:
    content = b"\xde\xad\xbe\xef" + bytes(32)
    assert decode_error(content) == ("unknown", {"data": content})


def test_connection__nothing_listens__is_unreachable() -> None:
    with running_anvil() as anvil:
        url = anvil.url
    with pytest.raises(ChainUnreachable) as caught:
        Connection(url)
    assert caught.value.url == url


def test_connection__node_dies_later__is_unreachable_by_every_call(tmp_path: object) -> None:
    with running_anvil() as anvil:
        connection = Connection(anvil.url)
    for read in (
        connection.block_number,
        connection.timestamp,
        lambda: connection.block_hash(0),
        lambda: connection.balance(NOBODY),
        lambda: connection.contract("Jobs", NOBODY),
    ):
        with pytest.raises(ChainUnreachable):
            read()


@pytest.fixture
def nonsense() -> Iterator[str]:
    """A server that answers every request with something that is not JSON-RPC."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>busy</html>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_connection__answers_that_are_not_json__are_unreachable(nonsense: str) -> None:
    with pytest.raises(ChainUnreachable):
        Connection(nonsense)


def test_contract__address_without_code__is_the_wrong_chain(connection: Connection) -> None:
    with pytest.raises(WrongChain, match="has no Jobs"):
        connection.contract("Jobs", NOBODY)


def test_connect__deployment_of_another_chain__is_refused(contracts: Contracts) -> None:
    elsewhere = replace(contracts.deployment, chain_id=contracts.deployment.chain_id + 1)
    with pytest.raises(WrongChain, match="serves chain"):
        Contracts.connect(contracts.connection, elsewhere)


def test_load__record_that_is_missing_or_broken__names_the_mend(tmp_path: object, contracts: Contracts) -> None:
    path = tmp_path / "record.json"  # type: ignore[operator]
    with pytest.raises(InvalidInputError, match="does not exist"):
        Deployment.load(path)
    for content in ("{", '{"chain_id": 1}', "[]"):
        path.write_text(content)
        with pytest.raises(InvalidInputError, match="not a deployment record"):
            Deployment.load(path)
    contracts.deployment.save(path)
    assert Deployment.load(path) == contracts.deployment


def test_read__custom_error__carries_name_and_arguments(contracts: Contracts) -> None:
    with pytest.raises(TransactionRefused) as caught:
        contracts.jobs.job_of(JobId(keccak(b"none")))
    assert (caught.value.function, caught.value.error) == ("jobOf", "UnknownJob")
    assert caught.value.arguments == {"jobId": keccak(b"none")}
    assert "0x" + keccak(b"none").hex() in str(caught.value)


@pytest.mark.parametrize(
    ("reverts_with", "error"),
    [
        (b"", "unknown"),
        (b"\xde\xad\xbe\xef", "unknown"),
        (keccak(b"Error(string)")[:4] + encode(["string"], ["no"]), "unknown"),
        (keccak(b"Panic(uint256)")[:4] + encode(["uint256"], [0x11]), "Panic"),
    ],
)
@pytest.mark.usefixtures("isolation")
def test_read__any_other_revert__is_refused_too(
    chain: LocalChain, contracts: Contracts, reverts_with: bytes, error: str
) -> None:
    # CODECOPY(0, 12, length); REVERT(0, length), and what to revert with behind it.
    length = len(reverts_with).to_bytes(1, "big").hex()
    code = f"60{length}600c600039" + f"60{length}6000fd" + reverts_with.hex()
    chain.rpc("anvil_setCode", contracts.jobs.address, "0x" + code)
    with pytest.raises(TransactionRefused) as caught:
        contracts.jobs.minimum_fee()
    assert (caught.value.function, caught.value.error) == ("minimumFeeWei", error)


@pytest.mark.usefixtures("isolation")
def test_send__account_without_funds__is_told_so(chain: LocalChain, contracts: Contracts) -> None:
    poor = Sender(chain.connection, chain.account("poor"))
    chain.fund(poor.address, 1000)
    with pytest.raises(InsufficientFunds):
        contracts.staking.bond(poor, 10**18)
    with pytest.raises(InsufficientFunds):
        contracts.staking.set_encryption_key(poor, keccak(b"key"))


@pytest.mark.usefixtures("isolation")
def test_jobs__every_field__survives_the_way_there_and_back(contracts: Contracts, deployer: Sender) -> None:
    policy = Policy(3, 6667, 1000, 60, 61, 62, 63, 64)
    unknown = ModelId(keccak(b"model"))
    request = JobRequest(unknown, Link(keccak(b"in")), keccak(b"key"), keccak(b"salt"), policy)
    with pytest.raises(TransactionRefused) as caught:
        contracts.jobs.request(deployer, request, 10**9)
    assert (caught.value.error, caught.value.arguments) == ("UnknownModel", {"modelId": unknown})


@pytest.mark.usefixtures("isolation")
def test_reads__pinned_to_a_block__see_that_block(chain: LocalChain, contracts: Contracts, deployer: Sender) -> None:
    contracts.staking.bond(deployer, 5)
    block = chain.connection.block_number()
    contracts.staking.bond(deployer, 6)
    assert contracts.staking._read("activeOf", deployer.address, block=block) == 5
    assert contracts.staking.active_of(deployer.address) == 11
