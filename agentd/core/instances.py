"""One instance, as `core.state` remembers it, and why it was started or is being stopped."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from agentd.core import lifecycle
from agentd.core.messages import Stage
from agentd.core.model import DirectiveKind, Incarnation, InstanceId, PoolName, State, Usage

NO_INCARNATION = Incarnation("")


class Purpose(StrEnum):
    """Why an instance was started, or why it is being stopped."""

    CORE = "core"
    MINIMUM = "minimum"
    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    RELIEF = "relief"
    ASKED_FOR = "asked_for"
    REPLACE = "replace"
    RESTART = "restart"
    STAND_IN = "stand_in"
    ADOPTED = "adopted"
    CONFIGURATION = "configuration"
    NOT_READY = "not_ready"
    SHUTDOWN = "shutdown"
    STRAY = "stray"


# Every evaluation asks for it, and in Python 3.11 to name a member of an enum is a call.
_STAND_IN = Purpose.STAND_IN
# An instance that leaves for one of these makes its pool smaller.
SHRINKING = frozenset({Purpose.SCALE_DOWN, Purpose.RELIEF})


class Instance(Struct):
    """One instance. Times are monotonic; `wake_at` is when `Alarms` looks at it next (0: never)."""

    id: InstanceId
    pool: PoolName
    port: int
    state: State
    since: float
    created_at: float
    purpose: Purpose
    decision: str = ""
    reason: str = ""  # of the scale-up that made it, until that is told
    core_name: str | None = None
    incarnation: Incarnation = NO_INCARNATION
    pid: int = 0
    cause: str = ""
    requested_at: float | None = None  # when the driver was asked to start it, while that start is timed
    started_at: float = 0.0  # its time to become ready counts from here
    born_at: float = 0.0  # when its present process began
    ever_ready: bool = False
    restarts: int = 0
    # health: silence counts from here
    heard_at: float = 0.0
    missed: int = 0
    wake_at: float = 0.0
    # what it last said, and when
    seq: int = 0
    beat_at: float = 0.0
    load: float | None = None
    queue_length: int | None = None
    in_flight: int | None = None
    tasks_completed: int | None = None
    completed: int = 0  # of all its processes, as far as agentd has seen
    completed_told: int | None = None  # the last count of its process, whichever heartbeat had one
    # The last that it reported, of whichever heartbeat: one without a task finished since says nothing of its speed.
    response_time_p50_s: float | None = None
    response_time_p95_s: float | None = None
    timed_at: float = 0.0  # when they came
    labels: Mapping[str, str] = field(default_factory=dict)
    still_at: float = 0.0  # since when its event loop has stood still, by its own word; 0: it runs, or there is none
    # tasks per second, counted over a few seconds, and the count that it is counted from
    rate: float | None = None
    counted_at: float = 0.0
    counted: int = 0
    turned_at: float = 0.0  # since when it has had work, or none, without a break; 0: it does not say
    # What it costs: since when its time does (None: it does not), how many of its process's tasks are in the books of
    # its pool (-1: nobody knows, so all that its next report tells), and tasks of earlier processes that are not.
    costs_from: float | None = None
    paid_tasks: int = 0
    unpaid_tasks: int = 0
    # leaving
    stop_purpose: Purpose | None = None
    stop_decision: str = ""
    leaving_at: float = 0.0
    grace_s: float = 0.0  # between TERM and KILL
    cut: bool = False  # its drain timeout passed before it had finished
    # the directive it was given last (0: none), and what it said of it
    directive: int = 0
    directive_kind: DirectiveKind = DirectiveKind.CONTINUE
    stage: Stage | None = None
    done_follows: bool = False
    asked_at: float = 0.0  # its time to answer counts from here
    told: bool = False  # it was in an answer to a heartbeat, of this agentd
    resume_tried: bool = False  # taking it back was tried, in vain
    # settings: what it works with (0: unknown, so as configured), what a person wants (0: nothing of its own), and
    # what it was asked for last (0: nothing since it began)
    slots: int = 0
    own_slots: int = 0
    asked_slots: int = 0
    own_interval_s: float = 0.0
    asked_interval_s: float = 0.0
    overdue: bool = False  # that it has not answered was told
    launched: bool = True  # False: pending, and the driver has not been asked yet
    retry_at: float = 0.0  # failed, and to be tried again then; 0: not by itself
    again: bool = False  # start it again once it is gone
    operator_hold: bool = False  # held, and nothing of it runs: an operator stopped it past agentd
    oom_kills: int = 0
    # replacement
    replaces: InstanceId | None = None
    replaced_by: InstanceId | None = None
    usage: Usage | None = None

    @property
    def is_core(self) -> bool:
        return self.core_name is not None

    @property
    def is_adopted(self) -> bool:
        """It was found running, and nothing was remembered of it."""
        return self.purpose is Purpose.ADOPTED

    @property
    def work(self) -> int | None:
        """The tasks it has begun or queued, by its own word; None: it does not say."""
        if self.in_flight is None and self.queue_length is None:
            return None
        return (self.in_flight or 0) + (self.queue_length or 0)

    @property
    def tasks_due(self) -> int:
        """The tasks it has done, by its own word, that are not in the books."""
        done = 0 if self.tasks_completed is None or self.paid_tasks < 0 else self.tasks_completed - self.paid_tasks
        return self.unpaid_tasks + max(0, done)

    @property
    def occupies(self) -> bool:
        """Something of it is there, or was asked for: its time costs."""
        if self.state is State.PENDING:
            return self.launched
        if self.state is State.HELD:
            return not self.operator_hold
        return self.state not in (State.FAILED, State.STOPPED)

    @property
    def is_resuming(self) -> bool:
        """It drains, and has been asked to take work again."""
        return self.state is State.DRAINING and self.directive_kind is DirectiveKind.RESUME

    @property
    def counts(self) -> bool:
        """It is committed capacity of its pool: ready, on its way (back) to it, failed, or not yet replaced."""
        if self.replaced_by or self.purpose is _STAND_IN:
            return False  # one that stands in does not change what its pool has: those it stands in for count
        return self.state in lifecycle.COMMITTED or self.again or self.is_resuming

    def forget_reports(self) -> None:
        """A new process begins: what the old one said is no longer true."""
        self.unpaid_tasks, self.paid_tasks = self.tasks_due, 0
        self.seq = 0
        self.missed = 0
        self.load = self.queue_length = self.in_flight = self.tasks_completed = None
        self.completed_told = None
        self.response_time_p50_s = self.response_time_p95_s = None
        self.timed_at = 0.0
        self.labels = {}
        self.still_at = self.turned_at = self.counted_at = 0.0
        self.rate = None
        self.usage = None
