"""Silence: when it is counted, from when, and what pushes the count out."""

from __future__ import annotations

import pytest
from fleets import fleet, pool, research
from hypothesis import given
from hypothesis import strategies as st
from world import WALL, World

from agentd.core.health import Alarms
from agentd.core.messages import ConfigChanged, EventType, InstancesListed, Probed, Restored, Tick
from agentd.core.model import HealthCheck, Incarnation, InstanceId, Observed, State

CORE = InstanceId("research-9002")


def silent_world(**changes: object) -> World:
    """The core researcher is ready at 0 and was heard last at 5; one heartbeat timeout is 30 s."""
    world = World(fleet(research(), **changes))
    world.boot()
    world.agents[CORE].next_beat = 5.0
    world.run_until(5.0)
    world.agents[CORE].silent = True
    return world


def told(world: World, kind: EventType) -> list[float]:
    return [at for at, record in world.records if record.type is kind]


def test_missed_beats_are_whole_timeouts_of_silence() -> None:
    world = silent_world(unhealthy_threshold=9)
    for at, missed in ((34.9, 0), (35.0, 1), (64.9, 1), (65.0, 2), (155.0, 5)):
        world.run_until(at)
        assert world.instance(CORE).missed_beats == missed
    assert told(world, EventType.LATE) == [35.0], "being late is news once"
    assert world.view().unhealthy == 1


def test_a_beat_ends_the_silence() -> None:
    world = silent_world()
    world.run_until(70.0)
    world.agents[CORE].silent, world.agents[CORE].next_beat = False, 70.0
    world.run_until(70.0)
    assert (world.instance(CORE).missed_beats, told(world, EventType.RECOVERED)) == (0, [70.0])


@pytest.mark.parametrize(("threshold", "replaced_at"), [(1, 35.0), (2, 65.0), (3, 95.0)])
def test_it_is_replaced_at_the_threshold_and_not_before(threshold: int, replaced_at: float) -> None:
    world = silent_world(unhealthy_threshold=threshold)
    world.run_until(200.0)
    assert told(world, EventType.REPLACE)[0] == replaced_at


@pytest.mark.parametrize(("gap_s", "late_at"), [(0.9, 35.0), (20.0, 55.0), (500.0, 535.0)])
def test_a_gap_of_the_loop_over_a_second_pushes_every_deadline_out(gap_s: float, late_at: float) -> None:
    world = silent_world(check_interval_s=10.0)
    world.run_until(10.0)  # the next deadline is the check at 20
    world.now = 20.0 + gap_s
    world.run_until(600.0)
    assert told(world, EventType.LATE)[0] == late_at


def test_silence_counts_anew_when_agentd_starts() -> None:
    world = silent_world()
    world.now = 94.0
    world.reboot()
    world.run_until(400.0)
    assert told(world, EventType.LATE)[0] == 124.0
    assert told(world, EventType.REPLACE)[0] == 184.0


def test_the_age_is_that_of_the_process_whatever_becomes_of_agentd() -> None:
    world = World(fleet(research(min=2)))
    world.boot()
    world.run_until(100.0)
    world.reboot()
    assert world.instance("research-9101").age_s == 100.0
    world.now = 150.0  # agentd's loop stood still
    world.run_until(200.0)
    assert world.instance("research-9101").age_s == 200.0
    world.exit("research-9101", restart_in_s=1.0)
    world.run_until(211.0)
    assert world.instance("research-9101").age_s == 10.0


def test_the_age_of_one_that_is_found_running_counts_from_when_its_process_began() -> None:
    world = World(fleet(research(min=1)))
    world.run_until(100.0)
    found = Observed(InstanceId("research-9101"), Incarnation("old"), 77, started_wall=WALL + 40.0)
    world.step(Restored(rows={}, saved_at=0.0, saved_wall=WALL, wall=WALL + 100.0))
    world.step(InstancesListed((found,)))
    assert world.instance("research-9101").age_s == 60.0


def test_before_ready_the_start_timeout_counts_and_nothing_else() -> None:
    world = World(fleet(pool(start_timeout_s=45.0, drain_timeout_s=7.0)))
    world.slow.add("research-9101")
    world.boot()
    world.run_until(44.9)
    assert world.instance("research-9101").state is State.STARTING
    world.run_until(45.0)
    assert told(world, EventType.START_FAILED) == [45.0]
    assert not told(world, EventType.LATE)
    world.run_until(50.0)  # 5 s of backoff, then another one
    assert world.instance("research-9101").state is State.STARTING


