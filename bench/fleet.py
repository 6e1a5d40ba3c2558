"""What a fleet costs: agentd's share of a core and its memory with 500 live agents that beat every 10 s.

A real agentd, six pools. The heartbeats are real RPCs over a connection for each agent: from 500 light processes
(--clients processes; about 18 MiB of memory each), or, where memory forbids that, from one process with 500 channels
beside 500 `sleep infinity` (--clients channels). `auto` takes processes where memory allows; a note says which it was.

First a fleet of 10, then the large one: their difference gives the bytes per tracked agent. CPU is agentd's own
processor time over the wall time of the steady state, from --settle seconds after the last agent was ready. A bare
grpc.aio server (of heartbeats.py) is given as many connections and beats: what it uses is the price of gRPC, and what
agentd uses beyond it is agentd's. At the end a store of its own is filled with the events that this fleet made, which
gives the bytes on disk per event.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
from harness import KIB, MIB, Report, cpu_s, free_ports, memory, parser, positive, running
from own_agentd import Daemon, fleet_settings, own_agentd

from agentd.clock import SystemClock
from agentd.core.messages import EventType, Record
from agentd.store import Batch, Bounds, Store
from agentd.v1 import control_pb2

POOLS = ("primary", "research", "execution", "analysis", "planning", "testing")
SMALL = 10
PROCESS_BYTES = 24 * MIB
INTERVAL_S = 10.0
HELD_AT = 500
BEATER = str(Path(__file__).with_name("beater.py"))
HEARTBEATS = str(Path(__file__).with_name("heartbeats.py"))


@dataclass(frozen=True, slots=True)
class Steady:
    """A server in its steady state. `cpu_ratio`: of one core; `beats_per_s`: as agentd's core has seen them."""

    cpu_ratio: float
    rss: int
    pss: int
    beats_per_s: float
    ready_s: float
    events: list[control_pb2.Event]


def main() -> int:
    made = parser(__doc__, rounds=1)
    made.add_argument("--agents", type=positive, default=500, metavar="N", help="the large fleet (500)")
    made.add_argument("--clients", choices=("auto", "processes", "channels"), default="auto", help="who beats (auto)")
    made.add_argument("--seconds", type=float, default=60.0, metavar="S", help="length of the steady state (60)")
    made.add_argument("--settle", type=float, default=20.0, metavar="S", help="before it (20)")
    options = made.parse_args()
    report = Report(options)
    clients = options.clients
    if clients == "auto":
        room = psutil.virtual_memory().available > options.agents * PROCESS_BYTES + 1024 * MIB
        clients = "processes" if room else "channels"
    report.note(
        f"heartbeats from {options.agents} {'processes' if clients == 'processes' else 'channels of one process'}"
    )
    rounds = [
        (
            _steady(SMALL, clients, options),
            _steady(options.agents, clients, options),
            _bare(SMALL, options),
            _bare(options.agents, options),
        )
        for _ in range(options.rounds)
    ]
    few, many, bare_few, bare_many = (list(column) for column in zip(*rounds, strict=True))
    _add(report, options.agents, many, bare_many)
    _add(report, SMALL, few, bare_few)
    if options.agents > SMALL:
        more = (options.agents - SMALL) * KIB
        ours = [(large.rss - small.rss) / more for small, large in zip(few, many, strict=True)]
        grpc = [(large.rss - small.rss) / more for small, large in zip(bare_few, bare_many, strict=True)]
        report.add("RSS per agent, bare grpc.aio: its connection", grpc, "KiB")
        report.add("RSS per agent, agentd", ours, "KiB")
        beyond = [mine - theirs for mine, theirs in zip(ours, grpc, strict=True)]
        report.add("RSS per agent, agentd beyond the connection", beyond, "KiB", at_most=10.0)
    per_event = [asyncio.run(_bytes_per_event(one.events)) / KIB for one in many]
    report.add("disk per event", per_event, "KiB", at_most=1.0)
    return report.finish()


