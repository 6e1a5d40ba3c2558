"""Headroom: how many more instances of a pool the host can carry, and which resource says so.

What is on its way to ready has been promised its footprint but may not use it yet, so the unused part of
that promise is taken off first; otherwise ten instances started within a second would all see the same
free memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentd.core.lifecycle import ON_ITS_WAY
from agentd.core.model import MIB, HostReserve, HostSample, Limit
from agentd.core.state import Fleet, Pool
from agentd.core.views import Headroom

# Without a host sample for this long nothing is known of the host any more.
SAMPLE_STALE_S = 60.0


@dataclass(frozen=True, slots=True)
class Promised:
    """What instances on their way to ready will still take."""

    memory_bytes: int = 0
    cpu_cores: float = 0.0


NOTHING_PROMISED = Promised()


def promised(fleet: Fleet) -> Promised:
    """The footprints promised and not yet used, fleet-wide."""
    memory, cores = 0, 0.0
    for instance in fleet.instances.values():
        if instance.state in ON_ITS_WAY:
            pool = fleet.pools[instance.pool]
            used = instance.usage.memory_bytes if instance.usage else 0
            memory += max(0, pool.footprint_bytes - used)
            cores += pool.footprint_cores
    return Promised(memory, cores)


def room(
    fleet: Fleet, pool: Pool, extra: Promised, now: float, *, memory_only: bool = False
) -> list[tuple[int, Limit]]:
    """Each bound on further instances of `pool`: how many still fit, and the limit that says so.

    `extra` is what this evaluation has already granted to other pools. Unknown host: no bound.
    """
    sample = fleet.host
    if sample is None:
        return []
    if now - fleet.host_at > SAMPLE_STALE_S:
        text = f"no reading of the host for {now - fleet.host_at:.0f} s"
        return [] if memory_only else [(0, Limit("host_unknown", text))]
    reserve = fleet.config.reserve
    pending = promised(fleet)
    taken = Promised(pending.memory_bytes + extra.memory_bytes, pending.cpu_cores + extra.cpu_cores)
    bounds = [_memory(sample, reserve, pool, taken), *_walls(sample, pool, taken)]
    if not memory_only:
        bounds.append(_disk(sample, reserve))
        if reserve.cpu_ratio is not None:
            bounds.append(_cpu(sample, reserve.cpu_ratio, pool, taken))
        bounds += _pressures(sample, reserve)
    return bounds


def headroom(fleet: Fleet, pool: Pool, now: float) -> Headroom:
    """The tightest bound, as people see it."""
    bounds = room(fleet, pool, NOTHING_PROMISED, now)
    if not bounds:
        return Headroom(None, "unknown", "the host has not been measured yet")
    fits, limit = min(bounds, key=lambda bound: bound[0])
    resource = limit.code.removeprefix("host_")
    if fits > 0:
        return Headroom(fits, resource, f"room for {fits} more, then {resource}")
    return Headroom(0, resource, limit.text)


def _memory(sample: HostSample, reserve: HostReserve, pool: Pool, taken: Promised) -> tuple[int, Limit]:
    keep = reserve.memory_reserve_bytes(sample.memory_total_bytes)
    free = sample.memory_available_bytes - taken.memory_bytes - keep
    each = max(1, pool.footprint_bytes)
    fits = max(0, free // each)
    missing = each * (fits + 1) - free
    text = (
        f"memory: {_mib(missing)} MiB more needed ({_mib(sample.memory_available_bytes)} MiB available, "
        f"{_mib(taken.memory_bytes)} MiB promised, {_mib(keep)} MiB reserved, {_mib(each)} MiB each)"
    )
    return fits, Limit("host_memory", text)


def _walls(sample: HostSample, pool: Pool, taken: Promised) -> list[tuple[int, Limit]]:
    """The memory limits of the slices around the pool's instances; what others were promised counts for each."""
    bounds = []
    for name, whose in ((pool.name, f"slice of {pool.name}"), ("", "slice of all agents")):
        wall = sample.walls.get(name)
        if wall is None:
            continue
        each = max(1, pool.footprint_bytes)
        free = wall.memory_max_bytes - wall.memory_bytes - taken.memory_bytes
        fits = max(0, free // each)
        text = (
            f"{whose}: {_mib(each * (fits + 1) - free)} MiB more needed ({_mib(wall.memory_bytes)} of "
            f"{_mib(wall.memory_max_bytes)} MiB used, {_mib(taken.memory_bytes)} MiB promised, {_mib(each)} MiB each)"
        )
        bounds.append((fits, Limit("slice_memory", text)))
    return bounds


def _disk(sample: HostSample, reserve: HostReserve) -> tuple[int, Limit]:
    missing = reserve.disk_bytes - sample.disk_free_bytes
    fits = 0 if missing > 0 else _MANY
    text = (
        f"disk: {_mib(missing)} MiB more needed ({_mib(sample.disk_free_bytes)} MiB free, "
        f"{_mib(reserve.disk_bytes)} MiB reserved)"
    )
    return fits, Limit("host_disk", text)


def _cpu(sample: HostSample, cpu_ratio: float, pool: Pool, taken: Promised) -> tuple[int, Limit]:
    free = sample.cores * (1.0 - cpu_ratio) - sample.cpu_used_cores - taken.cpu_cores
    each = pool.footprint_cores
    fits = _MANY if each <= 0.0 and free >= 0.0 else max(0, int(free / each)) if each > 0.0 else 0
    missing = max(0.0, each * (min(fits, _MANY - 1) + 1) - free)
    text = (
        f"cpu: {missing:.2f} cores more needed ({sample.cpu_used_cores:.2f} of {sample.cores} in use, "
        f"{taken.cpu_cores:.2f} promised, {sample.cores * cpu_ratio:.2f} reserved, {each:.2f} each)"
    )
    return fits, Limit("host_cpu", text)


def _pressures(sample: HostSample, reserve: HostReserve) -> list[tuple[int, Limit]]:
    bounds = []
    for name, value, bound in (
        ("memory", sample.memory_pressure_percent, reserve.memory_pressure_percent_max),
        ("io", sample.io_pressure_percent, reserve.io_pressure_percent_max),
    ):
        if value is not None and bound is not None:
            text = f"{name} pressure: {value:.1f} % > {bound:.1f} % (some avg10), {value - bound:.1f} points too much"
            bounds.append((0 if value > bound else _MANY, Limit(f"host_{name}_pressure", text)))
    return bounds


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)


_MANY = 1_000_000
