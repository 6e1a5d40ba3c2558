"""Recorded loads for `simulate` and `optimize`: a trace, or what agentd has recorded of a pool, as requests again.

Also what else the two take from a running agentd and its configuration: the pool, and how long its starts take.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from agentd.agentctl.command import NO_DAEMON, Duration, Failure, Session
from agentd.agentctl.text import duration, plural, seconds

if TYPE_CHECKING:
    from agentd.config import Config
    from agentd.core.model import PoolConfig
    from agentd.sim.history import Rebuilt, Recorded
    from agentd.traces import Arrival
    from agentd.v1 import control_pb2 as pb

FILE = click.Path(path_type=Path, readable=False)
FOR = click.option("--for", "for_s", type=Duration(), default="7d", show_default=True, help="How much of the history.")
CONFIG = click.option("--config", "config_file", type=FILE, help="Default: the running agentd's.")
STATE_DIR = click.option("--state-dir", type=FILE, help="Where the history is. Default: the running agentd's.")

STARTUP_S_DEFAULT = 30.0
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
    """Requests by seed, at what wall time they begin, and where they are from, in lines. `wall` None: nobody knows.

    `shows_queue`: tasks were seen waiting. `tells_tasks`: the agents reported tasks, and not their load alone. A trace
    leaves both open. `service_s`: the mean time of a task that the requests were made with, where it was needed.
    `agents`: how many the pool had, in the mean, in the last so many seconds of a history.
    """

    requests: Callable[[int], Sequence[Arrival]]
    wall: float | None
    told: tuple[str, ...]
    shows_queue: bool = True
    tells_tasks: bool = True
    service_s: float | None = None
    agents: Callable[[float], float] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the history is, and the configuration of its pools. `status` None: no agentd runs; `file` None: no file."""

    status: pb.Status | None
    file: Path | None
    config: Config
    state_dir: Path

    def pool(self, name: str) -> PoolConfig | None:
        return next((one for one in self.config.fleet.pools.values() if one.name == name), None)

    def startup(self, pool: str, given_s: float | None) -> tuple[float, str]:
        """What a start of an agent of `pool` takes, and where that is from."""
        if given_s is not None:
            return given_s, "--startup"
        known = next((one for one in self.status.pools if one.name == pool), None) if self.status is not None else None
        if known is not None and known.start_times.HasField("p50_s"):
            counted = plural(known.start_times.counted, "start")
            return max(0.1, known.start_times.p50_s), f"the median of its last {counted}"
        return STARTUP_S_DEFAULT, "assumed; say --startup"


def source(session: Session, config_file: Path | None, state_dir: Path | None) -> Source:
    """The history of the running agentd, or of `config_file` and `state_dir` where these are given.

    Raises:
        Failure: agentd was named and does not answer, or the configuration cannot be used.
    """
    status = _status(session)
    file = config_file or (Path(status.config_file) if status is not None and status.config_file else None)
    found = _config(file)
    where = state_dir or Path(status.state_dir if status is not None and status.state_dir else _state_dir(found))
    return Source(status, file, found, where)


def from_trace(path: Path, service_s: float | None) -> Load:
    """The load in a trace file.

    Raises:
        Failure: it cannot be read.
        TooLittle: it has no requests.
    """
    from agentd.traces import SERVICE_MEANS_S, TraceError, has_times, read_trace, trace_name

    try:
        found, timed = read_trace(path, service_s), has_times(path)
    except TraceError as error:
        raise Failure(str(error)) from error
    if not found:
        raise TooLittle(f"{path} has no requests")
    length = duration(found[-1].offset_s)
    told = [f"load: {plural(len(found), 'request')} in {length} of {path.name}, the same with each seed"]
    mean_s = None if timed else service_s or SERVICE_MEANS_S.get(trace_name(path))
    if mean_s is not None:
        origin = "as is known of this trace" if service_s is None else "--service"
        told.append(f"it counts its requests: each takes {seconds(mean_s)} in the mean ({origin})")
    elif service_s is not None:
        told.append("it says how long each request takes: --service is of no use")
    return Load(lambda _seed: found, None, tuple(told), service_s=mean_s)


