"""Corners where two things happen at once: each test is a fault that was found there."""

from __future__ import annotations

import pytest
from fleets import RESEARCH, fleet, pool, research
from msgspec.structs import replace
from world import WALL, World

from agentd.core.controller import Controller
from agentd.core.messages import (
    Check,
    ConfigChanged,
    EventType,
    InstanceExited,
    InstancesListed,
    InstanceStarted,
    Probed,
    Restart,
    Restored,
    SetAutoscaling,
    SetTarget,
    Shutdown,
    Start,
    StartFailed,
    Stop,
    Tick,
)
from agentd.core.model import (
    CoreAgent,
    ExitCause,
    ExitKind,
    Incarnation,
    InstanceId,
    PortRange,
    StartFailure,
    State,
)

CORE = InstanceId("research-9002")


def starts(world: World) -> list[str]:
    return [a.spec.id for outcome in world.outcomes for a in outcome.actions if isinstance(a, Start)]


def stops(world: World) -> list[str]:
    return [a.instance for outcome in world.outcomes for a in outcome.actions if isinstance(a, Stop)]


def settle(world: World) -> None:
    """One tick; the next must not be due at once."""
    world.step(Tick(wall=WALL + world.now))
    deadline = world.controller.deadline
    assert deadline is None or deadline > world.now


# -- never a deadline that stays in the past ------------------------------------------------------


def held_target() -> World:
    """A target that waits for its cooldown."""
    world = World(fleet())
    world.boot()
    world.step(SetTarget("up", 3, RESEARCH, "alice", "", None))
    world.run_until(10.0)
    world.step(SetTarget("up", 4, RESEARCH, "alice", "", None))
    assert world.view().pools[0].next.held
    return world


@pytest.mark.parametrize(
    "event",
    [
        Shutdown(keep_agents=True, owner="alice"),
        ConfigChanged(fleet(enabled=False)),
        ConfigChanged(fleet(pool("other"))),
    ],
    ids=["shutdown", "disabled", "pool removed"],
)
def test_a_target_that_cannot_be_looked_at_again_does_not_keep_the_loop_busy(
    event: Shutdown | ConfigChanged,
) -> None:
    world = held_target()
    world.stop_delay_s = 1000.0
    world.step(event)
    world.now += 400.0
    settle(world)


def test_a_failed_start_does_not_keep_the_loop_busy_while_disabled() -> None:
    world = World(fleet())
    world.taken_ports[9002] = "nginx"
    world.boot()
    assert world.instance(CORE).state is State.FAILED
    world.step(ConfigChanged(fleet(enabled=False)))
    world.now += 60.0
    settle(world)
    del world.taken_ports[9002]
    world.step(ConfigChanged(fleet()))
    world.run_until(world.now + 1.0)
    assert world.instance(CORE).state is State.READY


def test_a_deadline_that_came_is_answered_also_when_another_event_arrives_first() -> None:
    world = World(fleet(pool(), check_interval_s=1000.0))
    world.failing["research-9101"] = "no such file"
    world.boot()
    backoff_ends = world.controller.deadline
    assert backoff_ends == 5.0
    world.now = 5.1
    world.failing.clear()
    world.step(Check("alice", RESEARCH))
    assert world.controller.deadline == backoff_ends


# -- disabled: start nothing, stop nothing --------------------------------------------------------


def test_a_start_timeout_stops_and_starts_nothing_while_disabled() -> None:
    world = World(fleet())
    world.slow.add(CORE)
    world.boot()
    world.reboot(fleet(enabled=False))
    world.outcomes.clear()
    world.run_until(1000.0)
    assert (starts(world), stops(world)) == ([], [])
    assert world.instance(CORE).state is State.STARTING


def test_what_waits_for_its_start_waits_on_while_disabled() -> None:
    config = fleet(pool(min=3), starting_max=1)
    world = World(config, start_delay_s=5.0)
    world.boot()
    assert starts(world) == ["research-9101"]
    world.step(ConfigChanged(replace(config, enabled=False)))
    world.run_until(20.0)
    assert starts(world) == ["research-9101"]
    world.step(ConfigChanged(config))
    world.run_until(40.0)
    assert starts(world) == ["research-9101", "research-9102", "research-9103"]


def test_a_restart_under_way_is_not_begun_anew_while_disabled() -> None:
    world = World(fleet(), stop_delay_s=5.0)
    world.boot()
    world.step(Restart((CORE,), "alice"))
    world.run_until(11.0)
    world.step(ConfigChanged(fleet(enabled=False)))
    world.outcomes.clear()
    world.run_until(60.0)
    assert starts(world) == []
    world.step(ConfigChanged(fleet()))
    assert starts(world) == [CORE]


# -- gaps of the loop -------------------------------------------------------------------------------


