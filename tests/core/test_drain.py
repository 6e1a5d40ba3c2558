"""A drain runs to its end: what ends it, what time is left for the stop, and what is told of it."""

from __future__ import annotations

import math

import pytest
from fleets import fleet, research
from world import Agent, World

from agentd.core.messages import (
    Acknowledgement,
    Beat,
    ConfigChanged,
    Done,
    Drain,
    EventType,
    Refusal,
    SetTarget,
    Shutdown,
    Stage,
    Stop,
)
from agentd.core.model import DirectiveKind, InstanceId, PoolName, State

RESEARCH = PoolName("research")
ELASTIC = InstanceId("research-9101")


def told(world: World, kind: EventType) -> list[tuple[float, str]]:
    return [(round(at, 2), record.reason) for at, record in world.records if record.type is kind]


def stops(world: World) -> list[tuple[str, float]]:
    """Whom the driver was told to stop, and the grace."""
    return [
        (action.instance, round(action.grace_s, 2))
        for outcome in world.outcomes
        for action in outcome.actions
        if isinstance(action, Stop)
    ]


def down(world: World, count: int) -> None:
    world.step(SetTarget("down", count, RESEARCH, "alice", "", None))


def draining(*, in_flight: int | None = 2, queued: int = 3, **changes: float) -> tuple[World, Agent]:
    """At 50 s an elastic instance with work in hand is asked to drain; at 51 s it has accepted."""
    world = World(fleet(research(min=1, scale_down_cooldown_s=0.0, **changes)))
    world.boot()
    world.step(SetTarget("up", 2, RESEARCH, "alice", "", None))
    world.run_until(1.0)
    if in_flight is not None:
        world.work(ELASTIC, in_flight, queued)
    world.run_until(49.0)
    agent = world.agents[ELASTIC]
    agent.next_beat = 49.5
    world.run_until(50.0)
    down(world, 1)
    agent.next_beat = 50.5
    world.outcomes.clear()
    return world, agent


# -- what ends it -----------------------------------------------------------------------------------


def test_it_lasts_until_the_agent_says_done_and_the_stop_has_what_is_left_of_the_time() -> None:
    world, agent = draining()
    agent.done_follows = True
    world.run_until(100.0)
    assert world.instance(ELASTIC).state is State.DRAINING
    world.work(ELASTIC, 0)
    world.run_until(119.0)
    assert world.instance(ELASTIC).state is State.DRAINING, "it holds its DONE back"
    world.say(ELASTIC, Stage.DONE)
    world.run_until(120.0)
    assert stops(world) == [(ELASTIC, 51.0)]
    assert told(world, EventType.STOP) == [(119.0, "alice asked for 1")]


def test_a_simple_client_is_done_when_it_has_accepted_and_reports_nothing_left() -> None:
    world, _ = draining()
    world.run_until(100.0)
    assert world.instance(ELASTIC).state is State.DRAINING
    world.work(ELASTIC, 0, 1)
    world.run_until(115.0)
    assert world.instance(ELASTIC).state is State.DRAINING, "a queued task is work too"
    world.work(ELASTIC, 0, 0)
    world.run_until(125.0)
    assert stops(world)[0][0] == ELASTIC


def test_numbers_from_before_it_accepted_end_nothing() -> None:
    world, agent = draining(in_flight=0, queued=0)
    agent.ignorant = True
    world.run_until(60.0)
    assert world.instance(ELASTIC).state is State.DRAINING


def test_a_client_that_reports_no_numbers_is_stopped_when_it_has_accepted() -> None:
    world, _ = draining(in_flight=None)
    world.run_until(51.0)
    assert stops(world) == [(ELASTIC, pytest.approx(119.49, abs=0.02))]


def test_one_that_cannot_drain_is_stopped_and_says_why() -> None:
    world, _ = draining()
    world.run_until(55.0)
    world.say(ELASTIC, Stage.FAILED, "no way to close the door")
    world.run_until(56.0)
    text = "alice asked for 1; it cannot drain: no way to close the door; 2 tasks in flight and 3 queued were cut"
    assert told(world, EventType.STOP) == [(55.0, text)]
    assert stops(world) == [(ELASTIC, 115.0)]


