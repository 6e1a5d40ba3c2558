"""Advice: each rule speaks where it has a reason to, with its numbers, and is silent otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fleets import EXECUTION, RESEARCH, fleet, pool, research

from agentd.core import advisor
from agentd.core.effects import Effect, Verdict
from agentd.core.model import MIB, AutoscalingMode, CoreAgent, Decision, Limit, PortRange, Reason, Resources, State
from agentd.core.rates import Budget, Rates
from agentd.core.rules import CollectorConfig, DemandTrigger, LatencyTrigger, Reading, TargetTrigger
from agentd.core.scalability import ScalingLaw
from agentd.core.state import Fleet, Instance, Pool, Purpose
from agentd.core.views import Advice

NOW = 100_000.0


def made(**changes: Any) -> tuple[Fleet, Pool]:
    """A fleet of a pool with nothing to say of: one core agent of seed A's research pool."""
    one = Fleet(fleet(research(**changes)), epoch=1)
    one.listed = True
    found = one.pools[RESEARCH]
    return one, found


def ready(one: Fleet, found: Pool, port: int = 9002, **values: Any) -> Instance:
    instance = one.add(found, port, State.READY, Purpose.SCALE_UP, NOW - 500.0)
    for name, value in values.items():
        setattr(instance, name, value)
    return instance


def said(one: Fleet) -> dict[str, str]:
    return {advice.code: advice.text for advice in advisor.advise(one, NOW)}


def starts_of(found: Pool, *times_s: float) -> None:
    found.start_times_s = list(times_s)


def held(found: Pool, for_s: float) -> None:
    limit = Limit("host_memory", "memory: 310 MiB more needed")
    found.last_decision = Decision(
        "1-1", found.name, NOW, NOW, 2, 4, 2, (Reason("high_load", "High load"),), limits=(limit,)
    )
    found.held_from = NOW - for_s


def test_where_all_is_well_nothing_is_said() -> None:
    one, found = made()
    ready(one, found, load=0.5, beat_at=NOW - 1, in_flight=1, queue_length=0)
    starts_of(found, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0)
    assert advisor.advise(one, NOW) == ()


def test_a_fleet_that_is_switched_off_gets_none() -> None:
    one = Fleet(fleet(research(), enabled=False), epoch=1)
    one.pools[RESEARCH].start_failures = 9
    assert advisor.advise(one, NOW) == ()


def test_starts_that_fail() -> None:
    one, found = made()
    found.start_failures, found.start_failure = 2, "spawn_failed: no"
    assert said(one) == {}
    found.start_failures = 3
    assert said(one) == {"starts_failing": "the last 3 starts failed: spawn_failed: no"}


def test_agents_that_ended_too_often() -> None:
    one, found = made()
    for port in (9101, 9102):
        instance = one.add(found, port, State.FAILED, Purpose.SCALE_UP, NOW)
        instance.cause = "crash_loop: ended too often"
    again = one.add(found, 9103, State.FAILED, Purpose.SCALE_UP, NOW)
    again.retry_at = NOW + 10
    assert said(one) == {
        "crash_loop": "research-9101 and 1 more will not be started again by itself (crash_loop: ended too often): "
        "see agentctl logs research-9101"
    }


@pytest.mark.parametrize(
    ("most", "text"),
    [
        (512 * MIB, "2 kills for want of memory: memory_max (512 MiB) is too little for them"),
        (None, "2 kills for want of memory: the host has too little for so many"),
    ],
)
def test_kills_for_want_of_memory(most: int | None, text: str) -> None:
    one, found = made(resources=Resources(memory_max_bytes=most))
    ready(one, found, load=0.5, beat_at=NOW, oom_kills=2)
    assert said(one) == {"oom_kills": text}


@pytest.mark.parametrize(
    ("changes", "says", "missing"),
    [
        ({}, {"in_flight": 1}, "load"),
        ({"triggers": (DemandTrigger(),)}, {"load": 0.5, "beat_at": NOW}, "in_flight or queue_length"),
        ({"triggers": (TargetTrigger("in_flight", 2.0),)}, {"load": 0.5, "beat_at": NOW}, "in_flight or queue_length"),
        ({"triggers": (TargetTrigger(),)}, {"in_flight": 1}, "load"),
        ({"triggers": (LatencyTrigger(2.0),)}, {"in_flight": 1}, "response_time_p95_s"),
        ({"triggers": (LatencyTrigger(2.0, "p50"),)}, {"response_time_p95_s": 1.0}, "response_time_p50_s"),
    ],
)
def test_agents_that_do_not_say_what_is_decided_on(changes: dict[str, Any], says: dict[str, Any], missing: str) -> None:
    one, found = made(**changes)
    instance = ready(one, found, **says)
    assert said(one) == {"no_samples": f"none of its 1 ready agents reports {missing}: nothing can be decided by that"}
    instance.since = NOW - 30.0  # it has just begun
    assert said(one) == {}


def test_a_collector_that_cannot_be_read() -> None:
    one, found = made(collectors=(CollectorConfig("queue", "redis-list"),))
    found.readings["queue"] = Reading(3.0, NOW - 20.0, "connection refused")
    assert said(one) == {}
    found.readings["queue"] = Reading(3.0, NOW - 200.0, "connection refused")
    assert said(one) == {
        "collector_stale": "queue was last read 200 s ago: connection refused: what looks at queue decides nothing "
        "(agentctl collectors research)"
    }


