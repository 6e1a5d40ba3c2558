"""One evaluation of the whole fleet by the pure controller: no processes, no clock, no I/O.

A fleet of N ready agents in six pools is built as agentd would come to know it: listed, adopted, heard. Then every
pool is checked, as at each check interval (`Check`), looked at (`view`), and beaten for (`Beat`). `endpoints` is one
look of discovery, after which every endpoint has other numbers: what agentd does twice a second while somebody watches.
Each figure stands beside a loop of plain Python measured in the same run: 1,000 times the sum of 500 numbers.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

from harness import Report, interleaved, parser, positive

from agentd.core.controller import Controller
from agentd.core.directory import Directory
from agentd.core.messages import Beat, Check, CheckReply, HostSampled, InstancesListed, Restored, Tick
from agentd.core.model import (
    FleetConfig,
    HostSample,
    Incarnation,
    InstanceId,
    Observed,
    PoolConfig,
    PoolName,
    PortRange,
    Usage,
    instance_id,
)

POOLS = ("analysis", "execution", "planning", "primary", "research", "testing")
HOLD_MS = {500: 5.0, 10_000: 60.0}
MIB = 1024 * 1024
INCARNATION = Incarnation("0" * 32)


class Fleet:
    """A controller with `agents` ready agents, and the time at which it stands."""

    def __init__(self, agents: int) -> None:
        sizes = [agents // len(POOLS) + (n < agents % len(POOLS)) for n in range(len(POOLS))]
        width = max(sizes) + 50
        ranges = {PoolName(name): PortRange(2000 + n * width, 1999 + (n + 1) * width) for n, name in enumerate(POOLS)}
        pools = {name: PoolConfig(name=name, min=0, max=width, ports=ports) for name, ports in ranges.items()}
        self.controller = Controller(FleetConfig(enabled=True, autoscaling_enabled=True, pools=pools))
        self.ids: list[InstanceId] = [
            instance_id(name, ranges[name].first + n)
            for name, size in zip(ranges, sizes, strict=True)
            for n in range(size)
        ]
        self.directory = Directory()
        self.now = 0.0
        self.seq = 0
        self.controller.step(Restored({}, 0.0, 0.0, 0.0), self.now)
        observed = tuple(Observed(ident, INCARNATION, 1000 + n) for n, ident in enumerate(self.ids))
        self.controller.step(InstancesListed(observed), self.now)
        self.controller.step(HostSampled(self._sample()), self.now)
        self.controller.step(Tick(0.0), self.now)
        self.beat()

    def _sample(self) -> HostSample:
        usage = {ident: Usage(memory_bytes=80 * MIB, cpu_cores=0.1) for ident in self.ids}
        return HostSample(
            cores=64,
            cpu_used_cores=10.0,
            memory_total_bytes=1024 * 1024 * MIB,
            memory_available_bytes=512 * 1024 * MIB,
            disk_free_bytes=1024 * 1024 * MIB,
            instances=usage,
        )

    def beat(self) -> float:
        """Let every agent beat; seconds for one."""
        self.seq += 1
        beats = [
            Beat(ident, INCARNATION, self.seq, load=0.5, queue_length=1, in_flight=1, response_time_p50_s=self.seq)
            for ident in self.ids
        ]
        began = time.perf_counter()
        for beat in beats:
            self.controller.step(beat, self.now)
        return (time.perf_counter() - began) / len(beats)

    def check(self) -> float:
        began = time.perf_counter()
        reply = self.controller.step(Check(owner="bench"), self.now).reply
        took = time.perf_counter() - began
        assert isinstance(reply, CheckReply) and len(reply.decisions) == len(POOLS)
        return took

    def view(self) -> float:
        began = time.perf_counter()
        view = self.controller.view(self.now)
        took = time.perf_counter() - began
        assert sum(pool.ready for pool in view.pools) == len(self.ids)
        return took

    def endpoints(self) -> float:
        self.beat()
        before = self.directory.revision
        began = time.perf_counter()
        self.directory.take(self.controller.endpoints(), numbers=True)
        change = self.directory.since("", before)
        took = time.perf_counter() - began
        assert len(change.endpoints) == len(self.ids), "the beats changed them all"
        return took


def baseline() -> float:
    numbers = [n / 500 for n in range(500)]
    began = time.perf_counter()
    for _ in range(1000):
        total = 0.0
        for number in numbers:
            total += number
    return time.perf_counter() - began


def main() -> int:
    made = parser(__doc__, rounds=20)
    made.add_argument("--agents", type=positive, nargs="+", default=[500, 10_000], metavar="N", help="500 and 10000")
    options = made.parse_args()
    report = Report(options)
    fleets = {agents: Fleet(agents) for agents in options.agents}
    measures: dict[str, Callable[[], float]] = {"baseline": baseline}
    for agents, fleet in fleets.items():
        measures |= {f"check {agents}": fleet.check, f"view {agents}": fleet.view}
        measures |= {f"endpoints {agents}": fleet.endpoints, f"beat {agents}": fleet.beat}
    results = interleaved(options.rounds, measures)
    base = statistics.median(results["baseline"])
    report.add("baseline loop", _scaled(results["baseline"], 1e3), "ms")
    for agents in fleets:
        check, view = results[f"check {agents}"], results[f"view {agents}"]
        report.add(f"{agents:,} agents: check", _scaled(check, 1e3), "ms", at_most=HOLD_MS.get(agents))
        report.add(f"{agents:,} agents: check / baseline", _scaled(check, 1 / base))
        report.add(f"{agents:,} agents: view", _scaled(view, 1e3), "ms")
        report.add(f"{agents:,} agents: view / baseline", _scaled(view, 1 / base))
        looks = results[f"endpoints {agents}"]
        report.add(f"{agents:,} agents: endpoints", _scaled(looks, 1e3), "ms")
        report.add(f"{agents:,} agents: endpoints / baseline", _scaled(looks, 1 / base))
        report.add(f"{agents:,} agents: one beat", _scaled(results[f"beat {agents}"], 1e6), "us")
    return report.finish()


def _scaled(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


if __name__ == "__main__":
    sys.exit(main())
