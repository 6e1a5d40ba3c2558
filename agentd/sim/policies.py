"""Policies by name: the configuration of the simulated pool, and who asks for its counts from outside, if anybody.

agentd's own policies are a pool's configuration and nothing else, read by agentd's own configuration readers. All
others act through the same controller as external programs do: the pool's one trigger is `external`, and agentd's own
guards stand open, so that what they ask for is what they get.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

from agentd.config import RULE_KEYS, parse
from agentd.config.pools import POOL_KEYS, PORT_MIN
from agentd.config.settings import HOST_KEYS
from agentd.config.triggers import KINDS
from agentd.core.model import FleetConfig, PoolName
from agentd.core.rates import Rates
from agentd.core.rules import QUEUE, CollectorConfig
from agentd.errors import ConfigError
from agentd.sim import clairvoyant
from agentd.sim.opening import opening
from agentd.sim.options import TASKS, Options
from agentd.sim.peers import policies as peers
from agentd.sim.steering import Asked, Plan
from agentd.sim.world import TRACE_WALL, Steered
from agentd.traces import Arrival

POOL = PoolName("sim")
# agentd's own: the types of trigger that need nobody outside of the pool.
OWN = tuple(kind for kind in KINDS if kind not in ("external", "schedule"))
CLAIRVOYANT = "clairvoyant"
_NOBODY = (Arrival(0.0, 0.0),)
# What a setting cannot change here: the world has no processes, and an option of its own says the rest.
_NOT_HERE = {
    **dict.fromkeys(("command", "env", "health", "notify", "restart", "resources", "collectors"), "no process runs"),
    **dict.fromkeys(("core", "ports"), "the simulated pool has its own"),
    "policy": "--policy says which",
    "triggers": "--policy says which",
    "enabled": "it is on",
    "port_ranges": "the simulated pool has its own",
}
# Ports beyond the most agents: those that drain keep theirs.
_PORTS_PER_AGENT = 4
_STARTING_MAX = 10_000


class PolicyError(Exception):
    """A policy or a setting that cannot be simulated; the text says what is wrong."""


def known() -> tuple[str, ...]:
    """The names of the policies; `static:N` stands for all of its kind."""
    return (*OWN, *peers.NAMES, "static:N", CLAIRVOYANT)


def make(
    name: str, options: Options, arrivals: Sequence[Arrival], *, late_share_max: float = clairvoyant.LATE_SHARE_MAX
) -> tuple[FleetConfig, Steered | None]:
    """The configuration for the policy `name`, and whoever steers from outside.

    `late_share_max` is what a clairvoyant plan may be late for.

    Raises:
        PolicyError: there is no such policy, or a setting is wrong.
    """
    if name in OWN:
        return _fleet(options, name), None
    if name == CLAIRVOYANT:
        fleet = _opened(_fleet(options, "external"))
        pool = fleet.pools[POOL]
        start = initial(fleet, options, arrivals)
        return fleet, Plan(name, clairvoyant.plan(arrivals, options, start, pool.min, late_share_max))
    try:
        peer = peers.make(name)
    except ValueError:
        raise PolicyError(f"no policy {name!r}; there are {', '.join(known())}") from None
    return _opened(_fleet(options, "external")), Asked(name.partition(":")[0], peer)


def check(names: Sequence[str], options: Options) -> FleetConfig:
    """The configuration of the last of `names`, once all of them have been found sound.

    Raises:
        PolicyError: one of them is not, or a setting is of none of them.
    """
    parameters = {key for kind in KINDS.values() for key in kind.keys}
    for key, value in options.settings:
        if key in parameters and not any(key in _parameters(name) for name in names):
            kinds = ", ".join(name for name in OWN if key in _parameters(name))
            raise PolicyError(f"--set {key}={value}: only a policy that has it can be given it ({kinds})")
    for name in names:
        fleet = make(name, options, _NOBODY)[0]
    return fleet


def initial(fleet: FleetConfig, options: Options, arrivals: Sequence[Arrival]) -> int:
    """How many agents the pool begins with: as many as `options` say, within its bounds, or what its opening needs."""
    pool = fleet.pools[POOL]
    if options.initial is not None:
        return min(pool.max, max(pool.min, options.initial))
    return opening(fleet, arrivals, wall(options))


def wall(options: Options) -> float:
    """When the load begins, wall time."""
    return TRACE_WALL if options.wall is None else options.wall


def _fleet(options: Options, policy: str) -> FleetConfig:
    """The pool as agentd's configuration readers make it of `options`."""
    text, origin = _yaml(options, policy)
    try:
        fleet = parse(text, "simulation").fleet
    except ConfigError as error:
        told = [f"{origin.get(problem.line, 'the simulation')}: {problem.text}" for problem in error.problems]
        raise PolicyError("; ".join(dict.fromkeys(told))) from error
    pool = fleet.pools[POOL]
    if policy not in ("threshold", "external") and options.tell == TASKS:
        pool = replace(pool, collectors=(CollectorConfig(QUEUE, "simulated"),))
    if not any(key == "cost" for key, _ in options.settings):
        pool = replace(pool, rates=Rates(per_hour=1.0))
    if not any(key == "starting_max" for key, _ in options.settings):
        fleet = replace(fleet, starting_max=_STARTING_MAX)  # the host's own limit is no part of the model
    return replace(fleet, pools={POOL: pool})


