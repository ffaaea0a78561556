"""A connection to one chain: the JSON-RPC endpoint, the contracts' ABIs and the decoding of their errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import requests
from eth_abi.abi import decode as abi_decode
from eth_utils.abi import collapse_if_tuple, function_abi_to_4byte_selector
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import (
    BadResponseFormat,
    ContractCustomError,
    ContractLogicError,
    ContractPanicError,
    MultipleFailedRequests,
    Web3RPCError,
)

from offchain.chain.errors import ChainUnreachable, InsufficientFunds, TransactionRefused, WrongChain
from offchain.errors import UnrecoverableError
from offchain.toolchain import project_root

CONTRACTS = ("Registry", "Staking", "Verifier", "Jobs")

UNREACHABLE = (
    requests.RequestException,
    BadResponseFormat,
    MultipleFailedRequests,
    TimeoutError,
    json.JSONDecodeError,  # a proxy's page, or half an answer
)
"""What web3 raises when the endpoint is down or talks nonsense."""


@cache
def artefact(name: str) -> dict[str, Any]:
    """Read what Brownie compiled: ABI, bytecode and runtime bytecode of a contract.

    Raises:
        UnrecoverableError: the contracts are not compiled.
    """
    path = project_root() / "build" / "contracts" / f"{name}.json"
    try:
        compiled: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UnrecoverableError(f"{path.name} is missing: run `make contracts`") from error
    return compiled


@lru_cache(maxsize=1)
def _custom_errors() -> dict[bytes, dict[str, Any]]:
    """Every custom error of every contract by its selector: an error may surface through another contract's call."""
    errors = {}
    for name in CONTRACTS:
        for entry in artefact(name)["abi"]:
            if entry["type"] == "error":
                errors[bytes(function_abi_to_4byte_selector(entry))] = entry
    return errors


def decode_error(content: bytes) -> tuple[str, dict[str, object]]:
    """Name a custom error and its arguments from the bytes that a call reverted with."""
    entry = _custom_errors().get(content[:4])
    if entry is None:
        return "unknown", {"data": content}
    names = [argument["name"] for argument in entry["inputs"]]
    types = [collapse_if_tuple(argument) for argument in entry["inputs"]]
    return entry["name"], dict(zip(names, abi_decode(types, content[4:]), strict=True))


class Connection:
    """A connection to one chain.

    Args:
        rpc_url: HTTP JSON-RPC endpoint.
        timeout_seconds: for each request.

    Raises:
        ChainUnreachable: nothing answers there.
    """

    def __init__(self, rpc_url: str, timeout_seconds: float = 30.0) -> None:
        self.rpc_url = rpc_url
        # web3 retries idempotent requests by itself, with a back-off.
        self.web3 = Web3(HTTPProvider(rpc_url, request_kwargs={"timeout": timeout_seconds}))
        # It asks for the chain's id, twice, with every call. The contracts check it once, when they are bound.
        self.web3.middleware_onion.remove("validation")
        with self.translated("eth_chainId"):
            self.chain_id: int = self.web3.eth.chain_id

    def contract(self, name: str, address: str) -> Contract:
        """Bind a compiled contract to its address.

        Raises:
            WrongChain: no code lies there.
        """
        with self.translated("eth_getCode"):
            code = self.web3.eth.get_code(Web3.to_checksum_address(address))
        if not code:
            raise WrongChain(
                f"chain {self.chain_id} at {self.rpc_url} has no {name} at {address}; deploy the contracts, "
                "or use the deployment record of this chain"
            )
        return self.web3.eth.contract(address=Web3.to_checksum_address(address), abi=artefact(name)["abi"])

    def block_number(self) -> int:
        """The number of the newest block."""
        with self.translated("eth_blockNumber"):
            return self.web3.eth.block_number

    def timestamp(self) -> int:
        """The newest block's time, in seconds since the epoch."""
        with self.translated("eth_getBlockByNumber"):
            return int(self.web3.eth.get_block("latest")["timestamp"])

    def block_hash(self, number: int) -> bytes:
        """The hash of a block."""
        with self.translated("eth_getBlockByNumber"):
            return bytes(self.web3.eth.get_block(number)["hash"])

    def balance(self, address: str) -> int:
        """An account's balance, in wei."""
        with self.translated("eth_getBalance"):
            return int(self.web3.eth.get_balance(Web3.to_checksum_address(address)))

    @contextmanager
    def translated(self, function: str) -> Iterator[None]:
        """Turn what web3 raises into our errors.

        Raises:
            TransactionRefused: a contract reverted.
            InsufficientFunds: the sender cannot pay.
            ChainUnreachable: the endpoint is down or talks nonsense.
        """
        try:
            yield
        except ContractCustomError as error:
            raise TransactionRefused(function, *decode_error(_bytes(error.data))) from error
        except ContractPanicError as error:
            raise TransactionRefused(function, "Panic", {"message": str(error)}) from error
        except ContractLogicError as error:
            content = _bytes(error.data)
            if len(content) >= 4:
                raise TransactionRefused(function, *decode_error(content)) from error
            raise TransactionRefused(function, "unknown", {"message": error.message or ""}) from error
        except Web3RPCError as error:
            raise self._rpc_error(function, error) from error
        except UNREACHABLE as error:
            raise ChainUnreachable(self.rpc_url, type(error).__name__) from error

    def _rpc_error(self, function: str, error: Web3RPCError) -> Exception:
        response: Any = error.rpc_response or {}
        detail = response.get("error") or {}
        message = str(detail.get("message", error))
        content = _bytes(_revert_data(detail.get("data")))
        if len(content) >= 4:
            return TransactionRefused(function, *decode_error(content))
        if "revert" in message:
            return TransactionRefused(function, "unknown", {"message": message})
        if "insufficient funds" in message.lower():
            return InsufficientFunds(f"{function}: {message}; send the account more of the chain's currency")
        return ChainUnreachable(self.rpc_url, f"{function}: {message}")


def _revert_data(data: object) -> object:
    """Ganache nests what a call reverted with; others hand out the hex string."""
    if isinstance(data, dict):
        return data.get("result") or data.get("data")
    return data


def _bytes(data: object) -> bytes:
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    if isinstance(data, dict):
        return _bytes(_revert_data(data))
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            return b""
    return b""
