"""The ``interlock`` command."""

from offchain.cli.app import main

__all__ = ["main"]
