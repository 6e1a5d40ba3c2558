"""Agents whose event loop stands still are alive, told of, and spared new work."""

from __future__ import annotations

from fleets import fleet, pool
from world import World

from agentd.core.balancer import SHARE_MIN
from agentd.core.messages import Beat, EventType
from agentd.core.model import InstanceId, PoolName, PortRange, State

RESEARCH = PoolName("research")
ONE = InstanceId("research-9101")


def world() -> World:
    made = World(fleet(pool(min=2, max=2, ports=PortRange(9101, 9102))))
    made.boot()
    made.run_until(5.0)
    made.records.clear()
    return made


def beat(made: World, blocked_s: float | None) -> None:
    agent = made.agents[ONE]
    agent.seq += 1
    made.step(Beat(ONE, agent.incarnation, agent.seq, load=0.5, loop_blocked_s=blocked_s))


def told(made: World) -> list[tuple[EventType, str]]:
    return [(record.type, record.reason) for _, record in made.records if record.instance == ONE]


def weight(made: World) -> float:
    return next(each.weight for each in made.controller.endpoints()[RESEARCH] if each.id == ONE)


def test_a_loop_that_stands_still_is_told_once_and_once_that_it_runs_again() -> None:
    made = world()
    beat(made, 6.0)
    made.now += 10.0
    beat(made, 16.0)
    assert made.instance(ONE).loop_blocked_s == 16.0
    made.now += 4.0
    assert made.instance(ONE).loop_blocked_s == 20.0, "it goes on between two heartbeats"
    beat(made, None)
    assert made.instance(ONE).loop_blocked_s is None
    beat(made, None)
    assert told(made) == [
        (EventType.WARNING, "its event loop has stood still for 6 s; heartbeats come from a thread beside it"),
        (EventType.RECOVERED, "its event loop runs again, after 20 s"),
    ]


def test_it_is_not_death() -> None:
    made = world()
    made.agents[ONE].next_beat = 1e9  # only the beats below
    for seconds in range(0, 1000, 10):
        made.run_until(5.0 + seconds)
        beat(made, 6.0 + seconds)
    assert (made.instance(ONE).state, made.instance(ONE).missed_beats) == (State.READY, 0)
    assert len(told(made)) == 1


def test_it_gets_the_least_of_new_work_until_its_loop_runs() -> None:
    made = world()
    assert weight(made) == 1.0
    beat(made, 6.0)
    assert weight(made) == SHARE_MIN
    beat(made, None)
    assert weight(made) == 1.0


def test_an_old_beat_that_was_delayed_says_nothing() -> None:
    made = world()
    agent = made.agents[ONE]
    made.step(Beat(ONE, agent.incarnation, agent.seq, loop_blocked_s=6.0))
    assert made.instance(ONE).loop_blocked_s is None


def test_agentd_started_anew_remembers_and_a_new_process_has_another_loop() -> None:
    made = world()
    beat(made, 6.0)
    made.now += 2.0
    made.reboot()
    assert made.instance(ONE).loop_blocked_s == 8.0
    assert len(told(made)) == 2, "adopted, and not told again"
    made.exit(ONE)
    made.run_until(made.now + 1.0)
    assert made.instance(ONE).loop_blocked_s is None
