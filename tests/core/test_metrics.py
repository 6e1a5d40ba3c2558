"""What counts into a pool's load, and how a footprint is learned."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fleets import RESEARCH, STORIES, fleet, pool, research
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from world import World

from agentd.core.messages import HostSampled, Restart
from agentd.core.metrics import quantile
from agentd.core.model import HealthCheck, HostSample, InstanceId, Resources, Usage
from agentd.core.views import PoolView

MIB = 1024 * 1024
HOST = HostSample(8, 1.0, 4096 * MIB, 4096 * MIB, 100_000 * MIB)


def booted(**changes: object) -> World:
    world = World(fleet(research(min=3, **changes)))
    world.boot()
    return world


def seen(world: World) -> PoolView:
    return world.view().pools[0]


def test_the_load_is_the_mean_over_ready_instances_core_included() -> None:
    world = booted()
    for ident, load in (("research-9002", 0.9), ("research-9101", 0.3), ("research-9102", 0.3)):
        world.set_load(ident, load)
    world.run_until(10.0)
    assert seen(world).load == pytest.approx(0.5)


def test_a_late_instance_counts_but_its_load_does_not() -> None:
    world = booted()
    world.set_load("research-9101", 1.0)
    world.run_until(10.0)
    world.agents[InstanceId("research-9101")].silent = True
    world.run_until(39.9)
    assert seen(world).load == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    world.run_until(40.0)
    view = seen(world)
    assert (view.count, view.ready, view.unhealthy, view.load) == (3, 2, 1, 0.5)
    assert world.view().unhealthy == 1


def test_starting_and_draining_instances_have_no_say() -> None:
    world = World(fleet(research(min=2)), start_delay_s=5.0, stop_delay_s=1000.0)
    world.boot()
    view = seen(world)
    assert (view.count, view.starting, view.ready, view.load) == (2, 2, 0, None)
    world.run_until(6.0)
    world.set_load("research-9002", 0.2)
    world.set_load("research-9101", 0.8)
    world.run_until(20.0)
    assert seen(world).load == pytest.approx(0.5)
    world.step(Restart((InstanceId("research-9101"),), "alice"))
    view = seen(world)
    assert (view.ready, view.load) == (1, 0.2)


@STORIES
@given(st.lists(st.floats(0, 1e12), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_one_of_the_values_with_enough_of_them_below(values: Sequence[float], q: float) -> None:
    found = quantile(values, q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values) - 1e-9


def measure(world: World, sizes_mib: dict[str, int]) -> PoolView:
    usage = {InstanceId(ident): Usage(mib * MIB, 0.5) for ident, mib in sizes_mib.items()}
    world.step(HostSampled(replace(HOST, instances=usage)))
    return seen(world)


def test_a_footprint_is_seed_as_figure_until_an_instance_was_measured() -> None:
    world = booted()
    view = measure(world, {})
    assert (view.footprint_bytes, view.footprint_learned) == (100 * MIB, False)
    view = measure(world, {"research-9101": 0})
    assert not view.footprint_learned, "a process that is gone measures as nothing"
    view = measure(world, {"research-9101": 300})
    assert (view.footprint_bytes, view.footprint_learned) == (300 * MIB, True)


def test_a_footprint_is_the_large_instances_rises_at_once_and_falls_slowly() -> None:
    world = booted()
    assert measure(world, {"research-9002": 50, "research-9101": 60, "research-9102": 200}).footprint_bytes == 200 * MIB
    fallen = measure(world, {"research-9002": 50, "research-9101": 50, "research-9102": 50}).footprint_bytes
    assert fallen == int(200 * MIB - 0.02 * 150 * MIB)
    assert measure(world, {"research-9101": 400}).footprint_bytes == 400 * MIB
    for _ in range(500):
        view = measure(world, {"research-9002": 50, "research-9101": 50, "research-9102": 50})
    assert 50 * MIB <= view.footprint_bytes < 52 * MIB


def test_a_learned_footprint_survives_a_restart_of_agentd() -> None:
    world = booted()
    measure(world, {"research-9101": 300})
    world.reboot()
    assert (seen(world).footprint_bytes, seen(world).footprint_learned) == (300 * MIB, True)


def test_queue_and_work_in_flight_are_summed_up() -> None:
    world = booted()
    for agent in world.agents.values():
        agent.queue_length, agent.in_flight = 2, 1
    world.run_until(10.0)
    assert (seen(world).queue_length, seen(world).in_flight) == (6, 3)


def test_a_pool_of_its_own_is_measured_by_its_own_instances() -> None:
    world = World(fleet(pool(), pool("execution", ports=None, min=0)))
    world.boot()
    usage = {InstanceId("research-9101"): Usage(300 * MIB, 0.5)}
    world.step(HostSampled(replace(HOST, instances=usage)))
    learned = {view.name: view.footprint_learned for view in world.view().pools}
    assert learned == {RESEARCH: True, "execution": False}


@pytest.mark.parametrize(("quota", "load"), [(None, 0.8), (2.0, 0.4), (0.5, 1.0)])
def test_the_load_of_agents_that_send_no_heartbeats_is_the_cpu_they_use(quota: float | None, load: float) -> None:
    world = World(fleet(research(health=HealthCheck.NONE, resources=Resources(cpu_quota_ratio=quota))))
    world.slow.add("research-9002")  # it never beats
    world.boot()
    assert seen(world).next.counterfactual == "decides when the CPU that a ready instance uses has been measured"
    world.step(HostSampled(replace(HOST, instances={InstanceId("research-9002"): Usage(100 * MIB, 0.8)})))
    assert seen(world).load == pytest.approx(load)


def test_a_measured_load_counts_until_it_is_measured_again_however_short_the_heartbeat_timeout() -> None:
    """The host is read every 5 s: in between the pool would have no load, and a check would hold."""
    world = World(fleet(research(health=HealthCheck.NONE), heartbeat_timeout_s=1.0))
    world.slow.add("research-9002")  # it never beats
    world.boot()
    world.step(HostSampled(replace(HOST, instances={InstanceId("research-9002"): Usage(100 * MIB, 0.3)})))
    world.run_until(5.0)
    assert seen(world).load == 0.3
    world.run_until(20.0)
    assert seen(world).load is None, "nobody has measured it for long"


def test_an_agent_that_no_longer_says_its_load_has_that_of_its_cpu_again() -> None:
    """Nobody misses the heartbeats of such a pool, so its load would stay unknown for good."""
    world = World(fleet(research(health=HealthCheck.NONE)))
    world.boot()
    world.agents[InstanceId("research-9002")].load = 0.6
    world.work("research-9002", 1, 2)
    world.run_until(20.0)
    used = HostSampled(replace(HOST, instances={InstanceId("research-9002"): Usage(100 * MIB, 0.3)}))
    world.step(used)
    assert (seen(world).load, seen(world).queue_length) == (0.6, 2)
    world.agents[InstanceId("research-9002")].silent = True
    world.run_until(150.0)
    for at in (150.0, 152.0):
        world.run_until(at)
        world.step(used)
        assert (seen(world).load, seen(world).queue_length) == (0.3, 0)
    world.agents[InstanceId("research-9002")].silent = False
    world.run_until(170.0)
    assert seen(world).load == 0.6


def test_what_an_agent_says_of_itself_counts_more_than_its_cpu() -> None:
    world = booted()
    before = seen(world).load
    world.step(HostSampled(replace(HOST, instances={InstanceId("research-9002"): Usage(100 * MIB, 0.9)})))
    assert seen(world).load == before
