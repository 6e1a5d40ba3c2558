"""A program that nobody asks for its health: ready when the driver has its word for it, and not before."""

from __future__ import annotations

import pytest
from fleets import fleet, pool
from world import World

from agentd.core.messages import EventType, InstanceExited, InstancesListed, InstanceStarted
from agentd.core.model import ExitCause, ExitKind, HealthCheck, Incarnation, InstanceId, Observed, State

ID = InstanceId("research-9101")
NEXT = Incarnation("next")
QUIET = fleet(pool(min=1, health=HealthCheck.NONE, notify=True, start_timeout_s=50.0))


def booted() -> World:
    world = World(QUIET)
    world.boot()
    world.run_until(20.0)
    world.agents[ID].silent = True
    assert world.instance(ID).state is State.READY
    return world


def listing(world: World, *, ready: bool) -> InstancesListed:
    agent = world.agents[ID]
    return InstancesListed((Observed(ID, agent.incarnation, agent.pid, ready=ready),))


def count(world: World, kind: EventType) -> int:
    return sum(record.type is kind for _, record in world.records)


def restart_in_place(world: World) -> None:
    """It exits, and its next process has not said yet that it is ready."""
    world.step(InstanceExited(ID, world.agents[ID].incarnation, ExitCause(ExitKind.EXIT, 1), 0.1))
    world.agents[ID].incarnation = NEXT
    world.step(InstanceStarted(ID, NEXT, 77, ready=False))


@pytest.mark.parametrize("listed", [True, False])
def test_after_a_restart_in_place_its_word_is_waited_for(listed: bool) -> None:
    world = booted()
    restart_in_place(world)
    world.step(listing(world, ready=False))
    assert world.instance(ID).state is State.STARTING
    world.step(listing(world, ready=True) if listed else InstanceStarted(ID, NEXT, 77))
    assert world.instance(ID).state is State.READY
    assert count(world, EventType.RESTART) == 1
    world.run_until(400.0)
    assert world.instance(ID).state is State.READY


def test_one_that_never_says_it_is_started_anew() -> None:
    world = booted()
    restart_in_place(world)
    world.run_until(69.0)
    assert world.instance(ID).state is State.STARTING
    world.run_until(71.0)
    assert count(world, EventType.START_FAILED) == 1
    assert world.instance(ID).incarnation != NEXT


def adopted(*, remembered: bool) -> World:
    """agentd has begun anew, and found the agent with its word outstanding."""
    world = booted()
    if not remembered:
        world.saved.clear()
    relist, world.relist = world.relist, lambda: None  # type: ignore[method-assign]
    if remembered:  # it ended and began while agentd was away
        world.agents[ID].incarnation = NEXT
    world.reboot()
    world.relist = relist  # type: ignore[method-assign]
    world.step(listing(world, ready=False))
    return world


@pytest.mark.parametrize("remembered", [True, False])
def test_one_that_is_found_with_its_word_outstanding_is_starting(remembered: bool) -> None:
    world = adopted(remembered=remembered)
    assert world.instance(ID).state is State.STARTING
    assert world.view().pools[0].ready == 0
    world.step(listing(world, ready=True))
    assert world.instance(ID).state is State.READY


def test_what_is_ready_stays_so_while_it_ends_by_itself() -> None:
    world = booted()
    world.step(listing(world, ready=False))
    assert world.instance(ID).state is State.READY


def test_where_it_is_asked_for_its_health_the_driver_s_word_is_not_enough() -> None:
    world = World(fleet(pool(min=1, notify=True)))
    world.slow.add(ID)
    world.boot()
    agent = world.agents[ID]
    world.step(InstanceStarted(ID, agent.incarnation, agent.pid, ready=True))
    assert world.instance(ID).state is State.STARTING