def _parameters(name: str) -> tuple[str, ...]:
    """The keys of the trigger behind the policy `name`."""
    return KINDS[name].keys if name in OWN else ()


def _opened(fleet: FleetConfig) -> FleetConfig:
    """`fleet` with a pool that does what it is asked for from outside, and at once."""
    pool = replace(fleet.pools[POOL], quick_up_cooldown_s=0.0, quick_down_cooldown_s=0.0, drain_share_max=1.0)
    return replace(fleet, pools={POOL: pool}, starting_max=_STARTING_MAX)


def _yaml(options: Options, policy: str) -> tuple[str, dict[int, str]]:
    """A configuration file for the simulation, and which of the user's words stands on which of its lines."""
    pool: dict[str, tuple[str, str]] = {
        "ports": (f"[{PORT_MIN}, {PORT_MIN + max(100, _PORTS_PER_AGENT * options.agents_max) - 1}]", ""),
        "core": ("{}", ""),
        "max": (str(options.agents_max), "--max"),
        "concurrency": (str(options.concurrency), "--concurrency"),
        # What starts and what finishes has the time it needs: that belongs to the model, and not to the policy.
        "start_timeout_sec": (f"{min(86_400.0, max(60.0, 4.0 * options.startup_s)):.12g}", "--startup"),
    }
    if options.drain == "finish":
        pool["drain_timeout_sec"] = ("86400", "--drain")
    sections = {"autoscaling": {"enabled": ("true", "")}, "host": {}, "pool": pool, "trigger": {"type": (policy, "")}}
    for key, value in options.settings:
        words = f"--set {key}={value}"
        if key in _NOT_HERE:
            raise PolicyError(f"{words}: it cannot be set in a simulation: {_NOT_HERE[key]}")
        if "\n" in value or "\r" in value or not re.match(r"[a-z_]+\Z", key):
            raise PolicyError(f"{words!r}: expected a key of a pool's configuration and its value on one line")
        if (section := _section(key, policy)) is not None:
            sections[section][key] = (value, words)
    lines: list[tuple[str, str]] = [("multi_agent: {enabled: true}", "")]
    for head, section, indent in (
        ("autoscaling:", "autoscaling", "  "), ("host:", "host", "  "), (f"pools:\n  {POOL}:", "pool", "    "),
        ("    triggers:\n      -", "trigger", "        "),
    ):  # fmt: skip
        if sections[section]:
            lines += [(line, "") for line in head.split("\n")]
            lines += [(f"{indent}{key}: {value}", words) for key, (value, words) in sections[section].items()]
    text = "\n".join(line for line, _ in lines)
    return text, {number: words for number, (_, words) in enumerate(lines, 1) if words}


def _section(key: str, policy: str) -> str | None:
    """Where the file has `key`; None: it is of another policy. What nobody knows is left to the readers to refuse."""
    if key in KINDS[policy].keys:
        return "trigger"
    if any(key in kind.keys for kind in KINDS.values()):
        return None
    if key in HOST_KEYS:
        return "host"
    return "autoscaling" if key in RULE_KEYS and key not in POOL_KEYS else "pool"
