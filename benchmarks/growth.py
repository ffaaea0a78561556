"""How proving grows with rows, and jobs with segments and workers: ``python -m benchmarks.growth``.

*rows*: a dense layer with a ReLU, as wide as fills nine tenths of one block of columns, proved at 2^9 to 2^16 rows.

*jobs*: a network of six equal layers, in one to six segments, served by three, five or nine workers of a local network,
every segment proved. A job's time counts from its submission to the last event, as a client of the gateway sees it.
All workers share this one machine, and so do the chain, IPFS and the gateway: more workers do not bring more cores.

Writes ``growth_rows.csv``, ``growth_jobs.csv`` and ``growth.svg`` to ``--out``. ``make contracts`` goes before it.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import describe_machine, tell_machine
from offchain.cli.client import GatewayClient
from offchain.errors import InterlockError
from offchain.inference.torch_export import export_module
from offchain.network.local import LocalNetwork, NetworkOptions
from offchain.protocol.types import ModelId
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.tuning.machine import Probe, measure_probe

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
FULL = 0.9
LAYERS, WIDTH = 6, 40
SEED = 1


@dataclass(frozen=True)
class Circuit:
    """What proving one circuit took.

    Args:
        rows: used, before they are folded into columns; ``blocks`` columns hold them.
    """

    log_rows: int
    rows: int
    blocks: int
    prove_seconds: float
    peak_mib: float
    key_mib: float
    setup_seconds: float


@dataclass(frozen=True)
class Job:
    """What the jobs of one model on one network took; times are medians.

    Args:
        log_rows: of the largest circuit.
        execute_seconds: from the submission until the first prover is drawn.
        prove_seconds: from there to the job's end.
    """

    workers: int
    segments: int
    log_rows: int
    jobs: int
    execute_seconds: float
    prove_seconds: float
    least_seconds: float
    most_seconds: float


def full_width(log_rows: int) -> int:
    """How wide a layer fills ``FULL`` of a block: width²/2 rows for the products in two columns, 16 for an element."""
    return int(math.sqrt(256 + 2 * FULL * 2**log_rows)) - 16


def measure_rows(prover: EzklProver, log_rows: Iterable[int]) -> Iterator[Circuit]:
    """Prove one circuit of each height."""
    for height in log_rows:
        measured = measure_probe(prover, Probe(height, width=full_width(height)))
        shape = measured.shape
        yield Circuit(
            log_rows=shape.log_rows,
            rows=shape.rows,
            blocks=shape.column_blocks,
            prove_seconds=round(measured.prove_seconds, 3),
            peak_mib=round(measured.prove_bytes / 2**20, 1),
            key_mib=round(measured.key_bytes / 2**20, 2),
            setup_seconds=round(measured.setup_seconds, 2),
        )


def layered_network() -> bytes:
    """Six equal dense layers with ReLUs between them; nothing is learnt that time depends on."""
    torch.manual_seed(SEED)
    layers = [layer for _ in range(LAYERS) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    return export_module(torch.nn.Sequential(*layers[:-1]), torch.zeros(1, WIDTH))


def measure_jobs(scratch: Path, workers: Iterable[int], segments: Sequence[int], jobs: int) -> Iterator[Job]:
    """Run jobs on one network after the other, each with a model for every number of segments.

    Args:
        scratch: networks, and the circuits that they share, go there.
        jobs: of each model, after one that does not count, in which workers read their keys for the first time.

    Raises:
        InterlockError: a network did not come up, or a job was not proved.
    """
    drawn = np.random.default_rng(SEED).uniform(-1, 1, (64, WIDTH)).astype(np.float32)
    (scratch / "model.onnx").write_bytes(layered_network())
    np.savez(scratch / "calibration.npz", input=drawn[:48])
    for count in workers:
        options = NetworkOptions(scratch / f"network-{count}", scratch / "cache", workers=count)
        with LocalNetwork(options) as network:
            client = GatewayClient(network.gateway_url)
            for parts in segments:
                model = client.register(
                    scratch / "model.onnx",
                    scratch / "calibration.npz",
                    heldout=None,
                    fields={"name": f"layers-{parts}", "segments": str(parts)},
                    progress=lambda step, share: None,
                )
                network.wait_until_served(ModelId(bytes.fromhex(model.removeprefix("0x"))))
                heights = [segment["log_rows"] for segment in client.model(model)["segments"]]
                times = [_time_job(client, model, drawn[48 + turn]) for turn in range(jobs + 1)][1:]
                totals = [executed + proved for executed, proved in times]
                yield Job(
                    workers=count,
                    segments=len(heights),
                    log_rows=max(heights),
                    jobs=jobs,
                    execute_seconds=round(statistics.median(executed for executed, _ in times), 2),
                    prove_seconds=round(statistics.median(proved for _, proved in times), 2),
                    least_seconds=round(min(totals), 2),
                    most_seconds=round(max(totals), 2),
                )


def _time_job(client: GatewayClient, model: str, values: np.ndarray) -> tuple[float, float]:
    """Return the seconds until the first prover was drawn, and from there to the end."""
    started = time.monotonic()
    job = client.submit(model, values.tolist(), policy={"proof_permille": 1000}, fee_wei=None, key=None)
    drawn = None
    for event in client.events(job):
        if drawn is None and event.name == "ProverDrawn":
            drawn = time.monotonic()
    ended = time.monotonic()
    state = client.job(job)
    if drawn is None or state["phase"] != "finalised":
        raise InterlockError(f"job {job} ended as {state['status']}, so its time says nothing")
    return drawn - started, ended - drawn


def plot(circuits: Sequence[Circuit], jobs: Sequence[Job], path: Path) -> None:
    """Draw time and memory over rows, and job time over segments."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "interlock"  # the same figures give the same file
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    rows = [circuit.rows for circuit in circuits]
    left.loglog(rows, [circuit.prove_seconds for circuit in circuits], "o-", label="proving, seconds")
    left.loglog(rows, [circuit.peak_mib / 1024 for circuit in circuits], "s-", label="peak memory, GiB")
    left.loglog(rows, [circuit.key_mib / 1024 for circuit in circuits], "^-", label="proving key, GiB")
    left.set(xlabel="rows used", title=f"One circuit, 2^{circuits[0].log_rows} to 2^{circuits[-1].log_rows} rows")
    for count in dict.fromkeys(job.workers for job in jobs):
        mine = [job for job in jobs if job.workers == count]
        totals = [job.execute_seconds + job.prove_seconds for job in mine]
        (line,) = right.plot([job.segments for job in mine], totals, "o-", label=f"{count} workers, whole job")
        executed = [job.execute_seconds for job in mine]
        right.plot(
            [job.segments for job in mine], executed, ":", color=line.get_color(), label="until proofs are asked"
        )
    right.set(xlabel="segments", ylabel="seconds", title="One job of six layers, all workers on one machine")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _write(path: Path, machine: str, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        file.write(f"# {machine}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log-rows", type=int, nargs=2, default=(9, 16), metavar=("LEAST", "MOST"))
    parser.add_argument("--workers", type=int, nargs="+", default=(3, 5, 9))
    parser.add_argument("--segments", type=int, nargs="+", default=tuple(range(1, LAYERS + 1)))
    parser.add_argument("--jobs", type=int, default=2, help="of each model on each network")
    parser.add_argument("--out", type=Path, default=FIGURES)
    chosen = parser.parse_args(arguments)
    machine = tell_machine(describe_machine())
    print(machine, flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    circuits, jobs = [], []
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        prover = EzklProver(ArtefactCache(scratch / "probes"))
        for circuit in measure_rows(prover, range(chosen.log_rows[0], chosen.log_rows[1] + 1)):
            circuits.append(circuit)
            print(circuit, flush=True)
        _write(chosen.out / "growth_rows.csv", machine, [asdict(circuit) for circuit in circuits])
        for job in measure_jobs(scratch, chosen.workers, chosen.segments, chosen.jobs):
            jobs.append(job)
            print(job, flush=True)
    _write(chosen.out / "growth_jobs.csv", machine, [asdict(job) for job in jobs])
    plot(circuits, jobs, chosen.out / "growth.svg")
    print(f"written to {chosen.out / 'growth.svg'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
