"""Repair: starts at most so many at once, adoption, pools nobody configured, restarts in turn, backoff."""

from __future__ import annotations

import itertools

import pytest
from fleets import fleet, pool, research
from msgspec.structs import replace
from world import World

from agentd.core.messages import (
    Check,
    ConfigChanged,
    EventType,
    InstancesListed,
    Refusal,
    Restart,
    Restored,
    SetTarget,
    Shutdown,
    Start,
    Stop,
)
from agentd.core.model import (
    CoreAgent,
    Incarnation,
    InstanceId,
    Observed,
    PoolName,
    PortRange,
    StartFailure,
    State,
)

CORE = InstanceId("research-9002")


def told(world: World, kind: EventType) -> list[tuple[float, str]]:
    return [(at, record.instance) for at, record in world.records if record.type is kind]


def run_on_host(world: World, *idents: str) -> None:
    """Let these run before agentd begins."""
    for ident in idents:
        world.left_running(ident)


# -- starting ---------------------------------------------------------------------------------------


def test_no_more_are_on_their_way_at_once_than_configured_core_agents_aside() -> None:
    core = tuple(CoreAgent(f"core{port}", port) for port in (9001, 9002, 9003))
    world = World(fleet(pool(core=core, min=9, max=9), starting_max=2), start_delay_s=1.0)
    most = 0
    world.boot()
    while world.now < 10.0:
        world.run_until(world.now + 0.5)
        coming = [i for i in world.view().instances if i.state is State.STARTING or i.id in world.busy]
        elastic = [i for i in coming if i.core_name is None]
        most = max(most, len(elastic))
        assert len(coming) <= 3 or not elastic
    assert most == 2
    assert [i.state for i in world.view().instances] == [State.READY] * 9


def test_a_failed_core_start_is_tried_again_and_costs_elastic_starts_their_backoff_only() -> None:
    world = World(fleet(research()))
    world.failing[CORE] = "no such file"
    world.boot()
    assert world.instance(CORE).cause == "spawn_failed: no such file"
    assert world.view().pools[0].start_failure == "spawn_failed: no such file"
    world.run_until(4.9)
    del world.failing[CORE]
    world.run_until(5.0)
    assert world.instance(CORE).state is State.READY
    assert world.view().pools[0].start_failure == ""


def test_starts_that_fail_again_and_again_come_ever_more_rarely() -> None:
    world = World(fleet(pool(min=1)))
    world.failing["research-9101"] = "no such file"
    world.boot()
    world.run_until(2000.0)
    failures = [at for at, _ in told(world, EventType.START_FAILED)]
    waits = [after - before for before, after in itertools.pairwise(failures)]
    assert waits[:7] == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0]
    assert max(waits) == 300.0


def test_a_crash_loop_ends_in_a_named_state_and_a_person_is_the_way_out() -> None:
    world = World(fleet(research()))
    world.boot()
    world.give_up(CORE)
    view = world.instance(CORE)
    assert (view.state, view.cause, view.pid) == (State.FAILED, "crash_loop: ended too often", 0)
    world.run_until(5000.0)
    assert world.instance(CORE).state is State.FAILED
    world.step(Restart((CORE,), "alice"))
    world.run_until(5001.0)
    assert world.instance(CORE).state is State.READY


# -- adoption ---------------------------------------------------------------------------------------


def test_what_runs_and_nobody_remembers_is_adopted_with_its_process() -> None:
    world = World(fleet(research(min=2)))
    run_on_host(world, CORE, "research-9140")
    before = {ident: agent.pid for ident, agent in world.agents.items()}
    world.boot()
    world.run_until(20.0)
    assert {i.id: i.pid for i in world.view().instances} == before
    assert not told(world, EventType.START)
    assert all(i.state is State.READY for i in world.view().instances)


