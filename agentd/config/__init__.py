"""The configuration: YAML text in, frozen values out, or every problem at once with file, line and column.

`load` reads a file and its drop-ins (`layers`), `parse` a text, `default` is what holds without either. `plain`,
`scaled` and `describe_changes` are for the demo and a reload. Every key's default and bounds are next to its reader:
`pools` (a pool), `settings` (host, addresses, history), this module (the sections and the rules that all pools share).

A file may be shared with other programs: top-level sections that are not ours are left alone, with one warning,
unless they look like a misspelt one of ours. Inside our sections every unknown key is an error.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import yaml
from msgspec.structs import replace

from agentd.config import layers
from agentd.config.changes import describe_changes, scaled
from agentd.config.checks import check_pools, check_shared, warn_about_http_port, warn_about_limits
from agentd.config.costs import COSTS_KEYS, budget, currency, warn_about_budgets
from agentd.config.model import DRIVERS, Config, History, Listen, WatchSpec
from agentd.config.nodes import Problems, Section, Value, compose, entries, is_later, line_in, nearest, shown_word
from agentd.config.pools import POOL_KEYS, Shared, cooldown, ratio, read_pools
from agentd.config.programs import warn_about_programs
from agentd.config.readers import choice, flag, number, optional, seconds, whole
from agentd.config.settings import (
    HOST_KEYS,
    http_port,
    read_history,
    read_listen,
    read_operators,
    read_reserve,
    read_watch,
    state_dir,
)
from agentd.config.triggers import HOMES, policy
from agentd.core.model import FleetConfig
from agentd.core.rates import Budget
from agentd.core.rules import ThresholdTrigger
from agentd.errors import ConfigError, Problem

__all__ = [
    "Config",
    "ConfigError",
    "History",
    "Listen",
    "WatchSpec",
    "default",
    "describe_changes",
    "load",
    "parse",
    "plain",
    "scaled",
    "written",
]

TOP_KEYS = (
    "multi_agent",
    "autoscaling",
    "port_ranges",
    "pools",
    "host",
    "watch",
    "driver",
    "listen",
    "state_dir",
    "history",
    "operators",
    "costs",
)
MULTI_AGENT_KEYS = ("enabled", "autoscaling", "port_ranges")
# The rules of `autoscaling`; without the section around them they may stand at the top level as well.
RULE_KEYS = (
    "policy",
    "check_interval_sec",
    "scale_up_threshold",
    "scale_down_threshold",
    "scale_up_cooldown_sec",
    "scale_down_cooldown_sec",
    "min_agents_per_type",
    "max_agents_per_type",
    "unhealthy_threshold",
    "heartbeat_timeout_sec",
)
AUTOSCALING_KEYS = ("enabled", *RULE_KEYS, "port_ranges")

FILE_BYTES_MAX = 1 << 20
COUNT_MAX = 65_535
# Above this likeness a foreign top-level key is taken for a misspelling: `autoscalling` is, `logging` is not.
MISSPELT_RATIO = 0.8

_HOMES = (
    HOMES
    | dict.fromkeys(POOL_KEYS, "in pools.<name>")
    | dict.fromkeys(RULE_KEYS, "in autoscaling")
    | dict.fromkeys(TOP_KEYS, "at the top level")
)


def load(path: Path, pending: Mapping[Path, str] | None = None) -> Config:
    """The configuration in the file `path` and its drop-ins; it also warns of commands whose program is not there.

    `pending`: drop-ins as they would be, by path, in place of what is in those files now.

    Raises:
        ConfigError: one of the files cannot be read, or together they cannot be used; carries every problem.
    """
    texts = dict(pending or {})
    files = (path, *sorted({*layers.dropins(path), *texts}))
    nodes: list[yaml.Node | None] = []
    mistakes: list[ConfigError] = []
    for file in files:
        try:
            nodes.append(compose(texts[file] if file in texts else _read(file), str(file)))
        except ConfigError as error:
            mistakes.append(error)
    if len(mistakes) == 1:
        raise mistakes[0]  # with its cause: what may not be read is no mistake in the file
    if mistakes:
        raise ConfigError([problem for one in mistakes for problem in one.problems])
    found = _parse(nodes, str(path), os.environ.get("PATH", os.defpath))
    return replace(found, source=path.absolute(), dropins=tuple(file.absolute() for file in files[1:]))


def parse(text: str, name: str) -> Config:
    """The configuration in `text`; `name` stands for the file in problems and warnings.

    Raises:
        ConfigError: it cannot be used; carries every problem.
    """
    return _parse([compose(text, name)], name, None)


def _parse(nodes: Sequence[yaml.Node | None], name: str, path: str | None) -> Config:
    """`nodes`: the roots of a file and of its drop-ins. `path` is where to look for programs; None: nowhere."""
    problems = Problems(name, _HOMES)
    node = nodes[0] or yaml.MappingNode("tag:yaml.org,2002:map", [], _START, _START)
    for over in nodes[1:]:
        node = node if over is None else layers.merged(node, over, problems)
    whole = Value("", node, problems)
    config = whole.attempt(None, partial(_read_config, path))
    if problems.count:  # of what is given twice the first was read; what is wrong in the other one is told as well
        whole.attempt(None, partial(_read_config, path, last=True))
    problems.raise_errors()
    assert config is not None, "a configuration without problems was not read"
    return replace(config, warnings=problems.warnings())


def written(path: Path, *place: str, without: Path | None = None) -> tuple[str, ...]:
    """The keys that the file `path` and its drop-ins have in the mapping at `place`; `without`: a drop-in left out.

    Raises:
        ConfigError: one of the files cannot be read.
    """
    problems = Problems(str(path), _HOMES)
    node = _together(path, problems, without)
    for key in place:
        found = entries(node, problems).get(key)
        if found is None:
            return ()
        node = found[1]
    return tuple(entries(node, problems))


def plain(path: Path) -> dict[str, object]:
    """What the file `path` and its drop-ins say together, where that is agentd's: mappings, lists and scalars.

    Raises:
        ConfigError: one of the files cannot be read.
    """
    problems = Problems(str(path), _HOMES)
    ours = (*TOP_KEYS, *RULE_KEYS)
    found = {key: one for key, one in entries(_together(path, problems), problems).items() if key in ours}
    node = yaml.MappingNode("tag:yaml.org,2002:map", list(found.values()), _START, _START)
    return dict(yaml.constructor.SafeConstructor().construct_document(node))


def _together(path: Path, problems: Problems, without: Path | None = None) -> yaml.Node:
    node: yaml.Node = yaml.MappingNode("tag:yaml.org,2002:map", [], _START, _START)
    for file in (path, *layers.dropins(path)):
        if file != without and (over := compose(_read(file), str(file))) is not None:
            node = layers.merged(node, over, problems)
    return node


def default() -> Config:
    """What holds without a file."""
    return parse("", "the defaults")


_START = yaml.Mark("", 0, 0, 0, None, 0)


def _read(path: Path) -> str:
    def problem(text: str, line: int = 1, column: int = 1) -> ConfigError:
        return ConfigError([Problem(str(path), line, column, text)])

    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except PermissionError as error:
        raise problem(f"cannot read the file: permission denied{_whose(path)}") from error
    except OSError as error:
        raise problem(f"cannot read the file: {(error.strerror or str(error)).lower()}") from error
    if len(content) > FILE_BYTES_MAX:
        raise problem(f"cannot read the file: it is larger than {FILE_BYTES_MAX} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
        cause = f"cannot read the file: byte 0x{content[error.start]:02x} is not UTF-8"
        raise problem(cause, before.count(b"\n") + 1, column) from error


def _whose(path: Path) -> str:
    """Who may read a file that this user may not; nothing where that cannot be seen either."""
    try:
        group = f" and the group {path.group()}" if path.stat().st_mode & stat.S_IRGRP else ""
        return f"; it is for {path.owner()}{group}"
    except (OSError, KeyError):
        return ""


def _read_config(path: str | None, value: Value, *, last: bool = False) -> Config:
    """`last`: of sections and keys that are given twice the other one is read."""
    if not value.is_mapping and not value.is_null:
        raise Value("the configuration", value.node, value.problems).must("a mapping of sections")
    root = value.section(None)
    _refuse_misspelt(root)
    host = root.subsection("host", HOST_KEYS)
    costs = root.subsection("costs", COSTS_KEYS)
    multi_agent = root.subsection("multi_agent", MULTI_AGENT_KEYS)
    autoscaling = _only("autoscaling", [root, multi_agent], last).subsection("autoscaling", AUTOSCALING_KEYS)
    ranges = _only("port_ranges", [root, multi_agent, autoscaling], last).subsection("port_ranges", None)
    rules = _rules(root, autoscaling, last)
    shared = _read_shared(rules)
    check_shared(shared, value.node)
    pools = root.get("pools")
    drafts = read_pools(None if pools is None or pools.is_null else root.subsection("pools", None), ranges, shared)
    if pools is not None and pools.is_mapping and not pools.node.value and not ranges:
        root.problems.error(pools.node, "pools must name at least one pool")
    check_pools(drafts, shared, root.problems, value.node)
    fleet = FleetConfig(
        pools={draft.pool.name: draft.pool for draft in drafts},
        enabled=multi_agent.read("enabled", False, flag),
        autoscaling_enabled=autoscaling.read("enabled", False, flag),
        check_interval_s=rules.read("check_interval_sec", 60.0, seconds(0.1, 86_400)),
        unhealthy_threshold=rules.read("unhealthy_threshold", 3, _count(1, 1000, math.ceil)),
        heartbeat_timeout_s=rules.read("heartbeat_timeout_sec", 120.0, seconds(0.1, 86_400)),
        scale_up_threshold=shared.trigger.scale_up_threshold,
        scale_down_threshold=shared.trigger.scale_down_threshold,
        min_agents_per_type=shared.min,
        max_agents_per_type=shared.max,
        reserve=read_reserve(host),
        starting_max=host.read("starting_max", 16, whole(1, 10_000)),
        currency=costs.read("currency", "", currency),
        budget=costs.read("budget", Budget(), budget),
    )
    if fleet.autoscaling_enabled and not fleet.enabled:
        place = autoscaling.place("enabled") or value.node
        root.problems.warn(place, "autoscaling.enabled does nothing while multi_agent.enabled is false")
    driver = root.read("driver", "auto", choice(DRIVERS))
    warn_about_limits(drafts, driver, root.problems)
    warn_about_budgets(drafts, costs)
    if path is not None:
        warn_about_programs(drafts, path, root.problems)
    listen = read_listen(root)
    warn_about_http_port(drafts, http_port(listen), root.problems)
    return Config(
        fleet=fleet,
        driver=driver,
        listen=listen,
        state_dir=root.read("state_dir", None, optional(state_dir)),
        watch=read_watch(root),
        history=read_history(root),
        operators=read_operators(root),
    )


def _read_shared(rules: Section) -> Shared:
    return Shared(
        section=rules,
        policy=rules.read("policy", "threshold", policy),
        trigger=ThresholdTrigger(
            rules.read("scale_up_threshold", 0.75, ratio),
            rules.read("scale_down_threshold", 0.25, ratio),
        ),
        scale_up_cooldown_s=rules.read("scale_up_cooldown_sec", 300.0, cooldown),
        scale_down_cooldown_s=rules.read("scale_down_cooldown_sec", 600.0, cooldown),
        # Counts are whole, so a fraction means the nearest count that satisfies it.
        min=rules.read("min_agents_per_type", 1, _count(0, COUNT_MAX, math.ceil)),
        max=rules.read("max_agents_per_type", 5, _count(0, COUNT_MAX, math.floor)),
    )


def _count(low: int, high: int, round_to: Callable[[float], int]) -> Callable[[Value], int]:
    """A count in [low, high], a fraction of which is rounded to the whole count of the same effect."""
    reader = number(low, high)
    return lambda value: round_to(reader(value))


def _only(key: str, sections: list[Section], last: bool) -> Section:
    """The one of `sections` that has `key`, the first or the last of several; the first where none has."""
    having = [section for section in sections if key in section]
    for section in having[1:]:
        _twice(section, having[0], key)
    return having[-1 if last else 0] if having else sections[0]


def _rules(root: Section, autoscaling: Section, last: bool) -> Section:
    """The rules of `autoscaling` with those that stand at the top level alone; `last`: the other way round."""
    rules = Section(autoscaling.name, root.problems)
    for key in RULE_KEYS:
        if key in autoscaling and key in root:
            _twice(autoscaling, root, key)
        if key in autoscaling or key in root:
            first, second = (root, autoscaling) if last else (autoscaling, root)
            rules.adopt(first if key in first else second, key)
    return rules


def _twice(one: Section, other: Section, key: str) -> None:
    """At the later of two places, names both."""
    if is_later(other.key_node(key), one.key_node(key)):
        one, other = other, one
    at = one.key_node(key)
    where = line_in(other.key_node(key), at)
    one.problems.error(at, f"{_name(one, key)} is given twice: also as {_name(other, key)} on {where}")


def _name(section: Section, key: str) -> str:
    return f"{section.name}.{key}" if section.name else key


def _refuse_misspelt(root: Section) -> None:
    foreign: list[str] = []
    for key in root:
        if key in TOP_KEYS or key in RULE_KEYS:
            continue
        near = nearest(key, (*TOP_KEYS, *RULE_KEYS), MISSPELT_RATIO)
        if near:
            root.problems.error(root.key_node(key), f"unknown section {shown_word(key)}: did you mean {near}?")
        elif key == "enabled":
            root.problems.error(root.key_node(key), "unknown section enabled: it belongs in multi_agent or autoscaling")
        else:
            foreign.append(key)
    if foreign:
        root.problems.warn(root.key_node(foreign[0]), f"ignored, not agentd's: {', '.join(map(shown_word, foreign))}")