def test_a_gap_does_not_delay_what_began_after_it() -> None:
    world = World(fleet())
    world.boot()
    world.run_until(5.0)
    world.agents[CORE].next_beat = 1000.0
    world.now = 500.0
    world.step(Shutdown(keep_agents=False, owner="alice"))
    world.run_until(514.0)
    assert stops(world) == []
    world.run_until(515.0)
    assert stops(world) == [CORE]


# -- restarts ---------------------------------------------------------------------------------------


def test_a_draining_instance_that_vanishes_is_started_again_if_it_was_to_be_restarted() -> None:
    world = World(fleet())
    world.boot()
    world.agents[CORE].next_beat = 1000.0
    world.step(Restart((CORE,), "alice"))
    assert world.instance(CORE).state is State.DRAINING
    world.vanish(CORE)
    world.reboot()
    assert world.instance(CORE).state is State.READY


def test_a_person_may_restart_what_still_waits_for_its_start() -> None:
    world = World(fleet(pool(min=2), starting_max=1), start_delay_s=5.0)
    world.boot()
    world.step(Restart((InstanceId("research-9102"), InstanceId("research-9101")), "alice"))
    world.run_until(30.0)
    assert [i.state for i in world.view().instances] == [State.READY, State.READY]


def test_an_exit_that_is_reported_after_a_listing_has_shown_it_is_no_news() -> None:
    world = World(fleet())
    world.boot()
    old = world.agents[CORE].incarnation
    world.vanish(CORE)
    world.start_delay_s = 5.0
    world.relist()
    world.step(InstanceExited(CORE, old, ExitCause(ExitKind.UNKNOWN), -1.0))
    assert starts(world) == [CORE, CORE]
    world.run_until(6.0)
    assert world.instance(CORE).state is State.READY


# -- cooldowns --------------------------------------------------------------------------------------


def test_a_scale_up_that_had_to_be_started_twice_is_charged_all_the_same() -> None:
    world = World(fleet())
    world.boot()
    world.set_load(CORE, 0.9)
    world.slow.add("research-9101")
    world.set_load("research-9101", 0.9)
    world.run_until(61.0)
    assert world.instance("research-9101").state is State.STARTING
    world.vanish("research-9101")
    world.slow.clear()
    world.relist()
    world.run_until(62.0)
    assert world.instance("research-9101").state is State.READY
    assert world.view().pools[0].up_cooldown_s == 298.0


# -- replacement ------------------------------------------------------------------------------------


def test_a_replacement_that_does_not_become_ready_never_leads_above_max() -> None:
    world = World(fleet(pool(min=2, max=2, start_timeout_s=10.0)), stop_delay_s=100.0)
    world.boot()
    world.slow.add("research-9103")
    world.agents[InstanceId("research-9101")].silent = True
    for until in range(90, 400):
        world.run_until(float(until))
        seen = world.view().pools[0]
        assert seen.count <= 2, f"{seen.count} at {until}"


def test_an_instance_that_is_being_replaced_gets_no_second_successor() -> None:
    world = World(fleet(pool(min=2, max=2)))
    world.boot()
    world.agents[InstanceId("research-9101")].silent = True
    world.slow.add("research-9103")
    world.run_until(95.0)
    assert world.instance("research-9103").state is State.STARTING
    world.give_up("research-9101", StartFailure.PORT_TAKEN)
    assert world.view().pools[0].count == 2


# -- reload -----------------------------------------------------------------------------------------


def test_a_shorter_heartbeat_timeout_holds_from_the_reload_on() -> None:
    world = World(fleet(heartbeat_timeout_s=600.0))
    world.boot()
    world.run_until(5.0)
    world.agents[CORE].silent = True
    world.step(ConfigChanged(fleet(heartbeat_timeout_s=30.0)))
    world.run_until(40.0)
    assert any(record.type is EventType.LATE for _, record in world.records)


# -- restart equality -------------------------------------------------------------------------------


def test_a_restored_controller_launches_what_waits_in_the_same_order() -> None:
    config = fleet(pool(min=3), starting_max=1)
    original = Controller(config)
    original.step(Restored({}, 0.0, WALL, WALL), 0.0)
    original.step(InstancesListed(()), 0.0)
    original.step(InstanceStarted(InstanceId("research-9101"), Incarnation("a"), 1), 1.0)
    # 9101 goes to the end of the queue, behind 9102 and 9103.
    original.step(InstanceExited(InstanceId("research-9101"), Incarnation("a"), ExitCause(ExitKind.EXIT, 1), -1.0), 2.0)
    twin = Controller.from_snapshot(config, original.snapshot(), 1)
    event = StartFailed(InstanceId("research-9102"), StartFailure.SPAWN_FAILED, "no such file")
    assert twin.step(event, 3.0) == original.step(event, 3.0)


