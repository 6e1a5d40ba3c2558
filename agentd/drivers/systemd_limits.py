"""The limits of an instance: set through systemd, checked against what the kernel holds, and who it was that killed.

Owns the translation of `resources` into properties of units, and the wall around each pool. Sets nothing that is not
configured, and takes back only what was set before.

Limits are runtime properties: systemd keeps them in /run, no reload is needed, and a file of an administrator in /etc
wins over them. That, and hosts that lack a controller, is why each limit is read back after a start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from dbus_fast import Variant
from msgspec import Struct

from agentd import limits
from agentd.cgroups import NO_LIMIT, Cgroups, GroupLimits, Mode
from agentd.core.model import MIB, InstanceId, PoolName, Resources
from agentd.drivers.systemd_bus import SLICE, BusError, SystemdBus
from agentd.limits import LimitsError
from agentd.units import instance_cgroup, pool_slice, unit_name

TASKS_MAX_DEFAULT = 1024
"""What agent@.service says."""

_RUNTIME = "run/systemd/system.control"
_PAGE_BYTES_MAX = 65_536  # the kernel rounds limits of memory down to whole pages
_QUOTA_ERROR_MAX = 0.02
_NEAR_RATIO = 0.99  # a group is killed in with its last pages not charged yet

Number = int | float


class _Kind(Struct, frozen=True):
    """One kind of limit: its key in the configuration, and the property that systemd knows it as.

    `scale`: how much of the property's unit is 1 in ours. `default` takes back an earlier limit.
    """

    key: str
    property: str
    wanted: Callable[[Resources], Number | None]
    held: Callable[[GroupLimits], Number | None]
    shown: Callable[[Number], str]
    fits: Callable[[Number, Number], bool] = lambda wanted, held: wanted == held
    scale: float = 1
    default: int = NO_LIMIT

    def value(self, resources: Resources) -> int | None:
        """What systemd is told; None where nothing is configured."""
        wanted = self.wanted(resources)
        return None if wanted is None else max(1, round(wanted * self.scale))


def _bytes_fit(wanted: Number, held: Number) -> bool:
    return 0 <= wanted - held < _PAGE_BYTES_MAX


def _mib(value: Number) -> str:
    return f"{value / MIB:g} MiB"


def _plain(value: Number) -> str:
    return f"{value:g}"


_KINDS = (
    _Kind("memory_max", "MemoryMax", lambda r: r.memory_max_bytes, lambda g: g.memory_max_bytes, _mib, _bytes_fit),
    _Kind("memory_high", "MemoryHigh", lambda r: r.memory_high_bytes, lambda g: g.memory_high_bytes, _mib, _bytes_fit),
    _Kind("cpu_weight", "CPUWeight", lambda r: r.cpu_weight, lambda g: g.cpu_weight, _plain),
    _Kind(
        "cpu_quota",
        "CPUQuotaPerSecUSec",
        lambda r: r.cpu_quota_ratio,
        lambda g: g.cpu_quota_ratio,
        lambda value: f"{value:.0%}",
        lambda wanted, held: math.isclose(wanted, held, rel_tol=_QUOTA_ERROR_MAX),
        scale=1e6,
    ),
    _Kind("tasks_max", "TasksMax", lambda r: r.tasks_max, lambda g: g.tasks_max, _plain, default=TASKS_MAX_DEFAULT),
    _Kind("io_weight", "IOWeight", lambda r: r.io_weight, lambda g: g.io_weight, _plain),
)


class Limits:
    """Sets and checks limits. `root`: where the host's file system begins.

    `direct`: systemd is told by this process, which is then root's; otherwise agentd-limits.service is asked, and
    nobody else: who may set limits may set anything, so that is not agentd's user.
    """

    def __init__(self, bus: SystemdBus, root: Path, *, direct: bool) -> None:
        self._bus = bus
        self._direct = direct
        self._root = root
        self._setter = root / limits.SOCKET.relative_to("/")
        self._cgroups = Cgroups(root)
        self._walls: dict[PoolName, dict[str, int]] = {}

    async def set(self, instance: InstanceId, resources: Resources) -> None:
        """Let the next start of `instance` have the limits in `resources`, and no earlier ones. Raises BusError."""
        unit = unit_name(instance)
        earlier = self._earlier(unit)
        values = {kind.property: (kind.value(resources), kind.default) for kind in _KINDS}
        await self._write(
            unit,
            {
                name: default if value is None else value
                for name, (value, default) in values.items()
                if value is not None or name.removesuffix("PerSecUSec") in earlier
            },
        )

    async def set_wall(self, pool: PoolName, resources: Resources, count: int, *, others_run: bool) -> None:
        """Limit all of `pool` together to what `count` instances and one more may use. Raises BusError.

        A wall is lowered only while nothing is inside it: what runs there was started under the higher one.
        """
        unit = pool_slice(pool)
        each = {"MemoryMax": resources.memory_max_bytes, "TasksMax": resources.tasks_max}
        wall = {name: NO_LIMIT if value is None else value * (count + 1) for name, value in each.items()}
        known = self._walls.get(pool)
        if known is None:
            earlier = self._earlier(unit)
            known = {name: await self._held(unit, name) if name in earlier else NO_LIMIT for name in wall}
        fresh = {name: value for name, value in wall.items() if value > known[name] or not others_run}
        await self._write(unit, {name: value for name, value in fresh.items() if value != known[name]})
        self._walls[pool] = known | fresh

    def amiss(self, instance: InstanceId, resources: Resources) -> Iterator[str]:
        """A sentence for each limit that the kernel does not hold for `instance`, which runs."""
        group = instance_cgroup(instance)
        held = self._cgroups.limits(group)
        for kind in _KINDS:
            wanted, found = kind.wanted(resources), kind.held(held)
            if wanted is None or (found is not None and kind.fits(wanted, found)):
                continue
            if found is not None:
                why = f"the kernel holds {'no limit' if found in (NO_LIMIT, math.inf) else kind.shown(found)}"
            elif not self._cgroups.exists(group) or (kind.key == "io_weight" and self._has_other_io_weight()):
                continue
            else:
                why = f"the control groups of this host ({self._cgroups.mode}) do not offer it"
            yield f"{kind.key} {kind.shown(wanted)} is not in force: {why}"

    # -- below ----------------------------------------------------------------------------------

    async def _write(self, unit: str, values: dict[str, int]) -> None:
        if not values:
            return
        if self._direct:
            properties = [[name, Variant("t", value)] for name, value in values.items()]
            await self._bus.manager("SetUnitProperties", "sba(sv)", unit, True, properties)
            return
        try:
            await limits.ask(self._setter, unit, values)
        except LimitsError as error:
            raise BusError(error.name, f"its limits cannot be set: {error}") from error

    async def _held(self, unit: str, name: str) -> int:
        return int(await self._bus.get(unit, SLICE, name))

    def _earlier(self, unit: str) -> frozenset[str]:
        """The properties of `unit` that somebody set at run time, by the names of their files: 50-CPUQuota.conf."""
        folder = self._root / _RUNTIME / f"{unit}.d"
        return frozenset(path.stem.partition("-")[2] for path in folder.glob("*-*.conf"))

    def _has_other_io_weight(self) -> bool:
        """Version 1 keeps it in another scale, from which it cannot be had back."""
        return self._cgroups.mode is not Mode.V2 and "blkio" in self._cgroups.controllers


class MemoryWitness:
    """Whether the kernel killed an agent for memory, where systemd does not say so.

    It looks at what is left to see after the agent's control group has gone: the instance's slice, which stays. With
    control groups of version 2 that counts the kills within it. Version 1 counts them in the group that has gone;
    there a SIGKILL is taken for the kernel's only where the kernel has killed somebody for memory since the agent was
    born, and the slice has once held as much as the limit allows. What else could look like that: an agent that
    reached its limit in an earlier life, killed by a person in a life in which the kernel killed another process.
    """

    def __init__(self, root: Path) -> None:
        self._cgroups = Cgroups(root)
        self._vmstat = root / "proc/vmstat"

    def kills(self, instance: InstanceId) -> int:
        """How many kills for memory there were, as near to `instance` as the kernel counts them; only grows."""
        if self._cgroups.mode is Mode.V2:
            return self._cgroups.oom_kills(self._slice(instance)) or 0
        try:
            lines = self._vmstat.read_text().splitlines()
        except OSError:  # hidden from us: then nobody can be blamed
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def blames_memory(self, instance: InstanceId, kills_at_birth: int, limit_bytes: int | None) -> bool:
        """Whether a SIGKILL that ended `instance` was the kernel's, for memory."""
        if self.kills(instance) <= kills_at_birth:
            return False
        if self._cgroups.mode is Mode.V2:
            return True
        peak = self._cgroups.memory_peak_bytes(self._slice(instance))
        return peak is not None and limit_bytes is not None and peak >= limit_bytes * _NEAR_RATIO

    def _slice(self, instance: InstanceId) -> str:
        return str(Path(instance_cgroup(instance)).parent)
