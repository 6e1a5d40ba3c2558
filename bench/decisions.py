"""What a decision costs that carries what it was made from: bytes in the store, time to take it, time to make it again.

One pool of N ready agents, each with its own load, queue and times, of which all are busy: a check starts one more. The
basis of that decision is compressed as the store does it, and the decision made again from it. Pure: no processes, no
clock of the fleet, no I/O.
"""

from __future__ import annotations

import sys
import time
import zlib

from harness import Report, parser, positive

from agentd.core import basis
from agentd.core.capacity import NOTHING_PROMISED
from agentd.core.controller import Controller
from agentd.core.messages import Beat, Check, CheckReply, HostSampled, InstancesListed, Restored, Tick
from agentd.core.model import (
    FleetConfig,
    HostSample,
    Incarnation,
    Observed,
    PoolConfig,
    PoolName,
    PortRange,
    instance_id,
)
from agentd.sim.replay import differences, replay

RESEARCH = PoolName("research")
MIB = 1024 * 1024
INCARNATION = Incarnation("0" * 32)
HOST = HostSample(64, 10.0, 1024 * 1024 * MIB, 512 * 1024 * MIB, 1024 * 1024 * MIB)


def fleet(agents: int) -> tuple[Controller, FleetConfig]:
    pool = PoolConfig(RESEARCH, min=0, max=agents + 50, ports=PortRange(2000, 2100 + agents))
    config = FleetConfig(enabled=True, autoscaling_enabled=True, pools={RESEARCH: pool})
    controller = Controller(config)
    idents = [instance_id(RESEARCH, 2000 + number) for number in range(agents)]
    controller.step(Restored({}, 0.0, 0.0, 0.0), 0.0)
    controller.step(InstancesListed(tuple(Observed(ident, INCARNATION, 1000) for ident in idents)), 0.0)
    controller.step(HostSampled(HOST), 0.0)
    controller.step(Tick(1_700_000_000.123456), 0.0)
    for number, ident in enumerate(idents):
        scattered = number * 0.6180339887498949 % 1.0  # each its own, with as many digits as real ones
        beat = Beat(ident, INCARNATION, 1, 0.8 + scattered / 10, number % 7, 1, number * 31, 0.4 + scattered)
        controller.step(beat, 15.0 + scattered)
    return controller, config


def main() -> int:
    made = parser(__doc__, rounds=20)
    made.add_argument("--agents", type=positive, nargs="+", default=[5, 80, 500], metavar="N", help="5, 80 and 500")
    options = made.parse_args()
    report = Report(options)
    for agents in options.agents:
        takes, replays = [], []
        controller, config = fleet(agents)
        state = controller._fleet
        for _ in range(options.rounds):
            began = time.perf_counter()
            basis.take(state, state.pools[RESEARCH], 20.0, between=False, extra=NOTHING_PROMISED)
            takes.append((time.perf_counter() - began) * 1e3)
        reply = controller.step(Check("bench"), 20.0).reply
        assert isinstance(reply, CheckReply)
        (decision,) = reply.decisions
        assert decision.granted == agents + 1, decision
        for _ in range(options.rounds):
            began = time.perf_counter()
            again = replay(decision, config)
            replays.append((time.perf_counter() - began) * 1e3)
            assert differences(decision, again) == {}
        size = len(zlib.compress(decision.basis.encode()))
        report.add(f"{agents:,} agents: basis", [float(size)], "bytes")
        report.add(f"{agents:,} agents: take it", takes, "ms")
        report.add(f"{agents:,} agents: make it again", replays, "ms")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
