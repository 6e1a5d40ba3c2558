"""What the kernel's control groups use, may use and have suffered, on hosts of version 1, version 2 and both.

Owns the differences between the versions: one question, one answer in the same unit, whichever file it is in. On a
host with both (hybrid) version 2 holds no controllers but still counts processor time and pressure.

Every reading is optional, and None means that the kernel does not tell: no such controller, no such group (any more).
Groups are named by their path below the root of a hierarchy, as in `agentd.units`. Never writes, and keeps nothing
but where the hierarchies are mounted.
"""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from agentd import procfs

NO_LIMIT = (1 << 64) - 1
"""A limit that is set to none; systemd says it with the same number."""

V2 = "cgroup2"
_V1_TRACKING = "name=systemd"
_NO_LIMIT_MIN = 1 << 60  # version 1 writes a number as large as this for "no limit"
_LONG = ("memory.stat",)  # which comes in pieces; a read for each other file is one too many with 500 groups
_SHORT_BYTES_MAX = 4096
_AT_WALL_RATIO = 0.95  # what is given back there is a little more than what is asked for
_SHARES_DEFAULT, _WEIGHT_DEFAULT = 1024, 100


class Mode(enum.StrEnum):
    """Which versions a host has mounted."""

    NONE = "none"
    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"


class GroupLimits(Struct, frozen=True):
    """What the kernel enforces on a group. None: it does not tell. NO_LIMIT, and of the quota infinity: no limit.

    `cpu_quota_ratio` 1.0 is one core. `cpu_weight` is in systemd's scale (1..10000, default 100) on both versions.
    `io_weight` is told by version 2 alone: what others keep is in a coarser scale from which it cannot be had back.
    """

    memory_max_bytes: int | None = None
    memory_high_bytes: int | None = None
    cpu_quota_ratio: float | None = None
    cpu_weight: int | None = None
    tasks_max: int | None = None
    io_weight: int | None = None


class MemoryLeft(Struct, frozen=True):
    """The tightest memory limit of a group and those around it, and what is left of it."""

    total_bytes: int
    available_bytes: int


