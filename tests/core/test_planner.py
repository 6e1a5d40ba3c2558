"""Which ports, whom to let go, how a total is divided."""

from __future__ import annotations

import pytest
from fleets import STORIES, fleet, pool, research
from hypothesis import given
from hypothesis import strategies as st
from world import World

from agentd.core.messages import Check, EventType, Refusal, SetTarget, TargetReply
from agentd.core.model import CoreAgent, HealthCheck, InstanceId, PoolName, PortRange, State
from agentd.core.planner import best


def victims_of(world: World, count: int) -> list[str]:
    """Whom the pool lets go of, in order, when `count` shall remain; as many at once as may drain."""
    world.step(SetTarget("down", count, PoolName("research"), "alice", "", None))
    world.run_until(world.now + 100.0)
    return [record.instance for _, record in world.records if record.type is EventType.SCALE_DOWN]


def test_the_lowest_load_goes_first_and_core_agents_never() -> None:
    world = World(fleet(research(min=4)))
    world.boot()
    loads = {"research-9002": 0.0, "research-9101": 0.3, "research-9102": 0.1, "research-9103": 0.2}
    for ident, load in loads.items():
        world.set_load(ident, load)
    world.run_until(10.0)
    world.config = fleet(research())
    world.reboot()
    world.run_until(60.0)
    assert victims_of(world, 0) == ["research-9102", "research-9103", "research-9101"]


def test_of_equal_loads_the_youngest_goes_and_what_is_not_ready_counts_as_idle() -> None:
    world = World(fleet(pool(min=1, start_timeout_s=5000.0)))
    world.boot()
    world.step(SetTarget("up", 2, PoolName("research"), "alice", "", None))
    world.run_until(400.0)
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.0)
    world.run_until(420.0)
    world.slow.add("research-9103")
    world.step(SetTarget("up", 3, PoolName("research"), "alice", "", None))
    world.run_until(1060.0)  # the second scale-up is never ready, so only the first has a cooldown
    assert world.instance("research-9103").state is State.STARTING
    assert victims_of(world, 1) == ["research-9103", "research-9102"]


def test_of_equal_loads_who_has_been_idle_longest_goes_then_who_has_least_to_lose() -> None:
    world = World(fleet(pool(min=1, max=9, scale_up_cooldown_s=0.0, scale_down_cooldown_s=0.0, drain_share_max=1.0)))
    world.boot()
    world.step(SetTarget("up", 6, PoolName("research"), "alice", "", None))
    world.run_until(5.0)
    ports = range(9101, 9107)
    for port in ports:
        world.set_load(f"research-{port}", 0.2)
        world.work(f"research-{port}", 1)
    world.run_until(20.0)
    for port, tasks in ((9101, 2), (9102, 0), (9103, 0)):
        world.work(f"research-{port}", tasks)
    world.run_until(40.0)
    for port in (9102, 9104):  # the one begins anew, the other is idle since now only
        world.work(f"research-{port}", 1 if port == 9102 else 0)
    world.run_until(60.0)
    world.agents[InstanceId("research-9106")].in_flight = None
    world.agents[InstanceId("research-9106")].queue_length = None
    world.run_until(80.0)
    # idle longest, idle, says nothing, one task lately begun, one for long, two tasks
    order = [9103, 9104, 9106, 9102, 9105, 9101]
    assert victims_of(world, 0)[:5] == [f"research-{port}" for port in order[:5]]


def test_the_load_comes_before_what_they_say_of_their_work() -> None:
    world = World(fleet(pool(min=2, scale_down_cooldown_s=0.0)))
    world.boot()
    for ident, load, tasks in (("research-9101", 0.3, 0), ("research-9102", 0.2, 4)):
        world.set_load(ident, load)
        world.run_until(5.0)
        world.work(ident, tasks)
    world.run_until(40.0)
    world.config = fleet(pool(min=1, scale_down_cooldown_s=0.0))
    world.reboot()
    world.run_until(80.0)
    assert victims_of(world, 1) == ["research-9102"]


