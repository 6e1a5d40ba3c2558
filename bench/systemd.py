"""What a fleet of units costs: starts through agentd against one `systemctl start`, and agentd's price while they run.

Boots a host from the tests' harness, with agentd's package installed and a real systemd (tests/support/testhost.py says
what that needs: root, overlayfs, systemd-container). The agents are `sleep infinity` without a health check, under the
sandbox of agent@.service as it is shipped.

    start      agentd: from the call that asks for N more instances to the wall time of the last one's event `ready`.
               systemctl: one `systemctl start` of the same N units, with the files that agentd wrote for them, while
               agentd does not run. In turns; before each, no slice and no unit is left of the last.
    idle       processor time over --seconds, from --settle seconds after the last start, of agentd and of PID 1.
    memory     an agentd that has found N units running, against one that has found none.
    adoption   from `systemctl restart agentd` to the event `adopt` of the last unit.
    kill       from SIGKILL of an agent to the event `ready` of its next incarnation. systemd waits RestartSec= of the
               template before it starts that: 1 s, or 100 ms where systemd knows growing delays (release 254).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import KIB, MIB, BenchError, Report, cpu_s, interleaved, memory, parser, positive, wait_until

from agentd import units
from agentd.sdk.control import DOWN, UP, ControlClient, ControlError
from agentd.v1 import control_pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import host_bases
from system_agentd import Agentd, idle
from testhost import Host, unmet

POOL = "bench"
FIRST_PORT = 10_001
HELD_AT, HELD_RATIO = 100, 1.3
START_S_MAX = 600.0
INSTANCES = "/run/agentd/instances"
SAVED = "/root/instances"


@dataclass(frozen=True, slots=True)
class Spent:
    """A start of N units: how long it took, and the processor time of those who had a part in it."""

    wall_s: float
    pid1_s: float
    agentd_s: float = 0.0


class Fleet:
    """The agentd of a booted host, and the units that it runs."""

    def __init__(self, host: Host, most: int) -> None:
        self.host = host
        self._agentd = Agentd(host)
        pool = idle(0, max=most, ports=[FIRST_PORT, FIRST_PORT + most - 1], start_timeout_sec=START_S_MAX)
        self._agentd.configure({POOL: pool})
        self._control: ControlClient | None = None

    @property
    def control(self) -> ControlClient:
        assert self._control is not None, "agentd runs"
        return self._control

    def run(self) -> None:
        """Start agentd, or another one in its place."""
        self.close()
        self.host.exec("systemctl", "restart", "agentd.service")
        self._control = ControlClient(f"unix:/proc/{self.host.leader()}/root/run/agentd/control.sock")
        wait_until("agentd answers", self._answers, 60.0)

    def stop(self) -> None:
        """Stop agentd; the agents run on."""
        self.close()
        self.host.exec("systemctl", "stop", "agentd.service")

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def clear(self) -> None:
        """Leave no unit of an agent loaded, and none of their slices."""
        self.host.exec("systemctl", "stop", units.AGENTS_SLICE, timeout_s=START_S_MAX)

    def pid(self) -> int:
        """agentd's process, as this machine numbers it."""
        return self.outer(int(self._agentd.pid()))

    def outer(self, inner: int) -> int:
        """A process of the host, as this machine numbers it."""
        for pid in self.host.pids():
            with suppress(OSError):  # it has ended
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if numbers[2:] == [str(inner)]:
                    return pid
        raise BenchError(f"the host has no process {inner}")

    def scale(self, direction: control_pb2.ScaleRequest.Direction.ValueType, number: int) -> None:
        self.control.scale(direction, number, pool=POOL)
        wait_until(f"{number} instances are ready", lambda: self._counts() == (number, number), START_S_MAX, 0.25)

    def events(self, kind: str, since: float) -> list[control_pb2.Event]:
        return [event for event in self.control.events(limit=10_000, types=(kind,)) if event.wall >= since]

    def _counts(self) -> tuple[int, int]:
        (pool,) = self.control.status().pools
        return pool.count, pool.ready

    def _answers(self) -> bool:
        with suppress(ControlError):
            return bool(self.control.status().version)
        return False


def main() -> int:
    made = parser(__doc__, rounds=3)
    made.add_argument("--agents", type=positive, nargs="+", default=[100, 500], metavar="N", help="fleets (100 500)")
    made.add_argument("--seconds", type=float, default=30.0, metavar="S", help="length of the idle time (30)")
    made.add_argument("--settle", type=float, default=10.0, metavar="S", help="before it (10)")
    made.add_argument("--kills", type=positive, default=5, metavar="N", help="agents that are killed, one by one (5)")
    made.add_argument(
        "--root", type=Path, metavar="DIR", help="a root to boot from, with agentd installed (built here)"
    )
    options = made.parse_args()
    if why := unmet():
        made.error(f"hosts cannot run here: {'; '.join(why)}")
    report = Report(options)
    with booted(options.root) as host:
        report.note(host.out("systemctl", "--version").splitlines()[0])
        fleet = Fleet(host, max(options.agents))
        for number in options.agents:
            add_starts(report, fleet, number, options.rounds)
        add_steady(report, fleet, max(options.agents), options)
        fleet.close()
    return report.finish()


@contextmanager
def booted(root: Path | None) -> Iterator[Host]:
    """A host that has agentd's package, made of a clean Debian 12 where there is no `root` for it yet."""
    directory = Path(tempfile.mkdtemp(prefix="agentd-bench-"))
    host = Host()
    try:
        if root is None:
            root, clean = directory / "root", host_bases.clean_base("bookworm")
            host_bases.install_deb(host_bases.build_deb(clean, directory), clean, root)
        host.up(root)
        yield host
    finally:
        host.down()
        shutil.rmtree(directory)


