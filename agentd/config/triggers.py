"""The triggers of a pool: `policy`, which names one with its defaults, and `triggers`, each with its parameters.

Owns every parameter with its default and bounds. Another type is a row in KINDS, and in POLICIES where it needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

import yaml
from msgspec import Struct

from agentd.config.nodes import Section, Value
from agentd.config.readers import choice, number, seconds, text, whole
from agentd.core import cron
from agentd.core.cron import Cron, Window
from agentd.core.experts import NAMES
from agentd.core.rules import (
    AUTO,
    FORECASTS,
    SIGNALS,
    SOURCE_NAME,
    AdaptiveTrigger,
    DemandTrigger,
    ExternalTrigger,
    LatencyTrigger,
    ScheduleTrigger,
    TargetTrigger,
    ThresholdTrigger,
    Trigger,
)

COUNT_MAX = 65_535
WINDOW_SEC_MAX = 86_400.0
DURATION_SEC_MAX = 366 * 86_400.0
TARGET_MIN, TARGET_MAX = 1e-6, 1e9
NAME_CHARS_MAX = 40
THRESHOLDS = ("scale_up_threshold", "scale_down_threshold")
WINDOW_KEYS = ("name", "start", "end", "duration_sec", "timezone", "min", "max")

_ratio = number(0, 1)
_window = seconds(0, WINDOW_SEC_MAX)
_tolerance = number(0, 0.9)


def _target(entry: Section, _own: ThresholdTrigger) -> Trigger:
    base = TargetTrigger()
    signal = entry.read("signal", base.signal, text)
    load = signal == "load"
    if not load and "target" not in entry:
        entry.problems.error(entry.key_node("signal"), f"{entry.name} has no target: signal {signal} needs one")
    return TargetTrigger(
        signal=signal,
        target=entry.read("target", base.target, number(0.01, 1) if load else number(TARGET_MIN, TARGET_MAX)),
        tolerance_ratio=entry.read("tolerance_ratio", base.tolerance_ratio, _tolerance),
        up_window_s=entry.read("up_window_sec", base.up_window_s, _window),
        down_window_s=entry.read("down_window_sec", base.down_window_s, _window),
    )


def _demand(entry: Section, _own: ThresholdTrigger) -> Trigger:
    base = DemandTrigger()
    return DemandTrigger(
        target_ratio=entry.read("target_ratio", base.target_ratio, number(0.01, 1)),
        down_window_s=entry.read("down_window_sec", base.down_window_s, _window),
    )


def _latency(entry: Section, _own: ThresholdTrigger) -> Trigger:
    base = LatencyTrigger(1.0)
    if "target_sec" not in entry:
        entry.problems.error(entry.key_node("type"), f"{entry.name} has no target_sec: latency needs one")
    return LatencyTrigger(
        target_s=entry.read("target_sec", base.target_s, seconds(0.001, 86_400)),
        quantile=entry.read("quantile", base.quantile, choice(("p50", "p95"))),
        tolerance_ratio=entry.read("tolerance_ratio", base.tolerance_ratio, _tolerance),
        down_window_s=entry.read("down_window_sec", base.down_window_s, _window),
    )


def _adaptive(entry: Section, _own: ThresholdTrigger) -> Trigger:
    base = AdaptiveTrigger()
    return AdaptiveTrigger(
        wait_target_s=entry.read("wait_target_sec", base.wait_target_s, seconds(0.001, 86_400)),
        late_weight=entry.read("late_weight", base.late_weight, number(0.1, 1_000)),
        standby=entry.read("standby", base.standby, whole(0, COUNT_MAX)),
        expert=entry.read("expert", base.expert, choice((AUTO, *NAMES))),
        forecast=entry.read("forecast", base.forecast, choice(FORECASTS)),
    )


def _threshold(entry: Section, own: ThresholdTrigger) -> Trigger:
    up, down = THRESHOLDS
    found = ThresholdTrigger(
        entry.read(up, own.scale_up_threshold, _ratio), entry.read(down, own.scale_down_threshold, _ratio)
    )
    if entry.sound(up, down) and found.scale_down_threshold >= found.scale_up_threshold:
        entry.problems.error(
            entry.place(down, up) or entry.key_node("type"),
            f"{entry.name} has scale_down_threshold {found.scale_down_threshold:g}, "
            f"which must be less than scale_up_threshold {found.scale_up_threshold:g}",
        )
    return found


def _external(entry: Section, _own: ThresholdTrigger) -> Trigger:
    return ExternalTrigger(entry.read("sources", (), _sources))


def _schedule(entry: Section, _own: ThresholdTrigger) -> Trigger:
    if "windows" not in entry:
        entry.problems.error(entry.key_node("type"), f"{entry.name} has no windows: a schedule needs at least one")
    return ScheduleTrigger(entry.read("windows", (), _windows))


class Kind(Struct, frozen=True):
    """A type of trigger: its parameters, and what reads them. `own`: the pool's thresholds, of `threshold` alone."""

    keys: tuple[str, ...]
    read: Callable[[Section, ThresholdTrigger], Trigger]


