"""A drain for a scale-down is called off when the pool grows again: who drains is there sooner than who starts."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import fleet, research
from world import Agent, World

from agentd.core.messages import Acknowledgement, Beat, BeatReply, EventType, Restart, SetTarget, Shutdown, Stage, Stop
from agentd.core.model import DirectiveKind, InstanceId, PoolName, PortRange, State

RESEARCH = PoolName("research")
ELASTIC = InstanceId("research-9101")


def told(world: World, *kinds: EventType) -> list[str]:
    return [f"{r.type} {r.instance}: {r.reason}" for _, r in world.records if r.type in kinds]


def up(world: World, count: int) -> None:
    world.step(SetTarget("up", count, RESEARCH, "alice", "", None))
    world.run_until(world.now)


def down(world: World, count: int) -> None:
    world.step(SetTarget("down", count, RESEARCH, "alice", "", None))
    world.run_until(world.now)


def draining(**changes: Any) -> tuple[World, Agent]:
    """A busy elastic instance that has accepted its drain; what comes after is recorded anew."""
    world = World(fleet(research(**{"scale_up_cooldown_s": 0.0, "scale_down_cooldown_s": 0.0, **changes})))
    world.boot()
    up(world, 2)
    world.work(ELASTIC, 2)
    world.run_until(49.5)
    down(world, 1)
    world.run_until(51.0)
    world.records.clear()
    world.outcomes.clear()
    agent = world.agents[ELASTIC]
    assert (world.instance(ELASTIC).state, len(agent.heard)) == (State.DRAINING, 1)
    return world, agent


def test_an_instance_that_drains_is_taken_back_before_a_new_one_is_started() -> None:
    world, agent = draining()
    pid = world.instance(ELASTIC).pid
    up(world, 2)
    view = world.view().pools[0]
    assert (view.count, view.ready, view.starting, view.draining) == (2, 1, 1, 0), "it counts, and is on its way"
    assert world.instance(ELASTIC).state is State.DRAINING
    world.run_until(70.0)
    assert (world.instance(ELASTIC).state, world.instance(ELASTIC).pid) == (State.READY, pid)
    assert [directive.kind for directive in agent.heard] == [DirectiveKind.DRAIN, DirectiveKind.RESUME]
    assert agent.heard[0].id < agent.heard[1].id
    assert told(world, EventType.RESUME, EventType.READY, EventType.SCALE_UP, EventType.START) == [
        "resume research-9101: alice asked for 2",
        "ready research-9101: takes work again",
    ]


def test_more_than_drain_are_started_besides() -> None:
    world, _ = draining()
    up(world, 4)
    world.run_until(70.0)
    assert [i.id for i in world.view().instances if i.state is State.READY] == [
        "research-9002", "research-9101", "research-9102", "research-9103",
    ]  # fmt: skip
    assert len(told(world, EventType.RESUME)) == 1


@pytest.mark.parametrize("answer", ["no answer", "it cannot"])
def test_who_cannot_be_taken_back_drains_to_its_end_and_a_new_one_is_started(answer: str) -> None:
    world, agent = draining()
    agent.resumes = None if answer == "no answer" else Stage.FAILED
    up(world, 2)
    world.run_until(100.0)
    assert f"drain research-9101: not taken back ({answer}); alice asked for 1" in told(world, EventType.DRAIN)
    assert world.instance("research-9102").state is State.READY
    assert world.instance(ELASTIC).state is State.DRAINING
    assert [d.kind for d in agent.heard][-1] is DirectiveKind.DRAIN, "told anew: it may have resumed, unheard"
    assert agent.heard[-1].id == 3
    up(world, 3)
    assert len(told(world, EventType.RESUME)) == 1, "it is asked once"
    world.work(ELASTIC, 0)
    world.run_until(115.0)
    assert told(world, EventType.STOP) == ["stop research-9101: alice asked for 1"]


def test_what_the_agent_says_against_it_is_told() -> None:
    world, agent = draining()
    agent.resumes = None
    up(world, 2)
    world.run_until(61.0)
    resume = agent.heard[-1].id
    agent.acknowledge.append(Acknowledgement(resume, Stage.FAILED, "the program has no on_resume"))
    agent.next_beat = world.now
    world.run_until(62.0)
    assert "(the program has no on_resume)" in told(world, EventType.DRAIN)[0]


def test_a_done_that_crosses_the_resume_does_not_stop_it() -> None:
    world, agent = draining()
    drain = agent.drains
    up(world, 2)
    reply = world.step(Beat(ELASTIC, agent.incarnation, 1000, in_flight=0, acks=(Acknowledgement(drain, Stage.DONE),)))
    assert isinstance(reply, BeatReply)
    assert reply.directive.kind is DirectiveKind.RESUME
    assert world.instance(ELASTIC).state is State.DRAINING


def test_the_deadline_of_the_drain_waits_for_the_answer() -> None:
    world, agent = draining()
    agent.resumes = None
    world.run_until(165.0)
    up(world, 2)
    world.run_until(170.0)
    assert world.instance(ELASTIC).state is State.DRAINING
    world.run_until(190.0)
    assert "deadline of 120 s passed" in told(world, EventType.STOP)[0]
    assert world.instance("research-9102").state is State.READY


def test_an_instance_that_dies_while_it_resumes_is_made_up_for() -> None:
    world, _ = draining()
    up(world, 2)
    before = world.instance(ELASTIC).pid
    world.exit(ELASTIC, restart_in_s=-1.0)
    world.run_until(60.0)
    views = world.view().instances
    assert [view.state for view in views] == [State.READY, State.READY]
    assert before not in {view.pid for view in views}


def test_it_survives_a_restart_of_agentd() -> None:
    world, agent = draining()
    agent.resumes = None
    up(world, 2)
    world.run_until(61.0)
    agent.resumes = Stage.ACCEPTED
    world.reboot()
    world.run_until(75.0)
    assert [d.id for d in agent.heard if d.kind is DirectiveKind.RESUME] == [2] * (len(agent.heard) - 1)
    assert world.instance(ELASTIC).state is State.READY


# -- who is not taken back --------------------------------------------------------------------------


def test_whoever_has_said_done_or_is_being_stopped_is_not() -> None:
    world, agent = draining()
    agent.done_follows = True
    world.stop_delay_s = 100.0
    world.say(ELASTIC, Stage.DONE)
    assert world.instance(ELASTIC).state is State.STOPPING
    up(world, 2)
    world.run_until(60.0)
    assert not told(world, EventType.RESUME)
    assert world.instance("research-9102").state is State.READY


def test_a_restart_is_not_called_off() -> None:
    world = World(fleet(research()))
    world.boot()
    up(world, 2)
    world.work(ELASTIC, 2)
    world.run_until(49.5)
    world.step(Restart((ELASTIC,), "bob"))
    world.run_until(52.0)
    assert world.instance(ELASTIC).state is State.DRAINING
    up(world, 3)
    world.run_until(60.0)
    assert not told(world, EventType.RESUME)


def test_what_no_longer_fits_the_configuration_is_not() -> None:
    world, _ = draining()
    changed = research(ports=PortRange(9120, 9130), scale_up_cooldown_s=0.0)
    world.config = fleet(changed)
    world.reboot()
    up(world, 2)
    world.run_until(70.0)
    assert not told(world, EventType.RESUME)


def test_a_shutdown_calls_the_resume_off() -> None:
    world, agent = draining()
    agent.resumes = None
    up(world, 2)
    world.step(Shutdown(keep_agents=False, owner="alice"))
    world.work(ELASTIC, 0)
    world.run_until(90.0)
    assert agent.heard[-1].kind is DirectiveKind.DRAIN
    assert not world.view().instances


# -- what it costs ----------------------------------------------------------------------------------


def test_it_waits_for_no_cooldown_and_costs_none_upwards() -> None:
    world, _ = draining(scale_up_cooldown_s=10_000.0)
    up(world, 2)
    world.run_until(70.0)
    assert world.instance(ELASTIC).state is State.READY
    view = world.view().pools[0]
    assert view.up_cooldown_s == pytest.approx(10_000.0 - 70.0), "only the first scale-up counts"


def test_it_starts_the_cooldown_downwards_so_that_nothing_swings() -> None:
    world, _ = draining(scale_down_cooldown_s=40.0)
    up(world, 2)
    world.run_until(70.0)
    ready_at = next(at for at, r in world.records if r.type is EventType.READY)
    assert world.view().pools[0].down_cooldown_s == pytest.approx(ready_at + 40.0 - 70.0)


def test_a_cooldown_upwards_holds_what_would_have_to_be_started() -> None:
    world, _ = draining(scale_up_cooldown_s=10_000.0)
    reply: Any = world.step(SetTarget("up", 4, RESEARCH, "alice", "", None))
    assert (reply.grants[0].granted, reply.grants[0].limits[0].partition(":")[0]) == (2, "up_cooldown")


def test_it_needs_no_port_no_memory_and_no_backoff() -> None:
    world, _ = draining(ports=PortRange(9101, 9101))
    up(world, 2)
    world.run_until(70.0)
    assert world.instance(ELASTIC).state is State.READY


def test_a_minimum_that_was_raised_takes_back_too() -> None:
    world, _ = draining()
    world.config = fleet(research(min=2))
    world.reboot()
    world.run_until(70.0)
    assert told(world, EventType.RESUME) == ["resume research-9101: its minimum is 2"]
    assert world.instance(ELASTIC).state is State.READY


def test_nobody_is_let_go_while_somebody_is_taken_back() -> None:
    world, agent = draining()
    agent.resumes = None
    world.step(SetTarget("up", 2, RESEARCH, "alice", "", 5.0))
    world.run_until(58.0)
    for ident in ("research-9002", ELASTIC):
        world.set_load(ident, 0.0)
    world.run_until(60.0)
    limits = [limit.text for limit in world.view().pools[0].next.limits]
    assert limits[0] == f"{ELASTIC} is being taken back"


# -- how many drain at once -------------------------------------------------------------------------


def test_a_share_of_the_pool_drains_at_once_and_one_wish_costs_one_cooldown() -> None:
    world = World(fleet(research(max=9, scale_down_cooldown_s=1000.0)))
    world.boot()
    up(world, 7)
    for ident in list(world.agents):
        world.work(ident, 1)
    world.run_until(1100.0)
    reply: Any = world.step(SetTarget("down", 3, RESEARCH, "alice", "", None))
    assert reply.grants[0].granted == 3
    assert reply.grants[0].limits == ("drain_share: at most 3 of 7 may drain at once; the others follow",)
    world.run_until(1110.0)
    assert world.view().pools[0].draining == 3
    for ident in list(world.agents):
        world.work(ident, 0)
    world.run_until(1150.0)
    assert world.view().pools[0].count == 3
    assert world.view().pools[0].down_cooldown_s > 900.0


@pytest.mark.parametrize(("share", "at_once"), [(0.0, 1), (0.3, 1), (0.5, 2), (1.0, 3)])
def test_the_share_is_the_pools_and_at_least_one(share: float, at_once: int) -> None:
    world = World(fleet(research(max=9, scale_down_cooldown_s=0.0, drain_share_max=share)))
    world.boot()
    up(world, 4)
    world.run_until(100.0)
    down(world, 1)
    assert world.view().pools[0].draining == at_once


def test_who_is_not_ready_yet_has_nothing_to_finish_and_goes_besides() -> None:
    world = World(fleet(research(max=9, scale_up_cooldown_s=0.0, scale_down_cooldown_s=0.0)))
    world.boot()
    up(world, 2)
    world.run_until(100.0)
    world.start_delay_s = 1000.0
    world.slow |= {"research-9102", "research-9103"}
    up(world, 4)
    world.step(SetTarget("down", 1, RESEARCH, "alice", "", None))
    stopped = [a.instance for o in world.outcomes for a in o.actions if isinstance(a, Stop)]
    assert sorted(stopped) == ["research-9102", "research-9103"]
    assert world.instance(ELASTIC).state is State.DRAINING
