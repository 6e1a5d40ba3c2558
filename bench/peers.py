"""agentd against the process managers that people use: supervisord, circus and pm2.

Each keeps N copies of `sleep infinity` alive, launched in turns in one run. agentd and the peers are installed
into a throw-away directory (pip in virtual environments, npm with a prefix); a peer that cannot be installed is named
and left out.
agentd runs its process driver with core agents and `health: none`.

start      from launch to all N running: the first process of the manager made, to the last child being the program
back       from SIGKILL of one child to its successor being the program; one child after another
PSS        of the manager's own processes, its children left out
idle CPU   of the same processes, of one core, while nothing happens

What agentd must hold: start within the best of the others, back within 0.2 s, below 70 MiB, below 1 %.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import peers_managers as managers
from harness import MIB, BenchError, Report, cpu_s, memory, parser, positive, wait_until

START_S_MAX = 120.0
BACK_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one manager did in one round. Seconds; bytes; share of one core."""

    start_s: float
    back_s: float
    pss: int
    idle_ratio: float


class Family:
    """A manager's process, its helpers and its children, as /proc has them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def children(self) -> set[int]:
        """The pids of its children, whatever they are by now."""
        found: set[int] = set()
        with suppress(FileNotFoundError):
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with suppress(FileNotFoundError, ProcessLookupError):
                    listed = Path(f"/proc/{self.pid}/task/{thread}/children").read_text(encoding="ascii")
                    found.update(int(pid) for pid in listed.split())
        return found

    def kept(self) -> set[int]:
        return {pid for pid in self.children() if _is_program(pid)}

    def own(self) -> list[int]:
        """The manager itself, and its children that are not the program."""
        return [self.pid, *sorted(self.children() - self.kept())]


def _is_program(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() == managers.PROGRAM[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def measure(manager: managers.Manager, count: int, options: argparse.Namespace) -> Result:
    with launched(manager, count) as (family, began):
        # Its children are counted until there are enough; only then is each of them looked at.
        wait_until(f"{manager.name} has {count} children", lambda: len(family.children()) >= count, START_S_MAX, 0.01)
        wait_until(f"{manager.name} runs {count}", lambda: len(family.kept()) >= count, START_S_MAX, 0.002)
        start_s = time.monotonic() - began
        time.sleep(options.settle)
        own = family.own()
        cpu, at = sum(map(cpu_s, own)), time.monotonic()
        time.sleep(options.idle)
        idle_ratio = (sum(map(cpu_s, own)) - cpu) / (time.monotonic() - at)
        pss = sum(memory(pid).pss for pid in own)
        victims = sorted(family.kept())[:: max(1, count // options.kills)][: options.kills]
        back_s = statistics.median(_back(family, victim) for victim in victims)
        return Result(start_s, back_s, pss, idle_ratio)


def _back(family: Family, victim: int) -> float:
    """Kill one child; seconds until a new one is the program."""
    before = family.children()
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_until("the killed child is back", lambda: any(map(_is_program, family.children() - before)), BACK_S_MAX, 0.002)
    took = time.monotonic() - began
    time.sleep(0.2)
    return took


@contextmanager
def launched(manager: managers.Manager, count: int) -> Iterator[tuple[Family, float]]:
    """The manager at work, ended with all its children by pid."""
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as name:
        started = manager.launch(Path(name), count)
        family = Family(started.pid)
        try:
            yield family, started.launched
        finally:
            _end(family)


def _end(family: Family) -> None:
    """Stop the manager in its tracks, so that it makes no more children; kill those; then the manager."""
    with suppress(ProcessLookupError):
        os.kill(family.pid, signal.SIGSTOP)
        for pid in family.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.kill(family.pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # pm2's daemon is nobody's child
        os.waitpid(family.pid, 0)


def install(names: list[str], directory: Path, report: Report) -> list[managers.Manager]:
    found = [managers.agentd(directory)]
    for name in names:
        try:
            found.append(managers.PEERS[name](directory))
        except BenchError as error:
            report.note(f"{name} could not be installed: {error}")
    report.note(", ".join(f"{manager.name} {manager.version}" for manager in found))
    return found


def main() -> int:
    made = parser(__doc__, rounds=3)
    made.add_argument("--count", type=positive, nargs="+", default=[100, 500], metavar="N", help="100 and 500")
    made.add_argument("--peers", nargs="*", choices=tuple(managers.PEERS), default=list(managers.PEERS), help="all")
    made.add_argument("--kills", type=positive, default=7, metavar="N", help="children killed in a round (7)")
    made.add_argument("--idle", type=float, default=20.0, metavar="S", help="idle time measured (20)")
    made.add_argument("--settle", type=float, default=3.0, metavar="S", help="before it (3)")
    made.add_argument("--keep", type=Path, metavar="DIR", help="install the peers here, and leave them there")
    options = made.parse_args()
    report = Report(options)
    with ExitStack() as stack:
        directory = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-env-")))
        found = install(options.peers, directory, report)
        for manager in found:  # what is read from the disk is in memory now
            with launched(manager, 1) as (family, _):
                wait_until(f"{manager.name} runs one", lambda family=family: bool(family.kept()), START_S_MAX)  # type: ignore[misc]
        for count in options.count:
            results: dict[str, list[Result]] = {manager.name: [] for manager in found}
            for number in range(options.rounds):
                for manager in found if number % 2 == 0 else reversed(found):
                    results[manager.name].append(measure(manager, count, options))
            _add(report, count, results)
    return report.finish()


def _add(report: Report, count: int, results: dict[str, list[Result]]) -> None:
    measures: list[tuple[str, str, float | None, Callable[[Result], float]]] = [
        ("start", "s", None, lambda result: result.start_s),
        ("back", "s", 0.2, lambda result: result.back_s),
        ("PSS", "MiB", 70.0, lambda result: result.pss / MIB),
        ("idle CPU", "%", 1.0, lambda result: result.idle_ratio * 100),
    ]
    for what, unit, hold, value in measures:
        for name, rounds in results.items():
            values = [value(result) for result in rounds]
            report.add(f"{count}: {what}, {name}", values, unit, at_most=hold if name == "agentd" else None)
        others = {name: [value(one) for one in rounds] for name, rounds in results.items() if name != "agentd"}
        if not others:
            continue
        best = min(others, key=lambda name: statistics.median(others[name]))
        if min(others[best]) > 0:  # of an idle time that the kernel's ticks show as nothing there is no ratio
            pairs = zip(results["agentd"], others[best], strict=True)
            ratios = [value(ours) / theirs for ours, theirs in pairs]
            report.add(f"{count}: {what}, agentd / {best}", ratios, at_most=1.0 if what == "start" else None)


if __name__ == "__main__":
    sys.exit(main())
