"""A pytest plugin that asks Anvil which branches of the contracts the tests took.

Loaded by ``tools/branches/run`` and by nothing else (``-p tools.branches.plugin --branches FOLDER``). It stands
between web3 and the node: a transaction is traced once it is mined, and a call (a view, or the simulation of what is
refused) right after it, on the same state. A simulation that passes is not traced: the transaction follows.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from web3 import HTTPProvider

from tools.branches.sites import Code, Compiled, Site, read_build

ROOT = Path(__file__).resolve().parents[2]
TRACER = (Path(__file__).parent / "tracer.js").read_text().split("\n", 1)[1]
RECEIPTS = ("eth_getTransactionReceipt", "eth_sendTransactionSync")


class Recorder:
    """Collects the sides taken: 1 false, 2 true, 3 both.

    Args:
        compiled: the contracts that are looked for on the chain.
        views_until_idle: a view function that showed nothing new in so many calls is traced no more in that test.
    """

    def __init__(self, compiled: Compiled, views_until_idle: int = 20) -> None:
        self.compiled = compiled
        self.taken: dict[Site, int] = defaultdict(int)
        self.traces = 0
        self._idle: dict[str, int] = defaultdict(int)
        self._views_until_idle = views_until_idle
        self._codes: dict[tuple[str, str], Code | None] = {}
        self._known: dict[bytes, Code | None] = {}
        self._seen: set[str] = set()

    def begin_test(self) -> None:
        """Trace every view again: a test may be the only one that leads to a state that its views tell of."""
        self._idle.clear()

    def observe(self, provider: HTTPProvider, method: str, parameters: Any, answer: Any) -> None:
        """Look at one request and the node's answer, and trace where that tells something."""
        if method == "evm_revert":
            # Other contracts may come to lie at the same addresses, and the same transactions may be sent again.
            self._codes.clear()
            self._seen.clear()
        elif method in RECEIPTS and answer.get("result"):
            self._transaction(provider, answer["result"]["transactionHash"])
        elif method == "eth_call":
            self._call(provider, list(parameters), "error" in answer)

    def _transaction(self, provider: HTTPProvider, given: Any) -> None:
        name = given if isinstance(given, str) else "0x" + bytes(given).hex()
        if name not in self._seen:
            self._seen.add(name)
            self._trace(provider, "debug_traceTransaction", [name], {})

    def _call(self, provider: HTTPProvider, parameters: list[Any], is_refused: bool) -> None:
        call = parameters[0]
        selector = str(call.get("data") or call.get("input") or "")[:10]
        is_view = bytes.fromhex(selector[2:]) in self.compiled.views
        if not is_refused and (not is_view or self._idle[selector] >= self._views_until_idle):
            return
        block = parameters[1] if len(parameters) > 1 else "latest"
        overrides = dict(zip(("stateOverrides", "blockOverrides"), parameters[2:4], strict=False))
        is_new = self._trace(provider, "debug_traceCall", [call, block], overrides)
        if is_view and not is_refused:
            self._idle[selector] = 0 if is_new else self._idle[selector] + 1

    def _trace(self, provider: HTTPProvider, method: str, parameters: list[Any], options: dict[str, Any]) -> bool:
        answer = _make_request(provider, method, [*parameters, {"tracer": TRACER, **options}])
        if "result" not in answer:
            raise AssertionError(f"{method}: {answer.get('error')}")
        self.traces += 1
        is_new = False
        for frame in answer["result"]:
            code = self._code_of(provider, frame) if frame["jumps"] else None
            for position, sides in frame["jumps"].items() if code else ():
                site = code.jumps.get(int(position)) if code else None
                if site is not None and self.taken[site] | sides != self.taken[site]:
                    self.taken[site] |= sides
                    is_new = True
        return is_new

    def _code_of(self, provider: HTTPProvider, frame: dict[str, Any]) -> Code | None:
        if frame["create"]:
            code = bytes.fromhex(frame["input"].removeprefix("0x"))
            return next((known for known in self.compiled.creation if known.begins(code)), None)
        key = str(provider.endpoint_uri), frame["address"]
        if key not in self._codes:
            answer = _make_request(provider, "eth_getCode", [frame["address"], "latest"])
            deployed = bytes.fromhex(str(answer["result"]).removeprefix("0x"))
            if deployed not in self._known:
                candidates = (known for known in self.compiled.runtime if known.is_code_of(deployed))
                self._known[deployed] = next(candidates, None)
            self._codes[key] = self._known[deployed]
        return self._codes[key]


_make_request = HTTPProvider.make_request


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--branches", required=True, help="folder for the branches taken, a file for each process")


def pytest_configure(config: pytest.Config) -> None:
    recorder = Recorder(read_build(ROOT / "build" / "contracts"))
    config.stash[RECORDER] = recorder

    def make_request(self: HTTPProvider, method: Any, params: Any) -> Any:
        answer = _make_request(self, method, params)
        recorder.observe(self, method, params, answer)
        return answer

    HTTPProvider.make_request = make_request  # type: ignore[method-assign]


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[RECORDER].begin_test()


def pytest_unconfigure(config: pytest.Config) -> None:
    HTTPProvider.make_request = _make_request  # type: ignore[method-assign]
    recorder = config.stash[RECORDER]
    taken = [[*vars(site).values(), sides] for site, sides in sorted(recorder.taken.items())]
    folder = Path(config.getoption("--branches"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{os.getpid()}.json").write_text(json.dumps({"traces": recorder.traces, "taken": taken}))


RECORDER = pytest.StashKey[Recorder]()
