"""The pools of a configuration: `pools:` and `port_ranges:` over the defaults.

Owns the six default pools and every key of a pool with its default and bounds. What pools must be true of together
(ports, names, bounds against each other) is `config.checks`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import yaml
from msgspec import Struct, field

from agentd.config.costs import budget, rates
from agentd.config.guards import read_guards
from agentd.config.nodes import Section, Value, line_in
from agentd.config.readers import choice, flag, number, scalar_text, seconds, size, text, whole
from agentd.config.triggers import policy, read_triggers
from agentd.core.model import (
    CONCURRENCY_MAX,
    DRAIN_TIMEOUT_S_DEFAULT,
    POOL_NAME,
    STOP_GRACE_S_DEFAULT,
    CoreAgent,
    HealthCheck,
    PoolConfig,
    PoolName,
    PortRange,
    Resources,
    RestartPolicy,
)
from agentd.core.rates import Budget, Rates
from agentd.core.rules import CollectorConfig, ThresholdTrigger

PORT_MIN, PORT_MAX = 1024, 65535
COOLDOWN_SEC_MAX = 30 * 86_400.0

POOL_KEYS = (
    "command",
    "env",
    "core",
    "min",
    "max",
    "ports",
    "concurrency",
    "priority",
    "health",
    "notify",
    "policy",
    "scale_up_threshold",
    "scale_down_threshold",
    "scale_up_cooldown_sec",
    "scale_down_cooldown_sec",
    "rate",
    "no_bounce",
    "diminishing_returns",
    "triggers",
    "collectors",
    "resources",
    "drain_timeout_sec",
    "drain_share_max",
    "stop_grace_sec",
    "start_timeout_sec",
    "restart",
    "cost",
    "budget",
)
RESOURCE_KEYS = ("memory_max", "memory_high", "cpu_weight", "cpu_quota", "tasks_max", "io_weight")
RESTART_KEYS = ("initial_sec", "max_sec", "factor", "jitter_ratio", "healthy_sec", "attempts_max")
HEALTH_KEYS = ("check", "path")

# What agentd tells every agent; a pool that set one of these would lie to its agents.
RESERVED_ENV = (
    "AGENTD_INSTANCE",
    "AGENTD_INCARNATION",
    "AGENTD_PORT",
    "AGENTD_ENDPOINT",
    "AGENTD_CONCURRENCY",
    "AGENTD_STATE_ID",
)

_CORE_NAME = re.compile(r"[a-z][a-z0-9_-]*\Z")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%\Z")


class DefaultPool(Struct, frozen=True):
    """A pool that exists without a word in the file."""

    core: CoreAgent
    ports: PortRange | None


DEFAULT_POOLS: Mapping[str, DefaultPool] = {
    "primary": DefaultPool(CoreAgent("primary", 9001), None),
    "research": DefaultPool(CoreAgent("researcher", 9002), PortRange(9101, 9150)),
    "execution": DefaultPool(CoreAgent("executor", 9003), PortRange(9201, 9250)),
    "analysis": DefaultPool(CoreAgent("analyst", 9004), PortRange(9301, 9350)),
    "planning": DefaultPool(CoreAgent("planner", 9005), PortRange(9401, 9450)),
    "testing": DefaultPool(CoreAgent("tester", 9006), PortRange(9501, 9550)),
}


class Shared(Struct, frozen=True):
    """What every pool starts from. `section` is where the file says so, for the places of problems."""

    section: Section
    policy: str
    trigger: ThresholdTrigger
    scale_up_cooldown_s: float
    scale_down_cooldown_s: float
    min: int
    max: int


class Draft(Struct, frozen=True):
    """A pool as read, with the places that checks point at.

    `at` is where the file names the pool, None for a default pool that it leaves alone; `ports_at` and `core_at`
    hold only what the file itself says.
    """

    pool: PoolConfig
    section: Section
    at: yaml.Node | None = None
    ports_at: yaml.Node | None = None
    core_at: Mapping[str, yaml.Node] = field(default_factory=dict)

    @property
    def capacity(self) -> int:
        return len(self.pool.core) + (len(self.pool.ports) if self.pool.ports else 0)


def read_pools(pools: Section | None, ranges: Section, shared: Shared) -> list[Draft]:
    """The pools of the fleet, in the order of the file. `pools` None: the file has no such section.

    With a `pools` section the fleet is what it and `port_ranges` name; without, the default pools and what
    `port_ranges` adds.
    """
    named = list(DEFAULT_POOLS) if pools is None else list(pools)
    names = list(dict.fromkeys([*named, *ranges]))
    return [
        _read_pool(name, pools if pools is not None and name in pools else None, ranges, shared)
        for name in names
        if _named_well(name, pools, ranges)
    ]


def ratio(value: Value) -> float:
    return number(0, 1)(value)


def cooldown(value: Value) -> float:
    return seconds(0, COOLDOWN_SEC_MAX)(value)


def port_range(value: Value) -> PortRange:
    what = f"two ports [first, last] from {PORT_MIN} to {PORT_MAX}"
    ends = value.items(what)
    if len(ends) != 2:
        raise value.bad(f"must be {what}, not a list of {len(ends)}")
    first, last = (whole(PORT_MIN, PORT_MAX)(end) for end in ends)
    if first > last:
        raise value.bad(f"must not end before it begins: {first} is greater than {last}")
    return PortRange(first, last)


def _named_well(name: str, pools: Section | None, ranges: Section) -> bool:
    section = pools if pools is not None and name in pools else ranges
    if name in section and not POOL_NAME.match(name):
        section.problems.error(
            section.key_node(name),
            f"pool name {name!r} must be 1 to 19 lower-case letters and digits, beginning with a letter",
        )
        return False
    return True


def _read_pool(name: str, pools: Section | None, ranges: Section, shared: Shared) -> Draft:
    default = DEFAULT_POOLS.get(name)
    section = Section(name, ranges.problems) if pools is None else pools.subsection(name, POOL_KEYS)
    core, core_at = _read_core(section, default)
    ports, ports_at = _read_ports(name, section, ranges, default)
    # Without ports of its own a pool is its core agents: the bounds for types do not apply.
    base = shared if ports else None
    health, health_path = section.read("health", (HealthCheck.HEARTBEAT, "/"), _health)
    named = section.read("policy", shared.policy, policy)
    own = ThresholdTrigger(
        section.read("scale_up_threshold", shared.trigger.scale_up_threshold, ratio),
        section.read("scale_down_threshold", shared.trigger.scale_down_threshold, ratio),
    )
    triggers = read_triggers(section, own, named)
    # The cooldowns for all pools are those of `threshold`; others have windows, and wait where the pool says so.
    quick = section if any(trigger.kind != own.kind for trigger in triggers) else Section(name, ranges.problems)
    pool = PoolConfig(
        name=PoolName(name),
        core=core,
        min=section.read("min", base.min if base else len(core), whole(0, PORT_MAX)),
        max=section.read("max", base.max if base else len(core), whole(0, PORT_MAX)),
        ports=ports,
        triggers=triggers,
        policy=", ".join(dict.fromkeys(trigger.kind for trigger in triggers)),
        collectors=_collectors(section),
        scale_up_cooldown_s=section.read("scale_up_cooldown_sec", shared.scale_up_cooldown_s, cooldown),
        scale_down_cooldown_s=section.read("scale_down_cooldown_sec", shared.scale_down_cooldown_s, cooldown),
        quick_up_cooldown_s=quick.read("scale_up_cooldown_sec", 0.0, cooldown),
        quick_down_cooldown_s=quick.read("scale_down_cooldown_sec", 0.0, cooldown),
        guards=read_guards(section),
        command=section.read("command", (), _command),
        env=section.read("env", (), _env),
        concurrency=section.read("concurrency", 1, whole(1, CONCURRENCY_MAX)),
        priority=section.read("priority", 0, whole(-1000, 1000)),
        health=health,
        health_path=health_path,
        notify=section.read("notify", False, flag),
        start_timeout_s=section.read("start_timeout_sec", 60.0, seconds(0.1, 86_400)),
        drain_timeout_s=section.read("drain_timeout_sec", DRAIN_TIMEOUT_S_DEFAULT, seconds(0, 86_400)),
        drain_share_max=section.read("drain_share_max", 0.5, ratio),
        stop_grace_s=section.read("stop_grace_sec", STOP_GRACE_S_DEFAULT, seconds(0, 3_600)),
        restart=section.read("restart", RestartPolicy(), _restart),
        resources=section.read("resources", Resources(), _resources),
        rates=section.read("cost", Rates(), rates),
        budget=section.read("budget", Budget(), budget),
    )
    at = pools.key_node(name) if pools is not None else ranges.key_node(name) if name in ranges else None
    return Draft(pool, section, at, ports_at, core_at)


def _read_core(section: Section, default: DefaultPool | None) -> tuple[tuple[CoreAgent, ...], dict[str, yaml.Node]]:
    places: dict[str, yaml.Node] = {}

    def core(value: Value) -> tuple[CoreAgent, ...]:
        if not value.is_mapping:
            raise value.must("a mapping of names to ports, {} for none")
        entries = value.section(None)
        agents = [_core_agent(entries, name) for name in entries]
        places.update((name, entries.key_node(name)) for name in entries)
        return tuple(agent for agent in agents if agent is not None)

    return section.read("core", (default.core,) if default else (), core), places


def _core_agent(entries: Section, name: str) -> CoreAgent | None:
    if not _CORE_NAME.match(name):
        entries.problems.error(
            entries.key_node(name),
            f"core agent name {name!r} must be lower-case letters, digits, _ and -, beginning with a letter",
        )
    port = entries.read(name, None, whole(PORT_MIN, PORT_MAX))
    return None if port is None else CoreAgent(name, port)


def _read_ports(
    name: str, section: Section, ranges: Section, default: DefaultPool | None
) -> tuple[PortRange | None, yaml.Node | None]:
    here, there = section.get("ports"), ranges.get(name)
    fallback = default.ports if default else None
    if here is not None and there is not None:
        at = section.key_node("ports")
        where = line_in(there.node, at)
        section.problems.error(at, f"{here.name} is given twice: also as {there.name} on {where}")
        there.attempt(fallback, port_range)  # for its own mistakes
    given = here if here is not None else there
    if given is None:
        return fallback, None
    return given.attempt(fallback, port_range), given.node


def _collectors(section: Section) -> tuple[CollectorConfig, ...]:
    if "collectors" not in section:  # most pools have none, and their kinds take a while to load
        return ()
    from agentd.config.collectors import read_collectors

    return read_collectors(section)


def _command(value: Value) -> tuple[str, ...]:
    if value.is_list:
        words = tuple(text(word) if index == 0 else scalar_text(word) for index, word in enumerate(value.items("")))
    elif value.is_mapping:
        raise value.must("a list of words or one line")
    else:
        try:
            words = tuple(shlex.split(text(value)))
        except ValueError as error:
            raise value.bad(f"cannot be split into words: {str(error).lower()}") from error
    if not words:
        raise value.bad("is empty: leave it out for the bundled agent")
    return words


def _env(value: Value) -> tuple[tuple[str, str], ...]:
    entries = value.section(None, "a mapping of names to values")
    for name in entries:
        if not _ENV_NAME.match(name):
            value.problems.error(entries.key_node(name), f"{name!r} cannot be the name of an environment variable")
        elif name in RESERVED_ENV:
            value.problems.error(entries.key_node(name), f"{name} cannot be set: agentd itself gives it to every agent")
    return tuple((name, entries.read(name, "", scalar_text)) for name in entries)


def _health(value: Value) -> tuple[HealthCheck, str]:
    kinds = tuple(HealthCheck)
    if not value.is_mapping:
        return HealthCheck(choice(kinds)(value)), "/"
    entry = value.section(HEALTH_KEYS)
    if "check" not in entry:
        raise value.bad(f"has no check: it must have one of {', '.join(kinds)}")
    check = HealthCheck(entry.read("check", kinds[0].value, choice(kinds)))
    path = entry.read("path", "/", text)
    place = entry.get("path")
    if place is not None and check is not HealthCheck.HTTP and entry.sound("check"):
        raise place.bad(f"is for check: http only, not {check}")
    if place is not None and not re.match(r"/[!-~]*\Z", path):
        raise place.must("a path that begins with / and has no spaces")
    return check, path


def _restart(value: Value) -> RestartPolicy:
    entry, base = value.section(RESTART_KEYS), RestartPolicy()
    found = RestartPolicy(
        initial_s=entry.read("initial_sec", base.initial_s, seconds(0.01, 86_400)),
        max_s=entry.read("max_sec", base.max_s, seconds(0.01, 86_400)),
        factor=entry.read("factor", base.factor, number(1, 100)),
        jitter_ratio=entry.read("jitter_ratio", base.jitter_ratio, ratio),
        healthy_s=entry.read("healthy_sec", base.healthy_s, seconds(0, 86_400)),
        attempts_max=entry.read("attempts_max", base.attempts_max, whole(1, 1_000_000)),
    )
    place = entry.get("initial_sec") or entry.get("max_sec")
    if place is not None and entry.sound("initial_sec", "max_sec") and found.initial_s > found.max_s:
        raise place.bad(f"does not fit: initial_sec {found.initial_s:g} is greater than max_sec {found.max_s:g}")
    return found


def _resources(value: Value) -> Resources:
    entry = value.section(RESOURCE_KEYS)

    def quota(given: Value) -> float:
        found = _PERCENT.match(given.node.value) if isinstance(given.node, yaml.ScalarNode) else None
        percent = float(found[1]) if found else 0.0
        if not 1 <= percent <= 1_000_000:
            raise given.must("a percentage of one core like 150%, at least 1%")
        return percent / 100.0

    found = Resources(
        memory_max_bytes=entry.read("memory_max", None, _memory),
        memory_high_bytes=entry.read("memory_high", None, _memory),
        cpu_weight=entry.read("cpu_weight", None, whole(1, 10_000)),
        cpu_quota_ratio=entry.read("cpu_quota", None, quota),
        tasks_max=entry.read("tasks_max", None, whole(1, 4_194_304)),
        io_weight=entry.read("io_weight", None, whole(1, 10_000)),
    )
    high, most = found.memory_high_bytes, found.memory_max_bytes
    place = entry.get("memory_high")
    if place is not None and high is not None and most is not None and high > most:
        raise place.must(f"at most memory_max ({most} bytes)")
    return found


def _memory(value: Value) -> int:
    found = size(value)
    if found < 1 << 20:
        raise value.must("at least 1M")
    return found
