"""The names of agentd's systemd units, and where their control groups are. Pure: it asks nobody.

An instance's slice is named after the instance, `agentd-agents-research-9101.slice`. systemd nests slices by the
dashes in their names, so each pool has a slice around its instances without anybody making one.
"""

from __future__ import annotations

from agentd.core.model import InstanceId, PoolName, parse_instance_id

TEMPLATE = "agent@.service"
PATTERN = "agent@*.service"
TARGET = "agentd.target"
SERVICE = "agentd.service"
AGENTS_SLICE = "agentd-agents.slice"
LIMITS_SERVICE = "agentd-limits.service"
LIMITS_SOCKET = "agentd-limits.socket"
SOCKETS = ("agentd.socket", "agentd-agents.socket", LIMITS_SOCKET)
INSTANCES_MOUNT = "run-agentd-instances.mount"
INSTANCES_DIR = "/run/agentd/instances"

FILES = (SERVICE, TEMPLATE, *SOCKETS, LIMITS_SERVICE, INSTANCES_MOUNT, TARGET, AGENTS_SLICE)
"""The units of agentd's package that it cannot do without."""

_PREFIX, _SUFFIX = TEMPLATE.split("@")


def unit_name(instance: InstanceId) -> str:
    """The unit of `instance`: `agent@research-9101.service`."""
    return f"{_PREFIX}@{instance}{_SUFFIX}"


def instance_of(unit: str) -> InstanceId | None:
    """The instance that `unit` runs, or None where it is not a unit of agentd's."""
    name, at, rest = unit.partition("@")
    if name != _PREFIX or not at or not rest.endswith(_SUFFIX):
        return None
    text = rest.removesuffix(_SUFFIX)
    try:
        parse_instance_id(text)
    except ValueError:
        return None
    return InstanceId(text)


def instance_of_cgroup(path: str) -> InstanceId | None:
    """The instance in whose unit's control group, or in one below it, `path` is; None where it is in no such.

    `path` begins below the root of a hierarchy, and all of it counts: others than systemd can name a group like a unit.
    """
    found = next((instance for name in path.split("/") if (instance := instance_of(name))), None)
    if found is None or not f"{path}/".startswith(f"{instance_cgroup(found)}/"):
        return None
    return found


def pool_slice(pool: PoolName) -> str:
    """The slice around all instances of `pool`."""
    return f"agentd-agents-{pool}.slice"


def slice_cgroup(pool: PoolName | None = None) -> str:
    """The control group of a pool's slice, or of the slice of all agents, below the root of a hierarchy."""
    agents = f"agentd.slice/{AGENTS_SLICE}"
    return agents if pool is None else f"{agents}/{pool_slice(pool)}"


def instance_cgroup(instance: InstanceId) -> str:
    """The control group of an instance's unit, below the root of a hierarchy."""
    pool, _ = parse_instance_id(instance)
    return f"{slice_cgroup(pool)}/agentd-agents-{instance}.slice/{unit_name(instance)}"