def test_ports_are_given_out_from_the_lowest_and_never_a_core_agents() -> None:
    core = (CoreAgent("first", 9101), CoreAgent("second", 9103))
    world = World(fleet(pool(core=core, min=4)))
    world.boot()
    assert sorted(world.agents) == ["research-9101", "research-9102", "research-9103", "research-9104"]


def test_a_range_without_a_free_port_holds() -> None:
    world = World(fleet(pool(ports=PortRange(9101, 9102), min=2)))
    world.boot()
    for ident in list(world.agents):
        world.set_load(ident, 0.9)
    world.run_until(20.0)
    world.step(Check("alice"))
    limits = world.outcomes[-1].decisions[0].limits
    assert [(limit.code, limit.text) for limit in limits] == [("ports_exhausted", "0 free ports (9101-9102)")]


# -- a total for the whole fleet --------------------------------------------------------------------


def three_pools() -> World:
    """busy: load 0.9 on 2 ready; idle: load 0.1 on 1; core: two core agents and nothing else."""
    world = World(
        fleet(
            pool("busy", min=2, max=6),
            pool("idle", min=1, max=6, ports=PortRange(9201, 9250)),
            pool("kernel", core=(CoreAgent("one", 9001), CoreAgent("two", 9002)), min=1, max=2, ports=None),
        )
    )
    world.loads = {"busy-9101": 0.9, "busy-9102": 0.9, "idle-9201": 0.1, "kernel-9001": 1.0, "kernel-9002": 1.0}
    world.boot()
    return world


def split(world: World, direction: str, total: int) -> dict[str, int]:
    """The counts that each pool is to have, from a dry run."""
    reply = world.step(SetTarget(direction, total, None, "alice", "", None, dry_run=True))
    assert isinstance(reply, TargetReply)
    return {grant.pool: grant.wanted for grant in reply.grants}


@pytest.mark.parametrize(
    ("direction", "total", "shares"),
    [
        ("down", 0, {"busy": 2, "idle": 1, "kernel": 2}),
        ("up", 5, {"busy": 2, "idle": 1, "kernel": 2}),
        ("up", 6, {"busy": 3, "idle": 1, "kernel": 2}),  # 1.8 / 3 against 0.1 / 2
        ("up", 9, {"busy": 6, "idle": 1, "kernel": 2}),
        ("up", 11, {"busy": 6, "idle": 3, "kernel": 2}),  # busy is at its max
        ("up", 99, {"busy": 6, "idle": 6, "kernel": 2}),
    ],
)
def test_a_total_starts_from_core_and_min_and_goes_where_it_relieves_most(
    direction: str, total: int, shares: dict[str, int]
) -> None:
    assert split(three_pools(), direction, total) == shares


def test_a_dry_run_changes_nothing() -> None:
    world = three_pools()
    before, told = world.controller.snapshot(), len(world.records)
    assert split(world, "up", 9)
    assert (world.controller.snapshot(), len(world.records)) == (before, told)


@STORIES
@given(st.integers(0, 30))
def test_a_total_is_met_exactly_within_the_limits(total: int) -> None:
    world = three_pools()
    assert sum(split(world, "up" if total >= 5 else "down", total).values()) == min(max(total, 5), 14)


@pytest.mark.parametrize(("direction", "total"), [("up", 4), ("down", 6)])
def test_a_total_on_the_wrong_side_of_the_present_one_is_refused(direction: str, total: int) -> None:
    reply = three_pools().step(SetTarget(direction, total, None, "alice", "", None))
    assert isinstance(reply, Refusal)
    assert reply.status == "INVALID_ARGUMENT"


def test_ties_between_pools_go_by_name() -> None:
    names = [PoolName("b"), PoolName("a")]
    assert best(names, dict.fromkeys(names, 0.0), dict.fromkeys(names, 1)) == "a"


def test_a_pool_cannot_have_more_than_its_ports() -> None:
    world = World(fleet(pool(min=1, max=9, ports=PortRange(9101, 9104), health=HealthCheck.NONE)))
    world.boot()
    assert split(world, "up", 9) == {"research": 4}
    assert world.view().pools[0].capacity == 4
    assert InstanceId("research-9101") in world.agents