def test_a_client_that_does_not_know_directives_has_an_interval_and_a_half_after_it_was_told() -> None:
    world, agent = draining()
    agent.ignorant = True
    world.run_until(65.4)
    assert world.instance(ELASTIC).state is State.DRAINING
    world.run_until(65.6)
    assert stops(world) == [(ELASTIC, 104.5)], "told at 50.5, 15 s to answer, TERM with what is left of 120 s"
    text = "alice asked for 1; it did not answer the drain; 2 tasks in flight and 3 queued were cut"
    assert told(world, EventType.STOP) == [(65.5, text)]


def test_who_finishes_after_term_by_its_own_word_was_not_cut() -> None:
    world, agent = draining()
    agent.ignorant = True
    world.stop_delay_s = 20.0
    world.run_until(66.0)
    world.work(ELASTIC, 0, 0)
    world.run_until(100.0)
    assert told(world, EventType.STOP) == [(85.5, "alice asked for 1; it did not answer the drain")]


def test_who_said_done_was_not_cut_whatever_its_last_numbers_are() -> None:
    world, _ = draining()
    world.run_until(55.0)
    world.say(ELASTIC, Stage.DONE)
    world.run_until(60.0)
    assert told(world, EventType.STOP) == [(55.0, "alice asked for 1")]


def test_silence_ends_it_as_a_failure_does() -> None:
    world, agent = draining(drain_timeout_s=600.0)
    world.run_until(51.0)
    agent.silent = True
    heard = world.now
    world.run_until(200.0)
    ((at, reason),) = told(world, EventType.STOP_FORCED)
    assert at - heard == pytest.approx(30.0, abs=1.0)
    left = "alice asked for 1; no heartbeat for 30.0 s; 2 tasks in flight and 3 queued were cut"
    assert reason == f"killed after 569.5 s of grace; {left}"
    assert world.instance("research-9002").state is State.READY


def test_the_deadline_cuts_what_is_left_with_a_short_grace_and_says_what() -> None:
    world, _ = draining(stop_grace_s=7.0)
    world.run_until(169.9)
    assert world.instance(ELASTIC).state is State.DRAINING
    world.run_until(171.0)
    assert stops(world) == [(ELASTIC, 7.0)]
    text = "alice asked for 1; deadline of 120 s passed; 2 tasks in flight and 3 queued were cut"
    assert told(world, EventType.STOP) == [(170.0, text)]


def test_a_kill_after_the_deadline_says_what_was_cut_too() -> None:
    world, agent = draining(in_flight=1, queued=0)
    world.stop_delay_s = 10.0
    world.run_until(169.0)
    agent.silent = True
    world.run_until(200.0)
    text = "killed after 10 s of grace; deadline of 120 s passed; 1 task in flight and 0 queued were cut"
    assert told(world, EventType.STOP_FORCED) == [(180.0, text)]


def test_of_a_client_without_numbers_nobody_knows_what_was_cut() -> None:
    world, agent = draining(in_flight=None, drain_timeout_s=8.0)
    agent.ignorant = True
    world.run_until(60.0)
    text = "alice asked for 1; deadline of 8 s passed; what it was doing was cut"
    assert told(world, EventType.STOP) == [(58.0, text)]


@pytest.mark.parametrize(("drain_timeout_s", "grace_s"), [(60.0, 5.0), (2.0, 2.0)])
def test_who_finishes_late_has_a_moment_to_exit_in(drain_timeout_s: float, grace_s: float) -> None:
    world, agent = draining(drain_timeout_s=drain_timeout_s)
    agent.done_follows = True
    world.run_until(50.0 + drain_timeout_s - 0.5)
    world.say(ELASTIC, Stage.DONE)
    assert stops(world) == [(ELASTIC, grace_s)]


def test_who_says_done_at_once_need_not_accept_first() -> None:
    world, agent = draining()
    world.run_until(50.5)
    agent.acknowledge[:] = [Acknowledgement(agent.drains, Stage.DONE)]
    world.run_until(51.0)
    assert [ident for ident, _ in stops(world)] == [ELASTIC]


