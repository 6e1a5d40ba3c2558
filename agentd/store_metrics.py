"""The metric history of the pools: raw samples for a day, then means over five minutes.

Owns the two metric tables of the state file. Prometheus is the place for more; this is what the dashboard,
the forecast and the advisor look back on without one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from agentd.core.model import PoolName

RAW_S = 86_400.0
MEAN_S = 300.0
COMPACT_ROWS = 2_000  # about as many raw rows as one call may turn into means


class Metric(Struct, frozen=True):
    """One pool at one moment, or (from the second day) its mean over the five minutes that begin at `wall`.

    `load` is None where no instance reported one; a mean leaves those samples out. `completed`: the tasks that the
    pool's instances have done ever, by then; None: none of them counts, or an agentd that did not ask wrote it.
    """

    wall: float
    pool: PoolName
    count: float
    ready: float
    load: float | None
    queue_length: float
    in_flight: float
    completed: float | None = None


COLUMNS = "pool, wall, count, ready, load, queue_length, in_flight, completed"


def put(connection: sqlite3.Connection, metrics: Sequence[Metric]) -> None:
    connection.executemany(
        f"INSERT OR REPLACE INTO metrics ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (row.pool, row.wall, row.count, row.ready, row.load, row.queue_length, row.in_flight, row.completed)
            for row in metrics
        ],
    )


def raw_count(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM metrics").fetchone()
    return int(row[0])


def compact(connection: sqlite3.Connection, *, wall: float, keep_s: float, raw_max: int, raw: int) -> int:
    """Turn raw rows that are older than a day into means, drop what is older than `keep_s`.

    With more than `raw_max` raw rows (`raw` of them) age no longer protects the oldest. Returns the number of raw
    rows that went. Bounded per call: it goes on with the next one.
    """
    end = (wall if raw > raw_max else wall - RAW_S) // MEAN_S * MEAN_S
    first = connection.execute("SELECT min(wall) FROM metrics").fetchone()[0]
    # A clock that ran ahead for a while leaves rows in the future; nothing would ever make them old.
    gone = connection.execute("DELETE FROM metrics WHERE wall > ?", (wall + RAW_S,)).rowcount
    if first is not None and first < end:
        beyond = connection.execute(
            "SELECT wall FROM metrics WHERE wall < ? ORDER BY wall LIMIT 1 OFFSET ?", (end, COMPACT_ROWS)
        ).fetchone()
        if beyond is not None:
            end = max(first // MEAN_S * MEAN_S + MEAN_S, beyond[0] // MEAN_S * MEAN_S)
        connection.execute(
            f"INSERT OR REPLACE INTO metric_means ({COLUMNS}) SELECT pool, CAST(wall / {MEAN_S} AS INTEGER) * {MEAN_S}"
            " AS bucket, avg(count), avg(ready), avg(load), avg(queue_length), avg(in_flight), min(completed)"
            " FROM metrics WHERE wall < ? GROUP BY pool, bucket",
            (end,),
        )
        gone += connection.execute("DELETE FROM metrics WHERE wall < ?", (end,)).rowcount
    connection.execute("DELETE FROM metric_means WHERE wall < ?", (wall - keep_s,))
    connection.execute("DELETE FROM metric_means WHERE wall > ?", (wall + RAW_S,))
    return gone


def select(connection: sqlite3.Connection, pool: str, since: float) -> tuple[Metric, ...]:
    """The history of `pool` from the wall time `since` on, oldest first."""
    known = {row[1] for row in connection.execute("PRAGMA table_info(metrics)")}
    columns = COLUMNS if "completed" in known else COLUMNS.replace("completed", "NULL")  # an older agentd wrote it
    query = " UNION ALL ".join(
        f"SELECT {columns} FROM {table} WHERE pool = :pool AND wall >= :since" for table in ("metric_means", "metrics")
    )
    rows = connection.execute(f"{query} ORDER BY wall", {"pool": pool, "since": since})
    return tuple(
        Metric(wall, PoolName(name), count, ready, load, queue_length, in_flight, completed)
        for name, wall, count, ready, load, queue_length, in_flight, completed in rows
    )
