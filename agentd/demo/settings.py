"""The configuration that the demo runs agentd with: a file's, made faster and adapted by the options.

The result is YAML text, so that a person can read what holds.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from agentd import config
from agentd.core.model import PoolConfig
from agentd.sdk.address import CONTROL_SOCKET

# However fast the trace runs, a process needs real time to send a heartbeat, on a busy machine too.
HEARTBEAT_TIMEOUT_SEC_MIN = 2.0
CHECK_INTERVAL_SEC_MIN = 0.1
RESTART_INITIAL_SEC_MIN = 0.01

YamlMap = dict[str, object]


class OptionError(Exception):
    """Options that do not go with the configuration; the text says which."""


def effective(
    base: Path, *, speed: float, pool: str, concurrency: int | None, instances_max: int | None, http: str | None
) -> str:
    """The text of `base` with all times divided by `speed` and `pool` and the HTTP address changed as given.

    Raises:
        ConfigError: `base`, or what the options make of it, is not valid.
        OptionError: there is no such pool.
    """
    loaded = config.load(base)
    names = [str(name) for name in loaded.fleet.pools]
    if pool not in names:
        raise OptionError(f"cannot send load to pool {pool!r}: {base} has {', '.join(names)}")
    data = config.plain(base)
    if speed != 1:
        faster = config.scaled(loaded, speed).fleet
        rules = {
            "check_interval_sec": max(CHECK_INTERVAL_SEC_MIN, faster.check_interval_s),
            "heartbeat_timeout_sec": max(
                faster.heartbeat_timeout_s, min(loaded.fleet.heartbeat_timeout_s, HEARTBEAT_TIMEOUT_SEC_MIN)
            ),
        }
        for key, value in rules.items():
            _home_of(data, key)[key] = value
        for key in ("scale_up_cooldown_sec", "scale_down_cooldown_sec"):
            if key in (section := _home_of(data, key)):
                section[key] = float(str(section[key])) / speed
        # Every pool is written out, for its times may come from defaults that the file does not mention.
        for name, scaled in faster.pools.items():
            _map(_map(data, "pools"), str(name)).update(_times(scaled))
    if concurrency is not None:
        _map(_map(data, "pools"), pool)["concurrency"] = concurrency
    if instances_max is not None:
        _map(_map(data, "pools"), pool)["max"] = instances_max
    if http is not None:
        _map(data, "listen")["http"] = http
    text = f"# Made by the agentd demo from {base}, at speed {speed:g}; written anew at each start.\n" + yaml.safe_dump(
        data, sort_keys=False
    )
    config.parse(text, f"{base} with the given options")
    return text


def http_port(text: str) -> int:
    """The port of the HTTP API in a valid configuration."""
    address = config.parse(text, "the configuration").listen.http
    return int(address.rpartition(":")[2]) if address else 8766


def control_address(text: str, state_dir: Path) -> str:
    """Where the demo's agentd serves control, in gRPC syntax, with the valid configuration `text`."""
    given = config.parse(text, "the configuration").listen.control
    return given or f"unix:{state_dir / 'run' / CONTROL_SOCKET}"


def _times(pool: PoolConfig) -> YamlMap:
    restart = pool.restart
    return {
        "scale_up_cooldown_sec": pool.scale_up_cooldown_s,
        "scale_down_cooldown_sec": pool.scale_down_cooldown_s,
        "start_timeout_sec": pool.start_timeout_s,
        "drain_timeout_sec": pool.drain_timeout_s,
        "restart": {
            "initial_sec": max(RESTART_INITIAL_SEC_MIN, restart.initial_s),
            "max_sec": max(RESTART_INITIAL_SEC_MIN, restart.max_s),
            "factor": restart.factor,
            "jitter_ratio": restart.jitter_ratio,
            "healthy_sec": restart.healthy_s,
            "attempts_max": restart.attempts_max,
        },
    }


def _home_of(data: YamlMap, key: str) -> YamlMap:
    """The section in which a rule of autoscaling stands, or may stand."""
    inside = _map(data, "multi_agent") if "multi_agent" in data else data
    for section in (inside.get("autoscaling"), data.get("autoscaling"), data):
        if isinstance(section, dict) and key in section:
            return section
    return _map(data if "autoscaling" in data else inside, "autoscaling")


def _map(data: YamlMap, key: str) -> YamlMap:
    """The mapping under `key`, made where there is none."""
    found = data.get(key)
    if not isinstance(found, dict):
        found = data[key] = {}
    return found
