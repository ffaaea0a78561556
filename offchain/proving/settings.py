"""The prover's settings files in a form that repeats.

The tool writes a time stamp and lists in random order, and the order changes the verification key. The canonical form
has neither, so that one model and one choice of parameters give one file.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from offchain.protocol.links import LinkKind
from offchain.proving.port import CircuitRefused

_VISIBILITY = {LinkKind.KZG: "polycommit", LinkKind.POSEIDON: "hashed", LinkKind.PUBLIC: "public"}
_KINDS = {"KZGCommit": LinkKind.KZG, "Hashed": LinkKind.POSEIDON, "Public": LinkKind.PUBLIC}
_MAX_SETTINGS_BYTES = 1 << 22


@dataclass(frozen=True)
class RunParameters:
    """What a settings file is generated from.

    Attributes:
        input_scale, param_scale: fixed-point fractional bits of the input and of the weights.
        rebase_multiplier: a product is brought back to a smaller scale where its own is over this many times the
            larger of the two. 1 rescales behind every layer; what no scale reaches never rescales.
        lookup_half_range: a lookup table covers ``[-half, half]``.
        inner_columns: how many columns a dot product is laid out over.
        checks_products: whether a product of matrices is claimed, and checked with random challenges (Freivalds 1977),
            in columns of its own. They make the verifier contract larger than a chain takes, unless there is one inner
            column only.
    """

    input_kind: LinkKind
    output_kind: LinkKind
    input_scale: int
    param_scale: int
    rebase_multiplier: int
    log_rows: int
    decomposition_base: int
    decomposition_legs: int
    lookup_half_range: int
    inner_columns: int = 2
    checks_products: bool = False

    def to_run_args(self) -> dict[str, Any]:
        """Name the parameters as the tool does. Parameters are ``fixed``: only that binds weights in the key."""
        return {
            "input_visibility": _VISIBILITY[self.input_kind],
            "output_visibility": _VISIBILITY[self.output_kind],
            "param_visibility": "fixed",
            "input_scale": self.input_scale,
            "param_scale": self.param_scale,
            "scale_rebase_multiplier": self.rebase_multiplier,
            "logrows": self.log_rows,
            "decomp_base": self.decomposition_base,
            "decomp_legs": self.decomposition_legs,
            "lookup_range": [-self.lookup_half_range, self.lookup_half_range],
            "num_inner_cols": self.inner_columns,
            "disable_freivalds": not self.checks_products,
        }

    @classmethod
    def from_settings(cls, settings: bytes, name: str = "segment") -> RunParameters:
        """Read back what a canonical settings file was generated from.

        Raises:
            CircuitRefused: as :func:`read_settings`.
        """
        summary = read_settings(settings, name)
        arguments = json.loads(settings)["run_args"]
        try:
            return cls(
                input_kind=summary.input_kind,
                output_kind=summary.output_kind,
                input_scale=int(arguments["input_scale"]),
                param_scale=int(arguments["param_scale"]),
                rebase_multiplier=int(arguments["scale_rebase_multiplier"]),
                log_rows=summary.log_rows,
                decomposition_base=summary.decomposition_base,
                decomposition_legs=summary.decomposition_legs,
                lookup_half_range=int(arguments["lookup_range"][1]),
                inner_columns=int(arguments["num_inner_cols"]),
                checks_products=not arguments["disable_freivalds"],
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            problem = f"unreadable ({type(error).__name__}: {error})"
            raise CircuitRefused(f"{name}.settings", problem, "use a settings file that Interlock generated") from error


@dataclass(frozen=True)
class SettingsSummary:
    """What Interlock reads from a settings file.

    Attributes:
        rows: rows that the circuit uses, before they are folded into columns.
        unfolded_rows: the part of them that cannot be folded: links and public values fill one column each.
        product_rows: rows of the columns in which products of matrices are checked.
    """

    input_kind: LinkKind
    output_kind: LinkKind
    input_scale: int
    output_scale: int
    log_rows: int
    rows: int
    unfolded_rows: int
    decomposition_base: int
    decomposition_legs: int
    needs_lookups: bool
    product_rows: int = 0


def canonical_settings(generated: bytes | str) -> bytes:
    """Return the canonical form of a settings file: lists sorted, no time stamp, sorted keys, no spaces."""
    document = json.loads(generated)
    document["timestamp"] = 0  # the tool refuses null
    document["required_range_checks"].sort()
    document["required_lookups"].sort(key=lambda lookup: json.dumps(lookup, sort_keys=True))
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def read_settings(settings: bytes, name: str = "segment") -> SettingsSummary:
    """Read a canonical settings file.

    Args:
        name: what errors call the segment.

    Raises:
        CircuitRefused: the file is not canonical, does not fix the parameters, or has not one input and one output.
    """
    mend = "use a settings file that Interlock generated"
    try:
        if len(settings) > _MAX_SETTINGS_BYTES or canonical_settings(settings) != settings:
            raise CircuitRefused(f"{name}.settings", "not in canonical form", mend)
        return _summarise(json.loads(settings), name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CircuitRefused(f"{name}.settings", f"unreadable ({type(error).__name__}: {error})", mend) from error


def _summarise(document: dict[str, Any], name: str) -> SettingsSummary:
    arguments = document["run_args"]
    if arguments["param_visibility"] != "Fixed":
        raise CircuitRefused(
            f"{name}.settings", "the weights are not bound by the key", "generate it with fixed parameters"
        )
    [input_scale], [output_scale] = document["model_input_scales"], document["model_output_scales"]
    return SettingsSummary(
        input_kind=_kind(arguments["input_visibility"]),
        output_kind=_kind(arguments["output_visibility"]),
        input_scale=int(input_scale),
        output_scale=int(output_scale),
        log_rows=int(arguments["logrows"]),
        rows=_required_rows(document),
        unfolded_rows=_unfolded_rows(document),
        decomposition_base=int(arguments["decomp_base"]),
        decomposition_legs=int(arguments["decomp_legs"]),
        needs_lookups=bool(document["required_lookups"]),
        product_rows=int(document["einsum_params"]["total_einsum_col_size"]),
    )


def _kind(visibility: object) -> LinkKind:
    return _KINDS[visibility if isinstance(visibility, str) else next(iter(visibility))]  # type: ignore[call-overload]


def _unfolded_rows(document: dict[str, Any]) -> int:
    poseidon_rows = int(document["module_sizes"]["poseidon"][0])
    instances = sum(math.prod(shape) for shape in document["model_instance_shapes"])
    return max(poseidon_rows, instances, *(int(size) for size in document["module_sizes"]["polycommit"]))


def _required_rows(document: dict[str, Any]) -> int:
    return max(
        int(document["num_rows"]),
        int(document["total_const_size"]),
        int(document["total_dynamic_col_size"]) + int(document["total_shuffle_col_size"]),
        _unfolded_rows(document),
    )