def _add(report: Report, agents: int, ours: list[Steady], bare: list[Steady]) -> None:
    held = agents == HELD_AT
    cpu_percent = [one.cpu_ratio * 100 for one in ours]
    report.add(f"{agents} agents: CPU of one core", cpu_percent, "%", at_most=3.0 if held else None)
    report.add(f"{agents} agents: CPU, bare grpc.aio", [one.cpu_ratio * 100 for one in bare], "%")
    ratios = [mine.cpu_ratio / theirs.cpu_ratio for mine, theirs in zip(ours, bare, strict=True) if theirs.cpu_ratio]
    if ratios:
        report.add(f"{agents} agents: CPU, agentd / bare", ratios)
    report.add(f"{agents} agents: RSS", [one.rss / MIB for one in ours], "MiB", at_most=120.0 if held else None)
    report.add(f"{agents} agents: PSS", [one.pss / MIB for one in ours], "MiB")
    report.add(f"{agents} agents: beats/s seen by the core", [one.beats_per_s for one in ours], "/s")
    report.add(f"{agents} agents: launch to all ready", [one.ready_s for one in ours], "s")


def _steady(agents: int, clients: str, options: argparse.Namespace) -> Steady:
    width = agents // len(POOLS) + 50  # a port that is taken meanwhile costs no agent
    first, _ = free_ports(width * len(POOLS))
    command = [sys.executable, BEATER] if clients == "processes" else ["sleep", "infinity"]
    pools = {}
    for number, name in enumerate(POOLS):
        lowest = first + number * width
        size = agents // len(POOLS) + (number < agents % len(POOLS))
        places = {"core": {f"{name}-core": lowest}, "ports": [lowest + 1, lowest + width - 1]}
        pools[name] = {"command": command, **places, "min": size, "max": size, "start_timeout_sec": 600}
    settings = fleet_settings(pools, check_interval_sec=15, heartbeat_timeout_sec=30)
    with ExitStack() as stack:
        daemon = stack.enter_context(own_agentd(settings))
        if clients == "channels":
            words = (BEATER, daemon.control_address, str(agents), daemon.agents_address)
            stack.enter_context(running(*words))
        daemon.wait_ready(agents, 600.0)
        ready_s = time.monotonic() - daemon.launched
        time.sleep(options.settle)
        beats, cpu, began = _beats(daemon), cpu_s(daemon.pid), time.monotonic()
        time.sleep(options.seconds)
        used, took = cpu_s(daemon.pid) - cpu, time.monotonic() - began
        used_memory = memory(daemon.pid)
        beats_per_s = (_beats(daemon) - beats) / took
        events = daemon.control.events(limit=5_000)
        return Steady(used / took, used_memory.rss, used_memory.pss, beats_per_s, ready_s, events)


def _bare(agents: int, options: argparse.Namespace) -> Steady:
    """The same beats over as many connections, at a server that does nothing with them."""
    with (
        tempfile.TemporaryDirectory(prefix="agentd-bench-") as directory,
        running(HEARTBEATS, "--role", "bare", "--address", f"unix:{directory}/bare.sock") as server,
    ):
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        with running(BEATER, "", str(agents), f"unix:{directory}/bare.sock"):
            time.sleep(INTERVAL_S + options.settle)  # within an interval every channel is connected
            cpu, began = cpu_s(server.pid), time.monotonic()
            time.sleep(options.seconds)
            cpu_ratio = (cpu_s(server.pid) - cpu) / (time.monotonic() - began)
            used_memory = memory(server.pid)
    return Steady(cpu_ratio, used_memory.rss, used_memory.pss, agents / INTERVAL_S, 0.0, [])


def _beats(daemon: Daemon) -> int:
    return sum(instance.tasks_completed for instance in daemon.instances())


async def _bytes_per_event(events: list[control_pb2.Event], count: int = 20_000) -> float:
    """The growth of a state file by `count` events like these, written as agentd writes them: a few at a time."""
    records = [
        Record(EventType(e.type), e.reason, pool=e.pool, instance=e.instance, decision=e.decision, actor=e.actor)
        for e in events
    ]
    with tempfile.TemporaryDirectory(prefix="agentd-bench-") as directory:
        path = Path(directory) / "agentd.db"
        store = Store.open(path, Bounds(), SystemClock())
        await store.close()
        before = path.stat().st_size
        store = Store.open(path, Bounds(), SystemClock())
        for start in range(0, count, 20):
            batch = tuple((time.time(), records[n % len(records)]) for n in range(start, start + 20))
            await store.write(Batch(records=batch))
        await store.close()
        return (path.stat().st_size - before) / count


if __name__ == "__main__":
    sys.exit(main())
