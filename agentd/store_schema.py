"""The state file: its tables, how it is opened and checked, and the SQL of what is read and written.

Owns everything that knows SQLite's tables. Never decides what to do about a failure (`agentd.store` does),
never starts a thread, never begins a transaction of its own outside `transaction`.

A file that is damaged is moved aside, never deleted and never repaired in place: whoever wants to can look
into it, and agentd starts on a fresh one, because what runs is read from the host and not from here.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from msgspec import Struct, field, to_builtins

from agentd.core.effects import Effect, restored
from agentd.core.messages import EventType, Record, StoredRecord
from agentd.core.model import Decision, InstanceId, Limit, PoolName, Proposal, Reason
from agentd.errors import StateDirError

APPLICATION_ID = 0x61677464  # "agtd", so that a file of another program is never taken for ours
BUSY_TIMEOUT_S = 0.2  # agentd is the only writer; whoever else holds the file does not hold us up
DAMAGED_FILES_MAX = 3
PRUNE_ROWS_MAX = 1_000  # per table and transaction, so that a lowered bound never stalls the writer
WAL_BYTES_MAX = 4 * 1024 * 1024

# Entry n brings a file from version n to n + 1; released entries are never edited.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER, saved_now REAL, saved_wall REAL,"
        " last_id INTEGER)",
        "CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE intents (id TEXT PRIMARY KEY, kind TEXT NOT NULL, instance TEXT NOT NULL,"
        " decision TEXT NOT NULL, wall REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE events (id INTEGER PRIMARY KEY, wall REAL NOT NULL, type TEXT NOT NULL, pool TEXT NOT NULL,"
        " instance TEXT NOT NULL, decision TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL)",
        "CREATE INDEX events_by_type ON events (type)",
        "CREATE INDEX events_by_pool ON events (pool)",
        "CREATE INDEX events_by_instance ON events (instance)",
        "CREATE TABLE decisions (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, pool TEXT NOT NULL, at REAL NOT NULL,"
        " wall REAL NOT NULL, current INTEGER NOT NULL, wanted INTEGER NOT NULL, granted INTEGER NOT NULL,"
        " reasons TEXT NOT NULL, limits TEXT NOT NULL, counterfactual TEXT NOT NULL, victims TEXT NOT NULL)",
        "CREATE INDEX decisions_by_pool ON decisions (pool)",
        "CREATE TABLE metrics (pool TEXT, wall REAL, count REAL, ready REAL, load REAL, queue_length REAL,"
        " in_flight REAL, PRIMARY KEY (pool, wall)) WITHOUT ROWID",
        "CREATE INDEX metrics_by_wall ON metrics (wall)",
        "CREATE TABLE metric_means (pool TEXT, wall REAL, count REAL, ready REAL, load REAL, queue_length REAL,"
        " in_flight REAL, PRIMARY KEY (pool, wall)) WITHOUT ROWID",
        "CREATE INDEX metric_means_by_wall ON metric_means (wall)",
    ),
    (
        "ALTER TABLE decisions ADD COLUMN effect TEXT NOT NULL DEFAULT ''",  # known later than the rest
        "CREATE INDEX decisions_by_id ON decisions (id)",
    ),
    (
        "ALTER TABLE decisions ADD COLUMN \"trigger\" TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE decisions ADD COLUMN proposals TEXT NOT NULL DEFAULT '[]'",
    ),
    ("ALTER TABLE decisions ADD COLUMN basis BLOB NOT NULL DEFAULT x''",),  # compressed by zlib
    (
        "ALTER TABLE decisions ADD COLUMN configuration TEXT NOT NULL DEFAULT ''",
        # Which are still needed is asked of the index alone: behind the bases the column is far away.
        "CREATE INDEX decisions_by_configuration ON decisions (configuration)",
        "CREATE TABLE configurations (fingerprint TEXT PRIMARY KEY, value BLOB NOT NULL)",  # compressed by zlib
    ),
    ("ALTER TABLE metrics ADD COLUMN completed REAL", "ALTER TABLE metric_means ADD COLUMN completed REAL"),
)
SCHEMA_VERSION = len(MIGRATIONS)

EVENT_COLUMNS = "id, wall, type, pool, instance, decision, actor, reason"
DECISION_COLUMNS = (
    "seq, id, pool, at, wall, current, wanted, granted, reasons, limits, counterfactual, victims, effect,"
    ' "trigger", proposals, basis, configuration'
)


class Damaged(sqlite3.DatabaseError):
    """The file can be opened, but it is not a sound state file of agentd."""


class Intent(Struct, frozen=True):
    """A driver call that is about to be made. It is open until its result is stored as done."""

    id: str
    kind: Literal["start", "stop"]
    instance: InstanceId
    decision: str
    wall: float


class Saved(Struct, frozen=True):
    """What the file held when it was opened, and the `epoch` of this agentd.

    `rows` is the controller's state, key -> JSON text. `saved_at` is the moment of the last write as
    (monotonic, wall) seconds; the monotonic part means nothing after a reboot. `intents` are the open ones,
    oldest first. `moved_aside` names the damaged file that was replaced by a fresh one.
    """

    rows: Mapping[str, str] = field(default_factory=dict)
    saved_at: tuple[float, float] | None = None
    epoch: int = 0
    last_record_id: int = 0
    intents: tuple[Intent, ...] = ()
    moved_aside: Path | None = None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether `error` says that the file itself is broken, as opposed to full, locked or unreadable."""
    if isinstance(error, Damaged):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


