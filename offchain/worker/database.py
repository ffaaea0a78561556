"""How a worker opens what must survive a restart."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """Open a database that only this account may read, and create what is missing in it.

    Every change is on disk before its transaction returns. Whoever shares the connection between threads has to lock.

    Args:
        path: the database file; its directory exists.
        schema: SQL that creates what is not there.
    """
    database = sqlite3.connect(path, check_same_thread=False)
    path.chmod(0o600)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.executescript(schema)
    return database
