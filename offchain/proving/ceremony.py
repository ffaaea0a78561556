"""Powers of tau by several contributors, and their conversion to the prover's SRS file.

Whoever knows the secret behind an SRS can forge any proof. In a ceremony each contributor mixes in a secret of their
own, and one who forgets it is enough. Contributions made on one machine are worth as much as that machine.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from offchain import toolchain
from offchain.errors import InvalidInputError, UnrecoverableError
from offchain.protocol.field import FIELD_MODULUS
from offchain.proving.points import BASE_MODULUS
from offchain.proving.port import Srs
from offchain.proving.srs import MAX_LOG_ROWS, load_srs

STEP_SECONDS = 3_600.0
_CLI = Path("node_modules") / "snarkjs" / "build" / "cli.cjs"
_TAU_G1, _TAU_G2, _LAGRANGE_G1 = 2, 3, 12
_G1_BYTES, _G2_BYTES = 64, 128
_TWO_ADICITY = 28
_ODD_FACTOR = (FIELD_MODULUS - 1) >> _TWO_ADICITY
# Both generate the group of the same order, so that one is an odd power of the other.
_SNARKJS_GENERATOR, _PROVER_GENERATOR = 5, 7
_MEND = "give a .ptau file for bn128 that was prepared for phase 2"


class CeremonyFailed(UnrecoverableError):
    """A step of the ceremony did not succeed, or its transcript does not verify."""


@dataclass(frozen=True)
class CeremonyResult:
    """What a ceremony leaves behind.

    Attributes:
        srs: the converted file.
        transcript: the prepared ``.ptau`` file, which anybody can verify again.
    """

    srs: Srs
    transcript: Path


def run_local_ceremony(directory: Path, log_rows: int, contributions: int = 3) -> CeremonyResult:
    """Run a whole ceremony on this machine, each contribution in a process of its own.

    Args:
        directory: receives ``transcript.ptau`` and ``srs``; made if it is not there.
        log_rows: the largest circuit that the SRS has to serve.
        contributions: how many secrets are mixed in, at least 1.

    Raises:
        InvalidInputError: an argument is out of range.
        CeremonyFailed: a step failed, or the transcript does not verify.
    """
    if contributions < 1:
        raise InvalidInputError("contributions", f"{contributions} is none", "give at least 1")
    directory.mkdir(parents=True, exist_ok=True)
    current = directory / "contribution_0.ptau"
    start_ceremony(current, log_rows)
    for number in range(1, contributions + 1):
        following = directory / f"contribution_{number}.ptau"
        contribute(current, following, f"contributor {number}")
        current.unlink()
        current = following
    result = conclude_ceremony(current, directory, log_rows)
    current.unlink()
    return result


def start_ceremony(target: Path, log_rows: int) -> None:
    """Write the empty transcript that the first contributor takes."""
    if not 1 <= log_rows <= MAX_LOG_ROWS:
        raise InvalidInputError("log_rows", f"{log_rows} is not in 1 … {MAX_LOG_ROWS}", "use smaller segments")
    _snarkjs(["new", "bn128", str(log_rows), str(target)])


def contribute(source: Path, target: Path, name: str) -> None:
    """Mix a fresh secret into a transcript. Run it on a machine of the contributor's own for it to be worth more.

    Args:
        name: what the transcript calls this contributor.
    """
    # Over standard input: arguments can be read by every user of the machine.
    _snarkjs(["contribute", str(source), str(target), f"--name={name}"], entropy=secrets.token_hex(64))


def conclude_ceremony(source: Path, directory: Path, log_rows: int) -> CeremonyResult:
    """Prepare the last contribution, verify the whole transcript and convert it.

    Raises:
        CeremonyFailed: the transcript does not verify; nothing is converted then.
    """
    transcript, target = directory / "transcript.ptau", directory / "srs"
    _snarkjs(["prepare", "phase2", str(source), str(transcript)])
    verify_transcript(transcript)
    target.write_bytes(convert_ptau(transcript, log_rows))
    return CeremonyResult(load_srs(target, "local-ceremony"), transcript)


def verify_transcript(transcript: Path) -> None:
    """Check every contribution of a transcript.

    Raises:
        CeremonyFailed: it does not verify.
    """
    printed = _snarkjs(["verify", str(transcript)])
    if "Powers of Tau Ok!" not in printed:
        raise CeremonyFailed(f"{transcript.name} does not verify:\n{printed[-2_000:]}")


def _snarkjs(arguments: Sequence[str], entropy: str = "") -> str:
    cli, node = toolchain.project_root() / _CLI, shutil.which("node")
    if node is None or not cli.is_file():
        raise toolchain.MissingToolError("snarkjs", cli)
    command = [node, str(cli), "powersoftau", *arguments]
    try:
        done = subprocess.run(
            command,
            input=entropy + "\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CeremonyFailed(f"{arguments[0]} took over {STEP_SECONDS:g} s") from error
    if done.returncode != 0:
        raise CeremonyFailed(f"{arguments[0]} failed:\n{done.stdout[-2_000:]}")
    return done.stdout


def convert_ptau(path: Path, log_rows: int) -> bytes:
    """Convert a transcript to the prover's SRS file.

    The file is u32 k, then 2^k powers of tau in G1, the same in Lagrange form, G2's generator and tau in G2, points
    uncompressed with little-endian Montgomery coordinates, as the transcript holds them. The Lagrange points go by
    powers of a root of unity, and the prover's root is another one than the transcript's.

    Args:
        path: a ``.ptau`` file for at least ``log_rows``, prepared for phase 2. It is not verified here.

    Raises:
        InvalidInputError: it is no such file.
    """
    with path.open("rb") as file:
        sections, power = _read_header(file)
        if not 1 <= log_rows <= power:
            raise InvalidInputError("log_rows", f"{log_rows} is not in 1 … {power}", "run a larger ceremony")
        count = 1 << log_rows
        powers = _read_points(file, sections, _TAU_G1, 0, count * _G1_BYTES)
        # The Lagrange forms of all smaller domains, 1 + 2 + 4 + … points, come first.
        lagrange = _read_points(file, sections, _LAGRANGE_G1, (count - 1) * _G1_BYTES, count * _G1_BYTES)
        second_group = _read_points(file, sections, _TAU_G2, 0, 2 * _G2_BYTES)
    step = _root_exponent(log_rows)
    permuted = bytearray()
    for index in range(count):
        place = index * step % count * _G1_BYTES
        permuted += lagrange[place : place + _G1_BYTES]
    return log_rows.to_bytes(4, "little") + powers + bytes(permuted) + second_group


def _read_header(file: BinaryIO) -> tuple[dict[int, tuple[int, int]], int]:
    """Return where each section begins and ends, and the power of the ceremony.

    Source: the binary file format of snarkjs 0.7 (``binfileutils``): magic, u32 version, u32 sections, then for each
    section u32 type, u64 length and its bytes.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(4) != b"ptau" or _read_number(file, 4) != 1:
        raise InvalidInputError("ptau", "not a powers-of-tau file", _MEND)
    sections: dict[int, tuple[int, int]] = {}
    for _ in range(_read_number(file, 4)):
        kind, length = _read_number(file, 4), _read_number(file, 8)
        begin = file.tell()
        if length > size - begin:
            raise InvalidInputError("ptau", f"section {kind} is cut off", _MEND)
        sections[kind] = begin, begin + length
        file.seek(begin + length)
    if 1 not in sections:
        raise InvalidInputError("ptau", "there is no header", _MEND)
    file.seek(sections[1][0])
    if _read_number(file, _read_number(file, 4)) != BASE_MODULUS:
        raise InvalidInputError("ptau", "it is for another curve", _MEND)
    return sections, _read_number(file, 4)


