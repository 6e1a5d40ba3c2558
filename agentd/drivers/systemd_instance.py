"""One instance as the systemd driver knows it: how its unit stood when it was last looked at.

Owns the bookkeeping of one id: its latest incarnation, the jobs of a call under way, the deadline of a stop. Asks
systemd nothing and decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct, field

from agentd.core.model import ExitCause, InstanceId, InstanceSpec, Observed, Phase
from agentd.drivers.systemd_unit import Process, waits
from agentd.units import unit_name


class Entry(Struct):
    """All that the driver remembers of one id. There are as many as there are ids, which are configured ports.

    Invariants: what is remembered changes only under `lock`, and `process` is set wherever `phase` is.
    `phase` None: there is nothing of it that would be listed.
    """

    id: InstanceId
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    spec: InstanceSpec | None = None
    phase: Phase | None = None
    process: Process | None = None  # the latest incarnation, also after its end
    ready: bool = True  # as in Observed
    cause: ExitCause | None = None  # why the latest incarnation ended, None while it runs
    not_begun: str = ""  # systemd's word for why the restart after that came to no process
    held: bool = False  # an operator has stopped it
    kills_at_birth: int = 0
    moved: int = 0  # the number of the last look that a start or stop of ours may have overtaken
    told: tuple[str, str, str] | None = None  # the last signal's states and incarnation, until it has been looked at
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    calling: bool = False  # a start or stop of ours is under way
    jobs: dict[str, str] = field(default_factory=dict)  # those that ended during it, and how
    missed_signals: bool = False
    stopping: asyncio.Task[bool] | None = None
    deadline: float | None = None  # of the stop under way, on the loop's clock
    killed: bool = False
    kill: Callable[[], None] | None = None
    kill_timer: asyncio.TimerHandle | None = None
    forgiving: asyncio.TimerHandle | None = None

    @property
    def unit(self) -> str:
        return unit_name(self.id)

    def observed(self) -> Observed:
        """How the instance is listed; only where `phase` is not None."""
        assert self.phase is not None and self.process is not None
        process = self.process
        pid = process.pid if self.phase is Phase.RUNNING else 0
        return Observed(self.id, process.incarnation, pid, self.phase, process.started_wall, self.ready)

    def is_latest(self, incarnation: str) -> bool:
        return self.process is not None and self.process.incarnation == incarnation

    def is_news(self) -> bool:
        """Whether the last signal told of anything that is not remembered already."""
        if self.told is None:
            return False
        active, sub, incarnation = self.told
        if self.phase is Phase.RUNNING:
            known = self.ready and self.is_latest(incarnation)
            return not (active == "active" and sub == "running" and known)
        if self.phase is Phase.BACKOFF:
            return not (waits(sub) and self.is_latest(incarnation))
        if self.phase is Phase.FAILED:
            return active != "failed"
        return active not in ("inactive", "failed")

    def run(self, process: Process, kills_at_birth: int, *, ready: bool = True) -> None:
        self.phase = Phase.RUNNING
        self.process = process
        self.ready = ready
        self.cause = None
        self.not_begun = ""
        self.held = False
        self.kills_at_birth = kills_at_birth

    def leave(self, phase: Phase | None) -> None:
        """It does not run any more."""
        self.phase = phase
        self.ready = True
        if self.forgiving is not None:
            self.forgiving.cancel()
            self.forgiving = None

    # -- a call under way -----------------------------------------------------------------------

    def begin_call(self) -> None:
        self.calling = True
        self.jobs.clear()
        self.missed_signals = False

    def end_call(self) -> None:
        self.calling = False

    def job_ended(self, job: str, result: str) -> None:
        self.jobs[job] = result
        self.woken.set()

    def hurry(self, deadline: float) -> None:
        """Kill at `deadline` at the latest; an earlier one stays."""
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline
            self._arm()

    def kill_with(self, kill: Callable[[], None] | None) -> None:
        """From now on the deadline means `kill`; None: nothing any more."""
        self.kill = kill
        self._arm()

    def stopped(self) -> None:
        """The stop has ended, one way or the other."""
        self.deadline = self.stopping = None
        self.killed = False
        self.kill_with(None)

    def _arm(self) -> None:
        if self.kill_timer is not None:
            self.kill_timer.cancel()
            self.kill_timer = None
        if self.kill is not None and self.deadline is not None:
            self.kill_timer = asyncio.get_running_loop().call_at(self.deadline, self.kill)
