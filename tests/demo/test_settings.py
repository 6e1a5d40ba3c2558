"""The configuration that the demo runs agentd with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentd import config
from agentd.core.model import PoolName
from agentd.demo import settings
from agentd.errors import ConfigError

DEMO = Path(__file__).parents[2] / "config/demo.yaml"


def effective(base: Path = DEMO, **options: Any) -> config.Config:
    given = {"speed": 1.0, "pool": "research", "concurrency": None, "instances_max": None, "http": None, **options}
    return config.parse(settings.effective(base, **given), "the demo's")


def test_without_options_it_is_the_file() -> None:
    assert effective() == config.parse(DEMO.read_text(), "the file")


def test_speed_divides_intervals_timeouts_and_cooldowns_alike() -> None:
    plain, fast = effective().fleet, effective(speed=2.0).fleet
    assert fast.check_interval_s == plain.check_interval_s / 2
    assert fast.heartbeat_timeout_s == plain.heartbeat_timeout_s / 2
    assert list(fast.pools) == list(plain.pools)
    for name, pool in fast.pools.items():
        assert pool.scale_up_cooldown_s == plain.pools[name].scale_up_cooldown_s / 2
        assert pool.scale_down_cooldown_s == plain.pools[name].scale_down_cooldown_s / 2
        assert pool.restart.max_s == plain.pools[name].restart.max_s / 2
        assert (pool.core, pool.ports, pool.min, pool.max) == (
            plain.pools[name].core,
            plain.pools[name].ports,
            plain.pools[name].min,
            plain.pools[name].max,
        )


def test_a_heartbeat_keeps_the_real_time_it_needs() -> None:
    assert effective(speed=1000.0).fleet.heartbeat_timeout_s == settings.HEARTBEAT_TIMEOUT_SEC_MIN


@pytest.mark.parametrize(
    "text",
    [
        "multi_agent: {enabled: true, autoscaling: {enabled: true}}\n",
        "multi_agent: {enabled: true, autoscaling: {enabled: true, check_interval_sec: 30}}\n",
        "multi_agent: {enabled: true}\nautoscaling: {enabled: true, scale_up_cooldown_sec: 60}\n",
        "multi_agent: {enabled: true}\ncheck_interval_sec: 20\n",
        "multi_agent: {enabled: true, autoscaling: {port_ranges: {research: [9101, 9120]}}}\n",
    ],
)
def test_times_that_come_from_defaults_or_stand_elsewhere_are_divided_too(tmp_path: Path, text: str) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(text)
    plain, fast = effective(base).fleet, effective(base, speed=10.0).fleet
    assert fast.check_interval_s == plain.check_interval_s / 10
    assert fast.heartbeat_timeout_s == plain.heartbeat_timeout_s / 10
    for name, pool in fast.pools.items():
        assert pool.scale_up_cooldown_s == plain.pools[name].scale_up_cooldown_s / 10
        assert pool.scale_down_cooldown_s == plain.pools[name].scale_down_cooldown_s / 10
        assert (pool.core, pool.ports, pool.max) == (
            plain.pools[name].core,
            plain.pools[name].ports,
            plain.pools[name].max,
        )


def test_options_change_their_pool_alone() -> None:
    plain, changed = effective(), effective(concurrency=7, instances_max=20, http="127.0.0.1:8799")
    research, execution = PoolName("research"), PoolName("execution")
    assert (changed.fleet.pools[research].concurrency, changed.fleet.pools[research].max) == (7, 20)
    assert changed.fleet.pools[execution] == plain.fleet.pools[execution]
    assert changed.listen.http == "127.0.0.1:8799"


def test_the_port_of_the_api() -> None:
    assert settings.http_port("{}") == 8766
    assert settings.http_port("listen: {http: '127.0.0.1:9999'}") == 9999


def test_a_pool_that_is_not_there_is_named() -> None:
    with pytest.raises(settings.OptionError, match=r"'reserch': .* research"):
        effective(pool="reserch")


def test_drop_ins_of_the_file_are_in_it_and_sections_of_other_programs_are_not(tmp_path: Path) -> None:
    base = tmp_path / "f.yaml"
    base.write_text("llm: {key: !secret key}\npools: {research: {max: 3, min: 2}}\n")
    (tmp_path / "f.yaml.d").mkdir()
    (tmp_path / "f.yaml.d/50-more.yaml").write_text("pools: {research: {max: 7}}\n")
    found = effective(base)
    pool = found.fleet.pools[PoolName("research")]
    assert (pool.min, pool.max, found.warnings) == (2, 7, ())


def test_options_that_do_not_go_with_the_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="with the given options"):
        effective(http="192.0.2.1:80")
