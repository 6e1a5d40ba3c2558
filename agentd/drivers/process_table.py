"""What runs on this host, read from /proc, and which of it belongs to agentd's instances.

Owns: reading and caching `/proc/PID/stat` and `/proc/PID/environ`. Never signals a process.

An instance's processes are recognised by their environment: `AGENTD_STATE_ID` says which agentd,
`AGENTD_INSTANCE` and `AGENTD_INCARNATION` say which run of which instance. A process is named by its pid
together with its start time, because the kernel gives pids out again. The environment is read without regard
to the process's user: the kernel shows an ordinary user their own processes only, and root must find the
agents that gave up its rights.

The environment that the kernel shows is the one given at exec. A program that writes its title over that memory
(setproctitle does) says nothing of itself any more: a new agentd finds it by its children, if it has any.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from msgspec import Struct

from agentd.core.model import Incarnation, InstanceId, parse_instance_id

SETTLED_S = 2.0
"""A process younger than this may still be between fork and exec: that it is not ours is not remembered."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ENVIRON_BYTES_MAX = 8 * 1024 * 1024
_DEAD = frozenset((b"Z", b"X", b"x"))


class Owner(NamedTuple):
    """Whose a process is."""

    instance: InstanceId
    incarnation: Incarnation


class Birth(NamedTuple):
    """What the environment of a process says. `blank`: it was overwritten, and says nothing of anybody."""

    owner: Owner | None
    blank: bool


FOREIGN = Birth(None, blank=False)


class Row(NamedTuple):
    """One process. `start_ticks` is its start in clock ticks since boot; a zombie is not alive."""

    pid: int
    start_ticks: int
    alive: bool
    session: int
    birth: Birth = FOREIGN


class Remains(Struct, frozen=True):
    """What may be left of one run of an instance: its session, and whatever carries its incarnation.

    `pid` is that of the session's leader, or 0 where no leader is known and the incarnation alone decides.
    """

    incarnation: Incarnation
    pid: int = 0
    start_ticks: int = 0


