"""What all benchmarks share: the report, readings of processes from /proc, and processes that surely end.

It judges nothing: a figure and what it must hold stand side by side.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import json
import os
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Variables that would lead a private agentd to somebody else's directories, or have it compiled at every start.
_STRANGE = (
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "XDG_RUNTIME_DIR",
    "NOTIFY_SOCKET",
    "AGENTD_ADDRESS",
    "PYTHONDONTWRITEBYTECODE",
)
KIB, MIB = 1024, 1024 * 1024


class BenchError(Exception):
    """A measurement cannot be made; the text says why."""


# -- the report -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: the values of all rounds, and what the median must hold (None: it is for scale)."""

    what: str
    values: Sequence[float]
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def held(self) -> bool | None:
        if self.at_most is None and self.at_least is None:
            return None
        above = self.at_least is None or self.median >= self.at_least
        return above and (self.at_most is None or self.median <= self.at_most)

    def cells(self) -> tuple[str, ...]:
        low, high = min(self.values), max(self.values)
        spread = f"{_short(low)} .. {_short(high)}" if len(self.values) > 1 else ""
        bounds = [("<=", self.at_most), (">=", self.at_least)]
        hold = " ".join(f"{sign} {_short(bound)}" for sign, bound in bounds if bound is not None)
        verdict = {None: "", True: "held", False: "MISSED"}[self.held]
        return self.what, f"{_short(self.median)} {self.unit}".strip(), spread, hold, verdict


@dataclass(slots=True)
class Report:
    """Gathers figures and notes; `finish` prints them and writes the file that was asked for."""

    options: argparse.Namespace
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)
    started: float = field(default_factory=time.time)

    def add(
        self,
        what: str,
        values: Iterable[float],
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        self.figures.append(Figure(what, list(values), unit, at_most, at_least))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self) -> int:
        """The exit status: 1 where `--check` was given and a hold was missed."""
        load = f"load average {self.load_before[0]:.2f} before, {os.getloadavg()[0]:.2f} after"
        self.note(f"{os.cpu_count()} cores, {load}, Python {platform.python_version()}")
        header = ("", "median", "range", "hold", "")
        print_table([header, *(figure.cells() for figure in self.figures)])
        for note in self.notes:
            print(f"note: {note}")
        if self.options.json is not None:
            self.options.json.write_text(json.dumps(self._document(), indent=2) + "\n", encoding="utf-8")
        missed = any(figure.held is False for figure in self.figures)
        return 1 if missed and self.options.check else 0

    def _document(self) -> dict[str, Any]:
        parameters = {k: v for k, v in vars(self.options).items() if not isinstance(v, Path) and not callable(v)}
        return {
            "script": Path(sys.argv[0]).name,
            "started": self.started,
            "parameters": parameters,
            "notes": self.notes,
            "figures": [
                {
                    "what": figure.what,
                    "unit": figure.unit,
                    "median": figure.median,
                    "values": list(figure.values),
                    "at_most": figure.at_most,
                    "at_least": figure.at_least,
                    "held": figure.held,
                }
                for figure in self.figures
            ],
        }


def parser(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every script has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=positive, default=rounds, metavar="N", help=f"rounds ({rounds})")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    made.add_argument("--check", action="store_true", help="exit with status 1 where a hold is missed")
    return made


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if not n else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def interleaved(rounds: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Call the measures in turn, A B A B, so that a slow moment of the machine meets all of them."""
    results: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        names = list(measures) if number % 2 == 0 else list(measures)[::-1]
        for name in names:
            results[name].append(measures[name]())
    return results


# -- processes --------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """The processor time that `pid` has used so far, user and system, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def started_at(pid: int) -> float:
    """When `pid` was started, wall time, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / _TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `rss` counts shared pages in full, `pss` its share of them, `uss` none."""

    rss: int
    pss: int
    uss: int


def memory(pid: int) -> Memory:
    sums = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, _, value = line.partition(":")
        if name in sums:
            sums[name] = int(value.split()[0]) * KIB
    return Memory(sums["Rss"], sums["Pss"], sums["Private_Clean"] + sums["Private_Dirty"])


def end(process: subprocess.Popen[Any], grace_s: float = 10.0) -> None:
    """Ask `process` to end, then make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


@contextmanager
def running(*words: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A Python process of this benchmark, ended when the block is left. Its standard output is a pipe."""
    made = subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env or environment()
    )
    try:
        yield made
    finally:
        end(made)


def environment() -> dict[str, str]:
    """For processes of ours: nothing that leads elsewhere, and modules compiled once, as in an installation."""
    return {**plain_environment(), "PYTHONPYCACHEPREFIX": _bytecode()}


def plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _STRANGE}


@functools.cache
def _bytecode() -> str:
    """A directory for compiled modules: the source tree stays clean, and may be edited meanwhile."""
    directory = tempfile.mkdtemp(prefix="agentd-bench-bytecode-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    # Whoever compiles is larger afterwards than whoever finds it done: let that be nobody who is measured.
    env = {**plain_environment(), "PYTHONPATH": str(Path(__file__).parent), "PYTHONPYCACHEPREFIX": directory}
    code = "import agentd.daemon, agentd.agentctl.app, agentd.sample.app, beater, heartbeats"
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    return directory


def wait_until(what: str, is_so: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> None:
    """Return when `is_so()`.

    Raises:
        BenchError: it was not within `timeout_s`.
    """
    ends = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() >= ends:
            raise BenchError(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(every_s)


def free_ports(count: int) -> tuple[int, int]:
    """The first and last of `count` ports in a row on which nobody listens, below those of outgoing connections."""
    first, port = 12_000, 12_000
    while port < 32_768:
        if not _is_free(port):
            first = port + 1
        elif port - first + 1 == count:
            return first, port
        port += 1
    raise BenchError(f"there are no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def raise_open_files() -> int:
    """Let this process open as many files as it may at all; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def pin(pid: int, cores: set[int]) -> None:
    """Keep all present threads of `pid` on `cores`."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)
