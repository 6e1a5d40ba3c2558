"""Triggers in the file: every parameter, the short form, and mistakes with their places."""

from __future__ import annotations

import re
from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml

from agentd.config import parse
from agentd.core import cron
from agentd.core.cron import Window
from agentd.core.model import PoolConfig, PoolName
from agentd.core.rules import (
    DemandTrigger,
    ExternalTrigger,
    LatencyTrigger,
    ScheduleTrigger,
    TargetTrigger,
    ThresholdTrigger,
)
from agentd.errors import ConfigError


def pool(text: str) -> PoolConfig:
    return parse(text, "f.yaml").fleet.pools[PoolName("research")]


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


QUEUE = "collectors: {queue: {type: command, argv: [/bin/true]}, depth: {type: command, argv: [/bin/true]}}"
NIGHT = "{type: schedule, windows: [{start: 0 2 * * *, duration_sec: 60, %s}]}"


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ("min: 0", "threshold"),
        ("min: 0, policy: adaptive", "adaptive"),
        ("min: 0, policy: demand", "demand"),
        (f"min: 0, {QUEUE}", "threshold"),  # which does not look at it
        (f"min: 0, {QUEUE}, triggers: [{{type: target}}, {{type: latency, target_sec: 1}}]", "target, latency"),
        (f"min: 0, triggers: [{{type: threshold}}, {NIGHT % 'max: 2'}]", "threshold, schedule"),
        (f"min: 0, {QUEUE}, policy: adaptive", ""),
        (f"min: 0, {QUEUE}, policy: demand", ""),
        (f"min: 0, {QUEUE}, triggers: [{{type: target, signal: depth, target: 5}}]", ""),
        (f"min: 0, {QUEUE}, triggers: [{{type: target, signal: demand, target: 5}}]", ""),
        ("min: 0, triggers: [{type: external}]", ""),
        (f"min: 0, triggers: [{{type: threshold}}, {NIGHT % 'min: 1'}]", ""),
        ("min: 0, max: 0", ""),
        ("min: 1", ""),
    ],
)
def test_a_pool_that_would_stay_empty_for_ever_is_a_warning(settings: str, kinds: str) -> None:
    config = parse(f"pools:\n  mine: {{ports: [9601, 9609], command: /bin/true, {settings}}}\n", "f.yaml")
    told = f"f.yaml:2:56: pool mine: with min 0 it never starts its first agent by itself: {kinds} decides by agents"
    assert [line.startswith(told) for line in config.warnings] == ([True] if kinds else [])


def test_every_parameter_of_every_trigger_is_read() -> None:
    text = """
pools:
  research:
    max: 9
    triggers:
      - {type: target, signal: in_flight, target: 4, tolerance_ratio: 0.2, up_window_sec: 15, down_window_sec: 60}
      - {type: demand, target_ratio: 0.8, down_window_sec: 0}
      - {type: latency, target_sec: 2.5, quantile: p50, tolerance_ratio: 0.05, down_window_sec: 120}
      - type: schedule
        windows:
          - {name: office, start: 0 8 * * mon-fri, end: 0 18 * * mon-fri, timezone: Europe/Berlin, min: 3, max: 9}
          - {start: 0 2 * * *, duration_sec: 1800, max: 2}
      - {type: external, sources: [ai-optimizer, x1]}
"""
    windows = (
        Window(
            "office", cron.parse("0 8 * * mon-fri"), cron.parse("0 18 * * mon-fri"), None, ZoneInfo("Europe/Berlin"),
            3, 9,
        ),
        Window("windows 2", cron.parse("0 2 * * *"), None, 1800.0, UTC, None, 2),
    )  # fmt: skip
    found = pool(text)
    assert found.triggers == (
        TargetTrigger("in_flight", 4.0, 0.2, 15.0, 60.0),
        DemandTrigger(0.8, 0.0),
        LatencyTrigger(2.5, "p50", 0.05, 120.0),
        ScheduleTrigger(windows),
        ExternalTrigger(("ai-optimizer", "x1")),
    )
    assert found.policy == "target, demand, latency, schedule, external"


def test_a_policy_is_short_for_its_trigger_with_the_defaults() -> None:
    assert pool("policy: demand").triggers == (DemandTrigger(0.95, 300.0),)
    assert pool("policy: target").triggers == (TargetTrigger("load", 0.7, 0.1, 0.0, 300.0),)
    assert pool("{policy: demand, pools: {research: {policy: threshold}}}").triggers == (ThresholdTrigger(),)
    assert pool("policy: demand").policy == "demand"


def test_cooldowns_are_for_threshold_unless_the_pool_says_so_itself() -> None:
    found = pool("{policy: demand, scale_up_cooldown_sec: 30}")
    assert (found.quick_up_cooldown_s, found.quick_down_cooldown_s) == (0.0, 0.0)
    found = pool("{policy: demand, pools: {research: {scale_up_cooldown_sec: 30, scale_down_cooldown_sec: 60}}}")
    assert (found.quick_up_cooldown_s, found.quick_down_cooldown_s) == (30.0, 60.0)


def trigger(text: str) -> str:
    return f"pools: {{research: {{max: 9, triggers: [{{{text}}}]}}}}"


