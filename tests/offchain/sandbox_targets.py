"""Functions that the sandbox tests run in a child process."""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from offchain.errors import InvalidInputError

Payload = dict[str, Any]


class PanicException(BaseException):
    """Stands in for pyo3's exception of the same name, which is no ``Exception`` either."""


def echo(payload: Payload) -> Payload:
    return payload


def print_and_echo(payload: Payload) -> Payload:
    os.write(1, b"noise on standard output\n")
    os.write(2, b"noise on standard error\n")
    return payload


def flood(payload: Payload) -> Payload:
    for _ in range(payload["lines"]):
        os.write(1, b"x" * 99 + b"\n")
    return {}


def refuse(payload: Payload) -> Payload:
    raise InvalidInputError("model", "is too odd", "straighten it")


def fail(payload: Payload) -> Payload:
    raise RuntimeError("constraint system is not satisfied")


def panic(payload: Payload) -> Payload:
    raise PanicException("called unwrap on None")


def segfault(payload: Payload) -> Payload:
    os.write(2, b"about to fall\n")
    ctypes.string_at(0)
    return {}


def leave(payload: Payload) -> Payload:
    os._exit(0)


def unserialisable(payload: Payload) -> Payload:
    return {"value": object()}


def allocate(payload: Payload) -> Payload:
    return {"length": len(bytearray(payload["bytes"]))}


def spin(payload: Payload) -> Payload:
    while True:
        pass


def sleep_with_grandchild(payload: Payload) -> Payload:
    grandchild = subprocess.Popen(["sleep", "600"])
    with open(payload["path"], "w") as file:
        file.write(str(grandchild.pid))
    time.sleep(600)
    return {}


def hang_over_secret(payload: Payload) -> Payload:
    """Write a temporary file as the native calls do, and never come to remove it."""
    directory = tempfile.mkdtemp()
    with open(os.path.join(directory, "witness.json"), "w") as file:
        file.write("secret")
    with open(payload["path"], "w") as note:
        note.write(directory)
    time.sleep(600)
    return {}


def orphan(payload: Payload) -> Payload:
    with open(payload["path"], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
    return {}


def modules(payload: Payload) -> Payload:
    return {"modules": sorted(sys.modules), "environment": dict(os.environ), "cwd": os.getcwd(), "path": sys.path}


def modules_after_import(payload: Payload) -> Payload:
    for name in payload["modules"]:
        importlib.import_module(name)
    return {"modules": sorted(sys.modules)}
