"""From the saturation of a pool to the start of one more instance.

A real agentd with one pool under the policy `threshold` and without cooldowns. In each round all agents report a load
of 0.5, and at a random moment of the check interval all report 1.0. Shown apart: from the first such report to the
decision (the policy looks once per --interval seconds, so half of that on average), and from the decision to the
process (stored, forked, exec'ed, recorded).
"""

from __future__ import annotations

import itertools
import random
import sys
import time

import grpc
from beater import request
from harness import BenchError, Report, free_ports, parser, wait_until
from own_agentd import READY, Daemon, fleet_settings, own_agentd

from agentd.v1 import agent_pb2_grpc, control_pb2

POOL = "bench"


class Agents:
    """All agents of the pool: they are `sleep infinity`, and this object beats for them."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._stub = agent_pb2_grpc.AgentServiceStub(grpc.insecure_channel(daemon.agents_address))
        self._seqs = itertools.count(1)

    def report(self, load: float) -> list[control_pb2.Instance]:
        """Every agent that runs reports `load`, in one call for each."""
        present = self._daemon.running()
        for instance in present:
            self._stub.Heartbeat(request(instance.id, instance.incarnation, next(self._seqs), load), timeout=5.0)
        return present

    def rest(self) -> None:
        """Have all agents ready, at half load."""

        def all_ready() -> bool:
            self.report(0.5)
            return all(instance.state == READY for instance in self._daemon.instances())

        wait_until("all agents are ready", all_ready, 30.0, 0.02)


def reaction(daemon: Daemon, agents: Agents, interval_s: float) -> tuple[float, float]:
    """Seconds from the report to the decision, and from the decision to the process."""
    agents.rest()
    time.sleep(random.random() * interval_s)
    known = {instance.id for instance in agents.report(0.5)}
    saturated = time.time()
    agents.report(1.0)
    wait_until("one more instance", lambda: len(daemon.running()) > len(known), 4 * interval_s + 10.0, 0.005)
    events = daemon.control.events(limit=50, pool=POOL, types=("start",))
    started = next(event for event in events if event.instance not in known)
    decision = next((one for one in daemon.control.explain(POOL, 5).decisions if one.id == started.decision), None)
    if decision is None:
        raise BenchError(f"{started.instance} was started without a decision")
    return decision.wall - saturated, started.wall - decision.wall


def main() -> int:
    made = parser(__doc__, rounds=10)
    made.add_argument("--interval", type=float, default=1.0, metavar="S", help="check_interval_sec (1)")
    options = made.parse_args()
    report = Report(options)
    first, last = free_ports(options.rounds + 20)
    pool = {"command": ["sleep", "infinity"], "core": {"core": first}, "ports": [first + 1, last]}
    scaling = {"check_interval_sec": options.interval, "scale_up_cooldown_sec": 0, "scale_down_cooldown_sec": 3600}
    with own_agentd(fleet_settings({POOL: {**pool, "min": 3}}, **scaling)) as daemon:
        daemon.wait_running(3, 30.0)
        agents = Agents(daemon)
        wait_until("the recovery window is over", lambda: daemon.control.status().recovering_s == 0.0, 60.0)
        times = [reaction(daemon, agents, options.interval) for _ in range(options.rounds)]
    report.add("report to decision", [decided * 1e3 for decided, _ in times], "ms")
    report.add("  / check interval", [decided / options.interval for decided, _ in times], at_most=1.0)
    report.add("decision to process", [started * 1e3 for _, started in times], "ms")
    report.add("report to process", [(decided + started) * 1e3 for decided, started in times], "ms")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
