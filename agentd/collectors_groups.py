"""What instances use, read from the control groups that systemd made for them, and the walls around them.

Owns the differences of processor time between two looks. Looks at no process: with 500 instances that is the
difference between milliseconds and a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import PurePosixPath

from msgspec import Struct

from agentd import units
from agentd.cgroups import Cgroups
from agentd.core.model import InstanceId, PoolName, Usage, Wall, parse_instance_id

PRESSURE_PERCENT_MIN = 1.0  # what is below says little, and is not looked into
DELTA_S_MIN = 0.2  # below this the last rate stands: two looks so close say little
_SLICE_PREFIX, _SLICE_SUFFIX = units.pool_slice(PoolName("/")).split("/")


class _Reading(Struct, frozen=True):
    """Processor time of a group at `at`, and the rate that was told then; None: none yet."""

    at: float
    cpu_s: float
    cpu_cores: float | None


class GroupMeter:
    """Measures instances by their control groups."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._clock = time.monotonic
        self._last: dict[InstanceId, _Reading] = {}

    def usage(self, instances: Iterable[InstanceId]) -> dict[InstanceId, Usage]:
        """What each of `instances` uses now; the cores are a mean since the last look.

        Left out: who does not run, whose memory or processor time the kernel does not tell, and who was not there
        at the last look, for nobody knows over what time it has used what it has.
        """
        found: dict[InstanceId, Usage] = {}
        readings: dict[InstanceId, _Reading] = {}
        for instance in instances:
            group = units.instance_cgroup(instance)
            memory_bytes, cpu_s = self._cgroups.memory_bytes(group), self._cgroups.cpu_s(group)
            if memory_bytes is None or cpu_s is None:
                continue
            reading = self._reading(self._last.get(instance), cpu_s)
            readings[instance] = reading
            if reading.cpu_cores is not None:
                found[instance] = Usage(memory_bytes=memory_bytes, cpu_cores=reading.cpu_cores)
        self._last = readings
        return found

    def walls(self) -> dict[str, Wall]:
        """The slices with a memory limit: of a pool under its name, of all agents under ""."""
        found: dict[str, Wall] = {}
        agents = units.slice_cgroup()
        for pool in map(_pool_of, self._cgroups.children(agents)):
            if pool is not None and (wall := self._wall(units.slice_cgroup(pool))) is not None:
                found[pool] = wall
        # The slice above holds agentd itself too; a limit there is one for all agents as well.
        around = [wall for path in (agents, *_above(agents)) if (wall := self._wall(path)) is not None]
        if around:
            found[""] = min(around, key=lambda wall: wall.memory_max_bytes - wall.memory_bytes)
        return found

    def memory_pressure_of_others(self, percent: float, instances: Iterable[InstanceId]) -> float:
        """Of `percent`, the host's memory pressure, what instances do not bring upon themselves.

        Who comes to a memory limit of its own waits there, and the kernel counts that as waiting of the host, which may
        have plenty: one agent above its memory_high can make it any figure. At least what is told is left for others.
        """
        if percent < PRESSURE_PERCENT_MIN:
            return percent
        by_pool: dict[PoolName, list[str]] = {}
        for instance in instances:
            by_pool.setdefault(parse_instance_id(instance)[0], []).append(units.instance_cgroup(instance))
        for pool, groups in by_pool.items():
            around = units.slice_cgroup(pool)
            for group in (around,) if self._cgroups.is_at_memory_wall(around) else groups:
                if self._cgroups.is_at_memory_wall(group):
                    percent -= self._cgroups.pressure(group, "memory") or 0.0
        return max(0.0, percent)

    def _reading(self, last: _Reading | None, cpu_s: float) -> _Reading:
        now = self._clock()
        if last is None:
            return _Reading(now, cpu_s, None)
        if cpu_s < last.cpu_s:  # made anew meanwhile
            return _Reading(now, cpu_s, cpu_s / max(now - last.at, DELTA_S_MIN))
        if now - last.at < DELTA_S_MIN:
            return last
        return _Reading(now, cpu_s, (cpu_s - last.cpu_s) / (now - last.at))

    def _wall(self, path: str) -> Wall | None:
        limit, used = self._cgroups.memory_wall_bytes(path), self._cgroups.memory_bytes(path)
        return None if limit is None or used is None else Wall(memory_max_bytes=limit, memory_bytes=used)


def _pool_of(name: str) -> PoolName | None:
    """The pool whose slice is called `name`."""
    pool = name.removeprefix(_SLICE_PREFIX).removesuffix(_SLICE_SUFFIX)
    return PoolName(pool) if name == units.pool_slice(PoolName(pool)) else None


def _above(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents if parent.parts]