class Cgroups:
    """The control groups of the host whose file system begins at `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._mounts: dict[str, tuple[str, str]] = {}  # kind -> where it is, and which part of it that is
        self.read_only: frozenset[str] = frozenset()
        """The kinds that are mounted for reading alone: nobody in this mount namespace can set a limit there."""
        for kind, place, part, writable in _mounts(root):
            self._mounts.setdefault(kind, (place, part))
            if not writable:
                self.read_only |= {kind}

    @property
    def mode(self) -> Mode:
        """Which versions there are."""
        v1 = bool(self._mounts.keys() - {V2})
        if V2 in self._mounts:
            return Mode.HYBRID if v1 else Mode.V2
        return Mode.V1 if v1 else Mode.NONE

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers that groups can have: memory, pids, cpu, io (blkio on version 1) and others."""
        found = {kind for kind in self._mounts if kind != V2 and not kind.startswith("name=")}
        # The root lists what the kernel has; in a container its root group does.
        return frozenset(found | set(self._read(V2, "", "cgroup.controllers").decode().split()))

    def exists(self, path: str) -> bool:
        """Whether the group is there, in whichever hierarchy systemd keeps its units."""
        return any(os.path.isdir(self._folder(kind, path)) for kind in (V2, _V1_TRACKING) if kind in self._mounts)

    def children(self, path: str) -> tuple[str, ...]:
        """The names of the groups right below `path`, in order."""
        kind = V2 if V2 in self._mounts else _V1_TRACKING
        if kind not in self._mounts:
            return ()
        try:
            with os.scandir(self._folder(kind, path)) as entries:
                return tuple(sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)))
        except OSError:
            return ()

    # -- what a group uses ------------------------------------------------------------------------

    def memory_bytes(self, path: str) -> int | None:
        """Memory in use, without the file cache that nobody has used for long.

        Where the kernel does not count it for groups: what the group's processes have for themselves.
        """
        for kind, name, idle in (
            (V2, "memory.current", b"inactive_file"),
            ("memory", "memory.usage_in_bytes", b"total_inactive_file"),
        ):
            used = _number(self._read(kind, path, name))
            if used is not None:
                return max(0, used - (_statistic(self._read(kind, path, "memory.stat"), idle) or 0))
        proc = self._root / "proc"
        return sum(procfs.private_bytes(pid, proc) for pid in self.pids(path)) or None

    def memory_peak_bytes(self, path: str) -> int | None:
        """The most memory that the group ever had, file cache included. It outlives the groups below."""
        for kind, name in ((V2, "memory.peak"), ("memory", "memory.max_usage_in_bytes")):
            if (peak := _number(self._read(kind, path, name))) is not None:
                return peak
        return None

    def cpu_s(self, path: str) -> float | None:
        """Processor time of the group so far, in seconds. It begins anew when the group is made anew.

        Where the kernel does not count it for groups: what the group's processes and the children that they have
        waited for have used, as far as this process may see them.
        """
        used = _statistic(self._read(V2, path, "cpu.stat"), b"usage_usec")
        if used is not None:
            return used / 1e6
        used = _number(self._read("cpuacct", path, "cpuacct.usage"))
        if used is not None:
            return used / 1e9
        times = [procfs.cpu_s(pid, self._root / "proc") for pid in self.pids(path)]
        seen = [seconds for seconds in times if seconds is not None]
        return math.fsum(seen) if seen else None

    def tasks(self, path: str) -> int | None:
        """Threads of all processes of the group and of those below."""
        for kind in (V2, "pids"):
            if (count := _number(self._read(kind, path, "pids.current"))) is not None:
                return count
        return None

    def pids(self, path: str) -> tuple[int, ...]:
        """The processes of the group and of those below, in order."""
        pids: set[int] = set()
        for kind in (V2, _V1_TRACKING):
            if kind in self._mounts:
                for folder, _, _ in os.walk(self._folder(kind, path)):
                    pids.update(int(line) for line in procfs.read(f"{folder}/cgroup.procs").split())
        return tuple(sorted(pids))

    def unit_pids(self, unit: str) -> tuple[int, ...]:
        """The processes of a systemd unit, in order; empty where it does not run or there is no systemd."""
        pids: set[int] = set()
        for kind in (V2, _V1_TRACKING):
            if kind in self._mounts:
                place = Path(self._folder(kind, ""))
                # A unit lies in its slice; a template's instances lie in a slice of their own within that.
                for folder in (*place.glob(f"*.slice/{unit}"), *place.glob(f"*.slice/*.slice/{unit}")):
                    pids.update(self.pids(str(folder.relative_to(place))))
        return tuple(sorted(pids))

    # -- what a group may use ---------------------------------------------------------------------

    def limits(self, path: str) -> GroupLimits:
        """What the group itself may use; the groups around it may be tighter."""
        return GroupLimits(
            memory_max_bytes=self._limit(path, (V2, "memory.max"), ("memory", "memory.limit_in_bytes")),
            memory_high_bytes=self._limit(path, (V2, "memory.high")),
            cpu_quota_ratio=self._cpu_quota_ratio(path),
            cpu_weight=self._cpu_weight(path),
            tasks_max=self._limit(path, (V2, "pids.max"), ("pids", "pids.max")),
            io_weight=_statistic(self._read(V2, path, "io.weight"), b"default"),
        )

    def memory_wall_bytes(self, path: str) -> int | None:
        """Where the memory of the group ends: its own limit, or where it would be slowed down. None: nowhere."""
        found = (
            self._limit(path, (V2, "memory.max"), ("memory", "memory.limit_in_bytes")),
            self._limit(path, (V2, "memory.high")),
        )
        return min((limit for limit in found if limit not in (None, NO_LIMIT)), default=None)

    def is_at_memory_wall(self, path: str) -> bool:
        """Whether the group has come to its memory wall, file cache included: who wants more there has to wait."""
        wall = self.memory_wall_bytes(path)
        if wall is None:
            return False
        charged = (self._read(V2, path, "memory.current"), self._read("memory", path, "memory.usage_in_bytes"))
        return any((_number(text) or 0) >= wall * _AT_WALL_RATIO for text in charged)

    def own_memory_left(self) -> MemoryLeft | None:
        """What the group of this process and those around it leave it; None where nothing limits it.

        File cache that nobody uses counts as available, as it does in the host's own figure.
        """
        limits: list[int] = []
        left: list[int] = []
        for path in self._own_memory_groups():
            limit, used = self.memory_wall_bytes(path), self.memory_bytes(path)
            if limit is not None and used is not None:
                limits.append(limit)
                left.append(max(0, limit - used))
        return MemoryLeft(min(limits), min(left)) if limits else None

    # -- what a group has suffered ----------------------------------------------------------------

    def oom_kills(self, path: str) -> int | None:
        """How many processes the kernel has killed for want of memory: on version 2 also of the groups below."""
        for kind, name in ((V2, "memory.events"), ("memory", "memory.oom_control")):
            if (count := _statistic(self._read(kind, path, name), b"oom_kill")) is not None:
                return count
        return None

    def pressure(self, path: str, resource: str) -> float | None:
        """`some avg10` of "cpu", "memory" or "io" in percent."""
        return procfs.some_avg10(self._read(V2, path, f"{resource}.pressure"))

    def throttled_s(self, path: str) -> float | None:
        """For how long its quota has kept the group off the processors, in seconds."""
        used = _statistic(self._read(V2, path, "cpu.stat"), b"throttled_usec")
        if used is not None:
            return used / 1e6
        used = _statistic(self._read("cpu", path, "cpu.stat"), b"throttled_time")
        return None if used is None else used / 1e9

    # -- files --------------------------------------------------------------------------------------

    def _cpu_quota_ratio(self, path: str) -> float | None:
        words = self._read(V2, path, "cpu.max").split()
        if len(words) == 2:
            return math.inf if words[0] == b"max" else int(words[0]) / int(words[1])
        quota, period = (self._read("cpu", path, f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if not quota or not period:
            return None
        return math.inf if quota == b"-1" else int(quota) / int(period)

    def _cpu_weight(self, path: str) -> int | None:
        weight = _number(self._read(V2, path, "cpu.weight"))
        shares = _number(self._read("cpu", path, "cpu.shares"))
        if weight is None and shares is not None:
            return round(shares * _WEIGHT_DEFAULT / _SHARES_DEFAULT)
        return weight

    def _limit(self, path: str, *files: tuple[str, str]) -> int | None:
        for kind, name in files:
            text = self._read(kind, path, name).strip()
            if text == b"max":
                return NO_LIMIT
            if (number := _number(text)) is not None:
                return number if number < _NO_LIMIT_MIN else NO_LIMIT
        return None

    def _own_memory_groups(self) -> Iterator[str]:
        """The memory control group of this process and those around it, innermost first."""
        own: dict[str, str] = {}
        for line in procfs.read(f"{self._root}/proc/self/cgroup").decode(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                own[controller or V2] = path
        for kind in (V2, "memory"):
            if kind not in own or kind not in self._mounts:
                continue
            part = self._mounts[kind][1]
            group = PurePosixPath(own[kind].removeprefix(part.rstrip("/")).strip("/"))
            # Within a container the path may be the host's, of which nothing but our own part is mounted.
            if ".." in group.parts or not os.path.isdir(self._folder(kind, str(group))):
                group = PurePosixPath()
            yield from map(str, (group, *group.parents))

    def _read(self, kind: str, path: str, name: str) -> bytes:
        if kind not in self._mounts:
            return b""
        return procfs.read(f"{self._folder(kind, path)}/{name}", None if name in _LONG else _SHORT_BYTES_MAX)

    def _folder(self, kind: str, path: str) -> str:
        return f"{self._mounts[kind][0]}/{path}"


def _mounts(root: Path) -> Iterator[tuple[str, str, str, bool]]:
    """(kind, mount point, mounted part, writable) of each hierarchy.

    Kind is V2, or a controller or name of version 1.
    """
    # Of a host that this process is not on, its first process tells.
    text = procfs.read(f"{root}/proc/self/mountinfo") or procfs.read(f"{root}/proc/1/mountinfo")
    for line in text.decode(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split(maxsplit=2)
        place = f"{os.fspath(root).rstrip('/')}{fields[4]}"
        writable = fields[5].split(",")[0] != "ro"
        if kind == "cgroup2":
            yield V2, place, fields[3], writable
        elif kind == "cgroup":
            for option in options.rsplit(" ", 1)[-1].split(","):
                if option not in ("rw", "ro"):
                    yield option, place, fields[3], writable


def _number(text: bytes) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() else None


def _statistic(text: bytes, name: bytes) -> int | None:
    """The number behind `name` in lines of "name number"."""
    _, found, rest = (b"\n" + text).partition(b"\n" + name + b" ")
    return _number(rest.partition(b"\n")[0]) if found else None
