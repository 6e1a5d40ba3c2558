"""Pools and settings: what a file may say, and what works otherwise than it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec import structs

from agentd.config import Config, History, Listen, WatchSpec, default, parse
from agentd.core.model import (
    CoreAgent,
    HealthCheck,
    HostReserve,
    PoolConfig,
    PoolName,
    PortRange,
    Resources,
    RestartPolicy,
)
from agentd.core.rates import Rates
from agentd.core.rules import GuardConfig, RateLimit, ThresholdTrigger
from agentd.errors import ConfigError

RESEARCH = PoolName("research")
EXECUTION = PoolName("execution")


def pool(text: str, name: PoolName = RESEARCH) -> PoolConfig:
    return parse(text, "f.yaml").fleet.pools[name]


def problems(text: str) -> list[str]:
    """The problems of a file that must have some, as `line:column: text`, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    lines = [str(problem) for problem in caught.value.problems]
    assert str(caught.value) == "\n".join(lines)
    assert all(re.match(r"f\.yaml:[1-9][0-9]*:[1-9][0-9]*: \S", line) for line in lines)
    return [line.removeprefix("f.yaml:") for line in lines]


# -- pools -----------------------------------------------------------------------------------------


def test_a_pools_section_names_the_whole_fleet_with_port_ranges() -> None:
    config = parse("pools: {research: {}}\nport_ranges: {testing: [9501, 9510], extra: [9601, 9602]}", "f.yaml")
    assert list(config.fleet.pools) == ["research", "testing", "extra"]
    assert config.fleet.pools[RESEARCH] == default().fleet.pools[RESEARCH]
    assert [agent.name for agent in config.fleet.pools[PoolName("testing")].core] == ["tester"]
    assert config.fleet.pools[PoolName("extra")].core == ()


def test_port_ranges_alone_add_to_the_default_pools() -> None:
    pools = parse("port_ranges: {extra: [9601, 9610]}", "f.yaml").fleet.pools
    assert list(pools) == [*default().fleet.pools, "extra"]
    assert (pools[PoolName("extra")].min, pools[PoolName("extra")].max) == (1, 5)


def test_a_default_pool_keeps_its_core_and_ports_unless_told_otherwise() -> None:
    text = "pools: {research: {core: {}, max: 3}, execution: {ports: [9701, 9710]}, primary: {}}"
    assert pool(text).core == ()
    assert pool(text).ports == PortRange(9101, 9150)
    assert pool(text, EXECUTION).core == (CoreAgent("executor", 9003),)
    assert pool(text, EXECUTION).ports == PortRange(9701, 9710)


def test_a_pool_without_ports_is_its_core_agents() -> None:
    config = parse("min_agents_per_type: 4\npools: {solo: {core: {one: 9601, two: 9602}}}", "f.yaml")
    solo = config.fleet.pools[PoolName("solo")]
    assert (solo.min, solo.max, solo.ports) == (2, 2, None)
    assert config.warnings == ()


def test_every_key_of_a_pool_is_read() -> None:
    text = """
pools:
  research:
    command: python -m mine --name 'a b'
    env: {A: 1, B: off, C: 1.50, D: "", E: , F: text}
    core: {lead: 9601, second-lead: 9602}
    min: 2
    max: 9
    ports: [9611, 9620]
    concurrency: 3
    priority: -5
    health: {check: http, path: "/ok?deep=1"}
    policy: threshold
    scale_up_cooldown_sec: 0.5
    scale_down_cooldown_sec: 1e1
    rate: {up: {count: 4, percent: 100, period_sec: 15}, down: {count: 1, period_sec: 300}}
    no_bounce: on
    diminishing_returns: off
    triggers:
      - {type: threshold, scale_up_threshold: 0.9, scale_down_threshold: 0.1}
      - {type: threshold}
    resources: {memory_max: 2G, memory_high: 1.5GiB, cpu_weight: 1, cpu_quota: 150%, tasks_max: 7, io_weight: 10000}
    drain_timeout_sec: 0
    drain_share_max: 0.25
    stop_grace_sec: 2.5
    start_timeout_sec: 1.5
    restart: {initial_sec: 1, max_sec: 8, factor: 3, jitter_ratio: 0, healthy_sec: 5, attempts_max: 4}
    cost: 0.12
"""
    assert pool(text) == PoolConfig(
        name=RESEARCH,
        core=(CoreAgent("lead", 9601), CoreAgent("second-lead", 9602)),
        min=2,
        max=9,
        ports=PortRange(9611, 9620),
        triggers=(ThresholdTrigger(0.9, 0.1), ThresholdTrigger(0.75, 0.25)),
        scale_up_cooldown_s=0.5,
        scale_down_cooldown_s=10.0,
        guards=GuardConfig(RateLimit(15.0, 4, 100.0), RateLimit(300.0, 1), no_bounce=True, diminishing_returns="off"),
        command=("python", "-m", "mine", "--name", "a b"),
        env=(("A", "1"), ("B", "off"), ("C", "1.50"), ("D", ""), ("E", ""), ("F", "text")),
        concurrency=3,
        priority=-5,
        health=HealthCheck.HTTP,
        health_path="/ok?deep=1",
        start_timeout_s=1.5,
        drain_timeout_s=0.0,
        drain_share_max=0.25,
        stop_grace_s=2.5,
        restart=RestartPolicy(1.0, 8.0, 3.0, 0.0, 5.0, 4),
        resources=Resources(2 << 30, 3 << 29, 1, 1.5, 7, 10_000),
        rates=Rates(per_hour=0.12),
    )


def test_a_command_may_be_a_list_with_numbers() -> None:
    assert pool("pools: {research: {command: [run, --port, 80, '']}}").command == ("run", "--port", "80", "")


