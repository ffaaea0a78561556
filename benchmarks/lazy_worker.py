"""How often a worker that does not compute is caught, and what it earns: ``python -m benchmarks.lazy_worker``.

Plays whole jobs on the executable specification (:mod:`offchain.protocol.machine`), which the tests compare with the
contracts after every step. Nine workers of equal stake serve a model of three segments, so that each is in one
committee of three. One of them never computes: it reveals noise of its own, which to the chain is the same as
yesterday's answer.
THREATS 43; arXiv 2407.19401 asks for spot checks at a rate in steps of 0.1 %.

Scenarios:

alone       the other two compute. The lazy one is outvoted, and slashed if its segment is drawn to be proved.
bought      with a chance of r = 0.3 the whole committee says what the lazy one says; then nobody can prove another.
majority    the lazy one has agreed with one of the others. The third one challenges, whatever is drawn.

Writes ``docs/figures/lazy_worker.csv`` and ``.svg``. Exits with 1 if a measured rate is further from the predicted one
than five standard errors.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from math import sqrt
from pathlib import Path

from eth_hash.auto import keccak

from offchain.protocol import hashing
from offchain.protocol.machine import Block, Domain, Machine, Model, Parameters, Proof, Request
from offchain.protocol.types import Address, JobId, Link, ModelId, Phase, Policy

ETHER = 10**18
STAKE_WEI = 10 * ETHER
FEE_WEI = 10**16
SEGMENTS, COMMITTEE, WORKERS = 3, 3, 9
BOUGHT = 0.3
RATES = tuple(range(0, 1001, 100))
SCENARIOS = ("alone", "bought", "majority")
FIGURES = Path(__file__).parents[1] / "docs" / "figures"

REQUESTER = Address("0x" + "99" * 20)
OPERATORS = tuple(Address(f"0x{index + 1:040x}") for index in range(WORKERS))
LAZY = OPERATORS[0]
MODEL = ModelId(keccak(b"model"))
PARAMETERS = Parameters(
    minimum_stake_wei=ETHER,
    unbonding_seconds=8 * 86_400,
    minimum_fee_wei=1,
    minimum_window_seconds=5,
    max_running_jobs=64,
    miss_penalty_bps=100,
    contradiction_penalty_bps=5000,
    prover_share_bps=5000,
    fault_share_bps=2000,
    challenger_share_bps=3000,
    requester_share_bps=1000,
)


@dataclass(frozen=True)
class Outcome:
    """What one job came to for the lazy worker.

    Args:
        is_caught: whether a proof contradicted it.
        earned_wei: its credits, less what it lost of its stake.
    """

    is_caught: bool
    earned_wei: int


class Play:
    """One job, from the bonds to its end."""

    def __init__(self, permille: int, scenario: str, dice: random.Random) -> None:
        self._dice = dice
        self._scenario = scenario
        self._is_bought = scenario == "bought" and dice.random() < BOUGHT
        self._blocks = (Block(number, 10 * number) for number in count(1))
        self._machine = Machine(Domain(1, Address("0x" + "11" * 20), Address("0x" + "22" * 20)), PARAMETERS)
        self._machine.register(MODEL, Model(SEGMENTS))
        for operator in OPERATORS:
            self._machine.bond(operator, next(self._blocks), STAKE_WEI)
            self._machine.set_encryption_key(operator, next(self._blocks), keccak(operator.encode()))
            self._machine.serve(operator, next(self._blocks), MODEL)
        policy = Policy(COMMITTEE, 6000, permille, 100, 100, 100, 100, 100)
        salt = dice.randbytes(32)
        request = Request(MODEL, self._truth(-1), keccak(b"key"), salt, policy)
        self._machine.request(REQUESTER, next(self._blocks), request, FEE_WEI)
        self._job: JobId = self._machine.job_id_of(REQUESTER, salt)

    def run(self) -> Outcome:
        """Play the job to its end."""
        self._draw()
        self._machine.provide_input(REQUESTER, next(self._blocks), self._job, keccak(b"input"))
        while self._phase is Phase.COMMITTING:
            self._round()
            self._challenge()
        if self._phase is Phase.SAMPLING:
            self._draw()
        if self._phase is Phase.PROVING:
            self._prove()
        if not self._phase.is_terminal:
            self._wait()
            close = self._machine.expire if self._phase is Phase.EXPIRED else self._machine.finalise
            close(REQUESTER, next(self._blocks), self._job)
        left = self._machine.bond_of(LAZY).active
        caught = STAKE_WEI - left >= STAKE_WEI * PARAMETERS.contradiction_penalty_bps // 10_000
        return Outcome(caught, self._machine.credit_of(LAZY) + left - STAKE_WEI)

    @property
    def _phase(self) -> Phase:
        return self._machine.phase_of(self._job, self._machine.block.timestamp)

    def _draw(self) -> None:
        self._machine.draw(REQUESTER, next(self._blocks), self._job, lambda number: self._dice.randbytes(32))

    def _wait(self) -> None:
        """Let every window lapse, but for the job's own end."""
        jump = self._machine.block.number + 1000
        self._blocks = (Block(number, 10 * number) for number in count(jump))
        self._machine.block = next(self._blocks)

    def _truth(self, segment: int) -> Link:
        return Link(keccak(b"truth%d" % (segment + 1)))

    def _says(self, segment: int) -> Mapping[Address, Link]:
        """What each member of a committee reveals."""
        members = [member.operator for member in self._machine.round_of(self._job, segment).members]
        says = dict.fromkeys(members, self._truth(segment))
        if LAZY in says:
            liars = {"alone": [LAZY], "bought": members if self._is_bought else [LAZY]}.get(self._scenario)
            if liars is None:
                liars = [LAZY, next(operator for operator in members if operator != LAZY)]
            says |= dict.fromkeys(liars, Link(keccak(b"noise%d" % segment)))
        return says

    def _round(self) -> None:
        machine, job = self._machine, self._job
        segment = machine.job_of(job).segment
        attempt = machine.job_of(job).attempts[segment]
        says = self._says(segment)
        domain, salt = machine.domain, keccak(b"salt")
        for operator, link in says.items():
            sealed = hashing.commitment(domain.chain_id, domain.jobs, job, segment, attempt, operator, link, salt)
            machine.commit(operator, next(self._blocks), job, segment, attempt, sealed)
        if self._phase is Phase.DRAWING:
            self._draw()
        for operator, link in says.items():
            machine.reveal(operator, next(self._blocks), job, link, salt, keccak(b"cid"))

    def _proof(self, segment: int) -> Proof:
        """A proof of the truth: of what follows from what the segment before is settled on."""
        return Proof(self._dice.randbytes(32), keccak(b"cid"), (self._opening(segment), self._truth(segment)))

    def _opening(self, segment: int) -> Link:
        return self._truth(-1) if segment == 0 else self._machine.round_of(self._job, segment - 1).settled_link

    def _honest(self, segment: int) -> Iterator[Address]:
        for member in self._machine.round_of(self._job, segment).members:
            if member.link == self._truth(segment):
                yield member.operator

    def _announce(self, operator: Address, segment: int, proof: Proof) -> None:
        domain, attempt = self._machine.domain, self._machine.job_of(self._job).attempts[segment]
        hashed = hashing.announcement(domain.chain_id, domain.jobs, self._job, segment, attempt, operator, proof.hash)
        self._machine.announce(operator, next(self._blocks), self._job, segment, hashed)

    def _challenge(self) -> None:
        """Whoever was outvoted with the truth proves it."""
        for segment in range(SEGMENTS):
            round_ = self._machine.round_of(self._job, segment)
            if round_.settled_link in (bytes(32), self._truth(segment)):
                continue
            for operator in tuple(self._honest(segment))[:1]:
                proof = self._proof(segment)
                self._announce(operator, segment, proof)
                self._machine.challenge(operator, next(self._blocks), self._job, segment, proof)

    def _prove(self) -> None:
        """Every drawn prover that computed proves; one that did not cannot."""
        for segment in range(SEGMENTS):
            round_ = self._machine.round_of(self._job, segment)
            if round_.proof_hash == bytes(32) and round_.prover in set(self._honest(segment)):
                self._machine.prove(round_.prover, next(self._blocks), self._job, segment, self._proof(segment))


