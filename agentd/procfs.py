"""What the kernel tells in files: processes, pressure, the limits of control groups.

Owns the parsing of /proc and /sys/fs/cgroup that psutil leaves out or is too slow at for a thousand processes.
Every number is optional: kernels without pressure accounting, hidden processes and processes that end while they
are read are ordinary. Keeps no state.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

_STAT_BYTES_MAX = 4096
_LIMIT_BYTES_MAX = 1 << 60  # version 1 writes a number as large as this for "no limit"


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat. `ticks` is CPU time so far, `started_ticks` counts from boot."""

    pid: int
    name: str
    zombie: bool
    parent: int
    group: int
    session: int
    ticks: int
    started_ticks: int
    resident_bytes: int


def processes(proc: Path = PROC) -> dict[int, Process]:
    """All processes that can be seen, by pid."""
    found: dict[int, Process] = {}
    root = os.fspath(proc)
    for name in os.listdir(root):
        if name.isdigit():
            text = _read(f"{root}/{name}/stat", _STAT_BYTES_MAX)
            process = _parse_stat(int(name), text) if text else None
            if process is not None:
                found[process.pid] = process
    return found


def private_bytes(pid: int, proc: Path = PROC) -> int:
    """Resident memory that is not shared with files or other programs; 0 for a process that is gone.

    It leaves out what 500 agents share (interpreter, libraries) and costs a twentieth of the exact figure.
    """
    fields = _read(f"{os.fspath(proc)}/{pid}/statm", _STAT_BYTES_MAX).split()
    if len(fields) < 3:
        return 0
    return max(0, int(fields[1]) - int(fields[2])) * PAGE_BYTES


def pressure(resource: str, proc: Path = PROC) -> float | None:
    """`some avg10` of "cpu", "memory" or "io" in percent; None where the kernel does not account it."""
    for line in _read(f"{os.fspath(proc)}/pressure/{resource}").splitlines():
        kind, *pairs = line.split()
        if kind == b"some":
            values = dict(pair.split(b"=", 1) for pair in pairs)
            return float(values[b"avg10"]) if b"avg10" in values else None
    return None


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The tightest memory limit that a control group and its parents set, and what is left of it."""

    total_bytes: int
    available_bytes: int


def memory_limit(proc: Path = PROC) -> MemoryLimit | None:
    """The limit of the control group that this process is in; None where nothing limits it.

    File cache that nobody uses counts as available, as it does in the host's own figure.
    """
    limits: list[int] = []
    left: list[int] = []
    for folder in _memory_groups(proc):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        used = _number(folder, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None:
            idle = _statistic(folder / "memory.stat", (b"total_inactive_file", b"inactive_file"))
            limits.append(limit)
            left.append(max(0, limit - max(0, used - idle)))
    return MemoryLimit(min(limits), min(left)) if limits else None


def unit_pids(unit: str, proc: Path = PROC) -> tuple[int, ...]:
    """The processes of a systemd unit, in order; empty where it does not run or there is no systemd."""
    pids: set[int] = set()
    for kind, mount, _ in _cgroup_mounts(proc):
        if kind not in ("cgroup2", "name=systemd"):
            continue
        # A unit lies in its slice; a template's instances lie in a slice of their own within that.
        for folder in (*mount.glob(f"*.slice/{unit}"), *mount.glob(f"*.slice/*.slice/{unit}")):
            for path in (folder / "cgroup.procs", *folder.glob("**/*/cgroup.procs")):
                pids.update(int(line) for line in _read(os.fspath(path)).split())
    return tuple(sorted(pids))


def _parse_stat(pid: int, text: bytes) -> Process | None:
    # The name may hold spaces and parentheses; the last parenthesis ends it.
    end = text.rfind(b")")
    fields = text[end + 2 :].split()
    if end < 0 or len(fields) < 22:
        return None
    return Process(
        pid=pid,
        name=text[text.find(b"(") + 1 : end].decode(errors="replace"),
        zombie=fields[0] in (b"Z", b"X"),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        ticks=int(fields[11]) + int(fields[12]),
        started_ticks=int(fields[19]),
        resident_bytes=int(fields[21]) * PAGE_BYTES,
    )


def _memory_groups(proc: Path) -> Iterator[Path]:
    """The memory control group of this process and its parents, innermost first."""
    paths: dict[str, str] = {}
    for line in _read(f"{os.fspath(proc)}/self/cgroup").decode(errors="replace").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller or "cgroup2"] = path
    for kind, mount, root in _cgroup_mounts(proc):
        if kind not in ("cgroup2", "memory") or kind not in paths:
            continue
        path = paths[kind].removeprefix(root.rstrip("/")).strip("/")
        folder = mount / path
        # Within a container the path may be the host's, of which nothing but our own part is mounted.
        if ".." in path.split("/") or not folder.is_dir():
            folder = mount
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(mount))


def _cgroup_mounts(proc: Path) -> Iterator[tuple[str, Path, str]]:
    """(kind, mount point, mounted root) of each hierarchy; kind is "cgroup2" or a controller of version 1."""
    for line in _read(f"{os.fspath(proc)}/self/mountinfo").decode(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split(maxsplit=2)
        if kind == "cgroup2":
            yield "cgroup2", Path(fields[4]), fields[3]
        elif kind == "cgroup":
            for option in options.rsplit(" ", 1)[-1].split(","):
                yield option, Path(fields[4]), fields[3]


def _number(folder: Path, *names: str) -> int | None:
    """The number in the first of these files; None where there is none, or it stands for "no limit"."""
    for name in names:
        text = _read(f"{folder}/{name}").strip()
        if text.isdigit():
            return int(text) if int(text) < _LIMIT_BYTES_MAX else None
    return None


def _statistic(path: Path, names: tuple[bytes, ...]) -> int:
    values = dict(line.split()[:2] for line in _read(os.fspath(path)).splitlines() if len(line.split()) == 2)
    return next((int(values[name]) for name in names if name in values), 0)


def _read(path: str, bytes_max: int | None = None) -> bytes:
    """A file of the kernel's; empty where it is not there (any more) or not for us to see.

    `bytes_max`: the file is known to be shorter, one read gets it all. Other files come in pieces of any length.
    """
    chunks: list[bytes] = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        while chunk := os.read(descriptor, bytes_max or 65_536):
            chunks.append(chunk)
            if bytes_max:
                break
    except OSError:  # it ended while it was read
        return b""
    finally:
        os.close(descriptor)
    return b"".join(chunks)