def test_an_instance_of_an_unconfigured_pool_is_adopted_and_left_alone() -> None:
    world = World(fleet(research()))
    run_on_host(world, CORE, "legacy-9901")
    world.boot()
    world.agents[InstanceId("legacy-9901")].silent = True
    world.outcomes.clear()
    world.run_until(5000.0)
    view = world.instance("legacy-9901")
    assert (view.state, view.cause) == (State.HELD, "its pool is not configured")
    assert not [action for outcome in world.outcomes for action in outcome.actions]
    assert [p.name for p in world.view().pools] == ["legacy", "research"]
    world.reboot()
    assert world.instance("legacy-9901").state is State.HELD


def test_a_held_instance_takes_part_again_when_its_pool_is_configured() -> None:
    world = World(fleet(research()))
    run_on_host(world, "legacy-9901")
    world.boot()
    world.step(ConfigChanged(fleet(research(), pool("legacy", ports=PortRange(9901, 9910)))))
    world.run_until(20.0)
    assert world.instance("legacy-9901").state is State.READY
    assert told(world, EventType.START) == [(0.0, CORE)]


def test_a_held_instance_that_ends_is_forgotten_with_its_pool() -> None:
    world = World(fleet(research()))
    run_on_host(world, "legacy-9901")
    world.boot()
    world.exit("legacy-9901", restart_in_s=-1.0)
    assert [p.name for p in world.view().pools] == ["research"]
    assert not any(key.endswith(("legacy", "legacy-9901")) for key in world.saved)


@pytest.mark.parametrize("ident", ["legacy-9901", CORE])
def test_a_person_cannot_restart_what_agentd_leaves_alone(ident: str) -> None:
    world = World(fleet(research()))
    run_on_host(world, "legacy-9901", CORE)
    world.boot()
    world.run_until(20.0)
    reply = world.step(Restart((InstanceId(ident),), "alice"))
    assert (isinstance(reply, Refusal) and reply.reason == "NOT_CONFIGURED") == (ident != CORE)


def test_a_removed_pool_lets_its_instances_finish_with_its_own_drain_timeout() -> None:
    world = World(fleet(research(drain_timeout_s=600.0)), stop_delay_s=1000.0)
    world.boot()
    world.step(ConfigChanged(fleet(pool("other", min=0))))
    assert world.instance(CORE).state is State.DRAINING
    world.outcomes.clear()
    world.run_until(20.0)
    world.reboot()
    grace = [a.grace_s for outcome in world.outcomes for a in outcome.actions if isinstance(a, Stop)]
    assert grace == [pytest.approx(589.99), 580.0], "what is left, also after a restart of agentd"


def test_a_listing_says_nothing_of_what_is_busy() -> None:
    world = World(fleet(research()), start_delay_s=10.0)
    world.boot()
    world.step(InstancesListed((), frozenset({CORE})))
    world.step(InstancesListed((Observed(CORE, Incarnation("x"), 9),), frozenset({CORE})))
    assert world.instance(CORE).state is State.PENDING


# -- restarts, replacements, the end ----------------------------------------------------------------


def test_restarts_come_one_after_the_other_and_each_only_once() -> None:
    world = World(fleet(research(min=3)), start_delay_s=2.0)
    world.boot()
    world.run_until(10.0)
    everyone = tuple(i.id for i in world.view().instances)
    world.step(Restart(everyone, "alice"))
    world.step(Restart(everyone, "bob"))
    while world.now < 100.0:
        world.run_until(world.now + 0.5)
        away = [i for i in world.view().instances if i.state is not State.READY]
        assert len(away) <= 1
    assert [i.restarts for i in world.view().instances] == [1, 1, 1]


def test_a_restart_of_somebody_unknown_is_refused_whole() -> None:
    world = World(fleet(research()))
    world.boot()
    reply = world.step(Restart((CORE, InstanceId("research-9999")), "alice"))
    assert isinstance(reply, Refusal)
    assert reply.reason == "UNKNOWN_INSTANCE"
    assert world.instance(CORE).state is State.READY