def predicted(scenario: str, permille: int) -> float:
    """The chance that the lazy worker is slashed in a job."""
    p = permille / 1000
    return {"alone": p, "bought": (1 - BOUGHT) * p, "majority": 1.0}[scenario]


def measure(jobs: int, seed: int) -> list[dict[str, float | str]]:
    """Play so many jobs at every rate and in every scenario."""
    rows: list[dict[str, float | str]] = []
    for scenario in SCENARIOS:
        for permille in RATES:
            dice = random.Random(f"{seed} {scenario} {permille}")
            outcomes = [Play(permille, scenario, dice).run() for _ in range(jobs)]
            rate = sum(outcome.is_caught for outcome in outcomes) / jobs
            expected = predicted(scenario, permille)
            rows.append(
                {
                    "scenario": scenario,
                    "permille": permille,
                    "jobs": jobs,
                    "caught": rate,
                    "predicted": expected,
                    "standard_error": sqrt(expected * (1 - expected) / jobs),
                    "mean_earned_wei": sum(outcome.earned_wei for outcome in outcomes) // jobs,
                }
            )
    return rows


def plot(rows: list[dict[str, float | str]], path: Path) -> None:
    """Draw measured points over predicted lines."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "interlock"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    labels = {
        "alone": "alone: p",
        "bought": f"whole committee bought with r = {BOUGHT}: p (1 − r)",
        "majority": "one honest member against two: challenged, 1",
    }
    for scenario in SCENARIOS:
        mine = [row for row in rows if row["scenario"] == scenario]
        rates = [float(row["permille"]) / 1000 for row in mine]
        (line,) = axes.plot(rates, [row["predicted"] for row in mine], label=f"predicted, {labels[scenario]}")
        errors = [1.96 * sqrt(float(r["caught"]) * (1 - float(r["caught"])) / float(r["jobs"])) for r in mine]
        measured = [float(row["caught"]) for row in mine]
        axes.errorbar(rates, measured, errors, fmt="o", color=line.get_color(), capsize=3)
    axes.set(xlabel="p: chance that a segment has to be proved", ylabel="share of jobs in which it is slashed")
    axes.set_title(f"A worker that does not compute: {len(rows) * int(rows[0]['jobs'])} jobs")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", fontsize=8, bbox_to_anchor=(0.0, 0.8))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Measure, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=400, help="for each rate and scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    rows = measure(arguments.jobs, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "lazy_worker.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, arguments.out / "lazy_worker.svg")
    far = 0
    for row in rows:
        off = abs(float(row["caught"]) - float(row["predicted"]))
        is_far = off > 5 * float(row["standard_error"]) + 1e-9
        far += is_far
        print(
            f"{row['scenario']:9} p = {float(row['permille']) / 1000:.1f}  caught {float(row['caught']):.3f}  "
            f"predicted {float(row['predicted']):.3f}  earned {int(row['mean_earned_wei']) / 1e18:+.4f} ether a job",
            "<- too far" if is_far else "",
        )
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
