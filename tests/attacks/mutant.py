"""The contracts with a defence taken out of their source, beside the real ones on one chain.

A test of a defence proves little unless it is seen that the attack does harm where the defence is missing. So each
attack is played twice: on a mutant, where it must do harm, and on the real contracts, where it must be refused. A
change that does not match the source exactly once is an error: who rewrites a defence has to look at its attack again.

Mutants are compiled without the optimizer, which takes a sixth of the time and changes no behaviour; so the chain they
live on has no limit of code size. All that were declared when the first is needed are compiled together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from migrations.ledger import parameters
from offchain.chain.connection import Connection, artefact, decode_error
from offchain.chain.contracts import Contracts
from offchain.chain.sender import Receipt
from offchain.protocol.types import ZERO_ADDRESS
from offchain.toolchain import SOLC_VERSION, project_root, solc_standard_json
from tests.contracts.stage import STAKES, Stage
from tests.local_chain import InstantSender, LocalChain, running_anvil

MUTANT_CACHE = project_root() / "build" / "test-cache" / "mutants"
DEPLOYMENT_GAS = 29_000_000
"""Code that is not optimised costs more to deploy than a transaction may use elsewhere."""
MUTANTS_PER_CALL = 6
STATES = 64
"""How many blocks back a chain of these can be asked for."""
COMPILERS = 2
TARGETS = ("Registry", "Verifier", "Jobs")
_declared: dict[str, Mutant] = {}


@dataclass(frozen=True)
class Change:
    """A piece of source text, which must occur exactly once in its file, and what stands there instead.

    Args:
        source: path below ``contracts/``.
    """

    source: str
    old: str
    new: str = ""

    def apply(self, sources: dict[str, str]) -> None:
        """Change the text in place."""
        found = sources[self.source].count(self.old)
        assert found == 1, f"contracts/{self.source} has {found} times, and not once: {self.old!r}"
        sources[self.source] = sources[self.source].replace(self.old, self.new)


class Mutant:
    """A contract set with some changes; declare it at the head of a module, so that it is compiled with the others.

    Args:
        changes: usually one; more where two defences stand behind each other, and neither alone lets harm through.
    """

    def __init__(self, *changes: Change) -> None:
        self.changes = changes
        _declared[repr(changes)] = self

    @property
    def target(self) -> tuple[str, ...]:
        """The contracts whose code the changes are in: what is no file of these is part of ``Jobs``."""
        touched = {change.source.removesuffix(".sol") for change in self.changes}
        inside = {name if name in TARGETS else "Jobs" for name in touched}
        return tuple(name for name in TARGETS if name in inside)

    def sources(self) -> dict[str, str]:
        """The changed sources by path below ``contracts/``."""
        changed = dict(_sources())
        for change in self.changes:
            change.apply(changed)
        return changed

    def matches(self) -> bool:
        """Whether every change fits the source as it is now."""
        try:
            self.sources()
        except AssertionError:
            return False
        return True

    def key(self) -> str:
        """What names the compiled mutant: a hash of all that it is made from."""
        content = json.dumps([SOLC_VERSION, self.target, self.sources()], sort_keys=True)
        return sha256(content.encode()).hexdigest()

    def bytecode(self, name: str) -> str:
        """Creation code of one contract of the set."""
        if name not in self.target:
            return str(artefact(name)["bytecode"])
        path = MUTANT_CACHE / f"{self.key()}.json"
        if not path.exists():
            compile_missing()
        return str(json.loads(path.read_text())[name])


@cache
def _sources() -> dict[str, str]:
    root = project_root() / "contracts"
    paths = [path for path in sorted(root.rglob("*.sol")) if "mocks" not in path.parts]
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


def compile_missing() -> None:
    """Compile every declared mutant that is in no cache yet, several in one call."""
    # One that does not match the source any more fails its own tests, and no others.
    sound = {mutant.key(): mutant for mutant in _declared.values() if mutant.matches()}
    waiting = [(key, mutant) for key, mutant in sound.items() if not _path(key).exists()]
    batches = [waiting[start : start + MUTANTS_PER_CALL] for start in range(0, len(waiting), MUTANTS_PER_CALL)]
    with ThreadPoolExecutor(COMPILERS) as pool:
        list(pool.map(_compile, batches))


def _path(key: str) -> Path:
    return MUTANT_CACHE / f"{key}.json"


def _compile(batch: Sequence[tuple[str, Mutant]]) -> None:
    sources: dict[str, Any] = {}
    selection: dict[str, Any] = {}
    for key, mutant in batch:
        sources |= {f"{key}/contracts/{path}": {"content": text} for path, text in mutant.sources().items()}
        selection |= {f"{key}/contracts/{name}.sol": {name: ["evm.bytecode.object"]} for name in mutant.target}
    compiled = solc_standard_json(
        {
            "language": "Solidity",
            "sources": sources,
            "settings": {
                "optimizer": {"enabled": False},
                "evmVersion": "shanghai",
                "remappings": ["@openzeppelin=node_modules/@openzeppelin"],
                "outputSelection": selection,
            },
        }
    )["contracts"]
    MUTANT_CACHE.mkdir(parents=True, exist_ok=True)
    for key, mutant in batch:
        code = {
            name: "0x" + compiled[f"{key}/contracts/{name}.sol"][name]["evm"]["bytecode"]["object"]
            for name in mutant.target
        }
        temporary = _path(key).with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(code))
        temporary.replace(_path(key))


@cache
def attacking_contract(name: str) -> dict[str, Any]:
    """Compile a contract that lies beside the attacks; returns its ABI and creation code."""
    text = (Path(__file__).parent / f"{name}.sol").read_text()
    compiled = solc_standard_json(
        {
            "language": "Solidity",
            "sources": {name: {"content": text}},
            "settings": {"evmVersion": "shanghai", "outputSelection": {name: {name: ["abi", "evm.bytecode.object"]}}},
        }
    )["contracts"][name][name]
    return {"abi": compiled["abi"], "bytecode": "0x" + compiled["evm"]["bytecode"]["object"]}


# --- the chain, and stages upon it ------------------------------------------------------------------------------------


@contextmanager
def running_theatre(*options: str) -> Iterator[LocalChain]:
    """Start a chain whose clock moves one second a block, on which code of any size may be deployed."""
    # By default Anvil writes the state of every block to disk, and leaves it there.
    with running_anvil("--disable-code-size-limit", "--prune-history", str(STATES), *options) as anvil:
        chain = LocalChain(Connection(anvil.url))
        chain.rpc("anvil_setBlockTimestampInterval", 1)
        # By default fees go to address 0, where penalties are burnt: tests compare what arrives there.
        chain.rpc("anvil_setCoinbase", chain.account("proposer").address)
        chain.fund(ZERO_ADDRESS, 1)
        yield chain


def deploy(chain: LocalChain, mutant: Mutant | None = None, **changes: int) -> Contracts:
    """Deploy a contract set.

    Args:
        mutant: the real contracts if None.
        changes: parameters that are not as in ``migrations/config/local.json``.
    """
    deployer = chain.instant("deployer")

    def create(name: str, *arguments: Any) -> str:
        bytecode = mutant.bytecode(name) if mutant else artefact(name)["bytecode"]
        factory = chain.connection.web3.eth.contract(abi=artefact(name)["abi"], bytecode=bytecode)
        deployed = deployer.send(factory.constructor(*arguments), gas=DEPLOYMENT_GAS).contract
        assert deployed is not None
        return deployed

    values = parameters()
    assert changes.keys() <= values.keys()
    values |= changes
    inputs = next(entry for entry in artefact("Jobs")["abi"] if entry["type"] == "constructor")["inputs"]
    registry = create("Registry")
    verifier = create("Verifier", registry)
    fixed = tuple(int(values[_snake(part["name"])]) for part in inputs[2]["components"])
    jobs = create("Jobs", registry, verifier, fixed)
    return Contracts.of_jobs(chain.connection, jobs)


def build_stage(
    chain: LocalChain,
    mutant: Mutant | None = None,
    *,
    segments: int = 3,
    stakes: Sequence[int] = STAKES,
    answer: int = 0,
    **changes: int,
) -> Stage:
    """Deploy a contract set, register a model and have workers serve it; see :func:`deploy`.

    Args:
        stakes: of each worker, in wei; worker i is the i-th.
        answer: what the model's verifiers answer; see ``VerifierMock``.
    """
    contracts = deploy(chain, mutant, **changes)
    stage = Stage(chain, contracts, requester=chain.instant("requester"), owner=chain.instant("owner"))
    stage.model = stage.register_segments(segments, answer=answer)
    stage.workers = tuple(chain.instant(f"worker {index}") for index in range(len(stakes)))
    for worker, stake_wei in zip(stage.workers, stakes, strict=True):
        stage.join(worker, stake_wei)
    return stage


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)


# --- transactions as an attacker sees and sends them ------------------------------------------------------------------


def pending(chain: LocalChain, send: Callable[[], Receipt]) -> dict[str, Any]:
    """What everybody sees of a transaction that waits for its block: nothing of it stays on the chain."""
    with chain.isolated():
        seen = chain.rpc("eth_getTransactionByHash", send().transaction_hash)
    return {"to": seen["to"], "data": seen["input"]}


def calldata(call: Any) -> dict[str, Any]:
    """What a bound call would send, without a sender."""
    return {"to": call.address, "data": call._encode_transaction_data()}


def deploy_code(chain: LocalChain, sender: InstantSender, runtime: bytes) -> tuple[str, bytes]:
    """Deploy code as it is; return its address and hash. ``PUSH2 size DUP1 PUSH1 10 PUSH0 CODECOPY PUSH0 RETURN``."""
    creation = b"\x61" + len(runtime).to_bytes(2, "big") + bytes.fromhex("80600a5f395ff3") + runtime
    address = sender.send_raw("create", {"from": sender.address, "data": "0x" + creation.hex()}).contract
    assert address is not None
    assert bytes(chain.connection.web3.eth.get_code(to_checksum_address(address))) == runtime
    return address, keccak(runtime)


def mined_together(chain: LocalChain, transactions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put transactions into one block, in their order and whether they revert or not; return their receipts."""
    chain.rpc("evm_setAutomine", False)
    try:
        # The first has to offer the most.
        hashes = [
            chain.rpc("eth_sendTransaction", {"gas": hex(8_000_000), "gasPrice": hex((90 - place) * 10**9), **fields})
            for place, fields in enumerate(transactions)
        ]
        chain.mine()
    finally:
        chain.rpc("evm_setAutomine", True)
    receipts = [chain.rpc("eth_getTransactionReceipt", each) for each in hashes]
    assert [int(receipt["transactionIndex"], 16) for receipt in receipts] == list(range(len(receipts)))
    assert len({receipt["blockNumber"] for receipt in receipts}) == 1
    return receipts


def why_reverted(chain: LocalChain, receipt: dict[str, Any]) -> tuple[str, dict[str, object]]:
    """The custom error, and its arguments, that a mined transaction reverted with."""
    assert receipt["status"] == "0x0"
    trace = chain.rpc("debug_traceTransaction", receipt["transactionHash"], {"tracer": "callTracer"})
    return decode_error(bytes.fromhex(trace["output"].removeprefix("0x")))
