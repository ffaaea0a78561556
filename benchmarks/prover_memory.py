"""Peak memory of a proof against what the worker admits it by: ``python -m benchmarks.prover_memory``.

Proves the circuits by which the machine is measured, and the same layer at more rows. The prediction
(:func:`offchain.proving.service.predicted_bytes`) is a line over the size of the proving key. Exits with 1 if a proof
took more than predicted: admitted by that, it could be killed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.service import BASE_BYTES, BYTES_PER_KEY_BYTE
from offchain.tuning.machine import PROBES, measure_probe

MIB = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--log-rows", type=int, nargs="*", default=[14, 15, 16], help="beside those of the machine's model"
    )
    chosen = parser.parse_args(arguments)
    probes = [*PROBES, *(replace(PROBES[0], log_rows=log_rows) for log_rows in chosen.log_rows)]
    exceeded = 0
    print("log-rows     kind   key MiB  peak MiB  predicted  peak / predicted")
    with tempfile.TemporaryDirectory() as directory:
        prover = EzklProver(ArtefactCache(Path(directory)))
        for probe in probes:
            measured = measure_probe(prover, probe)
            predicted = BASE_BYTES + int(BYTES_PER_KEY_BYTE * measured.key_bytes)
            exceeded += measured.prove_bytes > predicted
            print(
                f"{probe.log_rows:8} {probe.kind.name:>8} {measured.key_bytes / MIB:9.1f} "
                f"{measured.prove_bytes / MIB:9.1f} {predicted / MIB:10.1f} {measured.prove_bytes / predicted:17.2f}",
                flush=True,
            )
    print(f"{exceeded} of {len(probes)} took more than predicted")
    return 1 if exceeded else 0


if __name__ == "__main__":
    raise SystemExit(main())
