"""The collectors of a pool: `pools.<name>.collectors`.

Owns the keys that every collector has, with defaults and bounds. What stands beside them is the kind's own: it says
which settings it knows and what each may be, and here that becomes problems with their place.
"""

from __future__ import annotations

import re
from functools import partial

from agentd.collecting.kinds import KINDS, missing
from agentd.collecting.reading import Kind
from agentd.collecting.settings import Form, Given, Setting, Settings
from agentd.config.nodes import Section, Value
from agentd.config.readers import choice, scalar_text, seconds, text
from agentd.core.rules import SIGNALS, CollectorConfig

COLLECTOR_KEYS = ("type", "every_sec", "timeout_sec")
EVERY_SEC_DEFAULT, TIMEOUT_SEC_DEFAULT = 10.0, 5.0
EVERY_SEC_MIN, EVERY_SEC_MAX = 0.5, 86_400.0
TIMEOUT_SEC_MIN = 0.05
COLLECTORS_MAX = 32

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")


def read_collectors(pool: Section) -> tuple[CollectorConfig, ...]:
    """The collectors of `pool`, in the order of the file. Those with problems are left out."""

    def collectors(value: Value) -> tuple[CollectorConfig, ...]:
        entries = value.section(None, "a mapping of names to collectors")
        if len(entries) > COLLECTORS_MAX:
            raise value.bad(f"has {len(entries)} collectors: a pool may have {COLLECTORS_MAX}")
        found = [_collector(entries, name) for name in entries]
        return tuple(collector for collector in found if collector is not None)

    return pool.read("collectors", (), collectors)


def _collector(entries: Section, name: str) -> CollectorConfig | None:
    if not _NAME.match(name):
        entries.problems.error(
            entries.key_node(name),
            f"collector name {name!r} must be 1 to 32 lower-case letters, digits, _ and -, beginning with a letter",
        )
    if name in SIGNALS:
        entries.problems.error(
            entries.key_node(name),
            f"collector name {name!r} is taken: it is what agents report, which a trigger of type target may look at",
        )

    def collector(value: Value) -> CollectorConfig:
        bare = value.section(None, "a mapping with a type")
        if "type" not in bare:
            raise value.bad(f"has no type: it must have one of {', '.join(KINDS)}")
        kind = bare.read("type", None, _kind)
        if kind is None:  # what else there may be is not known without it
            return CollectorConfig(name, "")
        entry = value.section((*COLLECTOR_KEYS, *(setting.name for setting in kind.settings)))
        every_s = entry.read("every_sec", EVERY_SEC_DEFAULT, seconds(EVERY_SEC_MIN, EVERY_SEC_MAX))
        timeout_s = entry.read("timeout_sec", min(TIMEOUT_SEC_DEFAULT, every_s), seconds(TIMEOUT_SEC_MIN, 3_600))
        place = entry.get("timeout_sec") or entry.get("every_sec")
        if place is not None and entry.sound("every_sec", "timeout_sec") and timeout_s > every_s:
            raise place.bad(f"does not fit: timeout_sec {timeout_s:g} is greater than every_sec {every_s:g}")
        return CollectorConfig(name, kind.name, every_s, timeout_s, _settings(value, entry, kind))

    return entries.read(name, None, collector)


def _kind(value: Value) -> Kind:
    kind = KINDS[choice(tuple(KINDS))(value)]
    if lack := missing(kind):
        raise value.bad(f"{kind.name} {lack}")
    return kind


def _settings(value: Value, entry: Section, kind: Kind) -> Settings:
    lacking = [setting.name for setting in kind.settings if setting.required and setting.name not in entry]
    if lacking:
        raise value.bad(f"has no {' and no '.join(lacking)}: type {kind.name} needs {'them' if lacking[1:] else 'it'}")
    found: list[tuple[str, str | float]] = []
    for setting in kind.settings:
        found += entry.read(setting.name, (), partial(_setting, setting))
    if entry.sound(*(setting.name for setting in kind.settings)) and (clash := kind.clash(Given(tuple(found)))):
        name, problem = clash
        place = entry.get(name)
        raise (place or value).bad(problem)
    return tuple(found)


def _setting(setting: Setting, value: Value) -> Settings:
    match setting.form:
        case Form.TEXT:
            return ((setting.name, _text(value, setting)),)
        case Form.WORDS:
            words = value.items("a list of words")
            if not words:
                raise value.must("a list of at least one word")
            first, *others = words
            return tuple((setting.name, word) for word in (_text(first, setting), *map(scalar_text, others)))
        case Form.TABLE:
            entries = value.section(None, "a mapping of names to texts")
            for name in entries:
                if wrong := setting.key_wrong(name):
                    value.problems.error(entries.key_node(name), f"{value.name}.{name} {wrong}")
            return tuple(
                (f"{setting.name}.{name}", entries.read(name, "", lambda given: _text(given, setting)))
                for name in entries
            )


def _text(value: Value, setting: Setting) -> str:
    found = scalar_text(value) if setting.empty else text(value)
    if wrong := setting.wrong(found):
        raise value.bad(wrong)
    return found