def test_one_that_drains_is_shown_with_its_last_beat() -> None:
    world, agent = draining()
    agent.next_beat = 55.0
    world.run_until(60.0)
    view = world.instance(ELASTIC)
    assert (view.state, view.last_beat_age_s) == (State.DRAINING, pytest.approx(5.0, abs=0.02))


# -- what the agent is told -------------------------------------------------------------------------


def test_the_directive_is_repeated_with_its_id_until_it_is_acknowledged() -> None:
    world, agent = draining()
    agent.ignorant = True
    incarnation = world.instance(ELASTIC).incarnation
    heard = []
    for seq in (100, 101, 102):
        world.now += 1.0
        heard.append(world.step(Beat(ELASTIC, incarnation, seq, in_flight=1)).directive)  # type: ignore[union-attr]
    assert [(d.kind, d.id) for d in heard] == [(DirectiveKind.DRAIN, 1)] * 3
    assert [d.deadline_s for d in heard] == [119.0, 118.0, 117.0]
    reply = world.step(Beat(ELASTIC, incarnation, 103, in_flight=1, acks=(Acknowledgement(1, Stage.ACCEPTED),)))
    assert reply.directive.kind is DirectiveKind.CONTINUE  # type: ignore[union-attr]


def test_it_names_who_can_take_over_least_loaded_first() -> None:
    world = World(fleet(research(min=4)))
    world.boot()
    world.set_load("research-9002", 0.9)
    world.set_load("research-9101", 0.2)
    world.set_load("research-9102", 0.1)
    world.set_load("research-9103", 0.0)
    world.run_until(10.0)
    world.config = fleet(research(min=1))
    world.reboot()
    world.run_until(60.0)
    agent = world.agents[InstanceId("research-9103")]
    down(world, 3)
    world.run_until(70.0)
    successors = agent.heard[0].successors
    assert [(one.instance, one.port) for one in successors] == [(f"research-{n}", n) for n in (9102, 9101, 9002)]
    weights = [one.weight for one in successors]
    assert weights == sorted(weights, reverse=True)
    assert math.isclose(sum(weights), 1.0)


def test_a_restart_of_agentd_goes_on_with_it() -> None:
    world, agent = draining()
    agent.done_follows = True
    world.run_until(60.0)
    before = agent.drains
    world.now = 100.0
    world.reboot()
    world.run_until(119.0)
    assert world.instance(ELASTIC).state is State.DRAINING
    assert agent.drains == before
    world.run_until(171.0)
    assert stops(world) == [(ELASTIC, 10.0)], "the deadline is where it was"


def test_a_restart_of_agentd_repeats_what_was_not_acknowledged() -> None:
    world, agent = draining()
    agent.ignorant = True
    world.run_until(60.0)
    world.reboot()
    agent.ignorant = False
    world.run_until(71.0)
    assert agent.drains == 1
    assert world.instance(ELASTIC).state is State.DRAINING


def test_a_done_of_which_agentd_died_is_asked_for_again() -> None:
    world, agent = draining()
    agent.done_follows = True
    world.run_until(60.0)
    saved, heard = dict(world.saved), len(agent.heard)
    world.stop_delay_s = 1000.0
    world.say(ELASTIC, Stage.DONE)
    world.saved = saved  # it was answered, and agentd was killed before it was stored
    world.reboot()
    world.run_until(72.0)
    assert world.instance(ELASTIC).state is State.DRAINING
    assert [directive.id for directive in agent.heard[heard:]] == [agent.drains], "once, for it has an answer"
    world.say(ELASTIC, Stage.DONE)
    assert world.instance(ELASTIC).state is State.STOPPING


def test_a_stop_at_the_deadline_that_agentd_was_killed_in_keeps_its_short_grace() -> None:
    world, _ = draining()
    world.stop_delay_s = 1000.0
    world.run_until(175.0)
    world.reboot()
    assert stops(world) == [(ELASTIC, 10.0), (ELASTIC, 10.0)]


# -- hurry ------------------------------------------------------------------------------------------