def _read_number(file: BinaryIO, length: int) -> int:
    content = file.read(length)
    if len(content) != length:
        raise InvalidInputError("ptau", "the file is cut off", _MEND)
    return int.from_bytes(content, "little")


def _read_points(file: BinaryIO, sections: dict[int, tuple[int, int]], kind: int, offset: int, length: int) -> bytes:
    begin, end = sections.get(kind, (0, 0))
    if end - begin < offset + length:
        raise InvalidInputError("ptau", f"section {kind} is missing or short", _MEND)
    file.seek(begin + offset)
    return file.read(length)


def _root_exponent(log_rows: int) -> int:
    """Return e such that the prover's root of unity of order ``2**log_rows`` is the transcript's to the power e.

    The groups have only factors of two, so the exponent is found bit by bit.
    Source: Pohlig and Hellman, 1978.
    """
    lift = _ODD_FACTOR << (_TWO_ADICITY - log_rows)
    base, goal = (pow(generator, lift, FIELD_MODULUS) for generator in (_SNARKJS_GENERATOR, _PROVER_GENERATOR))
    exponent = 0
    for bit in range(log_rows):
        rest = goal * pow(base, -exponent, FIELD_MODULUS) % FIELD_MODULUS
        if pow(rest, 1 << (log_rows - 1 - bit), FIELD_MODULUS) != 1:
            exponent |= 1 << bit
    return exponent
