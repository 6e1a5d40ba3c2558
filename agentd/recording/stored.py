"""Stored decisions, read from a state file that may be in use, and made again under the configuration of their time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from agentd import store_configurations, store_schema
from agentd.core.model import Decision, FleetConfig
from agentd.errors import AgentdError
from agentd.recording import codec, configurations
from agentd.sim.replay import NoBasisError, differences, replay

FILE = "agentd.db"
_BUSY_S = 5.0
# So many are read at once: each may carry a large basis.
_READ_MAX = 100


class StoredError(AgentdError):
    """The state file cannot be read."""


class Again(Struct, frozen=True):
    """A stored decision made again. `cannot`: why not; else `different`, by field what was stored and what came out."""

    decision: Decision
    cannot: str = ""
    different: tuple[tuple[str, object, object], ...] = ()


class Stored:
    """The decisions in one state file."""

    def __init__(self, connection: sqlite3.Connection, otherwise: FleetConfig | None) -> None:
        self._connection = connection
        self._otherwise = otherwise
        self._texts = store_configurations.select(connection)
        self._configs: dict[str, FleetConfig] = {}

    def again(
        self, *, ident: str = "", pool: str = "", since: float | None = None, until: float | None = None
    ) -> Iterator[Again]:
        """Each decision that is asked for, oldest first; `since` and `until` are wall times."""
        conditions = {"id = ?": ident or None, "pool = ?": pool or None, "wall >= ?": since, "wall <= ?": until}
        used = {text: value for text, value in conditions.items() if value is not None}
        found = self._connection.execute(
            f"SELECT seq FROM decisions WHERE {' AND '.join(used) or '1'} ORDER BY seq", tuple(used.values())
        ).fetchall()
        for first in range(0, len(found), _READ_MAX):
            numbers = [row[0] for row in found[first : first + _READ_MAX]]
            for decision in store_schema.select_numbered(self._connection, numbers):
                yield self._again(decision)

    def _again(self, decision: Decision) -> Again:
        try:
            config = self._config(decision)
            if config is None:
                return Again(decision, "the configuration of its time is not kept: give it with --config")
            again = replay(decision, config)
        except (NoBasisError, codec.CodecError) as error:
            return Again(decision, str(error).removeprefix(f"cannot replay decision {decision.id}: "))
        except (ValueError, KeyError, TypeError) as error:
            return Again(decision, f"what it was made from is of another form: {type(error).__name__}: {error}")
        return Again(decision, "", tuple((name, *pair) for name, pair in differences(decision, again).items()))

    def _config(self, decision: Decision) -> FleetConfig | None:
        name = decision.configuration
        if name not in self._configs and name in self._texts:
            self._configs[name] = configurations.read(self._texts[name])
        return self._configs.get(name, self._otherwise)


@contextmanager
def opened(file: Path, otherwise: FleetConfig | None = None) -> Iterator[Stored]:
    """The decisions in `file`; `otherwise`: the configuration of those whose own is not kept.

    Raises:
        StoredError: it cannot be read, or another version of agentd wrote it.
    """
    if not file.exists():
        raise StoredError(f"there are no stored decisions: {file} does not exist")
    try:
        connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_BUSY_S)
        try:
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if owner != store_schema.APPLICATION_ID:
                raise StoredError(f"{file} is no state file of agentd")
            if version != store_schema.SCHEMA_VERSION:
                known = f"version {version}, this agentctl knows {store_schema.SCHEMA_VERSION}"
                way = "use that one's agentctl" if version > store_schema.SCHEMA_VERSION else "start this agentd once"
                raise StoredError(f"cannot read {file}: another agentd wrote it ({known}); {way}")
            yield Stored(connection, otherwise)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoredError(f"cannot read {file}: {error}") from error