class Snapshot:
    """The processes of the host at one moment."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {row.pid: row for row in rows}
        self._sessions: dict[int, list[Row]] = defaultdict(list)
        self._incarnations: dict[Owner, list[Row]] = defaultdict(list)
        for row in self._rows.values():
            if row.alive:
                self._sessions[row.session].append(row)
                if row.birth.owner is not None:
                    self._incarnations[row.birth.owner].append(row)
        self._members: dict[Incarnation, list[Row]] = defaultdict(list)
        for owner, members in self._incarnations.items():
            self._members[owner.incarnation].extend(members)

    def leaders(self) -> dict[Owner, Row | None]:
        """Each living incarnation and the process that leads it: its oldest session leader.

        None: leftovers without a leader. A leader may be blank, but it never has an environment without our marks:
        that is the shell of a person who tries an agent's environment.
        """
        return {owner: self._leader(owner, members) for owner, members in sorted(self._incarnations.items())}

    def left_of(self, remains: Remains) -> list[Row]:
        """The living processes of `remains`, by pid; never this process itself."""
        found = {row.pid: row for row in self._members.get(remains.incarnation, ())}
        if remains.pid and not self._is_reused(remains):
            found.update((row.pid, row) for row in self._sessions.get(remains.pid, ()))
        found.pop(os.getpid(), None)
        return [found[pid] for pid in sorted(found)]

    def _is_reused(self, remains: Remains) -> bool:
        """The kernel gives a pid out again only once the session of that number has no member left."""
        head = self._rows.get(remains.pid)
        return head is not None and head.start_ticks != remains.start_ticks

    def _leader(self, owner: Owner, members: list[Row]) -> Row | None:
        heads = (self._rows.get(session) for session in {row.session for row in members})
        leading = [head for head in heads if head and head.alive and (head.birth.owner == owner or head.birth.blank)]
        return min(leading, key=lambda row: (row.start_ticks, row.pid), default=None)


class ProcessTable:
    """Reads the host's processes; remembers whose each one is for as long as it lives."""

    def __init__(self, state_id: str, noted: Callable[[int, int], Owner | None] = lambda _pid, _ticks: None) -> None:
        """`noted(pid, start_ticks)` tells whose a process is that does not say so itself; see `process_births`."""
        self._mark = b"\0AGENTD_STATE_ID=" + state_id.encode() + b"\0"
        self._noted = noted
        self._known: dict[int, tuple[int, Birth]] = {}

    def scan(self) -> Snapshot:
        """Read every process: about 15 us each, 10 us more for one not seen before.

        Raises:
            OSError: they cannot all be read now. A snapshot holds everything or is not made.
        """
        settled_ticks = int((seconds_since_boot() - SETTLED_S) * _TICKS_PER_S)
        known: dict[int, tuple[int, Birth]] = {}
        rows = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            row = self._row(int(name))
            if row is None:
                continue
            rows.append(row)
            if row.birth.owner is not None or row.start_ticks < settled_ticks:
                known[row.pid] = (row.start_ticks, row.birth)
        self._known = known
        return Snapshot(rows)

    def _row(self, pid: int) -> Row | None:
        stat = read_stat(pid)
        if stat is None:
            return None
        before = self._known.get(pid)
        if before is not None and before[0] == stat.start_ticks:
            birth = before[1]
        else:
            birth = self._birth(pid) if stat.alive else FOREIGN
            if birth.owner is None and (owner := self._noted(pid, stat.start_ticks)) is not None:
                birth = Birth(owner, blank=False)
        return Row(pid, stat.start_ticks, stat.alive, stat.session, birth)

    def _birth(self, pid: int) -> Birth:
        data = _read(f"/proc/{pid}/environ", _ENVIRON_BYTES_MAX)
        if data is None:
            return FOREIGN
        if self._mark not in b"\0" + data:
            return Birth(None, blank=data.count(b"=") < 2)  # a title may hold one
        values = dict(pair.split(b"=", 1) for pair in data.split(b"\0") if b"=" in pair)
        instance = values.get(b"AGENTD_INSTANCE", b"").decode("ascii", "replace")
        incarnation = values.get(b"AGENTD_INCARNATION", b"").decode("ascii", "replace")
        try:
            parse_instance_id(instance)
        except ValueError:
            return FOREIGN  # somebody else's use of our variable names
        return Birth(Owner(InstanceId(instance), Incarnation(incarnation)), blank=False) if incarnation else FOREIGN


class Stat(NamedTuple):
    start_ticks: int
    alive: bool
    session: int


def read_stat(pid: int) -> Stat | None:
    """What `/proc/PID/stat` says of `pid`, or None where there is no such process."""
    data = _read(f"/proc/{pid}/stat", 4096)
    if not data:
        return None
    # The name, in parentheses, may hold anything; the fields after it are state, parent, group, session, ...
    fields = data[data.rindex(b")") + 2 :].split(b" ", 20)
    return Stat(int(fields[19]), fields[0] not in _DEAD, int(fields[3]))


def seconds_since_boot() -> float:
    """The clock that start times of processes are counted on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def age_s(start_ticks: int) -> float:
    """How long ago a process with this start time began."""
    return max(0.0, seconds_since_boot() - start_ticks / _TICKS_PER_S)


def _read(path: str, bytes_max: int) -> bytes | None:
    """The content of a file in /proc; None where its process is gone or is hidden from us.

    Raises:
        OSError: anything else, as no descriptor left: then nobody may take the process for gone.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        data = os.read(fd, min(bytes_max, 65536))
        while len(data) >= 65536 and len(data) < bytes_max and (more := os.read(fd, 65536)):
            data += more
    except (ProcessLookupError, PermissionError):
        return None
    finally:
        os.close(fd)
    return data
