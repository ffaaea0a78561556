"""What halmos proves of the accounting; see ``tests/forge/symbolic``."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from offchain import toolchain


@pytest.mark.integration
@pytest.mark.slow
def test_checks__all_of_them__are_proved() -> None:
    root = toolchain.project_root()
    run = subprocess.run(
        [sys.executable, str(root / "tools" / "halmos" / "run")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"halmos proved [1-9][0-9]* checks", run.stdout)
