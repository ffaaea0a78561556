"""A prover that rounds otherwise: what ezkl's circuits do not rule out, done with ezkl itself.

Where a circuit rescales, the prover says what the quotient is, and the circuit checks only that it is less than one
off. ezkl rounds to the nearest; here it drops the fraction. This runs in a child process of
:mod:`offchain.sandbox`, which changes the library in its own memory; the file, and the verification, stay as they are.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from pathlib import Path
from typing import Any

from offchain import sandbox
from offchain.proving import native
from offchain.proving.ezkl_prover import EzklProver

HALF = struct.pack("<d", 0.49999999999999994)
"""What Rust's ``f64::round`` adds before it drops the fraction: the largest number below one half."""
PROT_READ, PROT_WRITE = 1, 2


class OtherProver(EzklProver):
    """The usual prover, but that its witnesses and proofs are of the other output."""

    def call(self, function: str, payload: dict[str, Any], seconds: float, name: str, *further: Any) -> dict[str, Any]:
        if function not in ("witness", "prove"):
            return super().call(function, payload, seconds, name, *further)
        return sandbox.run_limited(
            f"tests.attacks.other_prover:{function}",
            payload,
            timeout_seconds=seconds,
            memory_bytes=self.limits.memory_bytes,
            environment=self._environment,
        )


def witness(payload: dict[str, Any]) -> dict[str, Any]:
    """As :func:`offchain.proving.native.witness`."""
    _drop_fractions()
    return native.witness(payload)


def prove(payload: dict[str, Any]) -> dict[str, Any]:
    """As :func:`offchain.proving.native.prove`."""
    _drop_fractions()
    return native.prove(payload)


def _drop_fractions() -> None:
    """Have this process round towards zero."""
    library = next(Path(native.ezkl.__file__).parent.glob("*.so"))
    found = _offsets(library.read_bytes())
    assert found, "this version of the prover rounds in another way"
    mappings = _mappings(library)
    for offset in found:
        start = next(address + offset - begin for address, begin, size in mappings if begin <= offset < begin + size)
        _overwrite(start, bytes(len(HALF)))


def _offsets(content: bytes) -> list[int]:
    found, place = [], content.find(HALF)
    while place >= 0:
        found.append(place)
        place = content.find(HALF, place + 1)
    return found


def _mappings(library: Path) -> list[tuple[int, int, int]]:
    """Where pieces of the library lie: address, offset in the file, size."""
    pieces = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, offset, _, _, *path = line.split(maxsplit=5)
        if path and Path(path[0]) == library.resolve():
            start, end = (int(address, 16) for address in addresses.split("-"))
            pieces.append((start, int(offset, 16), end - start))
    return pieces


def _overwrite(address: int, content: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    page = address - address % mmap.PAGESIZE
    length = address + len(content) - page
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(length), PROT_READ | PROT_WRITE):
        raise OSError(ctypes.get_errno(), "the library cannot be written to")
    ctypes.memmove(address, content, len(content))