KINDS = {
    "threshold": Kind(THRESHOLDS, _threshold),
    "target": Kind(("signal", "target", "tolerance_ratio", "up_window_sec", "down_window_sec"), _target),
    "demand": Kind(("target_ratio", "down_window_sec"), _demand),
    "latency": Kind(("target_sec", "quantile", "tolerance_ratio", "down_window_sec"), _latency),
    "schedule": Kind(("windows",), _schedule),
    "external": Kind(("sources",), _external),
    "adaptive": Kind(("wait_target_sec", "late_weight", "standby", "expert", "forecast"), _adaptive),
}
# Where a parameter belongs that one type alone has, for whoever writes it beside the triggers.
HOMES = {
    key: f"in a trigger: triggers: [{{type: {name}, {key}: ...}}]"
    for name, kind in KINDS.items()
    for key in kind.keys
    if sum(key in other.keys for other in KINDS.values()) == 1
}
# What `policy` may name: the one trigger, with its defaults.
POLICIES: dict[str, Trigger] = {
    "threshold": ThresholdTrigger(),
    "target": TargetTrigger(),
    "demand": DemandTrigger(),
    "adaptive": AdaptiveTrigger(),
}


def policy(value: Value) -> str:
    found = value.node.value if isinstance(value.node, yaml.ScalarNode) else ""
    if found in KINDS and found not in POLICIES:
        raise value.bad(f"cannot be {found} alone, which needs parameters: write triggers: [{{type: {found}, ...}}]")
    return choice(tuple(POLICIES))(value)


def read_triggers(section: Section, own: ThresholdTrigger, named: str) -> tuple[Trigger, ...]:
    """The triggers of a pool: what it lists, else the policy `named`. `own`: its thresholds, or everybody's."""
    doubled = next((key for key in THRESHOLDS if key in section and "triggers" in section), None)
    if doubled:
        section.problems.error(
            section.key_node(doubled), f"{section.name} has both {doubled} and triggers: write it inside the trigger"
        )

    def trigger(value: Value) -> Trigger:
        entry = value.section(None, "a mapping with a type")
        if "type" not in entry:
            raise value.bad(f"has no type: it must have one of {', '.join(KINDS)}")
        kind = entry.read("type", "", choice(tuple(KINDS)))
        if not kind:
            return own
        entry.refuse_unknown(("type", *KINDS[kind].keys))
        return KINDS[kind].read(entry, own)

    def triggers(value: Value) -> tuple[Trigger, ...]:
        entries = value.items("a list of triggers")
        if not entries:
            raise value.must("a list of at least one trigger")
        read = tuple(entry.attempt(fallback, trigger) for entry in entries)
        _refuse_twins(entries, read)
        return read

    fallback: Trigger = own if named == ThresholdTrigger.kind else POLICIES[named]
    default: tuple[Trigger, ...] = (fallback,)
    found = section.read("triggers", default, triggers)
    if "policy" in section and section.sound("policy", "triggers") and all(one.kind != named for one in found):
        text = f"{section.name} has policy {named}, and triggers without one of that type: leave the policy out"
        section.problems.error(section.key_node("policy"), text)
    return found