def test_the_rules_of_all_pools_are_where_a_pool_starts() -> None:
    text = """
autoscaling: {scale_up_threshold: 0.6, scale_down_threshold: 0.1, scale_up_cooldown_sec: 7, max_agents_per_type: 4}
pools: {research: {scale_down_threshold: 0.2}, execution: {}}
"""
    assert pool(text).triggers == (ThresholdTrigger(0.6, 0.2),)
    assert pool(text, EXECUTION).triggers == (ThresholdTrigger(0.6, 0.1),)
    assert {(p.scale_up_cooldown_s, p.max) for p in parse(text, "f.yaml").fleet.pools.values()} == {(7.0, 4)}


def test_merge_keys_share_settings_between_pools() -> None:
    text = """
x-common: &common {max: 7, concurrency: 2}
pools:
  research: {<<: *common, concurrency: 4}
  execution: {<<: [*common]}
"""
    assert (pool(text).max, pool(text).concurrency) == (7, 4)
    assert (pool(text, EXECUTION).max, pool(text, EXECUTION).concurrency) == (7, 2)


def test_merged_mappings_that_repeat_each_other_are_read_once() -> None:
    """A chain in which each link names the one before twice would otherwise double the work with every link."""
    links = ["a0: &a0 {max: 3}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60)]
    assert pool("\n".join([*links, "pools: {research: *a59}"])).max == 3


# -- the rest --------------------------------------------------------------------------------------


def test_fractions_of_counts_mean_the_count_of_the_same_effect() -> None:
    fleet = parse("{unhealthy_threshold: 2.5, min_agents_per_type: 1.5, max_agents_per_type: 3.9}", "f.yaml").fleet
    assert (fleet.unhealthy_threshold, fleet.min_agents_per_type, fleet.max_agents_per_type) == (3, 2, 3)


def test_off_switches_a_reserve_off() -> None:
    text = "host: {reserve: {memory: off, memory_ratio: false, disk: , cpu_ratio: off, memory_pressure_percent: null}}"
    assert parse(text, "f.yaml").fleet.reserve == HostReserve(
        memory_bytes=0, memory_ratio=0.0, disk_bytes=0, cpu_ratio=None, memory_pressure_percent_max=None
    )


@pytest.mark.parametrize(
    ("history", "wrong"),
    [
        ("record: ful", "history.record must be one of decisions, full (did you mean full?), not ful"),
        ("record_max: 1M", "history.record_max must be at least 4M, not 1M"),
        ("record_days: 0", "history.record_days must be a number from 0.01 to 3650 (days), not 0"),
    ],
)
def test_what_is_wrong_with_a_recording_is_said(history: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"history: {{{history}}}", "f.yaml")
    assert [problem.text for problem in caught.value.problems] == [wrong]


def test_by_default_decisions_alone_are_recorded() -> None:
    assert default().history.record == "decisions"


def test_the_settings_of_the_daemon_are_read() -> None:
    text = """
driver: process
listen: {agents: 'localhost:7', control: unix:///run/c.sock, http: '[::1]:8000'}
state_dir: /srv/agentd
watch: [ollama, {unit: redis.service}, {name: db, process: postgres}]
history:
  {events_max: 100, decisions_max: 200, metrics_days: 0.5, record: full, record_max: 4M, record_days: 2}
operators: [alice, bob, alice]
host: {starting_max: 3}
"""
    config = parse(text, "f.yaml")
    assert config.fleet.starting_max == 3
    assert structs.replace(config, fleet=default().fleet) == Config(
        fleet=default().fleet,
        driver="process",
        listen=Listen("localhost:7", "unix:/run/c.sock", "[::1]:8000"),
        state_dir=Path("/srv/agentd"),
        watch=(
            WatchSpec("ollama", process="ollama"),
            WatchSpec("redis.service", unit="redis.service"),
            WatchSpec("db", process="postgres"),
        ),
        history=History(100, 200, 0.5, "full", 4 * 2**20, 2.0),
        operators=("alice", "bob"),
    )


def test_the_home_directory_may_be_written_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse("state_dir: ~/agentd", "f.yaml").state_dir == Path("/home/somebody/agentd")


def test_the_longest_socket_path_is_107_bytes() -> None:
    fits = "/" + "é" * 53
    assert len(fits.encode()) == 107
    assert parse(f"listen: {{agents: 'unix:{fits}'}}", "f.yaml").listen.agents == f"unix:{fits}"
    assert "108 bytes, at most 107" in problems(f"listen: {{agents: 'unix:{fits}x'}}")[0]


def test_foreign_sections_are_ignored_with_one_warning() -> None:
    config = parse("logging: {enabled: [1, .nan]}\nllm:\n  model: x\nmulti_agent: {enabled: true}\n", "f.yaml")
    assert config.warnings == ("f.yaml:1:1: ignored, not agentd's: logging, llm",)
    assert config.fleet.enabled


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("autoscaling: {enabled: true}", "f.yaml:1:24: autoscaling.enabled does nothing while"),
        (
            "pools: {research: {max: 60}}",
            "f.yaml:1:25: pool research: max 60 is out of reach with the 51 places it has (1 core, 50 on its ports)",
        ),
        ("max_agents_per_type: 60", "f.yaml:1:22: pools research, execution, analysis, planning, testing: max 60"),
        ("port_ranges: {extra: [8700, 8800]}", "f.yaml:1:22: the ports of pool extra include 8766"),
        (
            "port_ranges: {extra: [8000, 8100]}\nlisten: {http: '127.0.0.1:8001'}",
            "f.yaml:1:22: the ports of pool extra include 8001",
        ),
    ],
)
def test_what_works_otherwise_than_written_is_a_warning(text: str, warning: str) -> None:
    (found,) = parse(text, "f.yaml").warnings
    assert found.startswith(warning)
