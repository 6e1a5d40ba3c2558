"""Small worlds that the simulator's tests have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from agentd.core.model import FleetConfig, InstanceId, PoolConfig, PoolName, PortRange, ThresholdTrigger
from agentd.sim.measure import Result, result
from agentd.sim.world import TRACE_AT_S, Setup, World
from agentd.traces import Arrival

SIM = PoolName("sim")
# Neither ever says anything: the load is within [0, 1].
NEVER = ThresholdTrigger(scale_up_threshold=1.0, scale_down_threshold=0.0)


def fleet(**pool: Any) -> FleetConfig:
    """A pool of the simulator; without a word of its own it stays at the size it has."""
    settings = {"min": 1, "max": 10, "ports": PortRange(9101, 9140), "drain_timeout_s": 86_400.0, "triggers": (NEVER,)}
    return FleetConfig(
        pools={SIM: PoolConfig(SIM, **(settings | pool))}, enabled=True, autoscaling_enabled=True, starting_max=100
    )


def at(offset_s: float) -> float:
    """A moment of the trace on the world's clock."""
    return TRACE_AT_S + offset_s


def agent(number: int) -> InstanceId:
    """The id of the `number`-th port's instance, from 1."""
    return InstanceId(f"sim-{9100 + number}")


def arrivals(*pairs: tuple[float, float]) -> list[Arrival]:
    return [Arrival(*pair) for pair in pairs]


def run(trace: Sequence[Arrival], setup: Setup | None = None, slo_s: float = 5.0, **pool: Any) -> tuple[World, Result]:
    """Run a trace of (offset, service) through a world of `pool`."""
    world = World(fleet(**pool), trace, setup or Setup())
    measure = world.run()
    found = result("test", measure, trace, slo_s=slo_s, cost_per_hour=1.0, end_s=world.now - TRACE_AT_S)
    return world, replace(found, timeline=())
