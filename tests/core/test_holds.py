"""What others do to instances: an operator stops one past agentd, the kernel kills one, the host goes down."""

from __future__ import annotations

import pytest
from fleets import RESEARCH, fleet, research
from world import World

from agentd.core.messages import (
    ConfigChanged,
    EventType,
    HostStopping,
    InstanceExited,
    InstanceHeld,
    InstancesListed,
    InstanceWarned,
    Restart,
    SetTarget,
)
from agentd.core.model import ExitCause, ExitKind, InstanceId, PortRange, State

CORE = InstanceId("research-9002")
ELASTIC = InstanceId("research-9101")
STOPPED = "stopped by an operator"


def booted() -> World:
    world = World(fleet(research()))
    world.boot()
    world.step(SetTarget("up", 3, RESEARCH, "alice", "", 3600.0))
    world.run_until(10.0)
    return world


def told(world: World, kind: EventType) -> list[str]:
    return [record.reason for _, record in world.records if record.type is kind]


def hold(world: World, ident: InstanceId) -> None:
    world.vanish(ident)
    world.step(InstanceHeld(ident, STOPPED))


@pytest.mark.parametrize("ident", [CORE, ELASTIC])
def test_what_an_operator_stopped_stays_stopped_and_keeps_its_port(ident: InstanceId) -> None:
    world = booted()
    hold(world, ident)
    world.relist()
    world.run_until(400.0)
    view = world.instance(ident)
    assert (view.state, view.cause, view.pid) == (State.HELD, STOPPED, 0)
    assert told(world, EventType.HELD) == [STOPPED]
    assert ident not in world.agents


def test_a_hold_outlives_agentd() -> None:
    world = booted()
    hold(world, ELASTIC)
    world.reboot()
    world.run_until(world.now + 400.0)
    assert world.instance(ELASTIC).state is State.HELD


def test_a_restart_asked_of_agentd_resumes() -> None:
    world = booted()
    hold(world, CORE)
    world.step(Restart((CORE,), "alice"))
    world.run_until(world.now + 5.0)
    assert world.instance(CORE).state is State.READY


def test_an_operator_who_starts_it_again_resumes_it() -> None:
    world = booted()
    hold(world, CORE)
    world.left_running(CORE)
    world.relist()
    assert world.instance(CORE).state is State.STARTING
    world.run_until(world.now + 15.0)
    assert world.instance(CORE).state is State.READY
    assert told(world, EventType.RESUMED) == ["started again by an operator"]


def test_a_held_instance_whose_port_is_taken_from_the_pool_is_forgotten() -> None:
    world = booted()
    hold(world, ELASTIC)
    world.step(ConfigChanged(fleet(research(ports=PortRange(9120, 9150)))))
    world.run_until(world.now + 1.0)
    assert ELASTIC not in {view.id for view in world.view().instances}


def test_a_hold_of_what_agentd_itself_is_stopping_is_none() -> None:
    world = booted()
    world.step(Restart((ELASTIC,), "alice"))
    assert world.instance(ELASTIC).state is State.DRAINING
    world.step(InstanceHeld(ELASTIC, STOPPED))
    assert told(world, EventType.HELD) == []


def test_an_out_of_memory_kill_is_told_and_counted_as_such() -> None:
    world = booted()
    incarnation = world.instance(ELASTIC).incarnation
    world.step(InstanceExited(ELASTIC, incarnation, ExitCause(ExitKind.OOM, 9), 1.0))
    assert told(world, EventType.OOM_KILL) == ["out of memory; restart in 1.0 s"]
    assert world.instance(ELASTIC).oom_kills == 1
    assert told(world, EventType.EXIT) == []


def test_a_warning_about_an_instance_is_told() -> None:
    world = booted()
    world.step(InstanceWarned(ELASTIC, "memory_max is not in force"))
    world.step(InstanceWarned(InstanceId("research-9150"), "not ours"))
    assert told(world, EventType.WARNING) == ["memory_max is not in force"]


def test_while_the_host_goes_down_nothing_is_started_again() -> None:
    world = booted()
    world.step(HostStopping("the host is shutting down"))
    world.step(HostStopping("the host is shutting down"))
    incarnation = world.instance(ELASTIC).incarnation
    world.vanish(ELASTIC)
    world.step(InstanceExited(ELASTIC, incarnation, ExitCause(ExitKind.EXIT, 0), -1.0))
    world.step(InstancesListed(()))
    world.run_until(world.now + 100.0)
    assert told(world, EventType.HOST_STOPPING) == ["the host is shutting down"]
    assert world.view().instances == ()
    assert told(world, EventType.VANISHED) == []


def test_a_hold_below_a_target_is_made_up_for_at_once() -> None:
    world = booted()
    world.run_until(400.5)  # past the cooldown, between two checks
    hold(world, ELASTIC)
    world.run_until(402.0)
    assert sum(view.state is State.READY for view in world.view().instances) == 3


FULL = fleet(research(min=2, max=2), autoscaling_enabled=False)


@pytest.mark.parametrize("ident", [CORE, ELASTIC])
@pytest.mark.parametrize("asked_of_agentd", [True, False], ids=["restart", "systemctl start"])
def test_who_stood_in_for_a_held_instance_goes_when_it_is_back(ident: InstanceId, asked_of_agentd: bool) -> None:
    """Also while scaling is off: a hold that ends must not leave the pool above its maximum."""
    world = World(FULL)
    world.boot()
    world.run_until(20.0)
    hold(world, ident)
    world.run_until(40.0)
    assert sorted(world.agents) == sorted({CORE, ELASTIC, InstanceId("research-9102")} - {ident})
    if asked_of_agentd:
        world.step(Restart((ident,), "alice"))
    else:
        world.left_running(ident)
        world.relist()
    world.run_until(80.0)
    views = world.view().instances
    assert [(view.state, view.cause) for view in views] == [(State.READY, "")] * 2
    assert ident in {view.id for view in views}
    assert CORE in {view.id for view in views}


def test_who_stood_in_stays_where_the_held_instance_does_not_come_back() -> None:
    world = World(FULL)
    world.boot()
    world.run_until(20.0)
    hold(world, ELASTIC)
    world.run_until(40.0)
    world.left_running(ELASTIC)
    world.agents[ELASTIC].silent = True
    world.relist()
    assert world.instance(ELASTIC).state is State.STARTING
    hold(world, ELASTIC)
    world.run_until(400.0)
    states = {view.id: view.state for view in world.view().instances}
    assert states == {CORE: State.READY, InstanceId("research-9102"): State.READY, ELASTIC: State.HELD}


def test_where_there_is_room_nobody_goes() -> None:
    world = World(fleet(research(min=2, max=3), autoscaling_enabled=False))
    world.boot()
    world.run_until(20.0)
    hold(world, ELASTIC)
    world.run_until(40.0)
    world.step(Restart((ELASTIC,), "alice"))
    world.run_until(80.0)
    assert [view.state for view in world.view().instances] == [State.READY] * 3


def test_a_core_agent_that_comes_back_in_vain_is_tried_no_further_and_its_stand_in_stays() -> None:
    world = World(FULL)
    world.boot()
    world.run_until(20.0)
    hold(world, CORE)
    world.run_until(40.0)
    world.left_running(CORE)
    world.agents[CORE].silent = True
    world.relist()
    world.give_up(CORE)
    world.run_until(400.0)
    states = {view.id: view.state for view in world.view().instances}
    assert states.pop(CORE) is State.FAILED
    assert list(states.values()) == [State.READY] * 2
