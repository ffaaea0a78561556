"""What time and memory of a proof depend on, read from a settings file before anything is compiled."""

from __future__ import annotations

import json
import math

from offchain.planning.costs import CircuitShape
from offchain.proving.settings import read_settings
from offchain.tuning.chain import usable_rows

__all__ = ["CircuitShape", "shape_of"]


def shape_of(settings: bytes, log_rows: int | None = None, name: str = "segment") -> CircuitShape:
    """Read the shape of a circuit.

    Args:
        settings: canonical settings file.
        log_rows: of the circuit that is meant, where the settings were generated for another one.

    Raises:
        CircuitRefused: the file is not a canonical settings file.
    """
    summary = read_settings(settings, name)
    document = json.loads(settings)
    height = summary.log_rows if log_rows is None else log_rows
    return CircuitShape(
        log_rows=height,
        rows=summary.rows,
        column_blocks=math.ceil(summary.rows / usable_rows(height)),
        lookups=len(document["required_lookups"]),
        range_tables=len(document["required_range_checks"]),
        has_shuffles=bool(document["num_shuffles"]),
        input_kind=summary.input_kind,
        output_kind=summary.output_kind,
        inner_columns=int(document["run_args"]["num_inner_cols"]),
        product_rows=summary.product_rows,
    )