def test_a_replacement_that_fails_is_tried_again_after_the_backoff() -> None:
    world = World(fleet(pool(min=1, max=1)))
    world.boot()
    world.agents[InstanceId("research-9101")].silent = True
    world.failing["research-9102"] = "no such file"
    world.run_until(90.0)
    assert told(world, EventType.START_FAILED) == [(90.0, "research-9102")]
    del world.failing["research-9102"]
    world.run_until(200.0)
    assert [i.id for i in world.view().instances] == ["research-9102"]


def test_a_shutdown_that_keeps_agents_asks_for_nothing_any_more() -> None:
    world = World(fleet(research(min=3), starting_max=1), start_delay_s=1.0)
    world.boot()
    world.step(Shutdown(keep_agents=True, owner="alice"))
    world.outcomes.clear()
    world.run_until(1000.0)
    assert not [action for outcome in world.outcomes for action in outcome.actions]


def test_a_shutdown_stops_everything_and_starts_nothing() -> None:
    world = World(fleet(research(min=5), starting_max=2), start_delay_s=1.0)
    world.boot()
    world.run_until(1.5)
    world.step(Shutdown(keep_agents=False, owner="alice"))
    world.outcomes.clear()
    world.run_until(60.0)
    assert world.controller.instances_left == 0
    assert not [a for outcome in world.outcomes for a in outcome.actions if isinstance(a, Start)]


def test_after_a_shutdown_the_next_agentd_starts_the_fleet_anew() -> None:
    world = World(fleet(research()))
    world.boot()
    world.step(Shutdown(keep_agents=False, owner="alice"))
    world.run_until(60.0)
    world.reboot()
    world.run_until(61.0)
    assert world.instance(CORE).state is State.READY


# -- ports --------------------------------------------------------------------------------------------


def test_a_taken_port_is_tried_again_after_its_quarantine() -> None:
    world = World(fleet(pool(min=1)))
    world.taken_ports[9101] = "nginx"
    world.boot()
    assert list(world.agents) == ["research-9102"]
    world.taken_ports.clear()
    world.run_until(299.0)
    world.step(SetTarget("up", 2, PoolName("research"), "alice", "", None))
    world.run_until(302.0)
    assert sorted(world.agents) == ["research-9102", "research-9103"]
    world.step(SetTarget("up", 3, PoolName("research"), "alice", "", None))
    world.run_until(1000.0)
    assert sorted(world.agents) == ["research-9101", "research-9102", "research-9103"]


def test_a_restart_whose_port_was_taken_meanwhile_goes_to_another() -> None:
    world = World(fleet(pool(min=1)))
    world.boot()
    world.give_up("research-9101", StartFailure.PORT_TAKEN)
    world.run_until(1.0)
    assert [i.id for i in world.view().instances] == ["research-9102"]
    assert told(world, EventType.PORT_CONFLICT) == [(0.0, "research-9101")]


def test_nothing_is_decided_before_the_recovery_window_is_over_but_people_need_not_wait() -> None:
    world = World(fleet(research()))
    world.boot()
    world.set_load(CORE, 0.9)
    world.run_until(20.0)
    world.reboot()
    world.run_until(21.0)
    world.agents[CORE].next_beat = world.now
    world.run_until(21.0)
    world.step(Check("alice"))
    assert [limit.code for limit in world.outcomes[-1].decisions[0].limits] == ["recovering"]
    world.step(SetTarget("up", 2, PoolName("research"), "alice", "", None))
    world.run_until(22.0)
    assert told(world, EventType.SCALE_UP) == [(21.0, "research-9101")]


def test_cooldowns_move_with_the_wall_clock_over_a_reboot_of_the_machine() -> None:
    world = World(fleet(research()))
    world.boot()
    world.step(SetTarget("up", 2, PoolName("research"), "alice", "", None))
    world.run_until(100.0)
    other = World(replace(world.config))
    other.saved = dict(world.saved)
    # The monotonic clock began anew; by the wall 50 s have passed since the save at 100.
    other.controller.step(Restored(other.saved, 100.0, 5_000.0, 5_050.0), 7.0)
    assert other.controller.view(7.0).pools[0].up_cooldown_s == pytest.approx(300.0 - 100.0 - 50.0)
