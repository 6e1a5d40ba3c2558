"""Triggers and guards in words: under the names that the configuration has for them."""

from __future__ import annotations

from agentd.config import parse
from agentd.core import ruling
from agentd.core.model import PoolConfig, PoolName


def pool(settings: str) -> PoolConfig:
    return parse(f"pools: {{research: {{{settings}}}}}", "f.yaml").fleet.pools[PoolName("research")]


def test_every_type_of_trigger_is_shown_with_its_parameters() -> None:
    text = """triggers: [
      {type: threshold, scale_up_threshold: 0.8}, {type: target, signal: in_flight, target: 2}, {type: demand},
      {type: latency, target_sec: 2.5}, {type: external, sources: [oracle, seer]}, {type: external},
      {type: schedule, windows: [{name: day, start: "0 8 * * *", duration_sec: 3600, min: 2},
                                 {name: night, start: "0 20 * * *", end: "0 6 * * *", timezone: Europe/Berlin,
                                  max: 3}]},
    ]"""
    shown = [(rule.kind, rule.parameters) for rule in ruling.rules(pool(text))]
    assert shown == [
        ("threshold", (("scale_up_threshold", "0.8"), ("scale_down_threshold", "0.25"))),
        ("target", (("signal", "in_flight"), ("target", "2"), ("tolerance_ratio", "0.1"), ("up_window_sec", "0"),
                    ("down_window_sec", "300"))),
        ("demand", (("target_ratio", "0.95"), ("down_window_sec", "300"))),
        ("latency", (("target_sec", "2.5"), ("quantile", "p95"), ("tolerance_ratio", "0.1"),
                     ("down_window_sec", "300"))),
        ("external", (("sources", "oracle, seer"),)),
        ("external", (("sources", "any"),)),
        ("schedule", (("window day", "from 0 8 * * * for 3600 s, UTC: min 2"),
                      ("window night", "from 0 20 * * * until 0 6 * * *, Europe/Berlin: max 3"))),
    ]  # fmt: skip


def test_each_trigger_has_its_own_cooldowns() -> None:
    text = "scale_up_cooldown_sec: 7, triggers: [{type: threshold}, {type: demand}]"
    assert [(rule.up_cooldown_s, rule.down_cooldown_s) for rule in ruling.rules(pool(text))] == [
        (7.0, 600.0),
        (7.0, 0.0),
    ]


def test_guards_are_shown_where_they_are_set() -> None:
    assert ruling.guards(pool("")) == (("drain_share_max", "0.5"), ("diminishing_returns", "advise"))
    text = (
        "rate: {up: {count: 4, percent: 50, period_sec: 60}}, no_bounce: true, diminishing_returns: 'off', cost: 1, "
        "budget: {per_day: 20, per_month: 300.5}"
    )
    assert ruling.guards(pool(text)) == (
        ("drain_share_max", "0.5"),
        ("rate.up", "count 4 or percent 50 in 60 s"),
        ("no_bounce", "true"),
        ("diminishing_returns", "off"),
        ("budget.per_day", "20"),
        ("budget.per_month", "300.5"),
    )
