"""Asks the prover how large the runs of a stretch are, as settings documents only: nothing is compiled or proved.

Rows grow by a fixed number with each leg of a decomposition, so two documents tell the rows for every number of legs.
They depend neither on the base nor, where nothing is rescaled, on the scale of the input. Only pieces and pairs of
neighbours are asked for: a longer run is as large as its pairs together, less the pieces that two of them share.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from offchain.planning.pieces import EXACT_OPERATORS, Stretch, write_runs
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import FixedPoint
from offchain.proving.settings import RunParameters
from offchain.tuning.chain import RESERVED_ROWS

PROBED_LEGS = (3, 5)
PROBED_LOG_ROWS = 12
MAX_COST = 1 << 21
"""A piece of more multiply-accumulates is not even laid out: it takes minutes, and no worker holds the circuit."""
_FORMAT = "plan-rows-4"
_JOBS_PER_CALL = 16

Run = tuple[int, int]


def planned_parameters(
    kinds: tuple[LinkKind, LinkKind],
    fixed_point: FixedPoint,
    log_rows: int,
    legs: int,
    *,
    checks_products: bool = False,
) -> RunParameters:
    """Return what the settings of a planned segment are generated from: half the rows hold each digit's table.

    Args:
        fixed_point: with the scale of the segment's own input.
        checks_products: in columns that leave room in a verifier for one inner column only.
    """
    half = 1 << (log_rows - 1)
    return RunParameters(
        input_kind=kinds[0],
        output_kind=kinds[1],
        input_scale=fixed_point.input_scale,
        param_scale=fixed_point.param_scale,
        rebase_multiplier=fixed_point.rebase_multiplier,
        log_rows=log_rows,
        decomposition_base=half,
        decomposition_legs=legs,
        lookup_half_range=half - RESERVED_ROWS,
        inner_columns=1 if checks_products else 2,
        checks_products=checks_products,
    )


@dataclass(frozen=True)
class Rows:
    """What settings documents say about a run.

    Attributes:
        base, per_leg: ``rows = base + per_leg * legs``.
        scale_gain: fractional bits by which the output is over the input; 0 where it is rescaled.
        lookups, range_checks: the tables that it needs, by name.
        has_shuffles: whether it sorts, as a maximum does.
        refusal: why it cannot be laid out; the rest means nothing then.
    """

    base: float = 0.0
    per_leg: float = 0.0
    scale_gain: int = 0
    lookups: frozenset[str] = frozenset()
    range_checks: frozenset[str] = frozenset()
    has_shuffles: bool = False
    refusal: str = ""


class Layouts:
    """What is known about the runs of one stretch.

    Args:
        prover: lays circuits out; its cache keeps what was learnt.
        fixed_point: scales of the input and of the weights; whether products are rescaled is decided run by run.
        end_kinds: how the stretch's input and output are exposed.
        scratch: a directory for ONNX files.
    """

    def __init__(
        self,
        prover: EzklProver,
        stretch: Stretch,
        fixed_point: FixedPoint,
        end_kinds: tuple[LinkKind, LinkKind],
        scratch: Path,
    ) -> None:
        self.stretch, self.fixed_point, self.end_kinds = stretch, fixed_point, end_kinds
        self._prover, self._scratch = prover, scratch
        self._paths: dict[Run, Path] = {}
        self._known: dict[tuple[int, int, bool], Rows] = {}
        self._refused: dict[tuple[int, int, bool], str] = {}

    def rows(self, start: int, stop: int, *, is_rescaled: bool) -> Rows:
        """Return what is known of a run; :meth:`survey` goes first."""
        refusal = self._refused.get((start, stop, is_rescaled))
        if refusal:
            return Rows(refusal=refusal)
        if stop - start <= 2:
            return self._known[start, stop, is_rescaled]
        pairs = [self._known[at, at + 2, is_rescaled] for at in range(start, stop - 1)]
        shared = [self._known[at, at + 1, is_rescaled] for at in range(start + 1, stop - 1)]
        return reduce(_without, shared, reduce(_joined, pairs))

    def refuse(self, start: int, stop: int, reason: str, *, is_rescaled: bool) -> None:
        """Remember that a run cannot be laid out after all."""
        self._refused[start, stop, is_rescaled] = reason

    def survey(self) -> None:
        """Ask for all pieces and pairs, exact ones first; rescaled ones where a piece cannot do without."""
        runs = self._runs()
        self._probe([(*run, False) for run in runs])
        if any(self._known[at, at + 1, False].refusal for at in range(len(self.stretch.pieces))):
            self._probe([(*run, True) for run in runs])
        else:
            self._known |= {(*run, True): Rows(refusal="exact is cheaper") for run in runs}

    def segment(self, start: int, stop: int) -> bytes:
        """Return the ONNX file of a run."""
        return self._write([(start, stop)])[start, stop].read_bytes()

    def settings(self, choices: Sequence[tuple[Run, RunParameters]]) -> list[dict[str, str]]:
        """Generate documents: for each choice its ``settings``, or a ``refusal``."""
        paths = self._write([run for run, _ in choices])
        jobs = [
            {"onnx": str(paths[run]), "name": f"pieces[{run[0]}:{run[1]}]", "run_args": parameters.to_run_args()}
            for run, parameters in choices
        ]
        answers: list[dict[str, str]] = []
        for first in range(0, len(jobs), _JOBS_PER_CALL):
            payload = {"jobs": jobs[first : first + _JOBS_PER_CALL]}
            limit = self._prover.limits.settings_seconds
            answers += self._prover.call("try_settings", payload, limit, "model")["answers"]
        return answers

    def parameters(
        self, kinds: tuple[LinkKind, LinkKind], scale: int, log_rows: int, legs: int, *, is_rescaled: bool
    ) -> RunParameters:
        """Return what the settings of a segment are generated from."""
        fixed_point = FixedPoint(scale, self.fixed_point.param_scale, is_rescaled)
        return planned_parameters(kinds, fixed_point, log_rows, legs)

    def _runs(self) -> list[Run]:
        count = len(self.stretch.pieces)
        return [(at, at + size) for size in (1, 2) for at in range(count - size + 1)]

    def _probe(self, keys: Sequence[tuple[int, int, bool]]) -> None:
        self._known |= self._recall(keys)
        missing = []
        for key in keys:
            if key in self._known:
                continue
            reason = self._unfit(*key)
            if reason:
                self._known[key] = Rows(refusal=reason)
            else:
                missing.append(key)
        choices = [((key[0], key[1]), self._probe_parameters(key, legs)) for key in missing for legs in PROBED_LEGS]
        answers = self.settings(choices) if choices else []
        for at, key in enumerate(missing):
            self._known[key] = _fit(answers[2 * at], answers[2 * at + 1])
        if missing:
            self._remember()

    def _unfit(self, start: int, stop: int, is_rescaled: bool) -> str:
        cost = sum(piece.cost for piece in self.stretch.pieces[start:stop])
        if cost > MAX_COST:
            return f"{cost:,} multiply-accumulates, over {MAX_COST:,}"
        odd = set(self.stretch.operators(start, stop)) - EXACT_OPERATORS
        return "" if is_rescaled or not odd else f"{', '.join(sorted(odd))}: not without rescaling"

    def _probe_parameters(self, key: tuple[int, int, bool], legs: int) -> RunParameters:
        start, stop, is_rescaled = key
        kinds = (
            self.end_kinds[0] if start == 0 else LinkKind.KZG,
            self.end_kinds[1] if stop == len(self.stretch.pieces) else LinkKind.KZG,
        )
        return self.parameters(kinds, self.fixed_point.input_scale, PROBED_LOG_ROWS, legs, is_rescaled=is_rescaled)

    def _write(self, runs: Iterable[Run]) -> dict[Run, Path]:
        missing = [run for run in dict.fromkeys(runs) if run not in self._paths]
        if missing:
            self._paths |= write_runs(self.stretch, missing, self._scratch)
        return self._paths

    def _file(self) -> Path:
        known = {
            "format": _FORMAT,
            "tool": self._prover.version,
            "model": hashlib.sha256(self.stretch.onnx).hexdigest(),
            "boundaries": [boundary.name for boundary in self.stretch.boundaries],
            "scales": [self.fixed_point.input_scale, self.fixed_point.param_scale],
            "ends": [int(kind) for kind in self.end_kinds],
        }
        name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        return self._prover.cache.root / "plans" / f"{name}.json"

    def _recall(self, keys: Sequence[tuple[int, int, bool]]) -> dict[tuple[int, int, bool], Rows]:
        try:
            entries = json.loads(self._file().read_text())
        except (FileNotFoundError, ValueError):
            return {}
        wanted = set(keys)
        return {
            (start, stop, way): _read_rows(rows) for start, stop, way, rows in entries if (start, stop, way) in wanted
        }

    def _remember(self) -> None:
        target = self._file()
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{hashlib.sha256(str(self._scratch).encode()).hexdigest()[:8]}")
        partial.write_text(json.dumps([[*key, _write_rows(rows)] for key, rows in self._known.items()]))
        partial.replace(target)


def _write_rows(rows: Rows) -> dict[str, Any]:
    return vars(rows) | {"lookups": sorted(rows.lookups), "range_checks": sorted(rows.range_checks)}


def _read_rows(entry: dict[str, Any]) -> Rows:
    sets = {name: frozenset(entry[name]) for name in ("lookups", "range_checks")}
    return Rows(**(entry | sets))


def _joined(left: Rows, right: Rows) -> Rows:
    return Rows(
        base=left.base + right.base,
        per_leg=left.per_leg + right.per_leg,
        scale_gain=left.scale_gain + right.scale_gain,
        lookups=left.lookups | right.lookups,
        range_checks=left.range_checks | right.range_checks,
        has_shuffles=left.has_shuffles or right.has_shuffles,
        refusal=left.refusal or right.refusal,
    )


def _without(left: Rows, shared: Rows) -> Rows:
    return Rows(
        base=left.base - shared.base,
        per_leg=left.per_leg - shared.per_leg,
        scale_gain=left.scale_gain - shared.scale_gain,
        lookups=left.lookups,
        range_checks=left.range_checks,
        has_shuffles=left.has_shuffles,
        refusal=left.refusal,
    )


def _fit(fewer: dict[str, str], more: dict[str, str]) -> Rows:
    for answer in (fewer, more):
        if "refusal" in answer:
            return Rows(refusal=answer["refusal"])
    low, high = (json.loads(answer["settings"]) for answer in (fewer, more))
    per_leg = (_cells(high) - _cells(low)) / (PROBED_LEGS[1] - PROBED_LEGS[0])
    return Rows(
        base=_cells(low) - per_leg * PROBED_LEGS[0],
        per_leg=per_leg,
        scale_gain=int(low["model_output_scales"][0]) - int(low["model_input_scales"][0]),
        lookups=frozenset(json.dumps(lookup, sort_keys=True) for lookup in low["required_lookups"]),
        range_checks=frozenset(str(check) for check in low["required_range_checks"]),
        has_shuffles=bool(low["num_shuffles"]),
    )


def _cells(document: dict[str, Any]) -> int:
    shuffled = int(document["total_dynamic_col_size"]) + int(document["total_shuffle_col_size"])
    return max(int(document["num_rows"]), int(document["total_const_size"]), shuffled)