def test_a_shutdown_in_a_hurry_waits_for_no_drain() -> None:
    world, _ = draining()
    world.step(Shutdown(keep_agents=False, owner="alice"))
    world.run_until(60.0)
    assert world.instance(ELASTIC).state is State.DRAINING
    world.step(Shutdown(keep_agents=False, owner="alice", hurry=True))
    world.run_until(60.0)
    assert not world.view().instances


# -- asked for by a person --------------------------------------------------------------------------


def busy_fleet(**changes: float) -> World:
    world = World(fleet(research(scale_down_cooldown_s=0.0, scale_up_cooldown_s=0.0, **changes)))
    world.boot()
    world.step(SetTarget("up", 2, RESEARCH, "alice", "", 10.0))
    world.run_until(1.0)
    world.work(ELASTIC, 1)
    world.run_until(20.0)
    return world


def test_an_elastic_instance_finishes_and_is_gone() -> None:
    world = busy_fleet()
    assert world.step(Drain(ELASTIC, "bob")) == Done()
    world.run_until(60.0)
    assert world.instance(ELASTIC).state is State.DRAINING
    world.step(Drain(ELASTIC, "bob"))
    world.work(ELASTIC, 0)
    world.run_until(80.0)
    assert told(world, EventType.DRAIN) == [(20.0, "bob asked for it")]
    assert [view.id for view in world.view().instances] == ["research-9002"]
    assert world.view().pools[0].down_cooldown_s == 0.0, "it was nobody's scaling"


def test_where_the_minimum_is_missing_another_one_comes_at_once() -> None:
    world = busy_fleet(min=2)
    world.step(Drain(ELASTIC, "bob"))
    world.run_until(21.0)
    assert world.instance("research-9102").state is State.READY
    assert world.instance(ELASTIC).state is State.DRAINING


def test_it_is_not_taken_back_also_when_it_was_leaving_for_want_of_load() -> None:
    world = busy_fleet()
    down(world, 1)
    world.step(Drain(ELASTIC, "bob"))
    world.step(SetTarget("up", 2, RESEARCH, "alice", "", None))
    world.run_until(60.0)
    assert told(world, EventType.RESUME) == []
    assert world.instance("research-9102").state is State.READY


def test_a_resume_under_way_is_called_off() -> None:
    world = busy_fleet()
    down(world, 1)
    world.run_until(40.0)
    world.agents[ELASTIC].resumes = None
    world.step(SetTarget("up", 2, RESEARCH, "alice", "", None))
    world.step(Drain(ELASTIC, "bob"))
    world.work(ELASTIC, 0)
    world.run_until(80.0)
    assert [view.id for view in world.view().instances] == ["research-9002", "research-9102"]


def test_a_core_agent_is_refused_and_with_force_started_again_in_place() -> None:
    world = busy_fleet()
    reply = world.step(Drain(InstanceId("research-9002"), "bob"))
    assert isinstance(reply, Refusal)
    assert reply.reason == "CORE_AGENT"
    assert "researcher" in reply.text
    before = world.instance("research-9002")
    assert world.step(Drain(before.id, "bob", force=True)) == Done()
    world.run_until(60.0)
    after = world.instance("research-9002")
    assert (after.state, after.restarts) == (State.READY, before.restarts + 1)


@pytest.mark.parametrize(("name", "reason"), [("research-9999", "UNKNOWN_INSTANCE"), ("legacy-9901", "NOT_CONFIGURED")])
def test_what_cannot_be_drained_is_refused(name: str, reason: str) -> None:
    world = World(fleet(research()))
    world.left_running("legacy-9901")
    world.boot()
    reply = world.step(Drain(InstanceId(name), "bob"))
    assert isinstance(reply, Refusal)
    assert reply.reason == reason


def test_nothing_is_drained_while_agentd_is_disabled() -> None:
    world = busy_fleet()
    world.step(ConfigChanged(fleet(research(), enabled=False)))
    reply = world.step(Drain(ELASTIC, "bob"))
    assert isinstance(reply, Refusal)
    assert reply.reason == "DISABLED"
