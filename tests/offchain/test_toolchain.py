"""The installed tools, run for real: the compiler wrapper as py-solc-x and forge call it, and the lookups around it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import solcx

from offchain import toolchain

pytestmark = pytest.mark.integration

WRAPPER = f"solc-v{toolchain.SOLC_VERSION}"


def standard_json(source: str, *selected: str, remappings: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "language": "Solidity",
        "sources": {"Example.sol": {"content": f"// SPDX-License-Identifier: MIT\npragma solidity 0.8.37;\n{source}"}},
        "settings": {"remappings": list(remappings), "outputSelection": {"*": {"*": list(selected)}}},
    }


def run_wrapper(
    *arguments: str, request: dict[str, Any] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(toolchain.solc_directory() / WRAPPER), *arguments],
        input=None if request is None else json.dumps(request),
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def errors_of(output: dict[str, Any]) -> list[str]:
    return [entry["message"] for entry in output.get("errors", []) if entry["severity"] == "error"]


@pytest.fixture
def bare_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which nothing has been installed."""
    monkeypatch.setattr(toolchain, "project_root", lambda: tmp_path)
    return tmp_path


# The compiler wrapper


def test_wrapper__version__is_that_of_the_installed_compiler() -> None:
    script = 'console.log(require("./node_modules/solc").version())'
    compiler = subprocess.run(
        ["node", "-e", script], capture_output=True, text=True, check=True, cwd=toolchain.project_root()
    )
    release = compiler.stdout.strip().removesuffix(".Emscripten.clang")

    assert run_wrapper("--version").stdout.splitlines()[-1] == f"Version: {release}.Linux.g++"


def test_wrapper__found_by_py_solc_x__as_an_installed_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLCX_BINARY_PATH", str(toolchain.solc_directory()))

    assert [str(version) for version in solcx.get_installed_solc_versions()] == [toolchain.SOLC_VERSION]
    solcx.set_solc_version(toolchain.SOLC_VERSION, silent=True)
    assert str(solcx.get_solc_version()) == toolchain.SOLC_VERSION


def test_wrapper__input_from_file__equals_input_from_stdin(tmp_path: Path) -> None:
    request = standard_json("contract Example {}", "abi", "evm.bytecode.object")
    (tmp_path / "request.json").write_text(json.dumps(request))

    from_file = run_wrapper("--standard-json", "request.json", cwd=tmp_path)

    assert from_file.returncode == 0
    assert from_file.stdout == run_wrapper("--standard-json", request=request, cwd=tmp_path).stdout
    assert "Example" in json.loads(from_file.stdout)["contracts"]["Example.sol"]


def test_wrapper__output_beyond_a_pipe_buffer__arrives_whole_at_a_slow_reader() -> None:
    # A non-blocking pipe of 64 KiB that nobody reads until it is full: what solcjs itself truncates.
    functions = "\n".join(
        f"function f{n}(uint256 x) external pure returns (uint256) {{ return x + {n}; }}" for n in range(60)
    )
    request = standard_json(f"contract Example {{ {functions} }}", "abi", "evm.bytecode", "evm.assembly", "ir")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        [str(toolchain.solc_directory() / WRAPPER), "--standard-json"], stdin=subprocess.PIPE, stdout=writer
    )
    os.close(writer)
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()
    with os.fdopen(reader, "rb") as pipe:
        output = pipe.read()

    assert process.wait() == 0
    assert len(output) > 4 * 65536
    assert len(json.loads(output)["contracts"]["Example.sol"]["Example"]["abi"]) == 60


