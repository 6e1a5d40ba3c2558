"""What a decision was made from, as text: enough of the fleet to make the same decision again, exactly.

Taken when the decision is made and before it is carried out: the controller's row, the rows of the pool, its
instances, the host, and of other pools what the guards look at (who is on its way and what that will take, ports in the
pool's range, how many there are). A decision that looks at all pools alike carries all of them.

`core.rows` has the form of the rows; instances are kept in columns, without what no decision looks at. The
configuration is not in it: whoever makes the decision again has to have the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from msgspec import NODEFAULT
from msgspec.structs import asdict, astuple, fields

from agentd.core import costs, rows
from agentd.core.capacity import Promised
from agentd.core.lifecycle import ON_ITS_WAY
from agentd.core.model import FleetConfig, HostSample, InstanceId, PoolConfig, PoolName, State, Usage, Wall
from agentd.core.scalability import ScalingLaw
from agentd.core.state import Fleet, Instance, Pool, Purpose

# The kinds of rows that a pool has and decisions look at.
KINDS = ("pool", "adaptive", "ledger")
# What instances have and no decision looks at.
_LEFT_OUT = frozenset(
    {
        "labels", "reason", "cause", "pid", "incarnation", "decision", "stop_decision", "wake_at", "core_name",
        "usage", "counted_at", "counted", "requested_at", "own_slots", "own_interval_s", "asked_slots",
        "asked_interval_s", "overdue", "told", "oom_kills", "restarts", "paid_tasks", "unpaid_tasks",
    }
)  # fmt: skip
_KEPT = tuple(name for name in Instance.__struct_fields__ if name not in _LEFT_OUT)
_DEFAULTS: dict[str, Any] = {
    f.name: None if f.required else f.default_factory() if f.default is NODEFAULT else f.default
    for f in fields(Instance)
}
# Of other pools than the decision's nothing is known that is not in the basis; they fill up the number of instances.
_OTHERS = PoolName("others")


def take(fleet: Fleet, pool: Pool, now: float, *, between: bool, extra: Promised) -> str:
    """What a decision on the size of `pool` is made from at `now`, by `guards.evaluate` with the same arguments."""
    ports = pool.config.ports
    near = [
        instance
        for instance in fleet.instances.values()
        if instance.pool == pool.name
        or instance.state in ON_ITS_WAY
        or (ports is not None and instance.port in ports)
    ]  # fmt: skip
    return _text(fleet, [pool], near, now, between=between, pool=pool.name, extra=asdict(extra))


def take_relief(fleet: Fleet, now: float) -> str:
    """What a relief is decided from at `now`: all pools."""
    return _text(fleet, fleet.pools.values(), fleet.instances.values(), now, relief=True)


def load(text: str, config: FleetConfig) -> tuple[Fleet, dict[str, Any]]:
    """The fleet that `text` was taken from, as far as it was; and the rest of what was asked.

    Raises:
        ValueError: `text` is no basis.
    """
    value = json.loads(text)
    fleet = Fleet(config, 0)
    saved: dict[str, str] = value["rows"]
    rows.load(fleet, saved | {f"instance/{each['id']}": json.dumps(each) for each in _from_columns(value["instances"])})
    for name, memory, cores in value["feet"]:
        fleet.pools[name].footprint_bytes, fleet.pools[name].footprint_cores = memory, cores
    for name, law in value["laws"].items():
        fleet.pools[name].law = ScalingLaw(*law)
    for ident, (memory, cores) in value["usage"].items():
        fleet.instances[ident].usage = Usage(memory, cores)
    if value["host"] is not None:
        fleet.host, fleet.host_at = _host(value["host"]), value["host_at"]
    fleet.capacity_max = value["capacity"]
    if value["others"]:
        fleet.pools[_OTHERS] = Pool(PoolConfig(name=_OTHERS, min=0, max=0), removed=True)
    if value.get("money"):
        whole = [name for name in fleet.pools if f"pool/{name}" in saved]
        costs.take_elsewhere(fleet, whole, value["money"], value["asked"]["now"])
    for number in range(value["others"]):
        ident = InstanceId(f"{_OTHERS}-{number}")
        fleet.instances[ident] = Instance(ident, _OTHERS, 0, State.HELD, 0.0, 0.0, Purpose.ADOPTED)
    return fleet, value["asked"]


def _text(
    fleet: Fleet, pools: Iterable[Pool], near: Iterable[Instance], now: float, **asked: object
) -> str:  # fmt: skip
    near, pools = list(near), list(pools)
    keys = [rows.CONTROLLER, *(f"{kind}/{pool.name}" for pool in pools for kind in KINDS)]
    found = {key: row for key in keys if (row := rows.row(fleet, key)) is not None}
    host = fleet.host
    value = {
        "rows": found,
        "feet": [
            (name, fleet.pools[name].footprint_bytes, fleet.pools[name].footprint_cores)
            for name in sorted({instance.pool for instance in near})
            if f"pool/{name}" not in found
        ],
        "laws": {pool.name: astuple(pool.law) for pool in pools if pool.law is not None},
        "instances": _columns(near),
        "usage": {i.id: (i.usage.memory_bytes, i.usage.cpu_cores) for i in near if i.usage is not None},
        "others": len(fleet.instances) - len(near),
        "money": costs.elsewhere(fleet, pools, now) if fleet.config.budget else None,
        "host": None if host is None else _host_value(host),
        "host_at": fleet.host_at,
        "capacity": fleet.capacity_max,
        "asked": {"now": now} | asked,
    }
    return json.dumps(value, separators=(",", ":"))


def _columns(instances: list[Instance]) -> dict[str, list[Any]]:
    """The fields that are not everywhere as they are by default."""
    columns = {}
    for name in _KEPT:
        column = list(map(attrgetter(name), instances))
        default = _DEFAULTS[name]
        if any(value != default for value in column):
            columns[name] = column
    return columns


def _from_columns(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    names = list(columns)
    return [_DEFAULTS | dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _host_value(sample: HostSample) -> dict[str, Any]:
    """Without what each instance uses, and the processes that people watch."""
    walls = {name: (wall.memory_max_bytes, wall.memory_bytes) for name, wall in sample.walls.items()}
    left_out = ("instances", "watched", "walls")
    return {name: it for name, it in asdict(sample).items() if name not in left_out} | {"walls": walls}


def _host(value: dict[str, Any]) -> HostSample:
    walls = {name: Wall(*wall) for name, wall in value.pop("walls").items()}
    return HostSample(**value, walls=walls)