def from_history(recorded: Source, pool: PoolConfig, *, for_s: float, service_s: float | None, instead: str) -> Load:
    """The load that the latest `for_s` of the history of `pool` stand for. `instead`: how to give a trace for it.

    Raises:
        Failure: the state file cannot be read.
        TooLittle: the history is too short, or there was nothing to do.
    """
    from agentd.sim import history

    if for_s < HISTORY_S_MIN:
        raise TooLittle(f"--for {duration(for_s)}: at least {duration(HISTORY_S_MIN)} of history are needed")
    rows = _rows(recorded.state_dir / "agentd.db", pool.name, for_s, instead)
    length_s = rows[-1].wall - rows[0].wall if rows else 0.0
    if length_s < HISTORY_S_MIN:
        known = duration(length_s) if rows else "nothing"
        raise TooLittle(f"{known} of history; at least {duration(HISTORY_S_MIN)} are needed, or {instead}")
    whole = history.rebuild(rows, pool.concurrency)
    mean_s, origin = _service(service_s, whole, recorded.status, pool.name)
    # No more of it than can be simulated.
    expected = history.in_all(rows, [sample.in_flight for sample in whole.samples]) / mean_s
    cut = expected > REQUESTS_MAX
    if cut:
        rows = [row for row in rows if row.wall >= rows[-1].wall - length_s * REQUESTS_MAX / expected]
    rebuilt = history.rebuild(rows, pool.concurrency) if len(rows) > 1 else None
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

    def agents(last_s: float) -> float:
        found = [row for row in rows if row.wall >= rows[-1].wall - last_s]
        known_s = history.in_all(found, [1.0] * len(found))
        return history.in_all(found, [row.count for row in found]) / known_s if known_s else found[-1].count

    told.append(f"      the pool had {agents(math.inf):.1f} agents in the mean then, whatever its settings were")
    if rebuilt.missing_s:
        told.append(f"      nothing is known of {duration(rebuilt.missing_s)} of it; nothing arrives then")
    if cut:
        told.append(f"      the latest part only: {REQUESTS_MAX} requests are the most that is simulated")
    return Load(requests, rebuilt.first_wall, tuple(told), rebuilt.shows_queue, not rebuilt.by_load, mean_s, agents)


def _status(session: Session) -> pb.Status | None:
    """What the running agentd says; None where there is none, and nobody has said where it is."""
    try:
        with session.client() as client:
            return client.status()
    except Failure as failure:
        if failure.code != NO_DAEMON or session.address is not None:
            raise
        return None


def _config(file: Path | None) -> Config:
    from agentd import config
    from agentd.errors import ConfigError

    try:
        return config.default() if file is None else config.load(file)
    except ConfigError as error:
        raise Failure("the configuration cannot be used", details=str(error).splitlines()) from None


def _state_dir(found: Config) -> Path:
    from agentd.sdk.address import state_dir_default

    return found.state_dir or state_dir_default(os.environ, os.geteuid())


def _rows(file: Path, pool: str, for_s: float, instead: str) -> list[Recorded]:
    from agentd import store_metrics
    from agentd.sim.history import Recorded

    if not file.exists():
        if file.parent.exists() and not os.access(file.parent, os.X_OK):
            raise Failure(_denied(file, instead))
        raise Failure(f"there is no history: {file} does not exist; give {instead}, or --state-dir")
    if not os.access(file, os.R_OK):
        raise Failure(_denied(file, instead))
    try:
        connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_BUSY_S)
        try:
            last = connection.execute("SELECT max(wall) FROM metrics WHERE pool = ?", (pool,)).fetchone()[0]
            found = store_metrics.select(connection, pool, (last or 0.0) - for_s)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Failure(f"cannot read the history in {file}: {error}") from error
    return [
        Recorded(row.wall, row.count, row.ready, row.load, row.queue_length, row.in_flight, row.completed)
        for row in found
    ]


def _denied(file: Path, instead: str) -> str:
    return f"cannot read the history in {file}: permission denied; run it as root or agentd's user, or give {instead}"


def _service(given_s: float | None, whole: Rebuilt, status: pb.Status | None, pool: str) -> tuple[float, str]:
    """The mean time of a task, and where that is from."""
    if given_s is not None:
        return given_s, "--service"
    if whole.service_mean_s:
        return whole.service_mean_s, f"what was at work, over the {whole.completed:,.0f} tasks that were done"
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