def _refuse_twins(entries: tuple[Value, ...], triggers: tuple[Trigger, ...]) -> None:
    """What `adaptive` learns is the pool's: a second one would learn into the same, with another price."""
    learning = [
        entry
        for entry, trigger in zip(entries, triggers, strict=True)
        if isinstance(trigger, AdaptiveTrigger) and not entry.problems.failed(entry.node)
    ]
    for entry in learning[1:]:
        text = f"{entry.name} is the second of type adaptive: a pool has one, which learns for it; the first is"
        entry.problems.error(entry.node, f"{text} {learning[0].name}")


def check_triggers(section: Section, triggers: tuple[Trigger, ...], collectors: tuple[str, ...]) -> None:
    """Each trigger names a signal that there is."""
    listed = section.get("triggers")
    if listed is None or not listed.is_list or section.problems.failed(listed.node):
        return
    for value, trigger in zip(listed.items(""), triggers, strict=True):
        if isinstance(trigger, TargetTrigger) and trigger.signal not in (*SIGNALS, *collectors):
            signal = value.section(None).get("signal")
            assert signal is not None, f"broken invariant: {trigger.signal} is no default"
            signal.attempt("", choice((*SIGNALS, *collectors)))


def _sources(value: Value) -> tuple[str, ...]:
    what = "a list of names: 1 to 32 lower-case letters, digits and -, beginning with a letter"
    found = []
    for item in value.items(what):
        name = item.node.value if isinstance(item.node, yaml.ScalarNode) else ""
        if not SOURCE_NAME.match(name):
            raise item.must("1 to 32 lower-case letters, digits and -, beginning with a letter")
        found.append(name)
    if not found:
        raise value.bad("names nobody: leave it out where every program may ask")
    return tuple(found)


# -- windows --------------------------------------------------------------------------------------


def _windows(value: Value) -> tuple[Window, ...]:
    entries = value.items("a list of windows")
    if not entries:
        raise value.must("a list of at least one window")
    found = [window for entry in entries if (window := entry.attempt(None, _one_window)) is not None]
    seen: set[str] = set()
    for entry, window in zip(entries, found, strict=False):
        if window.name in seen:
            raise entry.bad(f"has the name of another window, {window.name}: give each its own")
        seen.add(window.name)
    return tuple(found)


def _one_window(value: Value) -> Window | None:
    entry = value.section(WINDOW_KEYS, "a mapping with start, and end or duration_sec")
    if "start" not in entry:
        raise value.bad("has no start: the times at which it begins, for example 0 8 * * mon-fri")
    if ("end" in entry) == ("duration_sec" in entry):
        both = "has both end and duration_sec" if "end" in entry else "has neither end nor duration_sec"
        raise value.bad(f"{both}: it needs one of them")
    if "min" not in entry and "max" not in entry:
        raise value.bad("has neither min nor max: it would change nothing")
    start, end = entry.read("start", None, cron_times), entry.read("end", None, cron_times)
    least, most = entry.read("min", None, whole(0, COUNT_MAX)), entry.read("max", None, whole(0, COUNT_MAX))
    if least is not None and most is not None and least > most:
        raise value.bad(f"has min {least}, which is greater than its max {most}")
    if start is None:
        return None
    utc: tzinfo = UTC
    return Window(
        name=entry.read("name", value.name.rpartition(".")[2].replace("[", " ").rstrip("]"), _name),
        start=start,
        end=end,
        duration_s=entry.read("duration_sec", None, seconds(60, DURATION_SEC_MAX)),
        zone=entry.read("timezone", utc, zone),
        min=least,
        max=most,
    )


def cron_times(value: Value) -> Cron | None:
    """Recurring times in the five fields of cron."""
    try:
        return cron.parse(text(value))
    except ValueError as error:
        raise value.bad(str(error)) from error


def zone(value: Value) -> tzinfo:
    """A place whose clock counts, by its IANA name."""
    name = text(value)
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise value.must("UTC or the name of a place like Europe/Berlin that this host knows") from error


def _name(value: Value) -> str:
    found = text(value)
    if len(found) > NAME_CHARS_MAX or not found.isprintable():
        raise value.must(f"at most {NAME_CHARS_MAX} printable characters")
    return found
