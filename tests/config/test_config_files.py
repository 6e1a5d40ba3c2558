"""Whole files: the defaults, the seed's own file and snippets, and what agentd ships."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from agentd.collecting.kinds import KINDS
from agentd.config import (
    AUTOSCALING_KEYS,
    MULTI_AGENT_KEYS,
    TOP_KEYS,
    Config,
    WatchSpec,
    default,
    load,
    parse,
)
from agentd.config.collectors import COLLECTOR_KEYS
from agentd.config.costs import BUDGET_KEYS, COSTS_KEYS
from agentd.config.guards import RATE_KEYS, RATE_LIMIT_KEYS
from agentd.config.pools import POOL_KEYS, RESOURCE_KEYS, RESTART_KEYS
from agentd.config.settings import HISTORY_KEYS, HOST_KEYS, LISTEN_KEYS, RESERVE_KEYS, WATCH_KEYS
from agentd.core.model import (
    CoreAgent,
    FleetConfig,
    HealthCheck,
    HostReserve,
    PoolConfig,
    PoolName,
    PortRange,
    Resources,
)
from agentd.core.rates import FREE, UNBOUNDED
from agentd.core.rules import GUARDS_DEFAULT, AdaptiveTrigger

ROOT = Path(__file__).parent.parent.parent
FIXTURES = Path(__file__).parent.parent / "fixtures"
SHIPPED = sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "config" / "examples").glob("*.yaml")])
SEEDS = sorted(FIXTURES.glob("seed_*.yaml"))

RESEARCH = PoolName("research")
EXECUTION = PoolName("execution")
PRIMARY = PoolName("primary")


def bare(config: Config) -> Config:
    """Without what depends on the file alone."""
    return structs.replace(config, source=None, warnings=())


# -- defaults --------------------------------------------------------------------------------------


def test_without_a_file_the_fleet_is_the_six_default_pools() -> None:
    pools = default().fleet.pools
    assert {
        name: (pool.core[0].name, pool.core[0].port, pool.ports and (pool.ports.first, pool.ports.last))
        for name, pool in pools.items()
    } == {
        "primary": ("primary", 9001, None),
        "research": ("researcher", 9002, (9101, 9150)),
        "execution": ("executor", 9003, (9201, 9250)),
        "analysis": ("analyst", 9004, (9301, 9350)),
        "planning": ("planner", 9005, (9401, 9450)),
        "testing": ("tester", 9006, (9501, 9550)),
    }
    assert (pools[PRIMARY].min, pools[PRIMARY].max) == (1, 1)
    assert {(pool.min, pool.max) for name, pool in pools.items() if name != "primary"} == {(1, 5)}


def test_without_a_file_nothing_is_managed() -> None:
    config = default()
    assert not config.fleet.enabled
    assert not config.fleet.autoscaling_enabled
    assert config.source is None
    assert config.warnings == ()


def test_the_defaults_are_those_of_the_core() -> None:
    fleet = default().fleet
    assert fleet == FleetConfig(pools=fleet.pools)
    assert fleet.pools[RESEARCH] == PoolConfig(
        name=RESEARCH, core=(CoreAgent("researcher", 9002),), ports=PortRange(9101, 9150)
    )
    assert default() == Config(fleet=fleet)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "null\n", "multi_agent:\n", "pools:\nautoscaling:\nhost:\n"]
)
def test_empty_files_and_sections_mean_the_defaults(text: str) -> None:
    assert parse(text, "f.yaml") == default()


# -- the seed's own file and snippets --------------------------------------------------------------


def test_the_seed_config_is_accepted_unchanged() -> None:
    config = load(FIXTURES / "seed_config.yaml")
    assert config.warnings == ()
    assert config.source == FIXTURES / "seed_config.yaml"
    assert bare(config) == structs.replace(
        default(), fleet=structs.replace(default().fleet, enabled=True, autoscaling_enabled=True)
    )


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.stem)
def test_each_snippet_of_the_seed_is_accepted_without_a_warning(path: Path) -> None:
    assert load(path).warnings == ()


def test_snippets_take_effect_from_the_top_level() -> None:
    pools = load(FIXTURES / "seed_wider_ports.yaml").fleet.pools
    assert (pools[RESEARCH].ports, pools[EXECUTION].ports) == (PortRange(9101, 9200), PortRange(9201, 9250))
    fewer = load(FIXTURES / "seed_fewer_agents.yaml").fleet
    assert (fewer.max_agents_per_type, fewer.scale_up_threshold) == (3, 0.85)
    assert (fewer.pools[RESEARCH].max, fewer.pools[RESEARCH].triggers[0].scale_up_threshold) == (3, 0.85)
    assert fewer.pools[PRIMARY].max == 1
    assert load(FIXTURES / "seed_keep_agents.yaml").fleet.pools[RESEARCH].min == 2
    longer = load(FIXTURES / "seed_longer_cooldowns.yaml").fleet.pools[RESEARCH]
    assert (longer.scale_up_cooldown_s, longer.scale_down_cooldown_s) == (600, 1200)
    quick = load(FIXTURES / "seed_quick_start.yaml").fleet
    assert (quick.enabled, quick.autoscaling_enabled) == (True, True)


def test_the_fixtures_are_what_the_seed_says() -> None:
    shared = os.environ.get("AGENTD_SHARED")
    seed = Path(shared or "") / "seeds" / "A-agent-autoscaling.md"
    if not shared or not seed.is_file():
        pytest.skip("AGENTD_SHARED names no directory with the seed documents")
    blocks = set(re.findall(r"```yaml\n(.*?)```", seed.read_text(), re.DOTALL))
    assert blocks == {path.read_text() for path in SEEDS if path.stem != "seed_config"}


@pytest.mark.parametrize(
    "text",
    [
        "autoscaling: {port_ranges: {research: [9101, 9120]}}",
        "multi_agent: {port_ranges: {research: [9101, 9120]}}",
        "multi_agent: {autoscaling: {port_ranges: {research: [9101, 9120]}}}",
        "port_ranges: {research: [9101, 9120]}",
        "pools: {research: {ports: [9101, 9120]}}",
    ],
)
def test_port_ranges_have_several_places(text: str) -> None:
    assert parse(text, "f.yaml").fleet.pools[RESEARCH].ports == PortRange(9101, 9120)


# -- what ships ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_load_without_a_warning(path: Path) -> None:
    assert [line for line in load(path).warnings if "there is no program '/opt/" not in line] == []


def test_the_packaged_file_says_the_defaults_but_for_the_policy() -> None:
    packaged = bare(load(ROOT / "config" / "agentd.yaml"))
    assert {pool.triggers for pool in packaged.fleet.pools.values()} == {(AdaptiveTrigger(),)}
    usual = default().fleet.pools
    pools = {
        name: structs.replace(pool, triggers=usual[name].triggers, policy=usual[name].policy)
        for name, pool in packaged.fleet.pools.items()
    }
    assert structs.replace(packaged, fleet=structs.replace(packaged.fleet, pools=pools)) == default()


def uncommented() -> str:
    """The packaged file with its settings in force: `#` before anything but a space and a word."""
    lines = (ROOT / "config" / "agentd.yaml").read_text().splitlines()
    return "\n".join(re.sub(r"^#(?! \S)", "", line) for line in lines)


def test_the_settings_that_the_packaged_file_shows_are_defaults_or_examples() -> None:
    config = parse(uncommented(), "agentd.yaml")
    assert config.warnings == ()
    shown = config.fleet.pools[PoolName("writing")]
    adaptive = (AdaptiveTrigger(),)
    plain = PoolConfig(
        name=PoolName("writing"), triggers=adaptive, policy="adaptive", core=(CoreAgent("writer", 9007),),
        ports=PortRange(9601, 9650), quick_up_cooldown_s=300.0, quick_down_cooldown_s=600.0,
    )  # fmt: skip
    assert shown.command
    assert shown.env
    assert {collector.kind for collector in shown.collectors} == set(KINDS)
    assert None not in structs.astuple(shown.rates)
    assert shown.budget
    assert (config.fleet.currency, None in structs.astuple(config.fleet.budget)) == ("EUR", False)
    left_out = {
        "command": (),
        "env": (),
        "collectors": (),
        "resources": Resources(),
        "rates": FREE,
        "guards": GUARDS_DEFAULT,
    }
    assert structs.replace(shown, **left_out, budget=UNBOUNDED) == plain
    assert None not in structs.astuple(shown.resources)
    assert None not in structs.astuple(config.listen)
    assert config.watch == (WatchSpec("models", process="ollama"), WatchSpec("queue", unit="redis-server.service"))
    assert config.fleet.pools[RESEARCH] == load(ROOT / "config" / "agentd.yaml").fleet.pools[RESEARCH]


def test_the_packaged_file_shows_every_key() -> None:
    text = uncommented()
    keys = (
        *TOP_KEYS,
        *MULTI_AGENT_KEYS,
        *AUTOSCALING_KEYS,
        *POOL_KEYS,
        *RESOURCE_KEYS,
        *RESTART_KEYS,
        *RATE_KEYS,
        *RATE_LIMIT_KEYS,
        *HOST_KEYS,
        *RESERVE_KEYS,
        *LISTEN_KEYS,
        *WATCH_KEYS,
        *HISTORY_KEYS,
        *COSTS_KEYS,
        *RATE_KEYS,
        *BUDGET_KEYS,
        *COLLECTOR_KEYS,
        *(setting.name for kind in KINDS.values() for setting in kind.settings),
    )
    assert [key for key in keys if not re.search(rf"\b{key}: ?", text)] == []


def test_the_demo_is_quick_and_uses_the_bundled_agent() -> None:
    config = load(ROOT / "config" / "demo.yaml")
    fleet = config.fleet
    assert config.driver == "process"
    assert (fleet.enabled, fleet.autoscaling_enabled) == (True, True)
    assert fleet.heartbeat_interval_s == 2
    assert set(fleet.pools) == {"primary", "research", "execution"}
    assert all(pool.command == () for pool in fleet.pools.values())
    assert {pool.scale_up_cooldown_s for pool in fleet.pools.values()} == {10}
    assert (fleet.reserve.cpu_ratio, fleet.reserve.memory_pressure_percent_max) == (None, None)
    assert fleet.reserve.io_pressure_percent_max is None
    assert fleet.reserve.memory_bytes == HostReserve().memory_bytes


def test_the_fleet_of_500_carries_500_agents() -> None:
    pools = load(ROOT / "config" / "examples" / "fleet-500.yaml").fleet.pools.values()
    assert len(pools) == 6
    assert sum(pool.max for pool in pools) == 500
    assert all(pool.max <= len(pool.core) + (len(pool.ports) if pool.ports else 0) for pool in pools)


def test_the_example_for_own_agents_shows_every_health_check() -> None:
    pools = load(ROOT / "config" / "examples" / "own-agents.yaml").fleet.pools.values()
    assert {pool.health for pool in pools} == set(HealthCheck)
    assert all(pool.command for pool in pools)
    crawling = next(pool for pool in pools if pool.name == "crawling")
    assert crawling.command == ("sh", "-c", 'exec /opt/crawler/bin/crawler --port "$AGENTD_PORT"')
    assert crawling.health_path == "/healthz"


# -- weight ----------------------------------------------------------------------------------------


def test_reading_a_configuration_needs_no_grpc() -> None:
    code = "import sys; from agentd.config import load; print([m for m in sys.modules if m in ('grpc', 'psutil')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
