"""The control groups of one test host: one in every hierarchy that systemd manages, v1, hybrid or v2.

Owns a group `agentd-testhost-NAME` in each hierarchy. Everything that belongs to a host runs in its groups, so killing
what is in them and removing them is a complete teardown that needs no state. It never touches another group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
# cgroup v1 controllers that systemd manages; the others stay as the machine has them.
V1 = frozenset(("name=systemd", "cpu", "cpuacct", "memory", "pids", "blkio", "devices"))
V2 = frozenset(("cpu", "memory", "pids", "io"))
POLL_S = 0.02
JOIN = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'


class CgroupError(Exception):
    """A host's groups cannot be made, emptied or removed."""


def roots() -> list[Path]:
    """The mount points of the hierarchies that matter to systemd."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4])
        kind, _, options = right.split()[:3]
        if point.is_relative_to(CGROUPS) and (kind == "cgroup2" or (kind == "cgroup" and V1 & {*options.split(",")})):
            found.append(point)
    return list(dict.fromkeys(found))


def start_time(pid: int) -> str | None:
    """When the process started, in clock ticks since boot: tells it from a later one with its pid. None: it ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def make(name: str) -> None:
    """Make the host's groups. On v2 the controllers are handed down to them.

    Raises:
        CgroupError: this machine has processes where v2 allows none, as in most containers.
    """
    for top in _tops(name):
        top.mkdir(exist_ok=True)
        if _is_v2(top):
            _hand_down(top.parent)
            _hand_down(top)


def joining(name: str, leaf: str) -> list[str]:
    """A prefix for a command: join the host's groups first.

    `leaf` is "host" for systemd-nspawn and "outside" for everything that is not below the host's systemd. Only v2 makes
    the difference: there, a group that has handed its controllers down holds no processes.
    """
    groups = []
    for top in _tops(name):
        group = top / leaf if _is_v2(top) else top
        group.mkdir(exist_ok=True)
        groups.append(str(group))
    return ["sh", "-c", JOIN, "sh", *groups, "--"]


def reset(name: str) -> None:
    """Make room for another boot: v2 takes no process back into a group that has handed its controllers down."""
    for top in _tops(name):
        host = top / "host"
        if _is_v2(top) and host.exists():
            for group in _walk(host):
                if group != host:
                    with contextlib.suppress(FileNotFoundError):
                        group.rmdir()
            for controller in (host / "cgroup.subtree_control").read_text().split():
                (host / "cgroup.subtree_control").write_text(f"-{controller}")


def leader(name: str) -> int | None:
    """The host's PID 1, as a pid of this machine. It changes when the host reboots; None while there is none."""
    for top in _tops(name):
        for group in ("payload/init.scope", "host/payload/init.scope", "init.scope", "payload", "host/payload"):
            for pid in _pids_in(top / group):
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    inner = next((line.split()[2:] for line in status.splitlines() if line.startswith("NSpid:")), [])
                    if inner == ["1"] and start_time(pid):
                        return pid
    return None


def pids(name: str) -> set[int]:
    """Every process of the host, as pids of this machine."""
    return {pid for top in _tops(name) for group in _walk(top) for pid in _pids_in(group) if start_time(pid)}


def exist(name: str) -> bool:
    """Whether any of the host's groups is there."""
    return any(top.exists() for top in _tops(name))


def remove(name: str, timeout_s: float = 20) -> None:
    """Kill every process of the host and remove its groups. Groups that are not there are fine.

    Raises:
        CgroupError: a process did not die, or a group stayed busy.
    """
    deadline = time.monotonic() + timeout_s
    while exist(name):
        left = pids(name)
        if time.monotonic() > deadline:
            raise CgroupError(f"cannot remove the control groups of {name}; its processes are {sorted(left)}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for group in [group for top in _tops(name) for group in _walk(top)]:
            with contextlib.suppress(OSError):  # busy until its processes are reaped; the deadline above tells
                group.rmdir()
        time.sleep(POLL_S)


def _tops(name: str) -> list[Path]:
    return [root / f"agentd-testhost-{name}" for root in roots()]


def _is_v2(group: Path) -> bool:
    return (group.parent / "cgroup.controllers").exists()


def _hand_down(group: Path) -> None:
    for controller in sorted(V2 & {*(group / "cgroup.controllers").read_text().split()}):
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as trouble:
            raise CgroupError(f"cannot hand {controller} down in {group}: {trouble.strerror}") from None


def _walk(top: Path) -> Iterator[Path]:
    """`top` and the groups below it, children first."""
    return (Path(directory) for directory, _, _ in os.walk(top, topdown=False))


def _pids_in(group: Path) -> list[int]:
    try:
        return [pid for pid in map(int, (group / "cgroup.procs").read_text().split()) if pid]
    except OSError:
        return []
