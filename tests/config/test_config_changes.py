"""Faster time for the demo, and the lines that tell of a reload."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from agentd.config import (
    Config,
    History,
    Listen,
    WatchSpec,
    default,
    describe_changes,
    parse,
    scaled,
)
from agentd.core.model import (
    CoreAgent,
    FleetConfig,
    HealthCheck,
    HostReserve,
    PoolConfig,
    PoolName,
    PortRange,
    Resources,
    RestartPolicy,
)
from agentd.core.rates import Budget, Rates
from agentd.core.rules import CollectorConfig, GuardConfig, RateLimit, ThresholdTrigger

RESEARCH = PoolName("research")


# -- faster time -----------------------------------------------------------------------------------


def test_scaled_divides_what_passes_and_keeps_the_rest() -> None:
    fast = scaled(default(), 10)
    pool = fast.fleet.pools[RESEARCH]
    assert (fast.fleet.check_interval_s, fast.fleet.heartbeat_timeout_s) == (6, 12)
    assert (pool.scale_up_cooldown_s, pool.scale_down_cooldown_s) == (30, 60)
    assert (pool.start_timeout_s, pool.drain_timeout_s) == (6, 12)
    assert (pool.restart.initial_s, pool.restart.max_s, pool.restart.healthy_s) == (0.005, 6, 6)
    assert (pool.restart.factor, pool.restart.attempts_max) == (2, 10)
    assert (pool.max, pool.ports, pool.triggers) == (5, PortRange(9101, 9150), (ThresholdTrigger(),))


def test_scaled_leaves_processes_time_to_start_and_to_drain() -> None:
    pool = scaled(parse("pools: {research: {drain_timeout_sec: 3}}", "f.yaml"), 1000).fleet.pools[RESEARCH]
    assert (pool.start_timeout_s, pool.drain_timeout_s) == (5, 3)


def test_scaled_shortens_the_periods_of_rates() -> None:
    text = "pools: {research: {rate: {up: {count: 3, period_sec: 60}, down: {percent: 10, period_sec: 600}}}}"
    guards = scaled(parse(text, "f.yaml"), 10).fleet.pools[RESEARCH].guards
    assert guards == GuardConfig(RateLimit(6.0, 3), RateLimit(60.0, None, 10.0))


def test_scaled_asks_collectors_more_often_and_gives_them_the_same_time() -> None:
    text = "pools: {research: {collectors: {a: {type: command, argv: [count], every_sec: 60, timeout_sec: 2}}}}"
    for speed, every_s in ((10, 6), (1000, 2)):
        (collector,) = scaled(parse(text, "f.yaml"), speed).fleet.pools[RESEARCH].collectors
        assert (collector.every_s, collector.timeout_s) == (every_s, 2)


def test_scaled_by_one_changes_nothing() -> None:
    assert scaled(default(), 1) == default()


@pytest.mark.parametrize("speed", [0, -1, math.nan, math.inf])
def test_time_cannot_stand_still_or_run_backwards(speed: float) -> None:
    with pytest.raises(ValueError, match="cannot scale time by"):
        scaled(default(), speed)


# -- changes ---------------------------------------------------------------------------------------


def test_equal_configurations_have_no_changes() -> None:
    assert describe_changes(default(), default()) == []


def test_changes_have_the_names_of_the_file() -> None:
    old = parse("pools: {research: {env: {KEY: secret}}, execution: {}}", "f.yaml")
    new = parse(
        "{scale_up_threshold: 0.8, driver: process, pools: {research: {env: {KEY: other}, max: 8}, testing: {}},"
        " host: {reserve: {cpu_ratio: off}}, history: {events_max: 7000}, operators: [alice]}",
        "f.yaml",
    )
    assert describe_changes(old, new) == [
        "pool execution removed",
        "pool testing added",
        "autoscaling.scale_up_threshold: 0.75 -> 0.8",
        "driver: auto -> process (from the next start of agentd)",
        "history.events_max: 100000 -> 7000 (from the next start of agentd)",
        "host.reserve.cpu_ratio: 0.05 -> off",
        "operators: none -> alice",
        "pools.research.env.KEY changed",
        "pools.research.max: 5 -> 8",
        "pools.research.triggers: 0.75/0.25 -> 0.8/0.25",
    ]


def test_changes_of_guards_are_told_one_by_one() -> None:
    old = parse("pools: {research: {rate: {up: {count: 3, percent: 50, period_sec: 60}}}}", "f.yaml")
    new = parse(
        "pools: {research: {rate: {down: {percent: 10, period_sec: 600}}, no_bounce: true,"
        " diminishing_returns: guard}}",
        "f.yaml",
    )
    assert describe_changes(old, new) == [
        "pools.research.diminishing_returns: advise -> guard",
        "pools.research.no_bounce: false -> true",
        "pools.research.rate.down: none -> 10 % in 600 s",
        "pools.research.rate.up: 3 or 50 % in 60 s -> none",
    ]


def test_triggers_are_told_in_words() -> None:
    windows = 'windows: [{name: office, start: "0 8 * * 1-5", duration_sec: 36000, min: 4}]'
    old = parse("pools: {research: {triggers: [{type: external, sources: [a, b]}]}}", "f.yaml")
    new = parse(f"pools: {{research: {{triggers: [{{type: schedule, {windows}}}]}}}}", "f.yaml")
    assert describe_changes(old, new) == [
        "pools.research.policy: external -> schedule",
        "pools.research.triggers: external sources=[a, b]"
        " -> schedule windows=[office from 0 8 * * 1-5 for 36000 s, UTC: min 4]",
    ]


@pytest.mark.parametrize(
    ("size", "shown"), [(2 << 30, "2G"), (3 << 29, "1536M"), (1 << 42, "4T"), (5 << 10, "5K"), (1025, "1025"), (0, "0")]
)
def test_sizes_are_told_as_a_file_would_have_them(size: int, shown: str) -> None:
    old = default()
    reserve = structs.replace(old.fleet.reserve, memory_bytes=size)
    new = structs.replace(old, fleet=structs.replace(old.fleet, reserve=reserve))
    assert [line.rpartition(" -> ")[2] for line in describe_changes(old, new)] == [shown]


CHANGED_POOL = PoolConfig(
    name=RESEARCH,
    notify=True,
    core=(CoreAgent("other", 9601),),
    min=2,
    max=6,
    ports=PortRange(9101, 9102),
    triggers=(ThresholdTrigger(0.8, 0.2),),
    policy="other",
    collectors=(CollectorConfig("queue", "command", settings=(("argv", "secret"),)),),
    scale_up_cooldown_s=1.0,
    scale_down_cooldown_s=2.0,
    quick_up_cooldown_s=3.0,
    quick_down_cooldown_s=4.0,
    guards=GuardConfig(RateLimit(60.0, 2, 50.0), RateLimit(30.0, 1), no_bounce=True, diminishing_returns="guard"),
    command=("run",),
    env=(("A", "b"),),
    concurrency=2,
    priority=1,
    health=HealthCheck.HTTP,
    health_path="/x",
    start_timeout_s=1.0,
    drain_timeout_s=1.0,
    drain_share_max=0.25,
    stop_grace_s=1.0,
    restart=RestartPolicy(initial_s=1.0),
    resources=Resources(memory_max_bytes=1 << 20),
    rates=Rates(per_task=1.0),
    budget=Budget(per_day=1.0),
)


@pytest.mark.parametrize("field", [f.name for f in structs.fields(PoolConfig) if f.name != "name"])
def test_no_change_of_a_pool_goes_unsaid(field: str) -> None:
    old = structs.replace(default().fleet.pools[RESEARCH], health=HealthCheck.HTTP)
    value: Any = HealthCheck.NONE if field == "health" else getattr(CHANGED_POOL, field)
    assert getattr(old, field) != value, "the field is not changed: give CHANGED_POOL another value"
    new = structs.replace(old, **{field: value})

    def fleet(pool: PoolConfig) -> Config:
        return Config(fleet=FleetConfig(pools={RESEARCH: pool}))

    assert describe_changes(fleet(old), fleet(new))


def test_what_a_collector_is_told_is_not_shown() -> None:
    old = parse("pools: {research: {collectors: {a: {type: command, argv: [count]}}}}", "f.yaml")
    new = parse("pools: {research: {collectors: {a: {type: command, argv: [count, secret]}}}}", "f.yaml")
    none = parse("pools: {research: {}}", "f.yaml")
    assert describe_changes(old, new) == ["pools.research.collectors.a changed"]
    assert describe_changes(none, new) == describe_changes(new, none) == ["pools.research.collectors.a changed"]


@pytest.mark.parametrize(
    "field", [f.name for f in structs.fields(FleetConfig) if f.name not in ("pools", "fingerprint")]
)
def test_no_change_of_the_fleet_goes_unsaid(field: str) -> None:
    fleet = default().fleet
    others: dict[str, Any] = {
        "reserve": HostReserve(disk_bytes=1),
        "currency": "EUR",
        "budget": Budget(per_month=1.0),
    }
    changed: Any = others[field] if field in others else getattr(fleet, field) + 1
    new = structs.replace(fleet, **{field: changed})
    assert describe_changes(Config(fleet=fleet), Config(fleet=new))


@pytest.mark.parametrize(
    "changed",
    [
        {"driver": "process"},
        {"listen": Listen(agents="unix:/a")},
        {"listen": Listen(control="unix:/a")},
        {"listen": Listen(http="127.0.0.1:1")},
        {"state_dir": Path("/x")},
        {"watch": (WatchSpec("a", process="b"),)},
        {"history": History(events_max=7)},
        {"history": History(decisions_max=7)},
        {"history": History(metrics_days=7)},
        {"history": History(record="full")},
        {"history": History(record_bytes_max=7)},
        {"history": History(record_days=9)},
        {"operators": ("alice",)},
    ],
    ids=str,
)
def test_no_change_of_the_daemon_goes_unsaid(changed: dict[str, Any]) -> None:
    assert len(describe_changes(default(), structs.replace(default(), **changed))) == 1
