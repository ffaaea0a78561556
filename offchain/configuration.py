"""Reading a program's configuration from one JSON file into a dataclass, every setting checked by its type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from offchain.errors import InvalidInputError

T = TypeVar("T")


def read_configuration(kind: type[T], path: Path, program: str) -> T:
    """Read a configuration file; relative paths in it are relative to it.

    Args:
        kind: a dataclass; its fields are the settings.
        path: a JSON object in a file.
        program: what the settings are of, for error messages: ``a worker``.

    Raises:
        InvalidInputError: naming the setting that is missing, unknown or of the wrong kind.
    """
    mend = f"name {program}'s JSON file"
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInputError(str(path), f"it cannot be read ({error})", mend) from error
    if not isinstance(raw, dict):
        raise InvalidInputError(str(path), "it is not a JSON object", mend)
    hints = get_type_hints(kind)
    for name in raw:
        if name not in hints:
            raise InvalidInputError(name, f"it is not a setting of {program}", f"use one of {', '.join(hints)}")
    values = {name: _read(name, value, hints[name], path.parent) for name, value in raw.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise InvalidInputError(str(path), str(error), "add the setting that is missing") from error


def _read(name: str, value: Any, hint: Any, base: Path) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise InvalidInputError(name, f"{value!r} is not a list", "give a list")
        return tuple(_read(f"{name}[{index}]", entry, get_args(hint)[0], base) for index, entry in enumerate(value))
    allowed = get_args(hint) or (hint,)
    if value is None and type(None) in allowed:
        return None
    if Path in allowed:
        if not isinstance(value, str):
            raise InvalidInputError(name, f"{value!r} is not a path", "give a path")
        return (base / value).resolve()
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed:  # not isinstance: a bool is an int
        wanted = " or ".join(one.__name__ for one in allowed if one is not type(None))
        raise InvalidInputError(name, f"{value!r} is of the wrong kind", f"give {wanted}")
    return value
