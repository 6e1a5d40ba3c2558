"""One instance as the process driver knows it: its present process, and what became of earlier ones.

Owns: the pidfd, the cause of an exit, the count of failures and the deadline of a stop. Decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from msgspec import Struct, field

import agentd.log
from agentd.core.model import (
    ExitCause,
    ExitKind,
    Incarnation,
    InstanceId,
    InstanceSpec,
    Observed,
    Phase,
)
from agentd.drivers.process_table import Remains

LET_GO_S = 5.0
"""How long after a SIGKILL that was refused the end of a process is still waited for."""

log = agentd.log.get("driver")


class Live(Struct):
    """A running leader. `pidfd` holds its identity; `started` is on the driver's monotonic clock.

    `exited` is resolved with the cause of its end, or with UNKNOWN where its end is no longer waited for.
    `refused`: a signal of ours was, because the process has changed its user.
    """

    remains: Remains
    pidfd: int
    started: float
    exited: asyncio.Future[ExitCause]
    killed: bool = False
    refused: bool = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the leader; nothing happens where it has ended already, or is not ours to signal."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            if not self.refused:
                log.warning("cannot signal a process", pid=self.remains.pid, cause=error)
            self.refused = True

    def kill(self) -> None:
        """Send SIGKILL; where that is refused, wait for the end only LET_GO_S longer."""
        self.killed = True
        self.signal(signal.SIGKILL)
        if self.refused:
            asyncio.get_running_loop().call_later(LET_GO_S, self.ended, ExitCause(ExitKind.UNKNOWN))

    def ended(self, cause: ExitCause) -> None:
        """Resolve `exited`; the first cause counts."""
        if not self.exited.done():
            self.exited.set_result(cause)

    def reap(self) -> ExitCause:
        """The cause of the leader's exit, once its pidfd is readable. Kills the rest of its group first.

        As long as a child of ours is not reaped its pid, which is its group's number too, cannot be given out again.
        Another parent may have reaped an adopted one: its group is left to the sweep, and its cause is unknown.
        """
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return ExitCause(ExitKind.UNKNOWN)
        if self.remains.pid != os.getpgrp():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.remains.pid, signal.SIGKILL)
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return ExitCause(ExitKind.UNKNOWN)
        kind = ExitKind.EXIT if result.si_code == os.CLD_EXITED else ExitKind.SIGNAL
        return ExitCause(kind, result.si_status)


class Entry(Struct):
    """All that the driver remembers of one id. There are as many as there are ids, which are configured ports.

    Invariants: `live` is set exactly while `phase` is RUNNING; nothing is spawned for the id except under `lock`.
    `phase` None: there is nothing of it, its leftovers aside.
    """

    id: InstanceId
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    spec: InstanceSpec | None = None
    phase: Phase | None = None
    live: Live | None = None
    remains: Remains | None = None  # of the previous process, until it is cleared
    incarnation: Incarnation = field(default=Incarnation(""))  # the latest, also after its end
    started_wall: float = 0.0
    failures: int = 0
    recovery: asyncio.Task[None] | None = None
    stopping: asyncio.Task[bool] | None = None
    deadline: float | None = None  # of the stop under way, on the loop's clock
    kill_timer: asyncio.TimerHandle | None = None

    def observed(self) -> Observed:
        """How the instance is listed; only where `phase` is not None."""
        assert self.phase is not None
        pid = self.live.remains.pid if self.live is not None else 0
        return Observed(self.id, self.incarnation, pid, self.phase, self.started_wall)

    def is_moving(self) -> bool:
        """A start, a restart or a stop is under way."""
        return self.lock.locked() or self.stopping is not None or self.recovery is not None or self.remains is not None

    def holds(self, incarnation: Incarnation) -> bool:
        """`incarnation` runs, or its leftovers are being killed."""
        return self.incarnation == incarnation and (self.live is not None or self.remains is not None)

    def run(self, live: Live, started_wall: float) -> None:
        self.live = live
        self.phase = Phase.RUNNING
        self.incarnation = live.remains.incarnation
        self.started_wall = started_wall
        self.recovery = None

    def exited(self, live: Live) -> None:
        """The leader has ended. It waits for its restart, or is gone where it is not to be restarted."""
        self.live = None
        self.remains = live.remains
        restarts = self.spec is not None and self.stopping is None
        self.phase = Phase.BACKOFF if restarts else None

    def count_failure(self, ran_s: float | None) -> int:
        """Note an exit after `ran_s`, or (None) a restart that did not come about; the failures in a row."""
        assert self.spec is not None
        if ran_s is not None and ran_s >= self.spec.restart.healthy_s:
            self.failures = 0
        self.failures += 1
        return self.failures

    def recovered(self, recovery: asyncio.Task[None]) -> None:
        """`recovery` has ended, in a restart or in surrender."""
        if self.recovery is recovery:
            self.recovery = None

    def cancel_recovery(self) -> None:
        if self.recovery is not None:
            self.recovery.cancel()
            self.recovery = None

    def hurry(self, deadline: float) -> None:
        """Kill at `deadline` at the latest; an earlier one stays."""
        if self.deadline is not None and self.deadline <= deadline:
            return
        self.deadline = deadline
        if self.kill_timer is not None and self.live is not None:
            self.kill_timer.cancel()
            self.arm(self.live)

    def arm(self, live: Live) -> None:
        assert self.deadline is not None
        self.kill_timer = asyncio.get_running_loop().call_at(self.deadline, live.kill)

    def stopped(self) -> None:
        """The stop has ended: nothing of the instance is left."""
        if self.kill_timer is not None:
            self.kill_timer.cancel()
        self.kill_timer = self.deadline = self.stopping = None
        self.phase = None
        self.failures = 0
