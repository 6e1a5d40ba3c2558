"""The triggers of a pool in words, for people: their parameters under the names that the configuration has for them."""

from __future__ import annotations

from msgspec.structs import asdict

from agentd.core.model import PoolConfig
from agentd.core.rules import ScheduleTrigger, ThresholdTrigger, Trigger
from agentd.core.views import RuleView


def rules(config: PoolConfig) -> tuple[RuleView, ...]:
    """All triggers of the pool, in their order."""
    return tuple(_rule(config, trigger) for trigger in config.triggers)


def guards(config: PoolConfig) -> tuple[tuple[str, str], ...]:
    """What is set of the pool's guards, its bounds and cooldowns aside; what is off is left out."""
    known = config.guards
    found = [("drain_share_max", f"{config.drain_share_max:g}")]
    for name, rate in (("rate.up", known.up_rate), ("rate.down", known.down_rate)):
        if rate is not None:
            parts = [f"count {rate.count}"] if rate.count is not None else []
            parts += [f"percent {rate.percent:g}"] if rate.percent is not None else []
            found.append((name, f"{' or '.join(parts)} in {rate.period_s:g} s"))
    found += [("no_bounce", "true")] if known.no_bounce else []
    found.append(("diminishing_returns", known.diminishing_returns))
    budget = config.budget
    for name, amount in (("hour", budget.per_hour), ("day", budget.per_day), ("month", budget.per_month)):
        found += [(f"budget.per_{name}", f"{amount:g}")] if amount is not None else []
    return tuple(found)


def _rule(config: PoolConfig, trigger: Trigger) -> RuleView:
    slow = isinstance(trigger, ThresholdTrigger)
    return RuleView(
        kind=trigger.kind,
        parameters=_parameters(trigger),
        up_cooldown_s=config.scale_up_cooldown_s if slow else config.quick_up_cooldown_s,
        down_cooldown_s=config.scale_down_cooldown_s if slow else config.quick_down_cooldown_s,
    )


def _parameters(trigger: Trigger) -> tuple[tuple[str, str], ...]:
    if isinstance(trigger, ScheduleTrigger):
        return tuple((f"window {window.name}", window.text) for window in trigger.windows)
    return tuple((_key(name), _value(it)) for name, it in asdict(trigger).items())


def _key(name: str) -> str:
    return f"{name.removesuffix('_s')}_sec" if name.endswith("_s") else name


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "any"
    return str(value)