# -- the file ------------------------------------------------------------------------------------


def check_writable(path: Path) -> None:
    """Raise StateDirError unless the directory of `path`, and `path` where it exists, can be written."""
    folder = path.parent
    for place, needed in ((folder, os.W_OK | os.X_OK), (path, os.R_OK | os.W_OK)):
        try:
            mode = place.stat().st_mode & 0o7777
        except FileNotFoundError:
            if place == path:
                continue
            raise StateDirError(f"cannot use state directory {folder}: it does not exist; create it") from None
        except OSError as error:
            raise StateDirError(f"cannot use state directory {folder}: {error.strerror}") from error
        if not os.access(place, needed, effective_ids=True) or (place == folder and not folder.is_dir()):
            raise StateDirError(
                f"cannot write {place}: mode {mode:04o}, uid {os.geteuid()}; "
                f"give it to the user that runs agentd, or name another directory with state_dir"
            )


def connect(path: Path, *, exclusive: bool = False) -> sqlite3.Connection:
    """Open and check the file, and bring its tables up to date.

    `exclusive` is for reading alone on a full disk: the index of the write-ahead log is then kept in memory.

    Raises:
        Damaged, sqlite3.DatabaseError: see `is_damage`.
        StateDirError: a newer agentd wrote it.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        if exclusive:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        _check(connection, path)
        if not exclusive:
            connection.execute("PRAGMA journal_mode=WAL")
            # Safe against the death of agentd at any moment. What a power failure may take, the newest commits,
            # says nothing any more: the agents died with the machine.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_MAX}")
            _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    owner = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if tables and owner != APPLICATION_ID:
        raise Damaged(f"{path} is no state file of agentd")
    if owner == APPLICATION_ID and version > SCHEMA_VERSION:
        raise StateDirError(
            f"cannot use {path}: a newer agentd wrote it (version {version}, this one knows {SCHEMA_VERSION}); "
            f"install that agentd again, or move the file away to begin anew"
        )
    found = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found is None or found[0] != "ok":
        raise Damaged(f"{path}: {found[0] if found else 'quick_check says nothing'}")


def _migrate(connection: sqlite3.Connection) -> None:
    version = _number(connection, "PRAGMA user_version")
    if version == SCHEMA_VERSION:
        return
    with transaction(connection):
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute("INSERT OR IGNORE INTO meta VALUES (1, 0, NULL, NULL, 0)")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _number(connection: sqlite3.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0] or 0)


def move_aside(path: Path, wall: float) -> Path | None:
    """Rename the file and its log to `<name>.corrupt-<wall>`; None where there was none.

    At most DAMAGED_FILES_MAX such files are kept, so that a failing disk is not also filled.
    """
    target = path.with_name(f"{path.name}.corrupt-{int(wall)}")
    for attempt in range(1, 100):
        if not target.exists():
            break
        target = path.with_name(f"{path.name}.corrupt-{int(wall)}-{attempt}")
    existed = path.exists()
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{target}{suffix}")
    with suppress(FileNotFoundError):
        os.unlink(f"{path}-shm")
    files = [old for old in path.parent.glob(f"{path.name}.corrupt-*") if not old.name.endswith("-wal")]
    for old in sorted(files, key=lambda file: file.stat().st_mtime)[:-DAMAGED_FILES_MAX]:
        old.unlink(missing_ok=True)
        Path(f"{old}-wal").unlink(missing_ok=True)
    return target if existed else None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and on the disk when it ends."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # the error that brought us here is the one to tell
                connection.execute("ROLLBACK")
        raise


# -- state and intents ---------------------------------------------------------------------------


def load(connection: sqlite3.Connection) -> Saved:
    meta = connection.execute("SELECT epoch, saved_now, saved_wall, last_id FROM meta").fetchone()
    epoch, saved_now, saved_wall, last_id = meta or (0, None, None, 0)
    newest = _number(connection, "SELECT max(id) FROM events")
    intents = connection.execute("SELECT id, kind, instance, decision, wall FROM intents ORDER BY wall, id")
    return Saved(
        rows=dict(connection.execute("SELECT key, value FROM state ORDER BY key")),
        saved_at=None if saved_now is None or saved_wall is None else (saved_now, saved_wall),
        epoch=epoch,
        last_record_id=max(last_id, newest),
        intents=tuple(Intent(row[0], row[1], InstanceId(row[2]), row[3], row[4]) for row in intents),
    )


def put_meta(connection: sqlite3.Connection, *, epoch: int, saved_at: tuple[float, float], last_id: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?)", (epoch, *saved_at, last_id))


def clear_state(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM state")
    connection.execute("DELETE FROM intents")


def put_rows(connection: sqlite3.Connection, rows: Mapping[str, str | None]) -> None:
    """Store each row; None deletes it."""
    for key, value in rows.items():
        if value is None:
            connection.execute("DELETE FROM state WHERE key = ?", (_text(key),))
        else:
            connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (_text(key), _text(value)))


def put_intents(connection: sqlite3.Connection, intents: Mapping[str, Intent | None]) -> None:
    """Store each intent; None means that it is done and deletes it."""
    for key, intent in intents.items():
        if intent is None:
            connection.execute("DELETE FROM intents WHERE id = ?", (_text(key),))
            continue
        values = (_text(key), intent.kind, _text(intent.instance), _text(intent.decision), intent.wall)
        connection.execute("INSERT OR REPLACE INTO intents VALUES (?, ?, ?, ?, ?)", values)


# -- events --------------------------------------------------------------------------------------


def put_events(connection: sqlite3.Connection, events: Iterable[StoredRecord]) -> None:
    """Store records under their ids; storing one twice is the same as once."""
    connection.executemany(
        f"INSERT OR REPLACE INTO events ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        map(_event_row, events),
    )


def select_events(
    connection: sqlite3.Connection, *, limit: int, pool: str, instance: str, types: Collection[EventType]
) -> list[StoredRecord]:
    """The newest `limit` events that match, newest first; empty filters match everything."""
    found: list[StoredRecord] = []
    # One indexed query per type: a search for rare types among many events would otherwise read them all.
    for kind in sorted({event.value for event in types}) or [""]:
        filters = {"pool": pool, "instance": instance, "type": kind}
        used = {column: value for column, value in filters.items() if value}
        where = " AND ".join(f"{column} = ?" for column in used) or "1"
        query = f"SELECT {EVENT_COLUMNS} FROM events WHERE {where} ORDER BY id DESC LIMIT ?"
        found += map(_event, connection.execute(query, (*map(_text, used.values()), max(0, limit))))
    return sorted(found, key=lambda stored: -stored.id)[: max(0, limit)]


def select_events_after(connection: sqlite3.Connection, after: int, limit: int) -> list[StoredRecord]:
    """Up to `limit` events with an id above `after`, oldest first."""
    query = f"SELECT {EVENT_COLUMNS} FROM events WHERE id > ? ORDER BY id LIMIT ?"
    return [_event(row) for row in connection.execute(query, (after, max(0, limit)))]


def oldest_event(connection: sqlite3.Connection) -> int | None:
    row = connection.execute("SELECT min(id) FROM events").fetchone()
    return None if row[0] is None else int(row[0])


def prune(connection: sqlite3.Connection, table: Literal["events", "decisions"], keep_max: int) -> None:
    """Delete the oldest rows beyond `keep_max`, at most PRUNE_ROWS_MAX of them."""
    column = "id" if table == "events" else "seq"
    connection.execute(
        f"DELETE FROM {table} WHERE {column} IN (SELECT {column} FROM {table}"
        f" WHERE {column} <= (SELECT max({column}) FROM {table}) - ? ORDER BY {column} LIMIT {PRUNE_ROWS_MAX})",
        (keep_max,),
    )


def _event_row(stored: StoredRecord) -> tuple[object, ...]:
    record = stored.record
    texts = (record.pool, record.instance, record.decision, record.actor, record.reason)
    return (stored.id, stored.wall, record.type.value, *map(_text, texts))


def _event(row: tuple[int, float, str, str, str, str, str, str]) -> StoredRecord:
    number, wall, kind, pool, instance, decision, actor, reason = row
    record = Record(EventType(kind), reason, pool=pool, instance=instance, decision=decision, actor=actor)
    return StoredRecord(number, wall, record)


# -- decisions -----------------------------------------------------------------------------------


def put_decisions(connection: sqlite3.Connection, decisions: Iterable[tuple[int, Decision]]) -> None:
    """Store decisions under their sequence numbers; storing one twice is the same as once."""
    connection.executemany(
        f"INSERT OR REPLACE INTO decisions ({DECISION_COLUMNS}) VALUES ({', '.join('?' * 17)})",
        (_decision_row(seq, made) for seq, made in decisions),
    )


def put_effects(connection: sqlite3.Connection, effects: Iterable[Effect]) -> None:
    """Put down what earlier decisions have brought; a decision that is no longer kept is passed over."""
    connection.executemany(
        "UPDATE decisions SET effect = ? WHERE id = ? AND pool = ?",
        ((_effect_text(effect), _text(effect.decision), _text(effect.pool)) for effect in effects),
    )


def select_decisions(
    connection: sqlite3.Connection, pool: str, limit: int, until: float | None = None, *, bases: bool = False
) -> list[Decision]:
    """The newest `limit` decisions of `pool` ("" = all pools), until the wall time `until`, newest first.

    `bases`: with what they were made from, which can be large.
    """
    filters = {"pool = ?": _text(pool) if pool else None, "wall <= ?": until}
    used = {text: value for text, value in filters.items() if value is not None}
    where = " AND ".join(used) or "1"
    query = f"SELECT {_shown(bases)} FROM decisions WHERE {where} ORDER BY seq DESC LIMIT ?"
    return [_decision(row) for row in connection.execute(query, (*used.values(), max(0, limit)))]


def select_numbered(connection: sqlite3.Connection, numbers: Collection[int]) -> list[Decision]:
    """The decisions with these sequence numbers, oldest first, with what they were made from."""
    marks = ", ".join("?" * len(numbers))
    query = f"SELECT {DECISION_COLUMNS} FROM decisions WHERE seq IN ({marks}) ORDER BY seq"
    return [_decision(row) for row in connection.execute(query, tuple(numbers))]


def first_decision_after(connection: sqlite3.Connection, pool: str, after: float) -> Decision | None:
    """The first decision of `pool` after the wall time `after`."""
    query = f"SELECT {_shown(bases=False)} FROM decisions WHERE pool = ? AND wall > ? ORDER BY seq LIMIT 1"
    found = connection.execute(query, (_text(pool), after)).fetchone()
    return None if found is None else _decision(found)


def last_decision(connection: sqlite3.Connection) -> int:
    return _number(connection, "SELECT max(seq) FROM decisions")


def _shown(bases: bool) -> str:
    return DECISION_COLUMNS if bases else DECISION_COLUMNS.replace("basis", "x''")


def _decision_row(seq: int, made: Decision) -> tuple[object, ...]:
    return (
        seq,
        _text(made.id),
        _text(made.pool),
        made.at,
        made.wall,
        made.current,
        made.wanted,
        made.granted,
        _json([[reason.code, reason.text] for reason in made.reasons]),
        _json([[limit.code, limit.text, limit.until, limit.allows] for limit in made.limits]),
        _text(made.counterfactual),
        _json(list(made.victims)),
        "" if made.effect is None else _effect_text(made.effect),
        _text(made.trigger),
        _json([[each.trigger, each.count, each.reason.code, each.reason.text] for each in made.proposals]),
        zlib.compress(_text(made.basis).encode()) if made.basis else b"",
        made.configuration,
    )


def _decision(
    row: tuple[int, str, str, float, float, int, int, int, str, str, str, str, str, str, str, bytes, str],
) -> Decision:
    _, number, pool, at, wall, current, wanted, granted, reasons, limits, counterfactual, victims, effect = row[:13]
    trigger, proposals, basis, configuration = row[13:]
    return Decision(
        id=number,
        pool=PoolName(pool),
        at=at,
        wall=wall,
        current=current,
        wanted=wanted,
        granted=granted,
        reasons=tuple(Reason(*reason) for reason in json.loads(reasons)),
        limits=tuple(Limit(*limit) for limit in json.loads(limits)),
        counterfactual=counterfactual,
        victims=tuple(InstanceId(victim) for victim in json.loads(victims)),
        effect=restored(json.loads(effect)) if effect else None,
        trigger=trigger,
        proposals=tuple(Proposal(kind, count, Reason(code, text)) for kind, count, code, text in json.loads(proposals)),
        basis=zlib.decompress(basis).decode() if basis else "",
        configuration=configuration,
    )


def _effect_text(effect: Effect) -> str:
    return _json(to_builtins(effect))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _text(value: str) -> str:
    """`value` as SQLite can hold it: a path or command line may carry bytes that are no UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode()
