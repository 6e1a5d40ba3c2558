"""Promises of a pool with whichever triggers: bounds, cooldowns and restart equality, whatever is reported and asked.

`chaos.Chaos` checks them after every step; `AGENTD_HYPOTHESIS=deep` looks much longer.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from chaos import Chaos
from fleets import EXECUTION, FLEET, RESEARCH, STORIES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from test_properties import HAPPENINGS
from world import World

from agentd.core.cron import Window, parse
from agentd.core.messages import Beat, Collected, Event, Outcome, Propose
from agentd.core.model import FleetConfig, InstanceId, PoolName
from agentd.core.rules import (
    AdaptiveTrigger,
    CollectorConfig,
    DemandTrigger,
    ExternalTrigger,
    LatencyTrigger,
    ScheduleTrigger,
    TargetTrigger,
    ThresholdTrigger,
    Trigger,
)

# Active for every other minute, and for half a minute in three.
SCHEDULE = ScheduleTrigger(
    (
        Window("even", parse("*/2 * * * *"), parse("1-59/2 * * * *"), min=2, max=5),
        Window("third", parse("*/3 * * * *"), None, 30.0, min=0, max=2),
    )
)
TRIGGERS: dict[str, tuple[Trigger, ...]] = {
    "target": (TargetTrigger(up_window_s=5.0, down_window_s=30.0),),
    "target in flight": (TargetTrigger("in_flight", 2.0, down_window_s=0.0),),
    "target demand": (TargetTrigger("demand", 2.0, down_window_s=30.0),),
    "target throughput": (TargetTrigger("throughput", 2.0, down_window_s=30.0),),
    "target collector": (TargetTrigger("gpu", 5.0, down_window_s=0.0),),
    "adaptive": (AdaptiveTrigger(),),
    "demand": (DemandTrigger(down_window_s=30.0),),
    "latency": (LatencyTrigger(2.0, down_window_s=20.0),),
    "schedule": (SCHEDULE,),
    "external": (ExternalTrigger(),),
    "several": (ThresholdTrigger(), DemandTrigger(down_window_s=15.0), SCHEDULE, ExternalTrigger(("oracle",))),
}

# There are many of them, and one story goes on from one to another.
FEWER = settings(STORIES, max_examples=STORIES.max_examples // 5)


def fleet(name: str, **changes: Any) -> FleetConfig:
    pools = {
        pool: replace(
            config,
            triggers=TRIGGERS[name],
            collectors=(CollectorConfig("queue", "test"), CollectorConfig("gpu", "test"))[not name.endswith("or") :],
            **changes,
        )
        for pool, config in FLEET.pools.items()
    }
    return replace(FLEET, pools=pools)


def report(world: World, number: int, in_flight: int | None, queued: int, seconds: float | None) -> None:
    if world.agents:
        agent = world.agents[InstanceId(sorted(world.agents)[number % len(world.agents)])]
        agent.in_flight, agent.queue_length, agent.response_time_p95_s = in_flight, queued, seconds
        agent.tasks_completed = (agent.tasks_completed or 0) + queued
        agent.next_beat = world.now
        world.run_until(world.now)


HAPPENINGS = {
    **HAPPENINGS,
    "report": report,
    "read": lambda world, name, value: world.step(Collected(RESEARCH, name, value, "" if value else "no answer")),
    "propose": lambda world, pool, source, count, for_s: world.step(Propose(pool, source, count, "bob", "", for_s)),
    "triggers": lambda world, name: world.configure(fleet(name)),
}

Happening = tuple[str, tuple[Any, ...]]
number = st.integers(0, 5)
pools = st.sampled_from([RESEARCH, EXECUTION])


def happening(name: str, *values: st.SearchStrategy[Any]) -> st.SearchStrategy[Happening]:
    return st.tuples(st.just(name), st.tuples(*values))


run = happening("run", st.sampled_from([0.0, 0.7, 3.0, 11.0, 31.0, 70.0]))
stories = st.lists(
    st.one_of(
        run,
        run,
        run,
        happening("report", number, st.sampled_from([0, 0, 1, 4, None]), number, st.sampled_from([0.5, 9.0])),
        happening("report", number, st.sampled_from([0, 2, 9]), st.integers(0, 2), st.sampled_from([None, 1.0, 2.5])),
        happening("read", st.sampled_from(["queue", "gpu"]), st.sampled_from([None, 0.5, 3.0, 40.0])),
        happening("propose", pools, st.sampled_from(["oracle", "other"]), st.sampled_from([None, 0, 2, 9]),
                  st.sampled_from([0.5, 30.0, 600.0])),
        happening("load", st.sampled_from([0.0, 0.5, 0.7, 1.0])),
        happening("silence", number, st.booleans()),
        happening("exit", number, st.sampled_from([-1.0, 0.1])),
        happening("target", st.sampled_from(["up", "down"]), number, pools, st.just(60.0), st.just(False)),
        happening("auto", st.booleans()),
        happening("check", pools),
        happening("triggers", st.sampled_from(sorted(TRIGGERS))),
        happening("host", st.sampled_from([4000, 300])),
        happening("reboot", st.sampled_from([0.0, 45.0])),
        happening("clone"),
        happening("clone"),
    ),
    min_size=4,
    max_size=20,
)  # fmt: skip

# An ordinary quarter of an hour: what chance draws when it draws little may all happen before anybody is ready.
ORDINARY: list[Happening] = [
    ("run", (31.0,)),
    ("report", (0, 4, 2, 1.0)),
    ("read", ("queue", 3.0)),
    ("read", ("gpu", 40.0)),
    ("propose", (RESEARCH, "oracle", 2, 600.0)),
    ("run", (31.0,)),
    ("clone", ()),
    ("report", (1, 2, 5, 9.0)),
    ("load", (1.0,)),
    ("run", (70.0,)),
    ("silence", (0, True)),
    ("run", (11.0,)),
    ("reboot", (45.0,)),
    ("silence", (0, False)),
    ("run", (70.0,)),
    *(("report", (place, 0, 0, 0.5)) for place in range(4)),
    ("read", ("queue", None)),
    ("load", (0.0,)),
    ("run", (70.0,)),
    ("clone", ()),
    ("read", ("gpu", 0.5)),
    ("run", (130.0,)),
    ("reboot", (0.0,)),
    ("run", (70.0,)),
]


@pytest.mark.parametrize("name", sorted(TRIGGERS))
@FEWER
@given(stories, st.sampled_from([0.0, 6.0]))
@example(ORDINARY, 6.0)
def test_the_promises_hold_with_every_trigger(name: str, story: list[Happening], start_delay_s: float) -> None:
    world = Chaos(fleet(name), start_delay_s=start_delay_s, stop_delay_s=1.0)
    world.boot()
    for kind, values in story:
        HAPPENINGS[kind](world, *values)
        world.check_stored()


@STORIES
@given(st.sampled_from(sorted(TRIGGERS)), stories)
def test_the_same_events_give_the_same_outcomes(name: str, story: list[Happening]) -> None:
    def told() -> list[tuple[Event, Outcome]]:
        world = Chaos(fleet(name))
        found: list[tuple[Event, Outcome]] = []
        world.on_step = lambda event, outcome: found.append((event, outcome))
        world.boot()
        for kind, values in story:
            HAPPENINGS[kind](world, *values)
        return found

    assert told() == told()


@pytest.mark.parametrize("name", ["target in flight", "target demand", "demand", "several"])
@FEWER
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 1.0, 12.0]), number, st.integers(0, 9)), min_size=10, max_size=40))
def test_a_pool_is_evaluated_at_most_once_a_second_and_at_least_every_ten(
    name: str, story: list[tuple[float, int, int]]
) -> None:
    world = Chaos(fleet(name))
    world.boot()
    looked: list[float] = []
    pool = world.controller._fleet.pools[PoolName("research")]
    before = pool.evaluated_at
    check = world.on_step

    def watch(event: Event, outcome: Outcome) -> None:
        nonlocal before
        if pool.evaluated_at != before:
            looked.append(pool.evaluated_at)
            before = pool.evaluated_at
        if check:
            check(event, outcome)

    world.on_step = watch
    for passed_s, agent, tasks in story:
        report(world, agent, tasks, tasks % 3, 1.0)
        world.run_until(world.now + passed_s)
    gaps = [b - a for a, b in pairwise(looked)]
    checks = {at for at in looked if at % 10.0 == 0.0}
    assert all(gap <= 10.0 + 1e-9 for gap in gaps)
    assert all(gap >= 1.0 - 1e-9 or b in checks for gap, b in zip(gaps, looked[1:], strict=True))


def test_a_beat_that_says_nothing_new_makes_no_work() -> None:
    world = World(fleet("demand"))
    world.boot()
    world.run_until(40.0)
    deadline = world.controller.deadline
    agent = world.agents[InstanceId("research-9002")]
    agent.seq += 1
    world.step(Beat(agent.id, agent.incarnation, agent.seq, load=agent.load))
    assert world.controller.deadline == deadline
    agent.seq += 1
    world.step(Beat(agent.id, agent.incarnation, agent.seq, load=agent.load, in_flight=3))
    assert world.controller.deadline == 41.0