def test_a_core_agent_that_is_not_ready_in_time_is_tried_again_in_place() -> None:
    world = World(fleet(research(start_timeout_s=45.0)))
    world.slow.add(CORE)
    world.boot()
    world.run_until(46.0)
    view = world.instance(CORE)
    assert (view.state, view.restarts) == (State.STARTING, 1)


# -- other ways than heartbeats ---------------------------------------------------------------------


def test_with_health_none_running_is_ready_and_silence_means_nothing() -> None:
    world = World(fleet(pool(health=HealthCheck.NONE)))
    world.slow.add("research-9101")  # it never says a word
    world.boot()
    world.run_until(10_000.0)
    assert world.instance("research-9101").state is State.READY
    assert world.view().unhealthy == 0
    assert [kind for kind in (EventType.LATE, EventType.START_FAILED) if told(world, kind)] == []


@pytest.mark.parametrize("kind", [HealthCheck.HTTP, HealthCheck.GRPC])
def test_a_probed_pool_is_ready_with_the_first_probe_and_late_without(kind: HealthCheck) -> None:
    world = World(fleet(pool(health=kind)))
    world.slow.add("research-9101")
    world.boot()
    view = world.instance("research-9101")
    assert view.state is State.STARTING
    probed = world.controller.probed()
    assert [(r.id, r.port, r.kind, r.incarnation) for r in probed] == [("research-9101", 9101, kind, view.incarnation)]
    world.step(Probed(view.id, view.incarnation))
    assert world.instance("research-9101").state is State.READY
    world.run_until(29.0)
    world.step(Probed(view.id, view.incarnation))
    world.run_until(58.9)
    assert not told(world, EventType.LATE)
    world.run_until(59.0)
    assert told(world, EventType.LATE) == [59.0]
    (late,) = [record for _, record in world.records if record.type is EventType.LATE]
    assert late.reason == "no good answer to its health check for 30.0 s", "it sends no heartbeats"


def test_a_probe_of_an_earlier_process_says_nothing() -> None:
    world = World(fleet(pool(health=HealthCheck.HTTP)))
    world.slow.add("research-9101")
    world.boot()
    before = world.instance("research-9101").incarnation
    world.exit("research-9101")
    world.run_until(1.0)
    world.step(Probed(InstanceId("research-9101"), before))
    assert world.instance("research-9101").state is State.STARTING


def test_a_reload_may_change_how_health_is_known() -> None:
    world = World(fleet(pool(health=HealthCheck.NONE)))
    world.slow.add("research-9101")
    world.boot()
    world.run_until(1000.0)
    world.step(ConfigChanged(fleet(pool(health=HealthCheck.HEARTBEAT))))
    world.run_until(1029.9)
    assert not told(world, EventType.LATE), "silence counts from the reload on"
    world.run_until(1030.0)
    assert told(world, EventType.LATE) == [1030.0]
    world.slow.add("research-9102")
    world.run_until(1091.0)
    assert world.instance("research-9102").state is State.STARTING
    world.step(ConfigChanged(fleet(pool(health=HealthCheck.NONE))))
    assert world.instance("research-9102").state is State.READY


# -- alarms -----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5))))
def test_only_the_latest_alarm_of_an_instance_rings(settings: list[tuple[int, int]]) -> None:
    alarms, valid = Alarms(), dict[InstanceId, float]()
    for at, number in settings:
        ident = InstanceId(f"research-{number}")
        valid[ident] = float(at)
        alarms.push(float(at), ident)

    def wake_at(ident: InstanceId) -> float:
        return valid.get(ident, 0.0)

    assert alarms.next(wake_at) == min(valid.values(), default=None)
    due = {ident for ident, at in valid.items() if at <= 10.0}
    assert set(alarms.pop_due(10.0, wake_at)) >= due


def test_beats_cost_the_heap_nothing() -> None:
    world = World(fleet(research()))
    world.boot()
    for _ in range(100):
        world.run_until(world.now + 10.0)
    deadline = world.controller.deadline
    assert deadline is not None
    assert world.now < deadline <= world.now + 60.0
    world.step(Tick(WALL + world.now))
    assert world.instance(CORE).missed_beats == 0
