"""What two configurations differ in, for people, and a configuration in which time runs faster, for the demo.

Pure functions over the values of `config.model`; they never read a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec.structs import asdict, fields, replace

from agentd.config.model import Config
from agentd.core.cron import Window
from agentd.core.model import HealthCheck, HostReserve, PoolConfig
from agentd.core.rates import Budget, Rates
from agentd.core.rules import (
    CollectorConfig,
    DemandTrigger,
    GuardConfig,
    LatencyTrigger,
    RateLimit,
    TargetTrigger,
    ThresholdTrigger,
    Trigger,
)

# Shorter than this a process has no chance to start or to finish a task, however fast the demo runs.
GRACE_SEC_MIN = 5.0
_UNSHOWN = (".env.", ".collectors.")
_NEEDS_RESTART = ("driver", "listen", "state_dir", "history")
_SIZE_UNITS = ("", "K", "M", "G", "T")  # powers of 1024


def scaled(config: Config, speed: float) -> Config:
    """`config` with time running `speed` times as fast: intervals, timeouts, cooldowns and restart delays divided.

    The times that processes get to start and to drain stay at least 5 s, or what they are if that is less.

    Raises:
        ValueError: `speed` is not a finite number above 0.
    """
    if not (math.isfinite(speed) and speed > 0):
        raise ValueError(f"cannot scale time by {speed}: expected a finite number above 0")
    fleet = config.fleet
    return replace(
        config,
        fleet=replace(
            fleet,
            pools={name: _scaled_pool(pool, speed) for name, pool in fleet.pools.items()},
            check_interval_s=fleet.check_interval_s / speed,
            heartbeat_timeout_s=fleet.heartbeat_timeout_s / speed,
        ),
    )


def describe_changes(old: Config, new: Config) -> list[str]:
    """A line for each thing that differs, under the name that the file has for it; empty where nothing does.

    The values of environment variables and of collectors are left out: they may be secrets.
    """
    lines = [f"drop-in {path} is no longer there" for path in old.dropins if path not in new.dropins]
    lines += [f"drop-in {path} is new" for path in new.dropins if path not in old.dropins]
    lines += [f"pool {name} removed" for name in old.fleet.pools if name not in new.fleet.pools]
    lines += [f"pool {name} added" for name in new.fleet.pools if name not in old.fleet.pools]
    both = old.fleet.pools.keys() & new.fleet.pools.keys()
    before = dict(_settings(old)) | {key: text for name in both for key, text in _pool_settings(old.fleet.pools[name])}
    after = dict(_settings(new)) | {key: text for name in both for key, text in _pool_settings(new.fleet.pools[name])}
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key, "none"), after.get(key, "none")
        if was == now:
            continue
        note = " (from the next start of agentd)" if key.startswith(_NEEDS_RESTART) else ""
        lines.append(f"{key} changed" if any(part in key for part in _UNSHOWN) else f"{key}: {was} -> {now}{note}")
    return lines


def _scaled_pool(pool: PoolConfig, speed: float) -> PoolConfig:
    restart = pool.restart
    return replace(
        pool,
        collectors=tuple(_scaled_collector(collector, speed) for collector in pool.collectors),
        scale_up_cooldown_s=pool.scale_up_cooldown_s / speed,
        scale_down_cooldown_s=pool.scale_down_cooldown_s / speed,
        quick_up_cooldown_s=pool.quick_up_cooldown_s / speed,
        quick_down_cooldown_s=pool.quick_down_cooldown_s / speed,
        guards=_scaled_guards(pool.guards, speed),
        triggers=tuple(_scaled_trigger(trigger, speed) for trigger in pool.triggers),
        start_timeout_s=_scaled_grace(pool.start_timeout_s, speed),
        drain_timeout_s=_scaled_grace(pool.drain_timeout_s, speed),
        stop_grace_s=_scaled_grace(pool.stop_grace_s, speed),
        restart=replace(
            restart,
            initial_s=restart.initial_s / speed,
            max_s=restart.max_s / speed,
            healthy_s=restart.healthy_s / speed,
        ),
    )


def _scaled_collector(collector: CollectorConfig, speed: float) -> CollectorConfig:
    """Asked more often; but who is asked answers no sooner than before."""
    every_s = max(collector.every_s / speed, min(collector.every_s, collector.timeout_s))
    return replace(collector, every_s=every_s)


def _scaled_guards(guards: GuardConfig, speed: float) -> GuardConfig:
    up, down = guards.up_rate, guards.down_rate
    return replace(
        guards,
        up_rate=up and replace(up, period_s=up.period_s / speed),
        down_rate=down and replace(down, period_s=down.period_s / speed),
    )


def _scaled_trigger(trigger: Trigger, speed: float) -> Trigger:
    if isinstance(trigger, TargetTrigger):
        up_s, down_s = trigger.up_window_s / speed, trigger.down_window_s / speed
        return replace(trigger, up_window_s=up_s, down_window_s=down_s)
    if isinstance(trigger, DemandTrigger | LatencyTrigger):
        return replace(trigger, down_window_s=trigger.down_window_s / speed)
    return trigger


def _scaled_grace(duration_s: float, speed: float) -> float:
    return max(duration_s / speed, min(duration_s, GRACE_SEC_MIN))


def _settings(config: Config) -> Iterator[tuple[str, str]]:
    fleet, listen, history = config.fleet, config.listen, config.history
    yield "multi_agent.enabled", _shown(fleet.enabled)
    yield "autoscaling.enabled", _shown(fleet.autoscaling_enabled)
    yield "autoscaling.check_interval_sec", _shown(fleet.check_interval_s)
    yield "autoscaling.unhealthy_threshold", _shown(fleet.unhealthy_threshold)
    yield "autoscaling.heartbeat_timeout_sec", _shown(fleet.heartbeat_timeout_s)
    yield "autoscaling.scale_up_threshold", _shown(fleet.scale_up_threshold)
    yield "autoscaling.scale_down_threshold", _shown(fleet.scale_down_threshold)
    yield "autoscaling.min_agents_per_type", _shown(fleet.min_agents_per_type)
    yield "autoscaling.max_agents_per_type", _shown(fleet.max_agents_per_type)
    yield from _reserve_settings(fleet.reserve)
    yield "host.starting_max", _shown(fleet.starting_max)
    yield "costs.currency", fleet.currency or "none"
    yield from _amounts("costs.budget", fleet.budget)
    yield "driver", config.driver
    yield "listen.agents", _shown(listen.agents)
    yield "listen.control", _shown(listen.control)
    yield "listen.http", _shown(listen.http)
    yield "state_dir", _shown(config.state_dir)
    yield "history.events_max", _shown(history.events_max)
    yield "history.decisions_max", _shown(history.decisions_max)
    yield "history.metrics_days", _shown(history.metrics_days)
    yield "history.record", history.record
    yield "history.record_max", _size(history.record_bytes_max)
    yield "history.record_days", _shown(history.record_days)
    yield "operators", ", ".join(config.operators) or "none"
    for watch in config.watch:
        yield f"watch.{watch.name}", f"unit {watch.unit}" if watch.unit else f"process {watch.process}"


def _reserve_settings(reserve: HostReserve) -> Iterator[tuple[str, str]]:
    yield "host.reserve.memory", _size(reserve.memory_bytes)
    yield "host.reserve.memory_ratio", _shown(reserve.memory_ratio)
    yield "host.reserve.disk", _size(reserve.disk_bytes)
    yield "host.reserve.cpu_ratio", _shown(reserve.cpu_ratio, "off")
    yield "host.reserve.memory_pressure_percent", _shown(reserve.memory_pressure_percent_max, "off")
    yield "host.reserve.io_pressure_percent", _shown(reserve.io_pressure_percent_max, "off")


def _pool_settings(pool: PoolConfig) -> Iterator[tuple[str, str]]:
    at, restart, resources = f"pools.{pool.name}", pool.restart, pool.resources
    yield f"{at}.command", " ".join(pool.command) or "the bundled agent"
    for name, value in pool.env:
        yield f"{at}.env.{name}", value
    for collector in pool.collectors:
        yield f"{at}.collectors.{collector.name}", repr(collector)
    for agent in pool.core:
        yield f"{at}.core.{agent.name}", _shown(agent.port)
    yield f"{at}.min", _shown(pool.min)
    yield f"{at}.max", _shown(pool.max)
    yield f"{at}.ports", f"{pool.ports.first}-{pool.ports.last}" if pool.ports else "none"
    yield f"{at}.concurrency", _shown(pool.concurrency)
    yield f"{at}.priority", _shown(pool.priority)
    yield f"{at}.health", f"http {pool.health_path}" if pool.health is HealthCheck.HTTP else str(pool.health)
    yield f"{at}.notify", _shown(pool.notify)
    yield f"{at}.policy", pool.policy
    yield (
        f"{at}.triggers",
        ", ".join(_trigger(rule) for rule in pool.triggers),
    )
    yield f"{at}.scale_up_cooldown_sec", _cooldown(pool, pool.scale_up_cooldown_s, pool.quick_up_cooldown_s)
    yield f"{at}.scale_down_cooldown_sec", _cooldown(pool, pool.scale_down_cooldown_s, pool.quick_down_cooldown_s)
    yield f"{at}.rate.up", _rate(pool.guards.up_rate)
    yield f"{at}.rate.down", _rate(pool.guards.down_rate)
    yield f"{at}.no_bounce", _shown(pool.guards.no_bounce)
    yield f"{at}.diminishing_returns", pool.guards.diminishing_returns
    yield f"{at}.start_timeout_sec", _shown(pool.start_timeout_s)
    yield f"{at}.drain_timeout_sec", _shown(pool.drain_timeout_s)
    yield f"{at}.drain_share_max", _shown(pool.drain_share_max)
    yield f"{at}.stop_grace_sec", _shown(pool.stop_grace_s)
    yield f"{at}.restart.initial_sec", _shown(restart.initial_s)
    yield f"{at}.restart.max_sec", _shown(restart.max_s)
    yield f"{at}.restart.factor", _shown(restart.factor)
    yield f"{at}.restart.jitter_ratio", _shown(restart.jitter_ratio)
    yield f"{at}.restart.healthy_sec", _shown(restart.healthy_s)
    yield f"{at}.restart.attempts_max", _shown(restart.attempts_max)
    yield f"{at}.resources.memory_max", _size(resources.memory_max_bytes)
    yield f"{at}.resources.memory_high", _size(resources.memory_high_bytes)
    yield f"{at}.resources.cpu_weight", _shown(resources.cpu_weight)
    yield f"{at}.resources.cpu_quota", _shown(resources.cpu_quota_ratio)
    yield f"{at}.resources.tasks_max", _shown(resources.tasks_max)
    yield f"{at}.resources.io_weight", _shown(resources.io_weight)
    yield from _amounts(f"{at}.cost", pool.rates)
    yield from _amounts(f"{at}.budget", pool.budget)


def _amounts(at: str, given: Rates | Budget) -> Iterator[tuple[str, str]]:
    for name, amount in asdict(given).items():
        yield f"{at}.{name}", _shown(amount)


def _rate(rate: RateLimit | None) -> str:
    if rate is None:
        return "none"
    parts = [_shown(rate.count)] if rate.count is not None else []
    parts += [f"{rate.percent:g} %"] if rate.percent is not None else []
    return f"{' or '.join(parts)} in {rate.period_s:g} s"


def _cooldown(pool: PoolConfig, slow_s: float, quick_s: float) -> str:
    """What counts for the pool's triggers; both where they are of both sorts and it differs."""
    counts = [slow_s] if pool.threshold else []
    counts += [quick_s] if pool.quick or not counts or quick_s else []
    return ", ".join(dict.fromkeys(_shown(each) for each in counts))


def _trigger(rule: Trigger) -> str:
    if isinstance(rule, ThresholdTrigger):
        return f"{rule.scale_up_threshold:g}/{rule.scale_down_threshold:g}"
    defaults = {field.name: field.default for field in fields(rule)}
    given = [f"{name}={_shown(value)}" for name, value in asdict(rule).items() if value != defaults[name]]
    return " ".join([rule.kind, *given])


def _shown(value: object, absent: str = "none") -> str:
    """A value as the file would write it."""
    match value:
        case None:
            return absent
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.12g}"
        case Window():
            return f"{value.name} {value.text}"
        case tuple():
            return f"[{', '.join(map(_shown, value))}]"
        case _:
            return str(value)


def _size(count: int | None) -> str:
    """Bytes in the largest unit that shows all of them: `2G`, `1536M`, `1000`."""
    if not count:
        return _shown(count)
    power = max(n for n in range(len(_SIZE_UNITS)) if count % (1 << 10 * n) == 0)
    return f"{count >> 10 * power}{_SIZE_UNITS[power]}"
