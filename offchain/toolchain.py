"""Where the installed tools are: development chains, compiler, Brownie.

Everything is looked up in this checkout when it is asked for, never at import, so that a missing tool is reported by
the operation that needs it, together with the command that installs it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import solcx
from solcx.exceptions import SolcError

from offchain.errors import UnrecoverableError

SOLC_VERSION = "0.8.37"

_NODE_MODULES = Path("node_modules")
_ANVIL = _NODE_MODULES / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
_FORGE = _NODE_MODULES / "@foundry-rs" / "forge-linux-amd64" / "bin" / "forge"
_GANACHE = _NODE_MODULES / "ganache" / "dist" / "node" / "cli.js"
_SOLC_DIRECTORY = Path("tools") / "solc"
_BROWNIE = Path(".venv") / "bin" / "brownie"
_BROWNIE_HOME = Path("build") / "brownie-home"


class MissingToolError(UnrecoverableError):
    """A tool that this checkout should hold is not there.

    Args:
        tool: what is missing, as a user would call it.
        path: where it was looked for.
        mend: what to do about it, in the imperative.
    """

    def __init__(self, tool: str, path: Path | str, mend: str = "run `make install`") -> None:
        super().__init__(f"{tool} is not installed at {path}; {mend}")
        self.tool = tool
        self.path = path
        self.mend = mend


class CompilationError(UnrecoverableError):
    """The Solidity compiler refused its input.

    Args:
        messages: the compiler's messages of severity ``error``, formatted with their source lines.
    """

    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__("Solidity compilation failed:\n" + "\n".join(messages))
        self.messages = messages


def project_root() -> Path:
    """Return the root of this checkout, as an absolute path.

    Raises:
        UnrecoverableError: this package was not installed from a checkout (``pip install --editable``), so that there
            are no tools beside it.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "package.json").is_file():
        raise MissingToolError("the Interlock checkout", root, "run from a clone of the project, after `make install`")
    return root


def anvil_path() -> Path:
    """Return the Anvil executable.

    Raises:
        MissingToolError: it is not installed.
    """
    return _executable("anvil", _ANVIL)


def forge_path() -> Path:
    """Return the forge executable.

    Raises:
        MissingToolError: it is not installed.
    """
    return _executable("forge", _FORGE)


def ganache_command() -> list[str]:
    """Return the words that start Ganache: Node and its script; options go behind them.

    Raises:
        MissingToolError: Node or Ganache is not installed.
    """
    node = shutil.which("node")
    if node is None:
        raise MissingToolError("Node", "any folder of PATH", "install Node 20 or newer, then run `make install`")
    script = project_root() / _GANACHE
    if not script.is_file():
        raise MissingToolError("ganache", script)
    return [node, str(script)]


def solc_directory() -> Path:
    """Return the folder that ``SOLCX_BINARY_PATH`` has to name, so that py-solc-x and Brownie find the compiler.

    Raises:
        MissingToolError: the wrapper or the compiler behind it is not installed.
    """
    _solc_path()
    return project_root() / _SOLC_DIRECTORY


def brownie_path() -> Path:
    """Return the Brownie executable of this checkout's environment.

    Raises:
        MissingToolError: it is not installed.
    """
    return _executable("brownie", _BROWNIE)


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which to start Brownie, a development chain or anything that compiles.

    Args:
        base: the environment to extend; the present process's if not given.

    Returns:
        ``base`` with ``SOLCX_BINARY_PATH``, with the checkout's executables first on ``PATH``, and with ``HOME`` inside
        the checkout, so that Brownie neither reads nor changes the user's own ``~/.brownie``.

    Raises:
        MissingToolError: the compiler or Anvil is not installed.
    """
    extended = dict(os.environ if base is None else base)
    root = project_root()
    anvil_path()
    home = root / _BROWNIE_HOME
    home.mkdir(parents=True, exist_ok=True)
    folders = [str(root / ".venv" / "bin"), str(root / _NODE_MODULES / ".bin")]
    extended["PATH"] = os.pathsep.join([*folders, *filter(None, [extended.get("PATH")])])
    extended["SOLCX_BINARY_PATH"] = str(solc_directory())
    extended["HOME"] = str(home)
    return extended


def solc_standard_json(request: dict[str, Any]) -> dict[str, Any]:
    """Compile a standard JSON input with the locked compiler.

    Args:
        request: standard JSON input. Sources are given as ``content``; imports that are not among them are read
            relative to the checkout's root, and from nowhere outside it.

    Returns:
        The compiler's standard JSON output; warnings are under ``errors``.

    Raises:
        MissingToolError: the compiler is not installed.
        CompilationError: the compiler reported an error.

    Source: https://docs.soliditylang.org/en/v0.8.37/using-the-compiler.html#compiler-input-and-output-json-description
    """
    solc = _solc_path()
    root = project_root()
    try:
        # allow_empty: an input without sources is answered by the compiler like any other mistake.
        return solcx.compile_standard(
            request, base_path=root, allow_paths=[root], solc_binary=solc, solc_version=None, allow_empty=True
        )
    except SolcError as error:
        # Typed as a dictionary by py-solc-x, and a list in fact.
        reported = cast(list[dict[str, Any]], error.error_dict or [])
        messages = tuple(entry["formattedMessage"] for entry in reported if entry["severity"] == "error")
        raise CompilationError(messages or (error.stderr_data or str(error),)) from error


def _solc_path() -> Path:
    compiler = project_root() / _NODE_MODULES / "solc" / "soljson.js"
    if not compiler.is_file():
        raise MissingToolError("solc", compiler)
    return _executable("solc", _SOLC_DIRECTORY / f"solc-v{SOLC_VERSION}")


def _executable(tool: str, relative: Path) -> Path:
    path = project_root() / relative
    if not os.access(path, os.X_OK):
        raise MissingToolError(tool, path)
    return path
