"""Reads labelled or unlabelled samples from ``.npz`` files that strangers wrote.

An ``.npz`` is a zip of ``.npy`` files. They are read by hand instead of with ``numpy.load``, which allocates whatever
size a header claims, so that every size is known before memory is taken.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offchain.errors import InvalidInputError

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ARRAY_BYTES = 256 * 1024 * 1024
MAX_SAMPLES = 100_000
MAX_ENTRIES = 16
MAX_COMPRESSION_RATIO = 200
_RATIO_FREE_BYTES = 1024 * 1024  # below this size even the worst ratio does no harm
_SAVE_MEND = "save it with numpy.savez_compressed(path, input=inputs, label=labels)"


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs of a model, with their classes where known.

    Attributes:
        inputs: (n, *shape) float32, finite, contiguous; ``shape`` is the model's input shape without its batch.
        labels: (n,) int64, or None.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.inputs)


def load_samples(source: bytes | Path | str, *, shape: tuple[int, ...] | None = None) -> Samples:
    """Read samples from the arrays ``input`` (required) and ``label`` (optional) of an ``.npz`` file.

    Args:
        source: the file's bytes, or its path.
        shape: the shape that each sample must have, when known (a model's input shape without its batch dimension).

    Raises:
        InvalidInputError: the file is missing, malformed, too large, or does not hold such arrays.
    """
    content = source if isinstance(source, bytes) else _read_file(Path(source))
    if len(content) > MAX_FILE_BYTES:
        raise _file_too_large(len(content))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = _read_arrays(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InvalidInputError("calibration", f"is not a readable .npz file ({error})", _SAVE_MEND) from error
    if "input" not in arrays:
        raise InvalidInputError("calibration", "has no array named 'input'", _SAVE_MEND)
    inputs = _check_inputs(arrays["input"], shape)
    labels = _check_labels(arrays["label"], len(inputs)) if "label" in arrays else None
    return Samples(inputs, labels)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError("calibration", f"cannot be read ({error})", "name a readable .npz file") from error
    return content


def _file_too_large(size_bytes: int) -> InvalidInputError:
    return InvalidInputError(
        "calibration", f"has {size_bytes} bytes or more, over {MAX_FILE_BYTES}", "use fewer samples"
    )


def _read_arrays(archive: zipfile.ZipFile) -> dict[str, NDArray]:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise InvalidInputError("calibration", f"holds {len(entries)} arrays", "store only 'input' and 'label'")
    arrays = {}
    for name in ("input", "label"):
        matching = [entry for entry in entries if entry.filename == f"{name}.npy"]
        if len(matching) > 1:
            raise InvalidInputError(f"calibration.{name}", "is stored more than once", _SAVE_MEND)
        if matching:
            arrays[name] = _read_array(archive, matching[0], f"calibration.{name}")
    return arrays


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, field: str) -> NDArray:
    if entry.file_size > MAX_ARRAY_BYTES:
        raise InvalidInputError(field, f"has {entry.file_size} bytes, over {MAX_ARRAY_BYTES}", "use fewer samples")
    if entry.file_size > max(_RATIO_FREE_BYTES, MAX_COMPRESSION_RATIO * entry.compress_size):
        raise InvalidInputError(
            field, f"unpacks to more than {MAX_COMPRESSION_RATIO} times its packed size", "save it uncompressed"
        )
    with archive.open(entry) as stream:
        content = stream.read(entry.file_size)
    packed = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(packed)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read_header(packed)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise InvalidInputError(field, "is not a .npy array of version 1 or 2", _SAVE_MEND) from error
    if dtype.kind not in "fiub":
        raise InvalidInputError(field, f"has the element type {dtype}", "store plain numbers (float32, int64)")
    if math.prod(shape) * dtype.itemsize != len(content) - packed.tell():
        raise InvalidInputError(field, f"does not hold the {shape} elements that its header claims", _SAVE_MEND)
    flat = np.frombuffer(content, dtype=dtype, offset=packed.tell())
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _check_inputs(inputs: NDArray, shape: tuple[int, ...] | None) -> NDArray[np.float32]:
    field = "calibration.input"
    if inputs.ndim < 2 or not inputs.size:
        raise InvalidInputError(field, f"has the shape {inputs.shape}", "store one sample per row: (n, ...)")
    if len(inputs) > MAX_SAMPLES:
        raise InvalidInputError(field, f"holds {len(inputs)} samples, over {MAX_SAMPLES}", "use fewer samples")
    if shape is not None and inputs.shape[1:] != shape:
        raise InvalidInputError(
            field, f"holds samples of the shape {inputs.shape[1:]}", f"the model takes {shape} per sample"
        )
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(inputs, dtype=np.float32)
    if not np.isfinite(converted).all():
        row = int(np.argwhere(~np.isfinite(converted))[0][0])
        raise InvalidInputError(f"{field}[{row}]", "holds NaN or infinity", "drop or repair the sample")
    return converted


def _check_labels(labels: NDArray, count: int) -> NDArray[np.int64]:
    field = "calibration.label"
    if labels.dtype.kind not in "iu":
        raise InvalidInputError(field, f"has the element type {labels.dtype}", "store class numbers as integers")
    if labels.shape != (count,):
        raise InvalidInputError(field, f"has the shape {labels.shape}", f"store one class per sample: ({count},)")
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise InvalidInputError(field, "holds a class number below 0 or over 2^31 - 1", "number classes from 0")
    return labels.astype(np.int64)
