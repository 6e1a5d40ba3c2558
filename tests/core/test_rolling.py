"""A pool is restarted in place, without a dip: who stands in, whose turn it is, and what ends it."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import fleet, pool, research
from world import World

from agentd.core.messages import (
    CancelRestart,
    ConfigChanged,
    Done,
    Drain,
    Event,
    EventType,
    HostSampled,
    InstanceHeld,
    Refusal,
    Reply,
    Restart,
    RollingRestart,
    SetAutoscaling,
    SetTarget,
    Stage,
)
from agentd.core.model import HealthCheck, HostSample, InstanceId, PoolName, PortRange, RollingState, State
from agentd.core.views import PoolView, RollingView

MIB = 1024 * 1024
RESEARCH = PoolName("research")
CORE, FIRST, SECOND, THIRD = (f"research-{port}" for port in (9002, 9101, 9102, 9103))
ENDS = (EventType.ROLLING_BEGUN, EventType.ROLLING_DONE, EventType.ROLLING_STOPPED, EventType.ROLLING_CANCELLED)


def told(world: World, *kinds: EventType) -> list[str]:
    return [record.reason for _, record in world.records if record.type in kinds]


def turns(world: World) -> list[str]:
    """In which order they were restarted, or went."""
    return [record.instance for _, record in world.records if record.type is EventType.ROLLING_STEP]


def processes(world: World) -> dict[str, str]:
    return {view.id: view.incarnation for view in world.view().instances}


def pool_of(world: World) -> PoolView:
    return next(pool for pool in world.view().pools if pool.name == RESEARCH)


def rolling(world: World) -> RollingView:
    found = pool_of(world).rolling
    assert found is not None
    return found


def roll(world: World, max_unavailable: int | None = None) -> Reply | None:
    return world.step(RollingRestart(RESEARCH, "alice", max_unavailable))


def started(count: int = 3, *, start_delay_s: float = 2.0, autoscaling: bool = True, **changes: Any) -> World:
    """A pool of one core agent and some elastic ones, all ready at 50 s; a start takes 2 s."""
    config = {"min": count, "max": count, "scale_up_cooldown_s": 0.0, "scale_down_cooldown_s": 0.0} | changes
    world = World(fleet(research(**config), autoscaling_enabled=autoscaling), start_delay_s=start_delay_s)
    world.boot()
    if config["min"] < count:
        world.step(SetTarget("up", count, RESEARCH, "alice", "", None))
    world.run_until(50.0)
    assert pool_of(world).ready == count
    world.outcomes.clear()
    world.records.clear()
    return world


def watched(world: World) -> list[int]:
    """How many are ready, after each step from now on."""
    seen: list[int] = []

    def look(*_: object) -> None:
        seen.append(pool_of(world).ready)

    world.on_step = look
    return seen


# -- the usual course -------------------------------------------------------------------------------


def test_one_more_starts_first_and_nobody_is_missed_while_all_get_a_new_process() -> None:
    world = started()
    before, seen = processes(world), watched(world)
    assert roll(world) == Done()
    world.run_until(51.0)
    assert [view.id for view in world.view().instances if view.state is State.READY] == [CORE, FIRST, SECOND]
    assert rolling(world).text == f"restarting 0 of 3, waiting for {THIRD} to be ready"
    world.run_until(200.0)
    after = processes(world)
    assert set(after) == set(before), "the same ids, and nobody stands in any more"
    assert all(after[ident] != before[ident] for ident in before)
    assert set(seen) == {3}
    assert turns(world) == [FIRST, SECOND, CORE]
    assert told(world, *ENDS) == [f"3 instances, one at a time, {THIRD} stands in", "3 of 3 restarted"]
    assert told(world, EventType.SCALE_UP, EventType.SCALE_DOWN, EventType.HOLD) == []
    assert pool_of(world).rolling is None


def test_the_count_of_the_pool_is_what_it_was_all_the_time() -> None:
    world = started()
    counts = set()
    world.on_step = lambda *_: counts.add((pool_of(world).count, pool_of(world).next.current))
    roll(world)
    world.run_until(200.0)
    assert pool_of(world).rolling is None
    assert counts == {(3, 3)}, "whoever stands in is above the maximum, and is not counted"


def test_each_is_waited_for_until_its_work_is_done_and_its_process_is_ready() -> None:
    world = started()
    world.work(FIRST, 2)
    world.run_until(60.0)
    roll(world)
    world.run_until(75.0)
    assert rolling(world).text == f"restarting 1 of 3, waiting for {FIRST} to finish its work"
    assert (rolling(world).done, rolling(world).away, rolling(world).stand_in) == (0, (FIRST,), THIRD)
    successors = [each.instance for each in world.agents[InstanceId(FIRST)].heard[0].successors]
    assert sorted(successors) == [CORE, SECOND, THIRD]
    world.work(FIRST, 0)
    world.agents[InstanceId(FIRST)].next_beat = 80.0
    world.run_until(81.0)
    assert rolling(world).text == f"restarting 1 of 3, waiting for {FIRST} to be ready"
    world.run_until(82.0)
    assert rolling(world).done == 1
    assert rolling(world).text == f"restarting 2 of 3, waiting for {SECOND} to finish its work"


def test_one_that_drains_to_be_started_again_is_shown_as_draining_and_counts_all_the_time() -> None:
    world = started(start_delay_s=2.0)
    world.work(FIRST, 2)
    world.run_until(60.0)
    roll(world)
    world.run_until(75.0)
    view = pool_of(world)
    assert (view.count, view.ready, view.starting, view.draining) == (3, 3, 0, 1), "one stands in"
    assert view.in_flight == 2
    world.work(FIRST, 0)
    world.agents[InstanceId(FIRST)].next_beat = 80.0
    world.run_until(81.0)
    view = pool_of(world)
    assert (view.count, view.ready, view.starting, view.draining) == (3, 3, 1, 0)


def test_who_does_no_work_goes_first() -> None:
    world = started()
    world.give_up(SECOND)
    assert world.instance(SECOND).state is State.FAILED
    seen = watched(world)
    roll(world)
    world.run_until(200.0)
    assert turns(world) == [SECOND, FIRST, CORE]
    assert min(seen) == 2
    assert pool_of(world).ready == 3


def test_several_may_be_away_at_once_where_people_allow_it() -> None:
    world = started(6)
    before, seen = processes(world), watched(world)
    roll(world, 2)
    world.run_until(200.0)
    assert all(processes(world)[ident] != before[ident] for ident in before)
    assert min(seen) == 4
    assert max(seen) == 6, "nobody stands in"
    assert told(world, *ENDS) == ["6 instances, 2 at a time", "6 of 6 restarted"]


def test_no_more_drain_at_once_than_a_share_of_the_pool() -> None:
    world = started(6, drain_share_max=0.34)
    draining = 0

    def look(*_: object) -> None:
        nonlocal draining
        states = [view.state for view in world.view().instances]
        draining = max(draining, sum(state in (State.DRAINING, State.STOPPING) for state in states))

    world.on_step = look
    roll(world, 9)
    rolling = pool_of(world).rolling
    assert rolling is not None
    assert rolling.max_unavailable == 2, "what people are shown is what holds"
    world.run_until(300.0)
    how = "6 instances, 2 at a time, for drain_share_max allows no more"
    assert told(world, EventType.ROLLING_BEGUN, EventType.ROLLING_DONE) == [how, "6 of 6 restarted"]
    assert draining == 2


def test_a_pool_without_heartbeats_is_stopped_and_started_one_by_one() -> None:
    world = started(health=HealthCheck.NONE)
    before, seen = processes(world), watched(world)
    roll(world)
    world.run_until(100.0)
    assert all(processes(world)[ident] != before[ident] for ident in before)
    assert min(seen) == 3
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]


# -- where nobody can stand in ----------------------------------------------------------------------


def sample(available_mib: int) -> HostSampled:
    return HostSampled(HostSample(8, 1.0, 16_384 * MIB, available_mib * MIB, 100_000 * MIB))


@pytest.mark.parametrize("why", ["no free port (9101-9102)", "the driver can run 3 instances", "memory: "])
def test_where_nobody_can_stand_in_one_is_away_at_a_time_and_the_answer_says_why(why: str) -> None:
    world = started(ports=PortRange(9101, 9102) if "port" in why else PortRange(9101, 9150))
    if "driver" in why:
        world.controller.set_capacity(3)
    if "memory" in why:
        world.step(sample(1_700))
    before, seen = processes(world), watched(world)
    refused = roll(world, 0)
    assert isinstance(refused, Refusal)
    assert refused.reason == "NO_STAND_IN"
    assert refused.text.startswith(f"nobody can stand in: {why}")
    assert roll(world) == Done()
    assert rolling(world).max_unavailable == 1
    assert rolling(world).no_stand_in.startswith(why)
    world.run_until(200.0)
    assert all(processes(world)[ident] != before[ident] for ident in before)
    assert min(seen) == 2
    begun, done = told(world, *ENDS)
    assert begun.startswith(f"3 instances, one at a time, nobody stands in: {why}")
    assert done == "3 of 3 restarted"


def test_a_pool_of_a_core_agent_alone_is_restarted() -> None:
    world = started(1, ports=None)
    before = processes(world)
    roll(world)
    world.run_until(100.0)
    assert processes(world)[CORE] != before[CORE]
    assert told(world, *ENDS)[-1] == "1 of 1 restarted"


def test_where_none_is_ready_nobody_has_to_stand_in() -> None:
    world = started(2)
    world.give_up(CORE)
    world.give_up(FIRST)
    assert roll(world, 0) == Done()
    world.run_until(100.0)
    assert pool_of(world).ready == 2
    assert told(world, *ENDS) == [
        "2 instances, one at a time, nobody stands in: none of them is ready",
        "2 of 2 restarted",
    ]


def test_a_port_that_is_taken_has_another_one_stand_in() -> None:
    world = started()
    world.taken_ports[9103] = "nginx"
    seen = watched(world)
    roll(world)
    world.run_until(200.0)
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]
    assert min(seen) == 3


# -- what stops it ----------------------------------------------------------------------------------


def test_nobody_is_taken_down_when_the_one_that_stands_in_does_not_get_ready() -> None:
    world = started()
    before = processes(world)
    world.slow.add(THIRD)
    roll(world)
    world.run_until(300.0)
    assert processes(world) == before
    why = f"{THIRD}: not ready within 60 s"
    assert told(world, EventType.ROLLING_STOPPED) == [f"{why}; 0 of 3 restarted"]
    assert rolling(world).state is RollingState.STOPPED
    assert rolling(world).text == f"restart stopped at 0 of 3: {why}"
    # All are ready; and yet nobody knows whether the program would start, until one has started.
    world.slow.clear()
    world.exit(FIRST)
    world.run_until(320.0)
    assert told(world, EventType.ROLLING_STEP) == ["all are ready again; 1 of 3 restarted"]
    assert pool_of(world).rolling is None


def test_one_that_does_not_get_ready_stops_it_and_another_goes_on_in_its_stead() -> None:
    world = started()
    before = processes(world)
    roll(world)
    world.slow.add(SECOND)
    seen = watched(world)
    world.run_until(400.0)
    after = processes(world)
    assert told(world, EventType.ROLLING_STOPPED) == [f"{SECOND}: not ready within 60 s; 1 of 3 restarted"]
    assert after[CORE] == before[CORE], "the old process runs on"
    assert after[FIRST] != before[FIRST]
    assert world.instance(THIRD).state is State.READY
    assert min(seen) == 3
    # Once the program is repaired, repair brings it back, and nobody has to stand in any longer.
    world.slow.clear()
    world.records.clear()
    world.run_until(800.0)
    assert {view.id: view.state for view in world.view().instances} == dict.fromkeys(before, State.READY)
    assert told(world, *ENDS, EventType.ROLLING_STEP) == ["all are ready again; 2 of 3 restarted"]
    assert pool_of(world).rolling is None
    reply = world.step(CancelRestart(RESEARCH, "bob"))
    assert isinstance(reply, Refusal) and reply.reason == "NO_RESTART"
    assert roll(world) == Done(), "and it can be asked for anew"
    world.run_until(1000.0)
    assert processes(world)[CORE] != before[CORE]
    assert pool_of(world).rolling is None


def test_where_a_start_fails_altogether_whoever_stands_in_takes_the_place() -> None:
    world = started()
    world.failing[FIRST] = "no such file"
    seen = watched(world)
    roll(world)
    world.run_until(300.0)
    why = f"{FIRST}: spawn_failed: no such file"
    assert told(world, EventType.ROLLING_STOPPED) == [f"{why}; 0 of 3 restarted"]
    assert [view.id for view in world.view().instances] == [CORE, SECOND, THIRD]
    assert (pool_of(world).count, pool_of(world).ready, min(seen)) == (3, 3, 3)
    assert rolling(world).stand_in == ""


def test_a_program_that_ends_again_and_again_stops_it() -> None:
    world = started()
    roll(world)
    world.run_until(53.0)
    world.slow.add(FIRST)
    world.run_until(65.0)
    assert rolling(world).away == (FIRST,)
    world.give_up(FIRST)
    assert "ended too often" in told(world, EventType.ROLLING_STOPPED)[0]
    assert world.instance(THIRD).state is State.READY


def test_it_stops_when_the_one_that_stands_in_is_sent_away() -> None:
    world = started()
    world.work(FIRST, 1)
    roll(world)
    world.run_until(55.0)
    world.step(Drain(InstanceId(THIRD), "bob"))
    assert told(world, EventType.ROLLING_STOPPED) == ["the instance that stood in is gone; 0 of 3 restarted"]


def test_a_pool_that_is_no_longer_configured_is_not_restarted_any_more() -> None:
    world = started()
    roll(world)
    world.run_until(53.0)
    world.step(ConfigChanged(fleet(research(name=PoolName("other")))))
    assert told(world, EventType.ROLLING_STOPPED) == ["the pool is no longer configured; 0 of 3 restarted"]
    world.run_until(300.0)
    assert {view.pool for view in world.view().instances} == {"other"}


def test_it_is_cancelled_after_the_present_step() -> None:
    world = started()
    before = processes(world)
    world.work(FIRST, 1)
    world.run_until(60.0)
    roll(world)
    world.run_until(75.0)
    assert world.step(CancelRestart(RESEARCH, "bob")) == Done()
    assert world.step(CancelRestart(RESEARCH, "bob")) == Done()
    text = f"restart cancelled by bob at 1 of 3, waiting for {FIRST} to finish its work"
    assert rolling(world).text == text
    world.work(FIRST, 0)
    world.run_until(200.0)
    assert told(world, EventType.ROLLING_CANCELLED) == [text]
    assert told(world, EventType.ROLLING_STOPPED) == ["cancelled by bob; 1 of 3 restarted"]
    assert [ident for ident, process in processes(world).items() if process == before[ident]] == [CORE, SECOND]
    assert pool_of(world).rolling is None


def test_cancelled_before_anybody_went_it_leaves_no_trace() -> None:
    world = started()
    before = processes(world)
    roll(world)
    world.step(CancelRestart(RESEARCH, "bob"))
    world.run_until(200.0)
    assert processes(world) == before


def test_what_is_left_of_one_that_stopped_can_be_dismissed() -> None:
    world = started()
    roll(world)
    world.slow.add(FIRST)
    world.run_until(200.0)
    assert rolling(world).stand_in == THIRD
    text = rolling(world).text
    world.records.clear()
    assert world.step(CancelRestart(RESEARCH, "bob")) == Done()
    assert pool_of(world).rolling is None
    world.run_until(300.0)
    assert told(world, *ENDS, EventType.ROLLING_STEP) == [f"{text}; dismissed by bob"]
    assert THIRD not in processes(world)
    reply = world.step(CancelRestart(RESEARCH, "bob"))
    assert isinstance(reply, Refusal) and reply.reason == "NO_RESTART"


# -- what happens meanwhile -------------------------------------------------------------------------


def test_one_that_dies_has_its_new_process_already() -> None:
    world = started()
    before = processes(world)
    world.work(FIRST, 1)
    world.run_until(60.0)
    roll(world)
    world.run_until(65.0)
    world.exit(SECOND)
    world.run_until(70.0)
    died = processes(world)[SECOND]
    assert died != before[SECOND]
    world.work(FIRST, 0)
    world.run_until(300.0)
    assert processes(world)[SECOND] == died, "it is not restarted a second time"
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]
    assert sorted(turns(world)) == [CORE, FIRST, SECOND]


def test_nobody_goes_while_one_is_missing() -> None:
    world = started()
    roll(world)
    world.run_until(53.0)
    world.exit(CORE, restart_in_s=100.0)
    world.run_until(140.0)
    assert turns(world) == [FIRST], "who was under way comes back"
    assert rolling(world).text == f"restarting 1 of 3, waiting for {CORE} to be ready"
    world.run_until(300.0)
    assert turns(world) == [FIRST, CORE, SECOND]


def test_one_that_is_silent_is_replaced_as_always_and_counts() -> None:
    world = started()
    world.work(FIRST, 1)
    world.run_until(60.0)
    roll(world)
    world.run_until(65.0)
    world.agents[InstanceId(SECOND)].silent = True
    world.run_until(165.0)
    assert told(world, EventType.REPLACE) != []
    world.work(FIRST, 0)
    world.run_until(400.0)
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]
    assert (pool_of(world).count, pool_of(world).ready) == (3, 3)
    assert SECOND not in processes(world)


def test_one_that_stands_in_and_falls_silent_is_replaced_by_another_that_stands_in() -> None:
    world = started()
    world.work(FIRST, 1)
    world.run_until(60.0)
    roll(world)
    world.run_until(65.0)
    world.agents[InstanceId(THIRD)].silent = True
    world.run_until(200.0)
    assert rolling(world).stand_in == "research-9104"
    assert pool_of(world).count == 3
    world.work(FIRST, 0)
    world.run_until(400.0)
    assert set(processes(world)) == {CORE, FIRST, SECOND}


def test_agentd_restarts_in_the_middle_and_it_goes_on() -> None:
    world = started()
    before, seen = processes(world), watched(world)
    world.work(FIRST, 1)
    world.run_until(60.0)
    roll(world)
    world.run_until(75.0)
    text = rolling(world).text
    world.now = 90.0
    world.reboot()
    assert rolling(world).text == text
    world.work(FIRST, 0)
    world.run_until(300.0)
    assert all(processes(world)[ident] != before[ident] for ident in before)
    assert set(processes(world)) == set(before)
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]
    assert min(seen) == 3


def test_one_whose_deadline_passes_is_cut_and_the_restart_goes_on() -> None:
    world = started(drain_timeout_s=30.0)
    world.work(FIRST, 2)
    world.run_until(60.0)
    roll(world)
    world.run_until(200.0)
    (cut,) = [reason for reason in told(world, EventType.STOP) if "cut" in reason]
    assert cut == "restart of research, 1 of 3; deadline of 30 s passed; 2 tasks in flight and 0 queued were cut"
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]


def test_the_pool_may_grow_meanwhile() -> None:
    world = started(max=5)
    before = processes(world)
    world.work(FIRST, 1)
    world.run_until(60.0)
    roll(world)
    world.run_until(65.0)
    world.step(SetTarget("up", 4, RESEARCH, "bob", "", None))
    world.run_until(75.0)
    assert (pool_of(world).count, pool_of(world).ready) == (4, 4)
    world.work(FIRST, 0)
    world.run_until(300.0)
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]
    assert set(processes(world)) == {*before, "research-9104"}, "who came meanwhile stays, who stood in does not"


def test_the_pool_gets_smaller_when_it_is_over() -> None:
    world = started(min=1)
    world.run_until(60.0)
    before = processes(world)
    roll(world)
    world.run_until(63.0)
    grants = world.step(SetTarget("down", 2, RESEARCH, "bob", "", None))
    (grant,) = grants.grants  # type: ignore[union-attr]
    assert grant.granted == 2, "in the end"
    assert grant.limits[-1] == "rolling_restart: its restart is under way (0 of 3); fewer when that has ended"
    world.run_until(120.0)
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]
    world.run_until(200.0)
    assert pool_of(world).count == 2
    assert all(process != before[ident] for ident, process in processes(world).items())


def test_a_drain_that_a_person_asks_for_does_not_hold_it_up() -> None:
    world = started(min=1)
    world.run_until(60.0)
    world.step(SetAutoscaling(True, "alice", ""))
    roll(world)
    world.run_until(63.0)
    world.step(Drain(InstanceId(SECOND), "bob"))
    world.run_until(200.0)
    assert told(world, EventType.ROLLING_STEP) == [
        f"{SECOND} is gone, 1 of 3",
        "restarted, 2 of 3",
        "restarted, 3 of 3",
    ]
    assert set(processes(world)) == {CORE, FIRST}


def test_one_that_is_taken_back_in_its_drain_has_its_turn_too() -> None:
    world = started(min=1)
    world.run_until(60.0)
    before = processes(world)
    world.work(SECOND, 1)
    world.work(FIRST, 9)
    world.run_until(80.0)
    world.step(SetTarget("down", 2, RESEARCH, "alice", "", None))
    world.run_until(95.0)
    assert world.instance(SECOND).state is State.DRAINING
    roll(world)
    world.step(SetTarget("up", 3, RESEARCH, "alice", "", None))
    world.run_until(110.0)
    world.work(SECOND, 0)
    world.work(FIRST, 0)
    world.run_until(300.0)
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]
    assert all(process != before[ident] for ident, process in processes(world).items())


def test_what_an_operator_stops_meanwhile_stays_stopped() -> None:
    world = started()
    world.work(FIRST, 1)
    world.run_until(60.0)
    roll(world)
    world.run_until(65.0)
    world.vanish(CORE)
    world.step(InstanceHeld(InstanceId(CORE), "stopped by bob"))
    world.work(FIRST, 0)
    world.run_until(300.0)
    assert world.instance(CORE).state is State.HELD
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]


def test_a_single_one_restarted_meanwhile_is_not_restarted_twice() -> None:
    world = started()
    world.work(FIRST, 1)
    world.run_until(60.0)
    roll(world)
    world.run_until(65.0)
    world.step(Restart((InstanceId(SECOND),), "bob"))
    world.work(FIRST, 0)
    world.run_until(300.0)
    assert world.instance(SECOND).restarts == 1
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]


def test_a_drain_says_done_and_the_work_of_all_is_finished_before_each_stop() -> None:
    world = started()
    roll(world)
    world.run_until(53.0)
    for agent in world.agents.values():
        agent.done_follows = True
    for ident in (FIRST, SECOND, CORE):
        world.run_until(world.now + 30.0)
        assert rolling(world).away == (ident,)
        world.say(ident, Stage.DONE)
    world.run_until(world.now + 30.0)
    assert rolling(world).text == f"restarting 3 of 3, waiting for {THIRD} to finish its work"
    world.say(THIRD, Stage.DONE)
    assert told(world, EventType.ROLLING_DONE) == ["3 of 3 restarted"]


# -- what is refused --------------------------------------------------------------------------------


def test_a_second_one_is_refused_and_told_how_far_the_first_is() -> None:
    world = started()
    roll(world)
    reply = roll(world)
    assert isinstance(reply, Refusal)
    assert reply.reason == "RESTART_UNDER_WAY"
    assert reply.text.startswith("research is being restarted for alice: restarting 0 of 3, waiting for")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (RollingRestart(PoolName("nobody"), "alice"), "UNKNOWN_POOL"),
        (CancelRestart(PoolName("nobody"), "alice"), "UNKNOWN_POOL"),
        (CancelRestart(RESEARCH, "alice"), "NO_RESTART"),
    ],
)
def test_what_cannot_be_done_is_refused(event: Event, reason: str) -> None:
    reply = started().step(event)
    assert isinstance(reply, Refusal)
    assert reply.reason == reason


def test_nothing_is_restarted_while_agentd_is_disabled() -> None:
    world = started()
    world.step(ConfigChanged(fleet(research(min=3), enabled=False)))
    reply = roll(world)
    assert isinstance(reply, Refusal)
    assert reply.reason == "DISABLED"


def test_an_empty_pool_has_nothing_to_restart() -> None:
    world = World(fleet(pool(min=0)))
    world.boot()
    assert roll(world) == Done()
    assert pool_of(world).rolling is None