def test_wrapper__reader_gone__ends_without_a_dump() -> None:
    request = standard_json("contract Example {}", "ir")
    process = subprocess.Popen(
        [str(toolchain.solc_directory() / WRAPPER), "--standard-json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, complaint = process.communicate(json.dumps(request).encode())

    assert process.returncode == 1
    assert complaint == b""


def test_wrapper__base_and_include_paths__are_searched_in_order(tmp_path: Path) -> None:
    for folder, name in (("base", "First"), ("include", "First"), ("include", "Second")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.sol").write_text(f"pragma solidity 0.8.37; contract {name}_{folder} {{}}")
    source = 'import {First_base} from "First.sol"; import {Second_include} from "Second.sol"; contract Example {}'
    paths = ("--base-path", str(tmp_path / "base"), "--include-path", str(tmp_path / "include"))

    output = json.loads(run_wrapper("--standard-json", *paths, request=standard_json(source, "abi")).stdout)

    assert errors_of(output) == []
    assert set(output["contracts"]) == {"First.sol", "Second.sol", "Example.sol"}


def test_wrapper__import_outside_the_allowed_paths__is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "Outside.sol").write_text("pragma solidity 0.8.37; contract Outside {}")
    request = standard_json(f'import "{tmp_path}/Outside.sol"; contract Example {{}}', "abi")

    refused = run_wrapper("--standard-json", request=request, cwd=tmp_path / "inside")
    allowed = run_wrapper("--standard-json", "--allow-paths", f".,{tmp_path}", request=request, cwd=tmp_path / "inside")

    assert "File outside of allowed directories" in errors_of(json.loads(refused.stdout))[0]
    assert errors_of(json.loads(allowed.stdout)) == []


def test_wrapper__unknown_option__is_named_as_py_solc_x_expects() -> None:
    outcome = run_wrapper("--combined-json", "abi")

    assert outcome.returncode == 1
    assert outcome.stderr == "unrecognised option '--combined-json'\n"


def test_wrapper__moved_away_from_the_compiler__names_the_mend(tmp_path: Path) -> None:
    lonely = tmp_path / "tools" / "solc" / WRAPPER
    lonely.parent.mkdir(parents=True)
    lonely.write_bytes((toolchain.solc_directory() / WRAPPER).read_bytes())
    lonely.chmod(0o755)

    outcome = subprocess.run([str(lonely), "--version"], capture_output=True, text=True, check=False)

    assert outcome.returncode == 1
    assert "run `make install`" in outcome.stderr


# Compiling from Python


def test_solc_standard_json__library_import__compiles_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = (
        'import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol"; contract Example is Ownable(msg.sender) {}'
    )
    remapping = "@openzeppelin=node_modules/@openzeppelin"

    output = toolchain.solc_standard_json(standard_json(source, "evm.bytecode.object", remappings=(remapping,)))

    assert output["contracts"]["Example.sol"]["Example"]["evm"]["bytecode"]["object"].startswith("60")


def test_solc_standard_json__mistake_in_source__raises_with_its_line() -> None:
    with pytest.raises(toolchain.CompilationError) as caught:
        toolchain.solc_standard_json(standard_json("contract Example { nonsense x; }", "abi"))

    (message,) = caught.value.messages
    assert "Example.sol:3" in message
    assert "nonsense" in message


def test_solc_standard_json__no_sources__raises_compilation_error() -> None:
    with pytest.raises(toolchain.CompilationError, match="No input sources"):
        toolchain.solc_standard_json({"language": "Solidity", "sources": {}})


# Lookups


def test_anvil_and_forge__installed__run() -> None:
    for path in (toolchain.anvil_path(), toolchain.forge_path()):
        version = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=True)
        assert "1.7.1" in version.stdout


def test_ganache_command__installed__runs() -> None:
    version = subprocess.run([*toolchain.ganache_command(), "--version"], capture_output=True, text=True, check=True)

    assert "v7.9.2" in version.stdout


def test_environment__given_base__adds_tools_and_keeps_the_rest() -> None:
    root = toolchain.project_root()
    base = {"PATH": "/usr/bin", "HOME": "/somewhere/else", "KEPT": "yes"}

    extended = toolchain.environment(base)

    assert extended["PATH"] == f"{root}/.venv/bin:{root}/node_modules/.bin:/usr/bin"
    assert Path(extended["HOME"]).is_relative_to(root / "build")
    assert extended["SOLCX_BINARY_PATH"] == str(toolchain.solc_directory())
    assert extended["KEPT"] == "yes"
    assert base["HOME"] == "/somewhere/else"


@pytest.mark.parametrize(
    ("lookup", "tool"),
    [
        (toolchain.anvil_path, "anvil"),
        (toolchain.forge_path, "forge"),
        (toolchain.ganache_command, "ganache"),
        (toolchain.solc_directory, "solc"),
        (toolchain.brownie_path, "brownie"),
        (toolchain.environment, "anvil"),
        (lambda: toolchain.solc_standard_json({}), "solc"),
    ],
)
def test_lookup__nothing_installed__raises_with_the_mend(bare_checkout: Path, lookup: Any, tool: str) -> None:
    with pytest.raises(toolchain.MissingToolError, match="run `make install`") as caught:
        lookup()

    assert caught.value.tool == tool
    assert Path(caught.value.path).is_relative_to(bare_checkout)


def test_ganache_command__no_node_on_path__says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(toolchain.MissingToolError, match="install Node 20"):
        toolchain.ganache_command()


def test_environment__home_of_brownie__is_made(bare_checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "anvil_path", lambda: bare_checkout)
    monkeypatch.setattr(toolchain, "solc_directory", lambda: bare_checkout)

    home = Path(toolchain.environment({})["HOME"])

    assert home.is_dir()
    assert home.is_relative_to(bare_checkout)
