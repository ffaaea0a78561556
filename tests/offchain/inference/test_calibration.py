from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offchain.errors import InvalidInputError
from offchain.inference import calibration
from offchain.inference.calibration import load_samples

pytestmark = pytest.mark.unit

INPUTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def packed(compress: bool = False, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(file, **arrays)
    return file.getvalue()


def zipped(**contents: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(header: str, body: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def refusal(source: bytes | Path, shape: tuple[int, ...] | None = None) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        load_samples(source, shape=shape)
    assert caught.value.field.startswith("calibration")
    return caught.value


@pytest.mark.parametrize("compress", [False, True])
def test_load_samples__inputs_and_labels__are_read(compress: bool) -> None:
    samples = load_samples(packed(compress, input=INPUTS, label=np.array([0, 2, 1])), shape=(4,))
    assert len(samples) == 3
    assert samples.inputs.dtype == np.float32
    np.testing.assert_array_equal(samples.inputs, INPUTS)
    assert samples.labels is not None
    np.testing.assert_array_equal(samples.labels, [0, 2, 1])


def test_load_samples__path_without_labels__is_read(tmp_path: Path) -> None:
    (tmp_path / "samples.npz").write_bytes(packed(input=INPUTS))
    assert load_samples(tmp_path / "samples.npz").labels is None


@pytest.mark.parametrize(
    "inputs", [np.asfortranarray(INPUTS), INPUTS.astype(np.float64), INPUTS.astype(np.uint8), INPUTS.astype(">f4")]
)
def test_load_samples__other_number_types_and_orders__are_converted(inputs: np.ndarray) -> None:
    samples = load_samples(packed(input=inputs))
    assert samples.inputs.flags.c_contiguous
    np.testing.assert_array_equal(samples.inputs, INPUTS)


@pytest.mark.parametrize(
    ("content", "field", "problem"),
    [
        (b"", "calibration", "not a readable .npz"),
        (b"PK\x03\x04 nonsense", "calibration", "not a readable .npz"),
        (packed(input=INPUTS)[:-30], "calibration", "not a readable .npz"),
        (packed(other=INPUTS), "calibration", "no array named 'input'"),
        (packed(input=INPUTS[0]), "calibration.input", "shape (4,)"),
        (packed(input=INPUTS[:0]), "calibration.input", "shape (0, 4)"),
        (packed(input=np.array([["a"]])), "calibration.input", "element type <U1"),
        (packed(input=INPUTS * 1j), "calibration.input", "element type complex64"),
        (packed(input=INPUTS, label=np.zeros(2, dtype=int)), "calibration.label", "shape (2,)"),
        (packed(input=INPUTS, label=np.zeros(3)), "calibration.label", "element type float64"),
        (packed(input=INPUTS, label=np.array([0, -1, 2])), "calibration.label", "below 0"),
        (packed(input=np.where(INPUTS == 5, np.nan, INPUTS)), "calibration.input[1]", "NaN"),
        (packed(input=INPUTS.astype(np.float64) * 1e300), "calibration.input[0]", "infinity"),
        (zipped(input=b"not an array"), "calibration.input", "not a .npy array"),
        (zipped(input=npy("{'descr': '<f4'}", b"")), "calibration.input", "not a .npy array"),
    ],
)
def test_load_samples__bad_file__is_named(content: bytes, field: str, problem: str) -> None:
    error = refusal(content)
    assert error.field == field
    assert problem in error.problem


def test_load_samples__pickled_objects__are_never_unpickled() -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("was unpickled",))

    assert "element type object" in refusal(packed(input=np.array([[Bomb()]], dtype=object))).problem


def test_load_samples__header_that_claims_too_much__allocates_nothing() -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4), }"
    assert "does not hold" in refusal(zipped(input=npy(header, bytes(64)))).problem


def test_load_samples__decompression_bomb__is_refused_unread() -> None:
    content = packed(True, input=np.zeros((4_000, 1_000), dtype=np.float32))
    assert len(content) < 100_000
    assert "times its packed size" in refusal(content).problem


def test_load_samples__large_file__is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibration, "MAX_FILE_BYTES", 100)
    (tmp_path / "samples.npz").write_bytes(packed(input=INPUTS))
    assert "over 100" in refusal(packed(input=INPUTS)).problem
    assert "over 100" in refusal(tmp_path / "samples.npz").problem


def test_load_samples__large_array_or_count__is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MAX_SAMPLES", 2)
    assert "3 samples" in refusal(packed(input=INPUTS)).problem
    monkeypatch.setattr(calibration, "MAX_ARRAY_BYTES", 10)
    assert "over 10" in refusal(packed(input=INPUTS)).problem


def test_load_samples__other_shape_than_the_model__is_named() -> None:
    error = refusal(packed(input=INPUTS), shape=(5,))
    assert (error.field, "(5,)" in error.mend) == ("calibration.input", True)


def test_load_samples__missing_file__is_named(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "absent.npz").problem
