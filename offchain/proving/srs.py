"""Structured reference strings: made here and marked insecure, or brought along.

The tool's own download is never used: it deletes a local file that it finds at its path.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from offchain.errors import InvalidInputError
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Srs, SrsOrigin

_SRS_FORMAT = "insecure-srs-1"
MAX_LOG_ROWS = 26


def insecure_srs(prover: EzklProver, log_rows: int) -> Srs:
    """Return the SRS of this cache for ``log_rows``, made on first use.

    Whoever made it could have kept its secret and forge proofs with it: origin ``insecure-dev``.
    """
    if not 1 <= log_rows <= MAX_LOG_ROWS:
        raise InvalidInputError("log_rows", f"{log_rows} is not in 1 … {MAX_LOG_ROWS}", "use smaller segments")

    def make(directory: Path) -> None:
        payload = {"srs": str(directory / "srs"), "log_rows": log_rows}
        prover.call("generate_srs", payload, prover.limits.build_seconds, "srs")

    entry = prover.cache.get_or_make(_SRS_FORMAT, {"tool": prover.version, "log_rows": log_rows}, make)
    return load_srs(entry / "srs", "insecure-dev")


def load_srs(path: Path, origin: SrsOrigin) -> Srs:
    """Read what an SRS file says of itself.

    Args:
        path: a file in the tool's format: u32 k, 2·2^k points of 64 bytes, two of 128 bytes.

    Raises:
        InvalidInputError: the file is missing or has another length than its first word promises.
    """
    mend = "give a KZG SRS file for BN254, as the ceremony command writes it"
    try:
        with path.open("rb") as file:
            log_rows = int.from_bytes(file.read(4), "little")
            size = path.stat().st_size
            if not 1 <= log_rows <= MAX_LOG_ROWS or size != srs_file_bytes(log_rows):
                raise InvalidInputError("srs", f"{path} of {size} bytes is not an SRS file", mend)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InvalidInputError("srs", f"cannot read {path} ({error.strerror})", mend) from error
    return Srs(path.resolve(), log_rows, digest, origin)


def srs_file_bytes(log_rows: int) -> int:
    """Return the length of an SRS file: 128·2^k + 260."""
    return (128 << log_rows) + 260
