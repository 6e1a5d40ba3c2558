"""Headroom: what one more instance needs, what says no, and in whose favour a short host decides."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import fleet, pool, research
from msgspec.structs import replace
from world import World

from agentd.core.messages import Check, EventType, HostSampled, SetTarget, TargetReply
from agentd.core.model import HostReserve, HostSample, InstanceId, Limit, PoolName, PortRange, Usage, Wall
from agentd.core.views import Headroom

MIB = 1024 * 1024
RESERVE = HostReserve(memory_bytes=512 * MIB, memory_ratio=0.1, disk_bytes=1024 * MIB, cpu_ratio=0.05)
ROOMY = HostSample(8, 1.0, 4096 * MIB, 4096 * MIB, 100_000 * MIB)


def busy(sample: HostSample | None, **changes: Any) -> World:
    """A pool that wants one more, on a host of which `sample` is known."""
    world = World(fleet(research(**changes), reserve=RESERVE, heartbeat_timeout_s=600.0))
    world.boot()
    world.set_load("research-9002", 0.9)
    world.run_until(11.0)
    if sample is not None:
        world.step(HostSampled(sample))
    return world


def limits(world: World) -> tuple[Limit, ...]:
    return world.view().pools[0].next.limits


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        (
            {"memory_available_bytes": 600 * MIB},
            "host_memory",
            "memory: 12 MiB more needed (600 MiB available, 0 MiB promised, 512 MiB reserved, 100 MiB each)",
        ),
        (
            {"memory_available_bytes": 612 * MIB - 1},
            "host_memory",
            "memory: 1 MiB more needed (612 MiB available, 0 MiB promised, 512 MiB reserved, 100 MiB each)",
        ),
        (
            {"disk_free_bytes": 1000 * MIB},
            "host_disk",
            "disk: 24 MiB more needed (1000 MiB free, 1024 MiB reserved)",
        ),
        (
            {"cpu_used_cores": 7.9},
            "host_cpu",
            "cpu: 0.30 cores more needed (7.90 of 8 in use, 0.00 promised, 0.40 reserved, 0.00 each)",
        ),
        (
            {"memory_pressure_percent": 10.1},
            "host_memory_pressure",
            "memory pressure: 10.1 % > 10.0 % (some avg10), 0.1 points too much",
        ),
        (
            {"io_pressure_percent": 55.0},
            "host_io_pressure",
            "io pressure: 55.0 % > 40.0 % (some avg10), 15.0 points too much",
        ),
    ],
)
def test_a_hold_names_the_resource_and_what_is_missing(changes: dict[str, Any], code: str, text: str) -> None:
    world = busy(replace(ROOMY, **changes))
    assert limits(world) == (Limit(code, text),)
    assert world.view().pools[0].headroom == Headroom(0, code.removeprefix("host_"), text)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_available_bytes": 612 * MIB},
        {"disk_free_bytes": 1024 * MIB},
        {"cpu_used_cores": 7.6},
        {"memory_pressure_percent": 10.0},
        {"io_pressure_percent": 40.0},
        {"cpu_pressure_percent": 100.0},  # shown, not judged: a busy host is what agents are for
    ],
)
def test_exactly_enough_is_enough(changes: dict[str, Any]) -> None:
    assert limits(busy(replace(ROOMY, **changes))) == ()


def test_checks_that_are_switched_off_hold_nothing() -> None:
    off = HostReserve(0, 0.0, 0, None, None, None)
    world = busy(replace(ROOMY, cpu_used_cores=8.0, memory_pressure_percent=99.0, io_pressure_percent=99.0))
    world.config = replace(world.config, reserve=off)
    world.reboot()
    world.step(HostSampled(replace(ROOMY, cpu_used_cores=8.0, memory_pressure_percent=99.0)))
    world.run_until(61.0)
    assert limits(world) == ()


def test_a_host_that_is_no_longer_measured_holds_scale_ups_until_it_is() -> None:
    world = busy(ROOMY)
    world.now += 60.0
    assert limits(world) == ()
    world.now += 1.0
    assert [limit.code for limit in limits(world)] == ["host_unknown"]
    world.step(HostSampled(ROOMY))
    assert limits(world) == ()


def test_a_host_that_was_never_measured_is_no_bound() -> None:
    assert limits(busy(None)) == ()
    assert busy(None).view().pools[0].headroom.instances is None


def test_what_is_on_its_way_has_been_promised_its_footprint() -> None:
    world = busy(replace(ROOMY, memory_available_bytes=1000 * MIB), max=50)
    world.start_delay_s = 5.0
    world.step(SetTarget("up", 3, PoolName("research"), "alice", "", None))
    assert world.view().pools[0].headroom.instances == 2  # (1000 - 512 - 2 * 100) / 100
    world.run_until(20.0)
    assert world.view().pools[0].headroom.instances == 4, "ready: now the sample tells what they take"


def test_what_a_starting_instance_uses_already_is_not_promised_twice() -> None:
    world = World(fleet(research(), reserve=RESERVE))
    world.slow.add("research-9002")
    world.boot()
    usage = {InstanceId("research-9002"): Usage(60 * MIB, 0.1)}
    world.step(HostSampled(replace(ROOMY, memory_available_bytes=652 * MIB, instances=usage)))
    assert world.view().pools[0].headroom.instances == 1  # 652 - 512 - (100 - 60) = 100


def test_learned_cpu_bounds_how_many_more_there_can_be() -> None:
    world = busy(ROOMY)
    world.step(HostSampled(replace(ROOMY, instances={InstanceId("research-9002"): Usage(100 * MIB, 2.0)})))
    headroom = world.view().pools[0].headroom  # 8 * 0.95 - 1 = 6.6 cores
    assert (headroom.instances, headroom.resource) == (3, "cpu")
    assert headroom.text == "room for 3 more, then cpu"


def test_people_get_what_fits_and_are_told_why_not_more() -> None:
    world = busy(replace(ROOMY, memory_available_bytes=812 * MIB), max=50)
    reply = world.step(SetTarget("up", 9, PoolName("research"), "alice", "", None))
    assert isinstance(reply, TargetReply)
    assert (reply.grants[0].wanted, reply.grants[0].granted) == (9, 4)
    assert reply.grants[0].limits[0].startswith("host_memory: memory: 100 MiB more needed")


def two_pools(low: int, high: int) -> World:
    """`alpha` comes first by name; both want one more."""
    world = World(
        fleet(pool("alpha", priority=low), pool("beta", ports=PortRange(9201, 9250), priority=high), reserve=RESERVE)
    )
    world.loads = {"alpha-9101": 0.9, "beta-9201": 0.9}
    world.boot()
    world.run_until(11.0)
    world.step(HostSampled(replace(ROOMY, memory_available_bytes=650 * MIB)))  # room for one
    return world


@pytest.mark.parametrize(("low", "high", "favoured"), [(0, 0, "alpha"), (0, 1, "beta"), (-1, 0, "beta")])
def test_when_the_host_is_short_priority_goes_first_then_the_name(low: int, high: int, favoured: str) -> None:
    world = two_pools(low, high)
    world.step(Check("alice"))
    world.run_until(12.0)
    grown = [record.pool for _, record in world.records if record.type is EventType.SCALE_UP]
    held = [record.pool for _, record in world.records if record.type is EventType.HOLD]
    assert (grown, held) == ([favoured], ["alpha" if favoured == "beta" else "beta"])


def test_a_dry_run_shares_the_headroom_in_the_same_order() -> None:
    world = two_pools(0, 1)
    reply = world.step(SetTarget("up", 4, None, "alice", "", None, dry_run=True))
    assert isinstance(reply, TargetReply)
    granted = {grant.pool: grant.granted for grant in reply.grants}
    assert granted == {"alpha": 1, "beta": 2}


def test_starts_up_to_min_wait_for_memory_alone_and_core_agents_for_nothing() -> None:
    world = World(fleet(research(min=3), reserve=RESERVE))
    short = replace(ROOMY, memory_available_bytes=100 * MIB, disk_free_bytes=0, cpu_used_cores=8.0)
    world.step(HostSampled(short))
    world.boot()
    assert sorted(world.agents) == ["research-9002"]
    world.step(HostSampled(replace(short, memory_available_bytes=4000 * MIB)))
    world.run_until(1.0)
    assert sorted(world.agents) == ["research-9002", "research-9101", "research-9102"]


def test_a_driver_with_a_bound_is_not_asked_for_more() -> None:
    world = busy(ROOMY, max=50)
    world.controller.set_capacity(2)
    reply = world.step(SetTarget("up", 5, PoolName("research"), "alice", "", None))
    assert isinstance(reply, TargetReply)
    assert reply.grants[0].granted == 2
    assert reply.grants[0].limits == ("driver_capacity: the driver can run 2 instances",)


@pytest.mark.parametrize(("name", "whose"), [("", "slice of all agents"), ("research", "slice of research")])
def test_a_slice_with_a_memory_limit_is_a_wall(name: str, whose: str) -> None:
    walls = {name: Wall(memory_max_bytes=300 * MIB, memory_bytes=250 * MIB), "other": Wall(1, 1)}
    world = busy(replace(ROOMY, walls=walls))
    world.run_until(61.0)
    assert [(limit.code, limit.text) for limit in limits(world)] == [
        (
            "slice_memory",
            f"{whose}: 50 MiB more needed (250 of 300 MiB used, 0 MiB promised, 100 MiB each)",
        )
    ]
