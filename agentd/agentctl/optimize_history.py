"""The load that `optimize` searches on: a trace, or what agentd has recorded of a pool, made into requests again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from agentd.agentctl.command import Failure
from agentd.agentctl.text import duration, plural, seconds

if TYPE_CHECKING:
    from agentd.sim.history import Recorded
    from agentd.traces import Arrival
    from agentd.v1 import control_pb2 as pb

HISTORY_S_MIN = 6 * 3600.0
# More requests than this are not simulated; the latest count.
REQUESTS_MAX = 500_000
SERVICE_S_DEFAULT = 30.0
# The mean of a log-normal distribution of variation 1 over its median.
_MEAN_TO_MEDIAN = 2.0**0.5
_BUSY_S = 5.0


class TooLittle(Exception):
    """There is not enough to judge by; the text says what there is and what is needed."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests by seed, at what wall time they begin, and where they are from. `wall` None: nobody knows."""

    requests: Callable[[int], Sequence[Arrival]]
    wall: float | None
    shows_queue: bool
    told: tuple[str, ...]
    tells_tasks: bool = True  # its agents do; a trace leaves that open


def from_trace(path: Path, service_s: float | None) -> Load:
    """The load in a trace file.

    Raises:
        Failure: it cannot be read.
        TooLittle: it has no requests.
    """
    from agentd.traces import TraceError, read_trace

    try:
        found = read_trace(path, service_s)
    except TraceError as error:
        raise Failure(str(error)) from error
    if not found:
        raise TooLittle(f"{path} has no requests")
    length = duration(found[-1].offset_s)
    told = (f"load: {plural(len(found), 'request')} in {length} of {path.name}, the same with each seed",)
    return Load(lambda _seed: found, None, True, told)


def from_history(
    state_dir: Path,
    pool: str,
    *,
    concurrency: int,
    has_queue: bool,
    for_s: float,
    service_s: float | None,
    status: pb.Status | None,
) -> Load:
    """The load that the history of `pool` stands for. `has_queue`: it has a collector for what waits.

    Raises:
        Failure: the state file cannot be read.
        TooLittle: the history is too short, or there was nothing to do.
    """
    from agentd.sim import history

    rows = _rows(state_dir / "agentd.db", pool, for_s)
    length_s = rows[-1].wall - rows[0].wall if rows else 0.0
    if length_s < HISTORY_S_MIN:
        known = duration(length_s) if rows else "nothing"
        raise TooLittle(f"{known} of history; at least {duration(HISTORY_S_MIN)} are needed, or a trace (--trace)")
    mean_s, origin = _service(service_s, status, pool)
    # No more of it than can be simulated.
    work = sum(row.in_flight or (row.load or 0.0) * row.ready for row in rows) / len(rows)
    expected = work * length_s / mean_s
    cut = expected > REQUESTS_MAX
    if cut:
        rows = [row for row in rows if row.wall >= rows[-1].wall - length_s * REQUESTS_MAX / expected]
    rebuilt = history.rebuild(rows, concurrency) if len(rows) > 1 else None
    if rebuilt is None or not list(history.arrivals(rebuilt.samples, mean_s)):
        raise TooLittle(f"{duration(length_s)} of history, and no work in it")
    samples = rebuilt.samples

    def requests(seed: int) -> Sequence[Arrival]:
        return list(history.arrivals(samples, mean_s, seed=seed))

    what = "the load of its agents (they report no tasks)" if rebuilt.by_load else "tasks at work and waiting"
    told = [
        f"load: rebuilt from {duration(rebuilt.length_s)} of history, {plural(len(samples), 'sample')} of {what}",
        f"      tasks begun = tasks at work / {seconds(mean_s)} for each ({origin});",
        "      what a queue grows by has arrived besides;",
        "      moments within a sample and the time of each task are drawn, anew with each seed",
    ]
    if rebuilt.by_load:
        told.append(
            "      the simulated agents tell only their load either: settings that need to know of tasks are not tried"
        )
    mean = sum(row.count for row in rows) / len(rows)
    told.append(f"      the pool had {mean:.1f} agents in the mean then, whatever its settings were")
    if rebuilt.missing_s:
        told.append(f"      nothing is known of {duration(rebuilt.missing_s)} of it; nothing arrives then")
    if cut:
        told.append(f"      the latest part only: {REQUESTS_MAX} requests are the most that is simulated")
    if not (rebuilt.shows_queue or has_queue):
        told.append("      nothing was ever seen to wait: what would wait is seen by no policy either")
    return Load(requests, rebuilt.first_wall, rebuilt.shows_queue, tuple(told), not rebuilt.by_load)


def _rows(file: Path, pool: str, for_s: float) -> list[Recorded]:
    from agentd import store_metrics
    from agentd.sim.history import Recorded

    if not file.exists():
        if file.parent.exists() and not os.access(file.parent, os.X_OK):
            raise Failure(_denied(file))
        raise Failure(f"there is no history: {file} does not exist; give a trace (--trace), or --state-dir")
    if not os.access(file, os.R_OK):
        raise Failure(_denied(file))
    try:
        connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_BUSY_S)
        try:
            last = connection.execute("SELECT max(wall) FROM metrics WHERE pool = ?", (pool,)).fetchone()[0]
            found = store_metrics.select(connection, pool, (last or 0.0) - for_s)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Failure(f"cannot read the history in {file}: {error}") from error
    return [Recorded(row.wall, row.count, row.ready, row.load, row.queue_length, row.in_flight) for row in found]


def _denied(file: Path) -> str:
    return (
        f"cannot read the history in {file}: permission denied; run it as root or as agentd's user, or give a --trace"
    )


def _service(given_s: float | None, status: pb.Status | None, pool: str) -> tuple[float, str]:
    """The mean time of a task, and where that is from."""
    if given_s is not None:
        return given_s, "--service"
    agents = () if status is None else status.instances
    medians = sorted(
        one.response_time_p50_s
        for one in agents
        if one.pool == pool and one.HasField("response_time_p50_s") and one.response_time_p50_s > 0.0
    )
    if medians:
        mean_s = medians[len(medians) // 2] * _MEAN_TO_MEDIAN
        return mean_s, f"from the response times of {plural(len(medians), 'agent')} now; --service says it better"
    return SERVICE_S_DEFAULT, "assumed; say --service"
