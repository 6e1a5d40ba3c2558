"""The collector of the host: processors, memory, disk, pressure, and what each instance and watched process uses.

Owns the differences between two samples. Decides nothing: what a number means for scaling is the core's matter.
It reads files of the kernel only, so it runs in a thread beside the loop; one sample at a time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil
from msgspec import Struct

from agentd import procfs
from agentd.cgroups import Cgroups
from agentd.collectors_groups import GroupMeter
from agentd.core.model import HostSample, InstanceId, Usage, Watched
from agentd.procfs import Process

DELTA_S_MIN = 0.2  # below this, the kernel's ticks of 10 ms say nothing
_IDLE = ("idle", "iowait")


class WatchSpec(Protocol):
    """A process to show beside the host's figures: by the name of its program, or by its systemd unit."""

    @property
    def name(self) -> str: ...
    @property
    def process(self) -> str | None: ...
    @property
    def unit(self) -> str | None: ...


class _Totals(Struct, frozen=True):
    """Counters of the host that only grow, at `at` seconds."""

    at: float
    busy_s: float
    read_bytes: int
    written_bytes: int


class HostCollector:
    """Samples the host. `disk_path`: whose file system's free space counts.

    `cgroups`: instances have control groups of their own, made by systemd. What they use is read there and the
    limits of the slices around them count; processes are looked at only where `watch` asks for some. None: instances
    are processes, and each one's session, group and children are looked for.
    `own_cgroup`: a memory limit of agentd's own control group counts as the host's size. That is right where
    instances are children of agentd (also in a container), and wrong where systemd gives them groups of their own.
    `look_cpu_ratio`: the share of one core that looking at every process, or at the group of every instance, may
    take; with hundreds of them that is not done for every sample.
    """

    def __init__(
        self,
        disk_path: Path,
        watch: Sequence[WatchSpec] = (),
        *,
        cgroups: Cgroups | None = None,
        own_cgroup: bool = True,
        look_cpu_ratio: float = 0.004,
    ) -> None:
        self._disk_path = disk_path
        self._watch = tuple(watch)
        self._groups = GroupMeter(cgroups) if cgroups is not None else None
        self._cgroups = cgroups or Cgroups()
        self._own_cgroup = own_cgroup
        self._look_cpu_ratio = look_cpu_ratio
        self._cores = os.cpu_count() or 1
        self._totals = _totals()
        self._ticks: dict[tuple[int, int], int] = {}  # CPU time of (pid, start) at the last sample
        self._ticks_at: float | None = None
        self._clock = time.monotonic
        self._look_due = 0.0
        self._seen: frozenset[InstanceId] = frozenset()
        self._instances: Mapping[InstanceId, Usage] = {}
        self._watched: tuple[Watched, ...] = ()

    def watch(self, specs: Sequence[WatchSpec]) -> None:
        """Show these programs from the next sample on."""
        self._watch = tuple(specs)
        self._look_due = 0.0

    def sample(self, pids: Mapping[InstanceId, int]) -> HostSample:
        """The host now, and the use of each instance in `pids` (id -> pid of its first process) that still runs.

        With control groups the pids are not used, and an instance is told from the second sample on that finds it.

        Rates are means since the last sample. Of the first sample, the host's rates are means since the collector
        was made (if that was just now: the load average, and no disk traffic), and each process's CPU time is its
        mean since it started. With many instances, what they use is some seconds old; see `look_cpu_ratio`.
        """
        if self._clock() >= self._look_due or not pids.keys() <= self._seen:
            self._look_at_instances(pids)
        before, self._totals = self._totals, _totals()
        elapsed = self._totals.at - before.at
        load_average = os.getloadavg()[0]
        busy = (self._totals.busy_s - before.busy_s) / elapsed if elapsed >= DELTA_S_MIN else load_average
        total, available = self._memory()
        return HostSample(
            cores=self._cores,
            cpu_used_cores=min(float(self._cores), max(0.0, busy)),
            memory_total_bytes=total,
            memory_available_bytes=available,
            disk_free_bytes=_disk_free_bytes(self._disk_path),
            memory_pressure_percent=self._memory_pressure(pids),
            cpu_pressure_percent=procfs.pressure("cpu"),
            io_pressure_percent=procfs.pressure("io"),
            disk_read_bytes_per_s=_rate(before.read_bytes, self._totals.read_bytes, elapsed),
            disk_write_bytes_per_s=_rate(before.written_bytes, self._totals.written_bytes, elapsed),
            load_average=load_average,
            instances={ident: usage for ident, usage in self._instances.items() if ident in pids},
            walls=self._groups.walls() if self._groups else {},
            watched=self._watched,
        )

    def _look_at_instances(self, pids: Mapping[InstanceId, int]) -> None:
        """Measure instances and watched programs. The next look waits until this one has cost less than its share."""
        began = time.thread_time()
        if self._groups is not None:
            self._instances = self._groups.usage(pids)
        if self._groups is None or self._watch:
            processes = procfs.processes()
            cpu = self._cpu_cores(processes)
            if self._groups is None:
                self._instances = _instances(pids, processes, cpu)
            self._watched = tuple(_watched(spec, processes, cpu, self._cgroups) for spec in self._watch)
        else:
            self._watched = ()
        self._seen = frozenset(pids)
        self._look_due = self._clock() + (time.thread_time() - began) / self._look_cpu_ratio

    def _cpu_cores(self, processes: Mapping[int, Process]) -> dict[int, float]:
        """Of each process, how many cores it kept busy since the last sample."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)  # the clock of a process's start
        before, self._ticks = self._ticks, {}
        result: dict[int, float] = {}
        for pid, process in processes.items():
            key = (pid, process.started_ticks)  # a pid alone may be another process by now
            self._ticks[key] = process.ticks
            born = process.started_ticks / procfs.TICKS_PER_S
            since = born if self._ticks_at is None else max(self._ticks_at, born)
            if key not in before and self._ticks_at is not None and born < self._ticks_at:
                since = born  # it was hidden from us until now
            elapsed = max(now - since, DELTA_S_MIN)
            result[pid] = max(0, process.ticks - before.get(key, 0)) / procfs.TICKS_PER_S / elapsed
        self._ticks_at = now
        return result

    def _memory_pressure(self, pids: Mapping[InstanceId, int]) -> float | None:
        percent = procfs.pressure("memory")
        if percent is None or self._groups is None:
            return percent
        return self._groups.memory_pressure_of_others(percent, pids)

    def _memory(self) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        limit = self._cgroups.own_memory_left() if self._own_cgroup else None
        if limit is None:
            return memory.total, memory.available
        return min(memory.total, limit.total_bytes), min(memory.available, limit.available_bytes)


def _instances(
    pids: Mapping[InstanceId, int], processes: Mapping[int, Process], cpu: Mapping[int, float]
) -> dict[InstanceId, Usage]:
    """What each instance uses: its first process, everything in its session or group, and all their children."""
    memory_bytes: dict[int, int] = {}
    cores: dict[int, float] = {}
    for pid, leader in _owners(frozenset(pid for pid in pids.values() if pid > 0), processes).items():
        memory_bytes[leader] = memory_bytes.get(leader, 0) + procfs.private_bytes(pid)
        cores[leader] = cores.get(leader, 0.0) + cpu[pid]
    return {
        instance: Usage(memory_bytes=memory_bytes[leader], cpu_cores=cores[leader])
        for instance, leader in pids.items()
        if leader in memory_bytes
    }


def _owners(leaders: frozenset[int], processes: Mapping[int, Process]) -> dict[int, int]:
    """Which of `leaders` each process belongs to. Zombies and processes of nobody are left out."""
    owners: dict[int, int | None] = {0: None}

    def owner(pid: int) -> int | None:
        path: list[int] = []
        while pid not in owners:
            process = processes.get(pid)
            path.append(pid)
            if process is None:
                owners[pid] = None
            elif found := next((own for own in (pid, process.session, process.group) if own in leaders), None):
                owners[pid] = found
            else:
                owners[pid] = None  # also ends a circle, which pids that are reused meanwhile can make
                pid = process.parent
                continue
            break
        result = owners[pid]
        for passed in path:
            owners[passed] = result
        return result

    resolved = ((pid, owner(pid)) for pid, process in processes.items() if not process.zombie)
    return {pid: leader for pid, leader in resolved if leader is not None}


def _watched(spec: WatchSpec, processes: Mapping[int, Process], cpu: Mapping[int, float], cgroups: Cgroups) -> Watched:
    """What a watched program and its children use; all of their resident memory, as `top` shows it."""
    roots = set(cgroups.unit_pids(spec.unit)) if spec.unit else set()
    if spec.process:
        shown = spec.process[:15]  # the kernel keeps no more of a name
        roots |= {pid for pid, process in processes.items() if process.name == shown and not process.zombie}
    members = [pid for pid in _descendants(roots, processes) if not processes[pid].zombie]
    return Watched(
        name=spec.name,
        running=bool(members),
        pids=len(members),
        memory_bytes=sum(processes[pid].resident_bytes for pid in members),
        cpu_cores=sum(cpu[pid] for pid in members),
    )


def _descendants(roots: set[int], processes: Mapping[int, Process]) -> set[int]:
    children: dict[int, list[int]] = {}
    if roots:
        for pid, process in processes.items():
            children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    open_pids = [pid for pid in roots if pid in processes]
    while open_pids:
        pid = open_pids.pop()
        if pid not in found:
            found.add(pid)
            open_pids += children.get(pid, [])
    return found


def _totals() -> _Totals:
    times = psutil.cpu_times()._asdict()
    # Guest time is part of user and nice already.
    busy = sum(value for name, value in times.items() if name not in _IDLE and not name.startswith("guest"))
    read_bytes, written_bytes = _disk_bytes()
    return _Totals(time.monotonic(), busy, read_bytes, written_bytes)


def _disk_bytes() -> tuple[int, int]:
    try:
        counters = psutil.disk_io_counters()
    except (OSError, NotImplementedError, RuntimeError):  # containers hide them, and no disk is an ordinary host
        counters = None
    return (counters.read_bytes, counters.write_bytes) if counters else (0, 0)


def _disk_free_bytes(path: Path) -> int:
    """What an ordinary user may still write to the file system of `path`, or of its nearest parent that exists."""
    for place in (path, *path.parents):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        return found.f_bavail * found.f_frsize
    return 0


def _rate(before: int, after: int, elapsed_s: float) -> float:
    return max(0, after - before) / elapsed_s if elapsed_s >= DELTA_S_MIN else 0.0