# -- starts -----------------------------------------------------------------------------------------


def add_starts(report: Report, fleet: Fleet, number: int, rounds: int) -> None:
    spent: dict[str, list[Spent]] = {"agentd": [], "systemctl": []}
    ways = {"agentd": partial(by_agentd, fleet, number), "systemctl": partial(by_systemctl, fleet)}

    def measured(name: str) -> Callable[[], float]:
        def measure() -> float:
            spent[name].append(ways[name]())
            return spent[name][-1].wall_s

        return measure

    by_agentd(fleet, number)  # once before: `systemctl` needs its files, and nobody is to pay for cold caches
    walls = interleaved(rounds, {name: measured(name) for name in ways})
    ratios = [ours / theirs for ours, theirs in zip(walls["agentd"], walls["systemctl"], strict=True)]
    for name in ways:
        report.add(f"start {number}: {name}", walls[name], "s")
    held = number == HELD_AT
    report.add(f"start {number}: agentd / systemctl", ratios, at_most=HELD_RATIO if held else None)
    for name in ways:
        report.add(f"start {number}: CPU of PID 1, {name}", [one.pid1_s for one in spent[name]], "s")
    report.add(f"start {number}: CPU of agentd", [one.agentd_s for one in spent["agentd"]], "s")


def by_agentd(fleet: Fleet, number: int) -> Spent:
    fleet.run()
    pid, pid1 = fleet.pid(), fleet.host.leader()
    ours, theirs = cpu_s(pid), cpu_s(pid1)
    asked = time.time()
    fleet.scale(UP, number)
    ready = fleet.events("ready", asked)
    if len(ready) != number:
        raise BenchError(f"{len(ready)} instances became ready, not {number}")
    spent = Spent(max(event.wall for event in ready) - asked, cpu_s(pid1) - theirs, cpu_s(pid) - ours)
    fleet.host.exec("sh", "-c", f"rm -rf {SAVED} && cp -a {INSTANCES} {SAVED}")
    fleet.scale(DOWN, 0)
    fleet.stop()
    fleet.clear()
    return spent


def by_systemctl(fleet: Fleet) -> Spent:
    """Start the units that agentd started last."""
    host = fleet.host
    host.exec("sh", "-c", f"cp -a {SAVED}/*.env {INSTANCES}/")
    names = [f"agent@{file.removesuffix('.env')}.service" for file in host.out("ls", SAVED).split()]
    pid1 = host.leader()
    theirs, began = cpu_s(pid1), time.monotonic()
    host.exec("systemctl", "start", *names, timeout_s=START_S_MAX)
    spent = Spent(time.monotonic() - began, cpu_s(pid1) - theirs)
    fleet.clear()
    host.exec("sh", "-c", f"rm {INSTANCES}/*.env")
    return spent


# -- while they run ---------------------------------------------------------------------------------


def add_steady(report: Report, fleet: Fleet, number: int, options: argparse.Namespace) -> None:
    fleet.run()
    time.sleep(options.settle)
    empty = memory(fleet.pid())
    fleet.scale(UP, number)
    adoptions = [adoption_s(fleet, number) for _ in range(options.rounds)]
    time.sleep(options.settle)
    pid, pid1 = fleet.pid(), fleet.host.leader()
    ours, theirs, began = cpu_s(pid), cpu_s(pid1), time.monotonic()
    time.sleep(options.seconds)
    took_s = time.monotonic() - began
    full = memory(pid)
    report.add(f"{number} idle: CPU of one core, agentd", [(cpu_s(pid) - ours) / took_s * 100], "%")
    report.add(f"{number} idle: CPU of one core, PID 1", [(cpu_s(pid1) - theirs) / took_s * 100], "%")
    report.add(f"{number} idle: PSS of agentd", [full.pss / MIB], "MiB")
    report.add("PSS per unit", [(full.pss - empty.pss) / number / KIB], "KiB")
    report.add("RSS per unit", [(full.rss - empty.rss) / number / KIB], "KiB")
    report.add(f"restart of agentd to {number} adopted", adoptions, "s")
    report.add("SIGKILL of an agent to ready again", [kill_s(fleet, n) for n in range(options.kills)], "s")
    report.note(f"RestartSec= of the template: {restart_delay(fleet.host)}")


def adoption_s(fleet: Fleet, number: int) -> float:
    began = time.time()
    fleet.run()
    wait_until(f"{number} are adopted", lambda: len(fleet.events("adopt", began)) >= number, START_S_MAX, 0.25)
    return max(event.wall for event in fleet.events("adopt", began)) - began


def kill_s(fleet: Fleet, number: int) -> float:
    """Kill the instance of that number; seconds until it is ready again."""
    instance = fleet.control.instances(POOL)[number]
    pid = fleet.outer(instance.pid)
    killed = time.time()
    os.kill(pid, signal.SIGKILL)

    def ready_again() -> list[control_pb2.Event]:
        return [event for event in fleet.events("ready", killed) if event.instance == instance.id]

    wait_until(f"{instance.id} is ready again", lambda: bool(ready_again()), 60.0)
    return ready_again()[0].wall - killed


def restart_delay(host: Host) -> str:
    """Of an instance that has not failed before."""
    return host.show(f"agent@{POOL}-{FIRST_PORT}.service", "RestartUSec")["RestartUSec"]


if __name__ == "__main__":
    sys.exit(main())
