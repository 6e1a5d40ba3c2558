"""How a pool stands with scaling, in three conditions, each with a code and the moment since when."""

from __future__ import annotations

from fleets import FLEET, RESEARCH
from msgspec.structs import replace
from world import WALL, World

from agentd.core.messages import HostSampled, SetAutoscaling, SetTarget
from agentd.core.model import MIB, HostSample
from agentd.core.views import Condition

SAMPLE = HostSample(8, 1.0, 4096 * MIB, 3000 * MIB, 100_000 * MIB)


def shown(world: World) -> dict[str, Condition]:
    pool = next(pool for pool in world.view().pools if pool.name == RESEARCH)
    return {condition.type: condition for condition in pool.conditions}


def stands(world: World) -> list[tuple[str, bool, str]]:
    return [(it.type, it.status, it.reason) for it in shown(world).values()]


def load(world: World, value: float) -> None:
    world.usual_load = value
    for agent in world.agents.values():
        agent.load = value


def booted() -> World:
    world = World(FLEET)
    world.boot()
    world.run_until(12.0)
    return world


def test_a_pool_in_its_band_is_able_active_and_not_limited() -> None:
    assert stands(booted()) == [
        ("AbleToScale", True, "ready"),
        ("ScalingActive", True, "in_band"),
        ("ScalingLimited", False, "within_limits"),
    ]


def test_a_cooldown_makes_it_unable_and_its_maximum_limits_it() -> None:
    world = booted()
    load(world, 1.0)
    world.run_until(31.0)
    assert stands(world)[0] == ("AbleToScale", False, "up_cooldown")
    world.run_until(400.0)
    assert stands(world) == [
        ("AbleToScale", True, "ready"),
        ("ScalingActive", True, "high_load"),
        ("ScalingLimited", True, "max_agents"),
    ]


def test_what_the_host_lacks_limits_it() -> None:
    world = booted()
    load(world, 1.0)
    world.step(HostSampled(replace(SAMPLE, memory_available_bytes=520 * MIB)))
    world.run_until(31.0)
    assert shown(world)["ScalingLimited"].reason == "host_memory"
    assert "more needed" in shown(world)["ScalingLimited"].text


def test_an_idle_pool_at_its_minimum_is_not_limited() -> None:
    world = booted()
    load(world, 0.0)
    world.run_until(300.0)
    assert stands(world)[2] == ("ScalingLimited", False, "within_limits")


def test_scaling_is_not_active_while_it_is_off_a_person_decides_or_nothing_is_known() -> None:
    world = booted()
    world.step(SetTarget("up", 2, RESEARCH, "alice", "", None, False))
    assert stands(world)[1] == ("ScalingActive", False, "target")
    world.step(SetAutoscaling(True, "alice", ""))
    world.step(SetAutoscaling(False, "alice", ""))
    assert stands(world)[1] == ("ScalingActive", False, "autoscaling_off")
    unheard = World(FLEET)
    unheard.usual_load = 0.5
    unheard.slow.add("research-9002")
    unheard.boot()
    assert stands(unheard)[1] == ("ScalingActive", False, "no_sample")
    off = World(replace(FLEET, enabled=False))
    off.boot()
    off_pools = {pool.name: pool.conditions for pool in off.view().pools}
    assert [it.reason for it in off_pools.get(RESEARCH, ()) if it.type == "ScalingActive"] == ["disabled"]


def test_since_is_when_the_status_changed_and_outlives_a_restart() -> None:
    world = booted()
    assert shown(world)["ScalingLimited"].since == WALL + 10.0
    load(world, 1.0)
    world.run_until(400.0)
    limited = shown(world)["ScalingLimited"]
    assert limited.status and WALL + 30.0 < limited.since < WALL + 400.0
    world.run_until(500.0)
    assert shown(world)["ScalingLimited"].since == limited.since
    world.reboot()
    load(world, 1.0)
    world.run_until(540.0)
    assert shown(world)["ScalingLimited"] == limited