def test_a_restored_controller_launches_core_agents_in_the_same_order() -> None:
    config = fleet(pool(core=(CoreAgent("one", 9002), CoreAgent("two", 9003))))
    world = World(config, stop_delay_s=40.0)
    world.boot()
    two = InstanceId("research-9003")
    world.agents[two].silent = True
    world.run_until(15.0)
    world.agents[CORE].silent = True
    world.run_until(110.0)  # both are being stopped, the second one since earlier
    off = replace(config, enabled=False)
    world.step(ConfigChanged(off))
    world.run_until(200.0)  # both wait to be started again
    assert {i.state for i in world.view().instances} == {State.PENDING}
    twin = Controller.from_snapshot(off, world.controller.snapshot(), 1)
    event = ConfigChanged(config)
    outcome = world.controller.step(event, world.now)
    assert twin.step(event, world.now) == outcome
    assert [a.spec.id for a in outcome.actions if isinstance(a, Start)] == [two, CORE]


# -- what is ours to end, and when ------------------------------------------------------------------


def test_a_disabled_agentd_that_ends_stops_nobody() -> None:
    world = World(fleet())
    world.boot()
    world.reboot(fleet(enabled=False))
    world.step(Shutdown(keep_agents=False, owner="alice"))
    assert (stops(world), world.controller.instances_left) == ([], 0)
    assert CORE in world.agents


def test_an_adopted_agent_is_condemned_by_silence_and_not_by_the_start_timeout() -> None:
    world = World(fleet(pool(min=1, start_timeout_s=5.0)))
    world.boot()
    world.saved.clear()  # the database is lost
    world.agents[InstanceId("research-9101")].next_beat = world.now + 60.0
    world.reboot()
    world.run_until(world.now + 61.0)
    assert world.instance("research-9101").state is State.READY
    assert stops(world) == []


def test_a_scale_up_is_not_taken_back_before_it_is_there() -> None:
    world = World(fleet(check_interval_s=10.0), start_delay_s=0.0)
    world.boot()
    world.slow.add("research-9101")
    world.set_load(CORE, 0.9)
    world.run_until(20.0)
    world.set_load(CORE, 0.1)
    world.run_until(50.0)
    assert stops(world) == []


def test_a_port_that_moved_to_another_pool_is_taken_when_it_is_free() -> None:
    one, other = pool("aaa", min=1), pool("bbb", ports=PortRange(9201, 9250))
    world = World(fleet(one, other), stop_delay_s=30.0)
    world.boot()
    world.run_until(5.0)
    swapped = fleet(replace(one, ports=other.ports), replace(other, ports=one.ports, min=2))
    world.step(ConfigChanged(swapped))
    world.run_until(10.0)
    used = [view.port for view in world.view().instances]
    assert len(used) == len(set(used))


def test_what_the_host_could_not_start_is_tried_again_without_a_person() -> None:
    world = World(fleet())
    world.boot()
    world.give_up(CORE, StartFailure.SPAWN_FAILED)
    assert world.instance(CORE).state is State.FAILED
    world.run_until(world.now + 6.0)
    assert world.instance(CORE).state is State.READY


def test_a_load_that_was_said_long_ago_does_not_count_because_a_probe_succeeds() -> None:
    world = World(fleet(check_interval_s=10.0))
    world.boot()
    world.set_load(CORE, 0.9)
    agent = world.agents[CORE]
    agent.next_beat = 1000.0
    for _ in range(6):
        world.run_until(world.now + 9.0)
        world.step(Probed(CORE, agent.incarnation))
    assert world.view().pools[0].load is None


def test_a_person_who_agrees_with_the_configuration_leaves_the_choice_to_it() -> None:
    world = World(fleet())
    world.boot()
    world.step(SetAutoscaling(False, "alice", ""))
    world.step(SetAutoscaling(True, "alice", ""))
    world.step(ConfigChanged(fleet(autoscaling_enabled=False)))
    assert not world.view().autoscaling.enabled


def test_a_gap_that_the_loop_reports_pushes_every_deadline_out() -> None:
    world = World(fleet(unhealthy_threshold=1))
    world.boot()
    world.run_until(5.0)
    world.agents[CORE].next_beat = 1000.0
    world.now = 100.0
    world.step(Tick(WALL + world.now, gap_s=95.0))
    assert world.instance(CORE).missed_beats == 0
    assert stops(world) == []


def test_what_waits_for_its_next_start_has_no_process() -> None:
    world = World(fleet(research(min=2)))
    world.boot()
    world.exit("research-9101", restart_in_s=30.0)
    view = world.instance("research-9101")
    assert (view.state, view.pid) == (State.BACKOFF, 0)
    world.run_until(31.0)
    view = world.instance("research-9101")
    assert (view.state, view.pid) == (State.READY, world.agents[view.id].pid)
