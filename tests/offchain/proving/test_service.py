"""Tests of the prover's service: who proves when, and what ends it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.errors import InvalidInputError
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import InputOutOfRange, Proof, ProverFailed, SegmentCircuit
from offchain.proving.service import BASE_BYTES, BYTES_PER_KEY_BYTE, Progress, ProverService, State, predicted_bytes
from offchain.sandbox import Cancellation, run_measured

KEY_BYTES = 1 << 20
NEEDED = BASE_BYTES + int(BYTES_PER_KEY_BYTE * KEY_BYTES)
PROOF = Proof(b"proof", ())
Circuits = tuple[SegmentCircuit, ...]


class Gate:
    """A prover that proves when it is told to: which proofs are under way at a time is what is tested."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._may_end: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def _event(self, name: str) -> threading.Event:
        with self._lock:
            return self._may_end.setdefault(name, threading.Event())

    def prove_elements(self, circuit: Any, elements: Any, *, name: str, cancellation: Any = None) -> Proof:
        self.begun.append(name)
        deadline = time.monotonic() + 10
        while not self._event(name).wait(0.005):
            if cancellation is not None and cancellation.is_cancelled:
                raise ProverFailed(name, "cancelled", "it is not wanted any more")
            assert time.monotonic() < deadline
        return PROOF

    def let_end(self, name: str) -> None:
        self._event(name).set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def circuit(tmp_path: Path) -> Any:
    for name in ("pk.key", "circuit.ezkl", "srs"):
        (tmp_path / name).write_bytes(bytes(KEY_BYTES if name == "pk.key" else 1))
    paths = {"pk": tmp_path / "pk.key", "compiled": tmp_path / "circuit.ezkl"}
    return SimpleNamespace(**paths, srs=SimpleNamespace(path=tmp_path / "srs"))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Asking:
    """A service, and those who ask it."""

    def __init__(self, gate: Gate, circuit: Any, pool: ThreadPoolExecutor, *, proofs: int, slots: int) -> None:
        self.service = ProverService(gate, memory_bytes=proofs * NEEDED + NEEDED // 2, slots=slots)  # type: ignore[arg-type]
        self.gate, self.circuit, self.pool = gate, circuit, pool

    def ask(self, name: str, deadline: float, cancellation: Cancellation | None = None) -> Future[Proof]:
        asked = self.pool.submit(
            self.service.prove, self.circuit, (1,), deadline=deadline, cancellation=cancellation, name=name
        )
        until(lambda: name in self.names() or asked.done())
        return asked

    def names(self) -> list[str]:
        return [it.name for it in self.service.progress()]

    def begun(self, names: Sequence[str]) -> None:
        until(lambda: len(self.gate.begun) == len(names))
        assert self.gate.begun == list(names)


def test_prove__one_place__serves_the_earliest_deadline_first(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor
) -> None:
    asking = Asking(gate, circuit, pool, proofs=4, slots=1)
    for name, deadline in (("under way", 50.0), ("late", 30.0), ("soon", 10.0), ("later", 40.0)):
        asking.ask(name, deadline)
    asking.begun(["under way"])
    assert asking.names() == ["soon", "late", "later", "under way"]
    for ended, begun in (("under way", "soon"), ("soon", "late"), ("late", "later")):
        gate.let_end(ended)
        until(lambda begun=begun: gate.begun[-1] == begun)
    gate.let_end("later")
    assert gate.begun == ["under way", "soon", "late", "later"]


def test_prove__memory_for_two_of_three_places__makes_the_third_wait(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor
) -> None:
    asking = Asking(gate, circuit, pool, proofs=2, slots=3)
    asked = [asking.ask(name, deadline) for name, deadline in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    asking.begun(["a", "b"])
    states = {it.name: it.state for it in asking.service.progress()}
    assert states == {"a": State.PROVING, "b": State.PROVING, "c": State.WAITING}
    gate.let_end("b")
    asking.begun(["a", "b", "c"])
    for name in "ac":
        gate.let_end(name)
    assert [it.result(10) for it in asked] == [PROOF] * 3
    assert asking.service.progress() == ()


def test_prove__urgent_one_does_not_fit_yet__is_not_overtaken(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor
) -> None:
    asking = Asking(gate, circuit, pool, proofs=1, slots=2)
    asking.ask("a", 3.0)
    asking.begun(["a"])
    asking.ask("urgent", 1.0)
    asking.ask("patient", 2.0)
    gate.let_end("a")
    until(lambda: len(gate.begun) == 2)
    assert gate.begun == ["a", "urgent"]
    for name in ("urgent", "patient"):
        gate.let_end(name)


def test_prove__cancelled_while_it_waits__never_begins(gate: Gate, circuit: Any, pool: ThreadPoolExecutor) -> None:
    asking, cancellation = Asking(gate, circuit, pool, proofs=1, slots=1), Cancellation()
    asking.ask("a", 1.0)
    asking.begun(["a"])
    unwanted = asking.ask("unwanted", 2.0, cancellation)
    cancellation.cancel()
    with pytest.raises(ProverFailed, match="cancelled"):
        unwanted.result(10)
    gate.let_end("a")
    assert gate.begun == ["a"]


# --- proofs that nobody has asked for yet -----------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2])
def test_prove__due_while_an_early_one_has_its_place__ends_that(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor, slots: int
) -> None:
    asking = Asking(gate, circuit, pool, proofs=1, slots=slots)
    early = asking.ask("early", math.inf, Cancellation())
    asking.begun(["early"])
    due = asking.ask("due", 1.0)
    with pytest.raises(ProverFailed, match="cancelled"):
        early.result(10)
    gate.let_end("due")
    assert due.result(10) == PROOF
    assert gate.begun == ["early", "due"]


def test_prove__due_while_there_is_room__leaves_the_early_one_alone(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor
) -> None:
    asking = Asking(gate, circuit, pool, proofs=2, slots=2)
    early = asking.ask("early", math.inf, Cancellation())
    asking.begun(["early"])
    due = asking.ask("due", 1.0)
    asking.begun(["early", "due"])
    for name in ("due", "early"):
        gate.let_end(name)
    assert due.result(10) == early.result(10) == PROOF


def test_prove__several_early_ones__ends_no_more_than_are_in_the_way(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor
) -> None:
    asking = Asking(gate, circuit, pool, proofs=2, slots=2)
    first = asking.ask("first", math.inf, Cancellation())
    asking.begun(["first"])
    last = asking.ask("last", math.inf, Cancellation())
    asking.begun(["first", "last"])
    due = asking.ask("due", 1.0)
    with pytest.raises(ProverFailed, match="cancelled"):
        last.result(10)  # the one on which least was spent
    asking.begun(["first", "last", "due"])
    for name in ("due", "first"):
        gate.let_end(name)
    assert due.result(10) == first.result(10) == PROOF


def test_prove__early_while_one_is_due__waits_even_if_there_is_room(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor
) -> None:
    asking = Asking(gate, circuit, pool, proofs=2, slots=2)
    asking.ask("due", 1.0)
    asking.begun(["due"])
    early = asking.ask("early", math.inf, Cancellation())
    assert [it.state for it in asking.service.progress()] == [State.PROVING, State.WAITING]
    assert gate.begun == ["due"]
    gate.let_end("due")
    asking.begun(["due", "early"])
    gate.let_end("early")
    assert early.result(10) == PROOF


def test_hasten__early_one_that_became_due__is_not_ended_any_more(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor
) -> None:
    asking, cancellation = Asking(gate, circuit, pool, proofs=1, slots=1), Cancellation()
    early = asking.ask("early", math.inf, cancellation)
    asking.begun(["early"])
    asking.service.hasten(cancellation, 5.0)
    due = asking.ask("due", 1.0)
    assert {it.name: it.state for it in asking.service.progress()} == {"early": State.PROVING, "due": State.WAITING}
    gate.let_end("early")
    assert early.result(10) == PROOF
    asking.begun(["early", "due"])
    gate.let_end("due")
    assert due.result(10) == PROOF


def test_prove__model_predicts_more_than_the_key__admits_by_that(
    gate: Gate, circuit: Any, pool: ThreadPoolExecutor
) -> None:
    service = ProverService(gate, memory_bytes=3 * NEEDED, slots=2, predict=lambda it: 2 * NEEDED)  # type: ignore[arg-type]
    assert service.check_fits(circuit, "c") == 2 * NEEDED
    for name in "ab":
        pool.submit(service.prove, circuit, (1,), deadline=1.0, name=name)
        until(lambda name=name: name in [it.name for it in service.progress()])
    assert [it.state for it in service.progress()].count(State.WAITING) == 1
    for name in "ab":
        gate.let_end(name)


def test_prove__model_predicts_less_than_the_key__admits_by_the_key(gate: Gate, circuit: Any) -> None:
    service = ProverService(gate, memory_bytes=3 * NEEDED, predict=lambda it: 1)  # type: ignore[arg-type]
    assert service.check_fits(circuit, "c") == NEEDED


def test_prove__more_than_there_is_is_predicted_since_it_was_loaded__is_proved_alone(gate: Gate, circuit: Any) -> None:
    service = ProverService(gate, memory_bytes=2 * NEEDED, slots=2, predict=lambda it: 3 * NEEDED)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        service.check_fits(circuit, "new")
    gate.let_end("owed")
    assert service.prove(circuit, (1,), name="owed") == PROOF


def test_prove__more_than_all_memory__is_refused_with_the_figures(gate: Gate, circuit: Any) -> None:
    service = ProverService(gate, memory_bytes=NEEDED - 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="needs about 66 MiB, and the prover has 66 MiB"):
        service.prove(circuit, (1,), name="large")
    assert gate.begun == []


@pytest.mark.parametrize("limits", [{"memory_bytes": 0}, {"memory_bytes": 1, "slots": 0}])
def test_service__no_room_at_all__is_refused(gate: Gate, limits: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError):
        ProverService(gate, **limits)  # type: ignore[arg-type]


def test_progress__one_waits__says_for_how_long(gate: Gate, circuit: Any, pool: ThreadPoolExecutor) -> None:
    asking = Asking(gate, circuit, pool, proofs=1, slots=1)
    asking.ask("a", 1.0)
    asking.begun(["a"])
    asking.ask("b", 2.0)
    waiting: Progress = asking.service.progress()[1]
    assert (waiting.state, waiting.predicted_bytes) == (State.WAITING, NEEDED)
    until(lambda: asking.service.progress()[1].seconds > waiting.seconds)
    for name in "ab":
        gate.let_end(name)


# --- the real prover --------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_prove__real_circuit__is_what_the_prover_proves(prover: EzklProver, circuits: Circuits) -> None:
    circuit = circuits[0]
    service = ProverService(prover, memory_bytes=1 << 30)
    elements = (1,) * circuit.input_elements
    proof = service.prove(circuit, elements)
    prover.verify(circuit.verifying_key(), circuit.srs, proof)
    assert proof.proof[:64] == prover.prove(circuit, prover.witness(circuit, elements)).proof[:64]
    with pytest.raises(InputOutOfRange):
        service.prove(circuit, (1 << 120,) * circuit.input_elements)
    with pytest.raises(InvalidInputError, match="values instead of"):
        service.prove(circuit, (1,))


@pytest.mark.integration
def test_prove__cancelled_under_way__ends_the_native_call(
    prover: EzklProver, circuits: Circuits, pool: ThreadPoolExecutor
) -> None:
    circuit, cancellation = circuits[0], Cancellation()
    service = ProverService(prover, memory_bytes=1 << 30)
    asked = pool.submit(service.prove, circuit, (1,) * circuit.input_elements, cancellation=cancellation)
    until(lambda: any(it.state is State.PROVING for it in service.progress()) or asked.done())
    cancellation.cancel()
    with pytest.raises(ProverFailed, match="cancelled"):
        asked.result(10)


@pytest.mark.integration
def test_predicted_bytes__small_circuit__is_not_less_than_what_it_takes(circuits: Circuits) -> None:
    circuit = circuits[0]
    payload = {
        "compiled": str(circuit.compiled),
        "settings": str(circuit.settings),
        "vk": str(circuit.vk),
        "pk": str(circuit.pk),
        "srs": str(circuit.srs.path),
        "elements": [1] * circuit.input_elements,
    }
    taken = run_measured(
        "offchain.proving.native:prove_elements", payload, timeout_seconds=60, memory_bytes=4 << 30
    ).peak_memory_bytes
    assert taken <= predicted_bytes(circuit)
