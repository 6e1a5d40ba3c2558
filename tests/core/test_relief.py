"""Short memory: an idle instance goes before the kernel chooses one that is at work."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import fleet, pool, research
from msgspec.structs import replace
from world import World

from agentd.core.messages import EventType, HostSampled, SetAutoscaling, SetTarget
from agentd.core.model import MIB, HostSample, InstanceId, PoolName, PortRange, Usage
from agentd.core.rates import Rates

ROOMY = HostSample(8, 1.0, 8192 * MIB, 4096 * MIB, 100_000 * MIB)
SHORT = replace(ROOMY, memory_available_bytes=100 * MIB, memory_pressure_percent=30.0)


def booted(**changes: Any) -> World:
    """Three researchers that are all idle, on a host with room."""
    world = World(fleet(research(**changes)))
    world.boot()
    world.step(HostSampled(ROOMY))
    world.step(SetTarget("up", 3, PoolName("research"), "alice", "", 3600.0))
    world.run_until(30.0)
    for ident in list(world.agents):
        world.set_load(ident, 0.0)
    world.run_until(59.0)
    return world


def told(world: World) -> list[tuple[str, str]]:
    return [(record.instance, record.reason) for _, record in world.records if record.type is EventType.SCALE_DOWN]


def test_the_idle_one_that_gives_most_back_goes_and_the_reason_says_why() -> None:
    world = booted()
    usage = {InstanceId("research-9101"): Usage(300 * MIB, 0.0), InstanceId("research-9102"): Usage(100 * MIB, 0.0)}
    world.step(HostSampled(replace(SHORT, instances=usage)))
    assert told(world) == [
        (
            "research-9101",
            "memory: 100 MiB available, 819 MiB reserved, pressure 30.0 % > 10.0 %; research-9101 is idle",
        )
    ]
    (decision,) = world.outcomes[-1].decisions
    assert (decision.reasons[0].code, decision.victims) == ("memory_pressure", ("research-9101",))


def test_what_a_relief_saves_is_shown_with_the_other_scalings() -> None:
    world = booted(rates=Rates(per_hour=2.0))
    world.step(HostSampled(SHORT))
    (found,) = world.view().pools
    assert found.cost is not None
    assert [(each.change, each.per_hour) for each in found.cost.scalings] == [(-1, -2.0), (2, 4.0)]


def test_one_goes_at_a_time() -> None:
    world = booted()
    world.step(HostSampled(SHORT))
    world.step(HostSampled(SHORT))
    assert len(told(world)) == 1
    world.run_until(world.now + 60.0)
    world.step(HostSampled(SHORT))
    assert len(told(world)) == 2


def test_core_agents_and_minimums_stay() -> None:
    world = booted(min=3)
    world.step(HostSampled(SHORT))
    assert told(world) == []


def test_who_is_at_work_stays() -> None:
    world = booted()
    for ident in list(world.agents):
        world.set_load(ident, 0.1)
    world.run_until(world.now + 30.0)
    world.step(HostSampled(SHORT))
    assert told(world) == []


@pytest.mark.parametrize(
    "sample",
    [
        ROOMY,
        replace(ROOMY, memory_pressure_percent=90.0),  # pressure within a slice, memory enough
        replace(SHORT, memory_pressure_percent=5.0),  # a cache that fills memory presses nobody
    ],
)
def test_memory_must_be_short_and_under_pressure(sample: HostSample) -> None:
    world = booted()
    world.step(HostSampled(sample))
    assert told(world) == []


def test_without_a_reading_of_pressure_the_reserve_decides() -> None:
    world = booted()
    world.step(HostSampled(replace(SHORT, memory_pressure_percent=None)))
    assert [reason for _, reason in told(world)] == [
        "memory: 100 MiB available, 819 MiB reserved; research-9102 is idle"
    ]


def test_switched_off_scaling_is_switched_off_here_too() -> None:
    world = booted()
    world.step(SetAutoscaling(False, "bob", ""))
    world.step(HostSampled(SHORT))
    assert told(world) == []


def test_the_pool_with_the_lowest_priority_gives_first() -> None:
    world = World(
        fleet(
            pool("high", core=(), min=0, ports=PortRange(9201, 9210), priority=5),
            pool("low", core=(), min=0, ports=PortRange(9301, 9310), priority=-5),
        )
    )
    world.boot()
    world.step(HostSampled(ROOMY))
    for name in ("high", "low"):
        world.step(SetTarget("up", 1, PoolName(name), "alice", "", 3600.0))
    world.run_until(20.0)
    for ident in list(world.agents):
        world.set_load(ident, 0.0)
    world.run_until(60.0)
    world.step(HostSampled(SHORT))
    assert [ident for ident, _ in told(world)] == ["low-9301"]
