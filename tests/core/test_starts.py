"""How long starts take: learned from those that were seen whole, kept, and shown."""

from __future__ import annotations

from fleets import fleet, pool
from world import World

from agentd.core.messages import SetTarget
from agentd.core.model import HealthCheck, InstanceId, PoolName, State
from agentd.core.starts import STARTS_MAX
from agentd.core.views import StartTimes

RESEARCH = PoolName("research")
FIRST = InstanceId("research-9101")


def booted(start_delay_s: float = 3.0, **changes: object) -> World:
    world = World(fleet(pool(min=1, **changes)), start_delay_s=start_delay_s)
    world.boot()
    return world


def times(world: World) -> StartTimes:
    return world.view().pools[0].start_times


def up(world: World, count: int) -> None:
    world.step(SetTarget("up", count, RESEARCH, "alice", "", None))


def test_a_start_counts_from_asking_the_driver_to_ready() -> None:
    world = booted()
    assert times(world) == StartTimes(None, None, 0, 0)
    world.run_until(2.0)
    assert times(world).counted == 0
    world.run_until(4.0)
    assert times(world) == StartTimes(3.0, 3.0, 1, 0)


def test_a_slow_starter_is_waited_for_counts_as_capacity_and_is_no_endpoint() -> None:
    world = booted(start_timeout_s=60.0, scale_up_cooldown_s=0.0)
    world.run_until(10.0)
    world.slow.add("research-9102")  # it runs, and does not say that it is ready
    up(world, 2)
    world.run_until(60.0)
    view = world.view().pools[0]
    assert (view.count, view.ready, view.starting) == (2, 1, 1)
    assert [shown.id for shown in world.controller.endpoints()[RESEARCH]] == [FIRST]
    late = world.agents[InstanceId("research-9102")]
    late.silent, late.next_beat = False, world.now
    world.run_until(61.0)
    assert {shown.id for shown in world.controller.endpoints()[RESEARCH]} == {FIRST, InstanceId("research-9102")}
    assert times(world) == StartTimes(3.0, 50.0, 2, 0)


def test_one_that_is_not_ready_in_time_does_not_count_and_is_told() -> None:
    world = booted(start_timeout_s=20.0)
    world.slow.add(FIRST)
    world.agents.clear()
    world.run_until(24.0)
    assert times(world) == StartTimes(None, None, 0, 1)


def test_a_start_that_fails_does_not_count_and_is_told() -> None:
    world = World(fleet(pool(min=1)))
    world.failing[FIRST] = "no such file"
    world.boot()
    world.run_until(1.0)
    assert times(world) == StartTimes(None, None, 0, 1)
    del world.failing[FIRST]
    world.run_until(100.0)
    assert times(world).counted == 1
    assert times(world).failed == 1, "a success later does not undo it"


def test_what_the_driver_restarts_in_place_is_no_start_of_ours() -> None:
    world = booted()
    world.run_until(10.0)
    world.exit(FIRST, restart_in_s=30.0)
    world.run_until(60.0)
    assert world.instance(FIRST).state is State.READY
    assert times(world).counted == 1


def test_a_process_that_ends_before_it_was_ready_spoils_the_start() -> None:
    world = booted()
    world.slow.add(FIRST)
    world.run_until(5.0)
    world.slow.clear()
    world.exit(FIRST, restart_in_s=1.0)
    world.run_until(20.0)
    assert world.instance(FIRST).state is State.READY
    assert times(world).counted == 0


def test_waiting_for_a_turn_is_not_part_of_the_start() -> None:
    world = World(fleet(pool(min=3), starting_max=1), start_delay_s=5.0)
    world.boot()
    world.run_until(40.0)
    assert times(world) == StartTimes(5.0, 5.0, 3, 0)


def test_they_outlive_agentd_but_a_start_across_its_restart_does_not_count() -> None:
    world = booted()
    world.run_until(10.0)
    world.slow.add("research-9102")
    up(world, 2)
    world.run_until(15.0)
    world.reboot()
    assert times(world) == StartTimes(3.0, 3.0, 1, 0)
    late = world.agents[InstanceId("research-9102")]
    late.silent, late.next_beat = False, world.now
    world.run_until(30.0)
    assert world.instance("research-9102").state is State.READY
    assert times(world).counted == 1, "nobody saw when it was ready"


def test_what_was_found_running_has_no_start() -> None:
    world = World(fleet(pool(min=1)))
    world.left_running(FIRST)
    world.boot()
    world.run_until(20.0)
    assert times(world).counted == 0


def test_the_last_ones_are_remembered_and_no_more() -> None:
    world = booted()
    remembered = world.controller._fleet.pools[RESEARCH]
    remembered.start_times_s = [float(n) for n in range(STARTS_MAX)]
    world.run_until(10.0)
    assert len(remembered.start_times_s) == STARTS_MAX
    assert (remembered.start_times_s[0], remembered.start_times_s[-1]) == (1.0, 3.0)
    assert times(world).counted == STARTS_MAX


def test_a_program_that_nobody_asks_is_ready_when_its_driver_says_so() -> None:
    world = booted(health=HealthCheck.NONE)
    world.run_until(10.0)
    assert times(world) == StartTimes(3.0, 3.0, 1, 0)
