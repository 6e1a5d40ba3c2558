"""The configurations that stored decisions were made under, each once, in the state file. See `store_schema`."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping


def put(connection: sqlite3.Connection, values: Mapping[str, bytes]) -> None:
    """Store `values`, compressed texts by fingerprint, and forget the others that no kept decision was made under."""
    connection.executemany("INSERT OR IGNORE INTO configurations VALUES (?, ?)", values.items())
    marks = ", ".join("?" * len(values))
    connection.execute(
        "DELETE FROM configurations WHERE fingerprint NOT IN (SELECT configuration FROM decisions)"
        f" AND fingerprint NOT IN ({marks})",
        tuple(values),
    )


def select(connection: sqlite3.Connection) -> dict[str, str]:
    """The texts of all, by fingerprint."""
    found = connection.execute("SELECT fingerprint, value FROM configurations ORDER BY fingerprint")
    return {fingerprint: zlib.decompress(value).decode() for fingerprint, value in found}
