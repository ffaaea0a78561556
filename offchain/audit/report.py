"""What an audit says: named checks, each with its outcome, gathered whatever fails on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from offchain.errors import InterlockError, RecoverableError
from offchain.protocol.manifest import SrsRecord
from offchain.protocol.types import JobId, ModelId
from offchain.storage.port import ContentCorrupt

T = TypeVar("T")

INSECURE_SRS = (
    "the SRS is insecure-dev: whoever made it can forge any proof, so these proofs convince nobody but its maker; "
    "register the model with a ceremony's SRS"
)


class CheckFailed(InterlockError):
    """Something is not what it has to be.

    Args:
        what: what was compared.
        expected: what it has to be, by everything else.
        actual: what it is.
    """

    def __init__(self, what: str, expected: object, actual: object) -> None:
        super().__init__(f"{what}: expected {show(expected)}, found {show(actual)}")
        self.what = what
        self.expected = expected
        self.actual = actual


def require_equal(what: str, expected: object, actual: object) -> None:
    """Compare.

    Raises:
        CheckFailed: they differ.
    """
    if expected != actual:
        raise CheckFailed(what, expected, actual)


def show(value: object) -> str:
    """Write a value as people compare it: bytes in hex, sequences by their parts."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(show(part) for part in value) + ")"
    return str(value)


@dataclass(frozen=True)
class Check:
    """The outcome of one check: what was found, or what was expected instead."""

    ok: bool
    detail: str


@dataclass
class Checklist:
    """Collects checks by name. What breaks one is its failure, and hides none of the others."""

    checks: dict[str, Check] = field(default_factory=dict)

    def check(self, name: str, examine: Callable[[], str]) -> bool:
        """Run a check, which returns what it found or raises what is wrong."""
        return self.obtain(name, examine, str) is not None

    def obtain(self, name: str, make: Callable[[], T], describe: Callable[[T], str]) -> T | None:
        """Run a check that also gives something for later ones; None if it fails."""
        try:
            made = make()
            self.checks[name] = Check(True, describe(made))
            return made
        except ContentCorrupt as error:
            self.fail(name, f"altered: {error}")
        except RecoverableError as error:
            self.fail(name, f"unavailable: {error}")
        except InterlockError as error:
            self.fail(name, str(error))
        except Exception as error:
            # A record that was tampered with may break any decoder on the way; that is a finding like any other.
            self.fail(name, f"{type(error).__name__}: {error}")
        return None

    def fail(self, name: str, detail: str) -> None:
        """Note a failure."""
        self.checks[name] = Check(False, detail)

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks.values())


@dataclass(frozen=True)
class SegmentAudit:
    """One segment of an audited job.

    Args:
        label: what stands behind its output: ``proved`` (a proof), ``agreed`` (a quorum of at least two members),
            ``unproved`` (one member's word), or ``none`` if nothing was settled.
        history: what befell it on the way, in words; nothing if it went through in one attempt and undisputed.
        link_in, link_out: as the chain records them: what the segment before settled on (or the input), and its own.
        proof_cid: where the proof is pinned, or None.
        stake_for, stake_total: stake behind the settled output, and of the whole committee, in wei.
    """

    index: int
    label: str
    link_in: bytes
    link_out: bytes
    proof_cid: str | None
    stake_for: int
    stake_total: int
    checks: Mapping[str, Check]
    history: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether every check of the segment holds."""
        return all(check.ok for check in self.checks.values())


@dataclass(frozen=True)
class AuditReport:
    """All that an audit found.

    Args:
        result: the last output as real numbers, if it was proved; None if it was only agreed, because then it is
            sealed to the requester and only its link (the last segment's ``link_out``) is public.
        srs: what the manifest says of the SRS; None if there is no manifest.
        checks: of the job as a whole.
        batch: how many inputs the job was of, what filled the batch up included.
        block: the block at which the chain was read.
    """

    job: JobId
    model: ModelId | None
    result: tuple[float, ...] | None
    segments: tuple[SegmentAudit, ...]
    srs: SrsRecord | None
    checks: Mapping[str, Check]
    chain_id: int | None
    block: int | None
    batch: int = 1

    @property
    def outputs(self) -> tuple[tuple[float, ...], ...]:
        """The result input by input; nothing where there is none."""
        values = self.result or ()
        size = len(values) // self.batch
        return tuple(values[at : at + size] for at in range(0, len(values), size or 1))

    @property
    def is_valid(self) -> bool:
        """Whether every single check holds."""
        return all(check.ok for check in self.checks.values()) and all(segment.is_valid for segment in self.segments)

    @property
    def verdict(self) -> str:
        """``valid`` or ``invalid``."""
        return "valid" if self.is_valid else "invalid"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What does not make the job invalid and has to be known all the same."""
        return (INSECURE_SRS,) if self.srs is not None and self.srs.origin == "insecure-dev" else ()

    @property
    def failures(self) -> tuple[tuple[str, Check], ...]:
        """Every failed check with its full name, for example ``segments[1].link_in``."""
        named = [(name, check) for name, check in self.checks.items()]
        for segment in self.segments:
            named += [(f"segments[{segment.index}].{name}", check) for name, check in segment.checks.items()]
        return tuple((name, check) for name, check in named if not check.ok)

    def to_json(self) -> dict[str, Any]:
        """Give everything in the types of JSON."""
        return {
            "verdict": self.verdict,
            "job": show(self.job),
            "model": None if self.model is None else show(self.model),
            "result": None if self.result is None else list(self.result),
            "segments": [_segment_json(segment) for segment in self.segments],
            "srs": self._srs_json(),
            "outputs": None if self.result is None else [list(values) for values in self.outputs],
            "checks": _checks_json(self.checks),
            "chain_id": self.chain_id,
            "block": self.block,
        }

    def _srs_json(self) -> dict[str, Any] | None:
        if self.srs is None:
            return None
        return {
            "digest": self.srs.digest,
            "origin": self.srs.origin,
            "log_rows": self.srs.log_rows,
            "cid": self.srs.cid,
            "warning": next(iter(self.warnings), None),
        }


def _segment_json(segment: SegmentAudit) -> dict[str, Any]:
    return {
        "index": segment.index,
        "label": segment.label,
        "link_in": show(segment.link_in),
        "link_out": show(segment.link_out),
        "proof_cid": segment.proof_cid,
        "stake_for": segment.stake_for,
        "stake_total": segment.stake_total,
        "checks": _checks_json(segment.checks),
    }


def _checks_json(checks: Mapping[str, Check]) -> dict[str, dict[str, Any]]:
    return {name: {"ok": check.ok, "detail": check.detail} for name, check in checks.items()}
