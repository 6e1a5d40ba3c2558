"""What systemd says of one instance's unit, in the words of agentd.

Owns the reading of a unit's state and properties, and their translation into phases and causes. Changes nothing.

A unit whose agent has ended and that waits for its restart passes through `failed` on some releases; the sub-state
decides. Numbers that systemd does not know are UINT64_MAX.
"""

from __future__ import annotations

import asyncio
import signal
from enum import Enum, auto
from typing import Any

from msgspec import Struct

from agentd.core.model import ExitCause, ExitKind, Incarnation
from agentd.drivers.systemd_bus import SERVICE, UNIT, SystemdBus, UnitRow

UNKNOWN = (1 << 64) - 1
"""systemd's number for "not known", "no limit" and "never"."""

NOT_FOUND_STATUS = 127
"""The launcher's word for a command that does not exist; the template does not restart it."""

_CLD_EXITED = 1
SETUP_STATUS_MIN = 200
"""From here on an exit status is systemd's own, of what it does between fork and exec."""


class Standing(Enum):
    """How a unit stands."""

    GONE = auto()
    RUNNING = auto()
    WAITING = auto()  # for its restart
    FAILED = auto()
    MOVING = auto()  # neither, and a job will bring it somewhere else


def waits(sub: str) -> bool:
    """Whether a unit in this sub-state waits for its restart."""
    return sub.startswith("auto-restart") or sub.endswith("-before-auto-restart")


def standing(row: UnitRow | None) -> Standing:
    """How the unit of `row` stands; None is a unit that systemd has not loaded."""
    if row is None:
        return Standing.GONE
    if waits(row.sub):
        return Standing.WAITING
    if row.active in ("inactive", "failed"):
        if row.job:
            return Standing.MOVING
        return Standing.FAILED if row.active == "failed" else Standing.GONE
    return Standing.RUNNING


class Process(Struct, frozen=True):
    """One incarnation of an instance. `restarts`: how many came before it since systemd last forgave."""

    incarnation: Incarnation
    pid: int
    started_wall: float
    restarts: int = 0


class Run(Struct, frozen=True):
    """A unit's last run as systemd remembers it; `pid` 0: it came to no process.

    `was_up`: it was ready before it ended. `stopped_first`: somebody asked it to stop before it ended.
    """

    incarnation: Incarnation
    sub: str
    pid: int
    started_wall: float
    result: str
    exited: bool
    status: int
    restarts: int
    was_up: bool
    stopped_first: bool
    memory_max_bytes: int | None
    restart_in_s: float

    @property
    def process(self) -> Process:
        return Process(self.incarnation, self.pid, self.started_wall, self.restarts)

    def cause(self, *, out_of_memory: bool = False) -> ExitCause:
        """Why it ended. `out_of_memory`: a SIGKILL was the kernel's, for memory, although systemd does not know it."""
        match self.result:
            case "oom-kill":
                return ExitCause(ExitKind.OOM, signal.SIGKILL)
            case "watchdog":
                return ExitCause(ExitKind.WATCHDOG, self.status)
            case "timeout":
                return ExitCause(ExitKind.TIMEOUT, self.status)
        if self.pid == 0:
            return ExitCause(ExitKind.UNKNOWN)
        if not self.exited:
            kind = ExitKind.OOM if out_of_memory and self.status == signal.SIGKILL else ExitKind.SIGNAL
            return ExitCause(kind, self.status)
        setup = self.status >= SETUP_STATUS_MIN and not self.was_up
        return ExitCause(ExitKind.SETUP if setup else ExitKind.EXIT, self.status)

    @property
    def not_found(self) -> bool:
        """There is no such program."""
        return self.exited and self.status == NOT_FOUND_STATUS and not self.was_up


async def read_process(bus: SystemdBus, unit: str) -> Process:
    """The running incarnation of `unit`. Raises BusError."""
    incarnation, pid, started, restarts = await asyncio.gather(
        read_incarnation(bus, unit),
        bus.get(unit, SERVICE, "MainPID"),
        bus.get(unit, SERVICE, "ExecMainStartTimestamp"),
        bus.get(unit, SERVICE, "NRestarts"),
    )
    return Process(incarnation, pid, started / 1e6, restarts)


async def read_incarnation(bus: SystemdBus, unit: str) -> Incarnation:
    """The invocation id of `unit`'s present or last run. Raises BusError."""
    return Incarnation(bytes(await bus.get(unit, UNIT, "InvocationID")).hex())


async def read_run(bus: SystemdBus, unit: str) -> Run:
    """The last run of `unit`, which has ended or is about to. Raises BusError.

    All but `sub` is of one run; `sub` is read last, and tells whether the unit has moved on since it was listed.
    """
    while True:
        about_unit, service, incarnation, sub = await asyncio.gather(
            bus.get_all(unit, UNIT),
            bus.get_all(unit, SERVICE),
            read_incarnation(bus, unit),
            bus.get(unit, UNIT, "SubState"),
        )
        if bytes(about_unit["InvocationID"]).hex() == incarnation:
            return _run(service, about_unit, incarnation, sub)


def _run(service: dict[str, Any], unit: dict[str, Any], incarnation: Incarnation, sub: str) -> Run:
    started, ended = service["ExecMainStartTimestampMonotonic"], service["ExecMainExitTimestampMonotonic"]
    left_active = unit["ActiveExitTimestampMonotonic"]
    result = service["Result"]
    memory_max = service["MemoryMax"]
    # Before systemd 254 the delay is always the same one.
    delay = service.get("RestartUSecNext", service["RestartUSec"])
    return Run(
        incarnation=incarnation,
        sub=sub,
        pid=service["ExecMainPID"],
        started_wall=service["ExecMainStartTimestamp"] / 1e6,
        result=result,
        exited=service["ExecMainCode"] == _CLD_EXITED,
        status=service["ExecMainStatus"],
        restarts=service["NRestarts"],
        was_up=0 < started <= unit["ActiveEnterTimestampMonotonic"],
        # systemd itself stops what misses its watchdog or was killed for memory.
        stopped_first=started <= left_active < ended and result not in ("watchdog", "oom-kill"),
        memory_max_bytes=None if memory_max == UNKNOWN else memory_max,
        restart_in_s=0.0 if delay == UNKNOWN else delay / 1e6,
    )