WINDOW = "type: schedule, windows: [{"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "type: demnd",
            "triggers[1].type must be one of threshold, target, demand, latency, schedule, external, adaptive (did",
        ),
        (
            "type: demand, target_ration: 1",
            "unknown key pools.research.triggers[1].target_ration: did you mean tar",
        ),
        ("type: demand, target_ratio: 1.5", "target_ratio must be a number from 0.01 to 1, not 1.5"),
        ("type: demand, down_window_sec: -1", "down_window_sec must be a number from 0 to 86400 (seconds)"),
        ("type: target, signal: in_flight", "triggers[1] has no target: signal in_flight needs one"),
        ("type: target, target: 3", "triggers[1].target must be a number from 0.01 to 1, not 3"),
        ("type: target, signal: loda, target: 3", "triggers[1].signal must be one of load, in_flight, demand, throug"),
        ("type: latency", "triggers[1] has no target_sec: latency needs one"),
        ("type: latency, target_sec: 1, quantile: p99", "quantile must be one of p50, p95"),
        (
            "type: adaptive}, {type: demand}, {type: adaptive, forecast: off",
            "1:73: pools.research.triggers[3] is the second of type adaptive: a pool has one, which learns for it; ",
        ),
        ("type: external, sources: []", "sources names nobody: leave it out where every program may ask"),
        ("type: external, sources: [Me]", "sources[1] must be 1 to 32 lower-case letters, digits and -, beginning"),
        ("type: schedule", "triggers[1] has no windows: a schedule needs at least one"),
        ("type: schedule, windows: []", "windows must be a list of at least one window"),
        (WINDOW + "end: 0 1 * * *, min: 2}]", "windows[1] has no start"),
        (WINDOW + "start: 0 1 * * *, min: 2}]", "windows[1] has neither end nor duration_sec"),
        (WINDOW + "start: 0 1 * * *, end: 0 2 * * *, duration_sec: 60, min: 2}]", "has both end and duration_sec"),
        (WINDOW + "start: 0 1 * * *, duration_sec: 60}]", "has neither min nor max"),
        (WINDOW + "start: 0 25 * * *, duration_sec: 60, min: 2}]", "windows[1].start hour '25': must be numbers from"),
        (WINDOW + "start: 0 1 * *, duration_sec: 60, min: 2}]", "windows[1].start has 4 fields, not 5"),
        (WINDOW + "start: 0 1 * * *, duration_sec: 60, min: 4, max: 2}]", "windows[1] has min 4, which is greater"),
        (WINDOW + "start: 0 1 * * *, duration_sec: 60, min: 10}]", "window windows 1: min 10 is greater than max 9 of"),
        (
            WINDOW + "start: 0 1 * * *, duration_sec: 60, max: 0}]",
            "window windows 1: min 1 of the pool is gre",
        ),
        (WINDOW + "start: 0 1 * * *, duration_sec: 60, min: 2, timezone: Mars/North}]", "timezone must be UTC or the"),
        (WINDOW + "start: 0 1 * * *, duration_sec: 60, mni: 2, max: 3}]", "windows[1].mni: did you mean min?"),
        (
            WINDOW + "name: a, start: 0 1 * * *, duration_sec: 60, min: 2}, "
            "{name: a, start: 0 3 * * *, duration_sec: 60, min: 2}]",
            "windows[2] has the name of another window, a",
        ),
    ],
)
def test_a_mistake_is_told_once_with_its_place(text: str, problem: str) -> None:
    (found,) = problems(trigger(text))
    assert found.startswith("f.yaml:1:")
    assert problem in found


def test_a_trigger_that_cannot_be_read_is_no_second_one() -> None:
    (found,) = problems(f"policy: adaptive\n{trigger('type: adaptive}, {standby: 1')}")
    assert "triggers[2] has no type" in found


@pytest.mark.parametrize("key", ["forecast", "expert", "standby", "wait_target_sec", "late_weight"])
@pytest.mark.parametrize("near", ["policy: adaptive", "triggers: [{type: demand}]", "max: 3"])
def test_what_belongs_to_the_adaptive_trigger_says_so_beside_it(key: str, near: str) -> None:
    (found,) = problems(f"pools: {{research: {{{key}: 1, {near}}}}}")
    home = f"it belongs in a trigger: triggers: [{{type: adaptive, {key}: ...}}]"
    assert found == f"f.yaml:1:20: unknown key pools.research.{key}: {home}"
    (found,) = problems(trigger(f"type: demand, {key}: 1"))
    assert found.endswith(home)


def test_what_several_types_of_trigger_have_is_of_no_single_one() -> None:
    (found,) = problems("pools: {research: {down_window_sec: 1}}")
    assert "it belongs in a trigger" not in found
    (found,) = problems(trigger("type: demand, scale_up_threshold: 1"))
    assert found.endswith("it belongs in autoscaling")


def test_policy_and_triggers_must_agree() -> None:
    (found,) = problems("pools: {research: {policy: demand, triggers: [{type: threshold}]}}")
    assert "pools.research has policy demand, and triggers without one of that type" in found
    assert pool("pools: {research: {policy: demand, triggers: [{type: demand}]}}").triggers == (DemandTrigger(),)


DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["triggers.md", "external.md"])
def test_the_examples_of_the_pages_are_configurations(page: str) -> None:
    found = blocks(page, "yaml")
    assert found
    for block in found:
        text = block.replace("gpu_queue", "demand")  # collectors are read elsewhere
        if isinstance(yaml.safe_load(text), list):
            listed = "\n".join(f"      {line}" for line in text.splitlines())
            text = f"pools:\n  research:\n    max: 20\n    triggers:\n{listed}"
        parse(text, page)


def test_the_programs_of_the_page_are_python() -> None:
    found = blocks("external.md", "python")
    assert len(found) == 3
    for block in found:
        compile(block, "external.md", "exec")
