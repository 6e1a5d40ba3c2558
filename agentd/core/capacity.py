"""Headroom: how many more instances of a pool the host can carry, and which resource says so.

What is on its way to ready has been promised its footprint but may not use it yet, so the unused part of
that promise is taken off first; otherwise ten instances started within a second would all see the same
free memory.
"""

from __future__ import annotations

from msgspec import Struct

from agentd.core.division import Room
from agentd.core.lifecycle import ON_ITS_WAY
from agentd.core.model import MIB, HostReserve, HostSample, Limit
from agentd.core.state import Fleet, Pool
from agentd.core.views import Headroom

# Without a host sample for this long nothing is known of the host any more.
SAMPLE_STALE_S = 60.0


class Promised(Struct, frozen=True):
    """What instances on their way to ready will still take, or such as are about to be started.

    `ahead`: whose they are, and why these went first; for people.
    """

    memory_bytes: int = 0
    cpu_cores: float = 0.0
    instances: int = 0
    cost_per_hour: float = 0.0
    ahead: str = ""


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
    ahead = f"; {extra.ahead}" if extra.ahead else ""
    bounds = [
        _memory(sample, reserve, pool, taken, ahead),
        *_wall(sample, pool, pool.name, pending, ""),  # other pools' grants are none of its slice
        *_wall(sample, pool, "", taken, ahead),
    ]
    if not memory_only:
        bounds.append(_disk(sample, reserve))
        if reserve.cpu_ratio is not None:
            bounds.append(_cpu(sample, reserve.cpu_ratio, pool, taken, ahead))
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


def shared_room(fleet: Fleet) -> Room:
    """What all pools together may still take; the pressures, the disk and a pool's own slice are looked at by each."""
    instances = None if fleet.capacity_max is None else max(0, fleet.capacity_max - len(fleet.instances))
    sample, reserve = fleet.host, fleet.config.reserve
    if sample is None:
        return Room(instances=instances)
    pending = promised(fleet)
    memory = _free_memory_bytes(sample, reserve, pending)
    wall = sample.walls.get("")
    if wall is not None:
        memory = min(memory, wall.memory_max_bytes - wall.memory_bytes - pending.memory_bytes)
    cores = None if reserve.cpu_ratio is None else _free_cores(sample, reserve.cpu_ratio, pending)
    return Room(memory, cores, instances)


def _free_memory_bytes(sample: HostSample, reserve: HostReserve, taken: Promised) -> int:
    keep = reserve.memory_reserve_bytes(sample.memory_total_bytes)
    return sample.memory_available_bytes - taken.memory_bytes - keep


def _free_cores(sample: HostSample, cpu_ratio: float, taken: Promised) -> float:
    return sample.cores * (1.0 - cpu_ratio) - sample.cpu_used_cores - taken.cpu_cores


def _memory(
    sample: HostSample, reserve: HostReserve, pool: Pool, taken: Promised, ahead: str
) -> tuple[int, Limit]:  # fmt: skip
    keep = reserve.memory_reserve_bytes(sample.memory_total_bytes)
    free = _free_memory_bytes(sample, reserve, taken)
    each = max(1, pool.footprint_bytes)
    fits = max(0, free // each)
    missing = each * (fits + 1) - free
    text = (
        f"memory: {_mib(missing)} MiB more needed ({_mib(sample.memory_available_bytes)} MiB available, "
        f"{_mib(taken.memory_bytes)} MiB promised, {_mib(keep)} MiB reserved, {_mib(each)} MiB each){ahead}"
    )
    return fits, Limit("host_memory", text)


def _wall(
    sample: HostSample, pool: Pool, name: str, taken: Promised, ahead: str
) -> list[tuple[int, Limit]]:  # fmt: skip
    """The memory limit of a slice around the pool's instances; what others were promised counts, too."""
    wall = sample.walls.get(name)
    if wall is None:
        return []
    whose = f"slice of {name}" if name else "slice of all agents"
    each = max(1, pool.footprint_bytes)
    free = wall.memory_max_bytes - wall.memory_bytes - taken.memory_bytes
    fits = max(0, free // each)
    text = (
        f"{whose}: {_mib(each * (fits + 1) - free)} MiB more needed ({_mib(wall.memory_bytes)} of "
        f"{_mib(wall.memory_max_bytes)} MiB used, {_mib(taken.memory_bytes)} MiB promised, "
        f"{_mib(each)} MiB each){ahead}"
    )
    return [(fits, Limit("slice_memory", text))]


def _disk(sample: HostSample, reserve: HostReserve) -> tuple[int, Limit]:
    missing = reserve.disk_bytes - sample.disk_free_bytes
    fits = 0 if missing > 0 else _MANY
    text = (
        f"disk: {_mib(missing)} MiB more needed ({_mib(sample.disk_free_bytes)} MiB free, "
        f"{_mib(reserve.disk_bytes)} MiB reserved)"
    )
    return fits, Limit("host_disk", text)


def _cpu(
    sample: HostSample, cpu_ratio: float, pool: Pool, taken: Promised, ahead: str
) -> tuple[int, Limit]:  # fmt: skip
    free = _free_cores(sample, cpu_ratio, taken)
    each = pool.footprint_cores
    fits = _MANY if each <= 0.0 and free >= 0.0 else max(0, int(free / each)) if each > 0.0 else 0
    missing = max(0.0, each * (min(fits, _MANY - 1) + 1) - free)
    text = (
        f"cpu: {missing:.2f} cores more needed ({sample.cpu_used_cores:.2f} of {sample.cores} in use, "
        f"{taken.cpu_cores:.2f} promised, {sample.cores * cpu_ratio:.2f} reserved, {each:.2f} each){ahead}"
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