def test_a_pool_that_is_held_for_long() -> None:
    one, found = made()
    held(found, 14 * 60.0)
    assert said(one) == {}
    held(found, 16 * 60.0)
    text = "has wanted 4 for 16 min and stays at 2: host_memory: memory: 310 MiB more needed"
    assert said(one) == {"held_long": text}
    held(found, 3 * 3600.0)
    assert "for 3 h and" in said(one)["held_long"]


def test_starts_near_the_timeout() -> None:
    one, found = made(start_timeout_s=50.0)
    starts_of(found, *[30.0] * 5, 41.0)
    assert said(one) == {
        "start_timeout_tight": "starts take 41.0 s (p95 of 6), and start_timeout_sec is 50: 82 would leave room"
    }
    starts_of(found, 41.0, 41.0)
    assert said(one) == {}  # too few to say


def test_starts_far_from_the_timeout() -> None:
    one, found = made(start_timeout_s=600.0)
    starts_of(found, *[2.0] * 6)
    text = "starts take 2.0 s (p95 of 6), and one that hangs is noticed after start_timeout_sec 600: 60 would do"
    assert said(one) == {"start_timeout_loose": text}
    one, found = made(start_timeout_s=60.0)
    starts_of(found, *[2.0] * 6)
    assert said(one) == {}


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (950, {"memory_max_tight": "agents use 950 MiB of the 1000 MiB that memory_max leaves each"}),
        (500, {}),
        (
            90,
            {
                "memory_max_loose": "agents use 90 MiB, and memory_max is 1000 MiB: "
                "one that leaks takes that much before it is ended"
            },
        ),
    ],
)
def test_memory_against_its_limit(used: int, expected: dict[str, str]) -> None:
    one, found = made(resources=Resources(memory_max_bytes=1000 * MIB))
    found.footprint_bytes = used * MIB
    assert said(one) == {}  # nobody has measured it
    found.footprint_learned = True
    assert said(one) == expected


def test_ports_that_run_out() -> None:
    one, found = made(ports=PortRange(9101, 9104), max=5)
    ready(one, found, load=0.5, beat_at=NOW)
    for port in (9101, 9102):
        ready(one, found, port, load=0.5, beat_at=NOW)
    found.conflicts = {9103: NOW + 100}
    text = "1 of 4 ports (9101-9104) are free, 1 taken by other programs, and max 5 would need 2"
    assert said(one) == {"ports_scarce": text}
    found.conflicts.clear()
    assert said(one) == {}


def test_a_scaling_that_made_it_worse() -> None:
    one, found = made()
    found.history.last = Effect("1-7", RESEARCH, 0.0, Verdict.MADE_IT_WORSE, "response time +44 %")
    assert said(one) == {"made_it_worse": "the last scaling that was judged (1-7) made it worse: response time +44 %"}


def test_more_agents_than_are_of_use() -> None:
    one, found = made()
    law = found.law = ScalingLaw(1, 1.0, 0.1, 0.01, confidence=0.95, counts=3)
    ready(one, found, load=0.5, beat_at=NOW)
    assert said(one) == {}
    ready(one, found, 9101, load=0.5, beat_at=NOW)
    assert said(one) == {"useful_max": f"{law.text}; there are 2"}


def test_a_budget_that_will_not_do() -> None:
    config = fleet(
        research(rates=Rates(1.0), budget=Budget(per_month=5.0)), budget=Budget(per_month=6.0), currency="EUR"
    )
    one = Fleet(config, epoch=1)
    one.wall_offset = 1_700_000_000.0
    found = one.pools[RESEARCH]
    instance = one.add(found, 9002, State.READY, Purpose.CORE, NOW)
    instance.load, instance.beat_at, instance.costs_from = 0.5, NOW, NOW
    (mine, everybodys) = advisor.advise(one, NOW)
    assert (mine.code, mine.pool, everybodys.code, everybodys.pool) == ("over_budget", "research", "over_budget", "")
    assert mine.text.endswith("projected for this month, the budget is 5.00 EUR")
    assert everybodys.text.startswith("all pools: ")


def test_scaling_that_was_switched_off_long_ago() -> None:
    one, _ = made()
    one.wall_offset = 1_700_000_000.0
    one.mode = AutoscalingMode(False, "alice", "demo", one.wall(NOW) - 3 * 86_400)
    text = 'alice switched it off 3 days ago ("demo"): agentctl auto on ends that'
    assert advisor.advise(one, NOW) == (Advice("autoscaling_off", "", text),)
    one.mode = AutoscalingMode(False, "alice", "demo", one.wall(NOW) - 3600)
    assert advisor.advise(one, NOW) == ()


def test_advice_is_in_the_order_of_the_rules_and_then_of_the_pools() -> None:
    other = pool("execution", core=(CoreAgent("executor", 9003),), ports=PortRange(9201, 9210))
    orders = list[list[tuple[str, str]]]()
    shuffle: Callable[[Any], Any]
    for shuffle in (iter, reversed):
        one = Fleet(fleet(*shuffle((research(), other))), epoch=1)
        for found in one.pools.values():
            held(found, 3600.0)
            found.start_failures = 4
        orders.append([(advice.code, advice.pool) for advice in advisor.advise(one, NOW)])
    assert orders[0] == orders[1]
    assert orders[0] == [
        ("starts_failing", EXECUTION),
        ("starts_failing", RESEARCH),
        ("held_long", EXECUTION),
        ("held_long", RESEARCH),
    ]


def test_every_rule_is_listed_once_and_in_order() -> None:
    listed = [line.split()[0] for line in (advisor.__doc__ or "").splitlines() if line.startswith("    ")]
    assert listed == [*(code for code, _ in advisor._RULES), "autoscaling_off"]
