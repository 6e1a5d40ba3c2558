"""Other settings for running agents: asked by directive, once for each change, after any drain."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import fleet, pool
from msgspec.structs import replace
from world import Agent, World

from agentd.core.messages import (
    Beat,
    BeatReply,
    ConfigChanged,
    Configure,
    ConfigureReply,
    Drain,
    EventType,
    Refusal,
    SetTarget,
    Stage,
)
from agentd.core.model import Directive, DirectiveKind, FleetConfig, HealthCheck, InstanceId, PoolName, PortRange, State

RESEARCH = PoolName("research")
ONE, TWO = InstanceId("research-9101"), InstanceId("research-9102")


def config(**changes: Any) -> FleetConfig:
    return fleet(pool(**{"min": 2, "max": 2, "concurrency": 2, "ports": PortRange(9101, 9102), **changes}))


def world(**changes: Any) -> World:
    made = World(config(**changes))
    made.boot()
    made.run_until(5.0)
    made.records.clear()
    return made


def reload(made: World, **changes: Any) -> None:
    made.step(ConfigChanged(config(**changes)))
    made.run_until(made.now)


def configure(made: World, *idents: InstanceId, **settings: Any) -> Any:
    return made.step(Configure(idents or (ONE,), "alice", **settings))


def asked(agent: Agent) -> list[int | None]:
    return [told.concurrency for told in agent.heard if told.kind is DirectiveKind.CONFIGURE]


def told(made: World, ident: InstanceId = ONE) -> list[str]:
    kinds = (EventType.CONFIGURE, EventType.WARNING)
    return [f"{r.type} {r.actor}: {r.reason}" for _, r in made.records if r.instance == ident and r.type in kinds]


def test_a_reload_asks_all_that_run_and_each_is_told_of() -> None:
    made = world()
    reload(made, concurrency=4)
    made.run_until(30.0)
    for ident in (ONE, TWO):
        assert asked(made.agents[ident]) == [4]
        assert made.instance(ident).concurrency == 4
    assert {each.concurrency for each in made.controller.endpoints()[RESEARCH]} == {4}
    assert told(made) == [
        "configure the configuration: asked to work on 4 at a time instead of 2",
        "configure : works on 4 at a time",
    ]


def test_it_is_told_in_each_answer_until_the_agent_has_answered() -> None:
    made = world()
    agent = made.agents[ONE]
    agent.configures = None
    reload(made, concurrency=4)
    made.run_until(60.0)
    assert len(asked(agent)) > 3
    assert len({told.id for told in agent.heard}) == 1
    assert made.instance(ONE).concurrency == 2, "until it has agreed"
    assert told(made)[1:] == ["warning : does not answer a CONFIGURE; it goes on with 2 at a time"], "told once"
    made.reboot(config(concurrency=4))
    agent.configures = Stage.ACCEPTED
    made.run_until(90.0)
    assert made.instance(ONE).concurrency == 4, "agentd's restart changes nothing"


def test_who_cannot_goes_on_as_it_was_and_is_not_asked_again_for_the_same() -> None:
    made = world()
    agent = made.agents[ONE]
    agent.configures = Stage.FAILED
    reload(made, concurrency=4)
    made.run_until(60.0)
    reload(made, concurrency=4, max=3)
    made.run_until(90.0)
    assert asked(agent) == [4]
    assert told(made)[1:] == ["warning : cannot be configured; it goes on with 2 at a time"]
    assert made.instance(ONE).state is State.READY


def test_a_new_process_has_the_settings_of_the_configuration_already() -> None:
    made = world()
    configure(made, concurrency=9)
    made.run_until(12.0)
    assert made.instance(ONE).concurrency == 9
    made.exit(ONE)
    made.run_until(40.0)
    assert (made.instance(ONE).state, made.instance(ONE).concurrency) == (State.READY, 2)
    assert asked(made.agents[ONE]) == []


def test_what_a_person_has_set_holds_until_a_reload_changes_that_setting() -> None:
    made = world()
    assert configure(made, concurrency=8) == ConfigureReply((ONE,))
    made.run_until(20.0)
    reload(made, max=3)
    made.run_until(40.0)
    assert (made.instance(ONE).concurrency, made.instance(TWO).concurrency) == (8, 2)
    reload(made, concurrency=3)
    made.run_until(60.0)
    assert (made.instance(ONE).concurrency, made.instance(TWO).concurrency) == (3, 3)
    assert told(made)[0] == "configure alice: asked to work on 8 at a time instead of 2"


def test_an_interval_is_in_the_directive_and_in_every_answer_from_then_on() -> None:
    made = world()
    configure(made, interval_s=2.0)
    made.run_until(12.0)
    (directive,) = made.agents[ONE].heard
    assert directive == Directive(DirectiveKind.CONFIGURE, directive.id, concurrency=2, interval_s=2.0)
    agent = made.agents[ONE]
    agent.seq += 1
    reply = made.step(Beat(ONE, agent.incarnation, agent.seq))
    assert reply == BeatReply(Directive(DirectiveKind.CONTINUE), 2.0)
    made.step(ConfigChanged(replace(config(), heartbeat_timeout_s=60.0)))
    agent.seq += 1
    reply = made.step(Beat(ONE, agent.incarnation, agent.seq))
    assert isinstance(reply, BeatReply)
    assert reply.interval_s == 10.0, "the configuration's word, since it has changed"


def test_a_person_may_ask_again_what_was_refused_and_take_it_back_before_it_is_answered() -> None:
    made = world()
    agent = made.agents[ONE]
    agent.configures = Stage.FAILED
    configure(made, concurrency=4)
    made.run_until(30.0)
    configure(made, concurrency=4)
    made.run_until(50.0)
    assert asked(agent) == [4, 4]
    agent.configures = None
    configure(made, concurrency=6)
    made.run_until(51.0)
    configure(made, concurrency=2)  # as it has; but it may have begun with 6
    agent.configures = Stage.ACCEPTED
    made.run_until(80.0)
    assert asked(agent)[-1] == 2
    assert made.instance(ONE).concurrency == 2


def test_a_drain_goes_first_and_does_not_wait_for_an_answer() -> None:
    made = world()
    agent = made.agents[ONE]
    agent.configures = None
    configure(made, concurrency=4)
    made.run_until(20.0)
    made.work(ONE, 1)
    made.step(Drain(ONE, "alice"))
    made.run_until(40.0)
    assert [directive.kind for directive in agent.heard][-1] is DirectiveKind.DRAIN
    assert made.instance(ONE).state is State.DRAINING
    configure_reply = configure(made, concurrency=5)
    assert isinstance(configure_reply, Refusal)
    assert configure_reply.reason == "NOTHING_RUNS"
    reload(made, concurrency=7)
    made.run_until(45.0)
    assert agent.heard[-1].kind is DirectiveKind.DRAIN


def test_who_is_taken_back_is_asked_for_what_has_changed_meanwhile() -> None:
    calm = {"scale_up_cooldown_s": 0.0, "scale_down_cooldown_s": 0.0}
    made = world(min=1, **calm)
    made.step(SetTarget("up", 2, RESEARCH, "alice", "", None))
    made.run_until(40.0)
    made.work(ONE, 1)
    made.work(TWO, 1)
    made.run_until(60.0)
    made.step(SetTarget("down", 1, RESEARCH, "alice", "", None))
    made.run_until(75.0)
    (leaving,) = [each for each in (ONE, TWO) if made.instance(each).state is State.DRAINING]
    reload(made, min=1, concurrency=5, **calm)
    made.step(SetTarget("up", 2, RESEARCH, "alice", "", None))
    made.run_until(100.0)
    assert (made.instance(leaving).state, made.instance(leaving).concurrency) == (State.READY, 5)


@pytest.mark.parametrize(
    ("settings", "reason", "text"),
    [
        ({}, "NO_SETTING", "expected a concurrency, an interval, or both"),
        ({"concurrency": 0}, "OUT_OF_BOUNDS", "concurrency: 0 is not between 1 and 10000"),
        ({"concurrency": 10_001}, "OUT_OF_BOUNDS", "concurrency: 10001 is not"),
        ({"interval_s": 11.0}, "OUT_OF_BOUNDS", "interval_s: 11 is not between 0.1 and 10, a third of"),
        ({"interval_s": float("nan")}, "OUT_OF_BOUNDS", "interval_s: nan is not"),
    ],
)
def test_settings_out_of_bounds_change_nothing(settings: dict[str, Any], reason: str, text: str) -> None:
    made = world()
    refusal = configure(made, **settings)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert text in refusal.text
    made.run_until(30.0)
    assert not made.agents[ONE].heard


def test_agents_that_send_no_heartbeats_hear_nothing() -> None:
    made = world(health=HealthCheck.NONE)
    refusal = configure(made, concurrency=4)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "NO_HEARTBEATS"
    reload(made, health=HealthCheck.NONE, concurrency=4)
    made.run_until(30.0)
    assert not made.agents[ONE].heard
