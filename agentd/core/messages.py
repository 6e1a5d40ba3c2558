"""Everything that can happen to the controller (Event) and everything it can ask for (Action).

All are frozen values. An event carries no time of its own: `Controller.step(event, now)` is given the
monotonic time at which agentd took notice; wall time enters with `Tick` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from agentd.core.effects import Effect
from agentd.core.model import (
    Decision,
    Directive,
    ExitCause,
    FleetConfig,
    HostSample,
    Incarnation,
    InstanceId,
    InstanceSpec,
    Observed,
    PoolName,
    StartFailure,
)

# -- events -------------------------------------------------------------------------------------


class Restored(Struct, frozen=True):
    """agentd has started with what an earlier one saved: `rows` as `Outcome.rows` gave them.

    `saved_at` and `saved_wall` are the monotonic and wall time of the last save; saved times are moved by
    the wall time that passed since, so that cooldowns are neither forgotten nor prolonged.
    """

    rows: Mapping[str, str]
    saved_at: float
    saved_wall: float
    wall: float


class Tick(Struct, frozen=True):
    """Time has come: deadlines are looked at, and pools evaluated when their check is due.

    `gap_s`: how long agentd's loop stood still before this, if it did.
    """

    wall: float
    gap_s: float = 0.0


class Stage(StrEnum):
    """How far an agent has come with a directive."""

    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"


class Acknowledgement(Struct, frozen=True):
    """What an agent says of directive `id`. `done_follows`: it has accepted a drain and will say when that is done."""

    id: int
    stage: Stage
    text: str = ""
    done_follows: bool = False


class Beat(Struct):
    """An agent's report. None: the agent does not know. Already range-checked by the edge.

    `load` in [0, 1]; counts at least 0; response times in seconds over the agent's last interval.

    Nobody changes one. All the same it is not frozen, as every other event is: one is made of each heartbeat, and a
    frozen one takes three times as long to make.
    """

    instance: InstanceId
    incarnation: Incarnation
    seq: int
    load: float | None = None
    queue_length: int | None = None
    in_flight: int | None = None
    tasks_completed: int | None = None
    response_time_p50_s: float | None = None
    response_time_p95_s: float | None = None
    labels: Mapping[str, str] | None = None
    acks: tuple[Acknowledgement, ...] = ()
    loop_blocked_s: float | None = None  # for how long its event loop has stood still


class NextDirective(Struct, frozen=True):
    """What is an instance to be told now? Answered as its heartbeat would be; it is no sign of life."""

    instance: InstanceId


class Probed(Struct, frozen=True):
    """A health probe from outside succeeded (a failed one is silence)."""

    instance: InstanceId
    incarnation: Incarnation


class HostSampled(Struct, frozen=True):
    sample: HostSample


class InstanceStarted(Struct, frozen=True):
    """The driver has started (or restarted in place) a process.

    `ready` as in `Observed`; where it is False, the same is told again once the program has said that it is ready.
    """

    instance: InstanceId
    incarnation: Incarnation
    pid: int
    ready: bool = True


class StartFailed(Struct, frozen=True):
    instance: InstanceId
    cause: StartFailure
    text: str


class InstanceExited(Struct, frozen=True):
    """A process ended unasked; the driver restarts it in `restart_in_s`."""

    instance: InstanceId
    incarnation: Incarnation
    cause: ExitCause
    restart_in_s: float


class InstanceGaveUp(Struct, frozen=True):
    """The driver will not restart this instance again by itself."""

    instance: InstanceId
    cause: StartFailure
    text: str


class InstanceHeld(Struct, frozen=True):
    """Somebody else stopped the instance, and meant it: it stays stopped until it is resumed."""

    instance: InstanceId
    text: str


class InstanceWarned(Struct, frozen=True):
    """Something about a running instance is not as configured, for example a limit that the kernel does not hold."""

    instance: InstanceId
    text: str


class HostStopping(Struct, frozen=True):
    """The host, or all that agentd belongs to, is going down: instances end, and that is nobody's failure."""

    text: str


class InstanceStopped(Struct, frozen=True):
    """A stop has ended: nothing of the instance is left. `forced`: it had to be killed."""

    instance: InstanceId
    forced: bool


class InstancesListed(Struct, frozen=True):
    """All that the driver finds on the host now. What is missing here does not run.

    The instances in `busy` have a driver call under way; this listing says nothing about them.
    """

    observed: tuple[Observed, ...]
    busy: frozenset[InstanceId] = frozenset()


class ConfigChanged(Struct, frozen=True):
    config: FleetConfig


class SetTarget(Struct, frozen=True):
    """A person asks for `count` instances: of one pool, or (pool None) of the whole fleet.

    `direction` "up" or "down" refuses a count on the wrong side of the present one. `for_s` None: until changed.
    """

    direction: str
    count: int
    pool: PoolName | None
    owner: str
    reason: str
    for_s: float | None
    dry_run: bool = False


class Collected(Struct, frozen=True):
    """The collector `name` of `pool` has read `value`; None: it could not, and `trouble` says why."""

    pool: PoolName
    name: str
    value: float | None
    trouble: str = ""


class Propose(Struct, frozen=True):
    """The program `source` asks for `count` instances of `pool` for `for_s` seconds; None: it takes that back."""

    pool: PoolName
    source: str
    count: int | None
    owner: str
    reason: str = ""
    for_s: float = 600.0


class SetAutoscaling(Struct, frozen=True):
    """A person switches scaling on (which also clears people's targets and every pause) or off.

    With `direction` ("up", "down" or "both"), `pool` or `for_s` it is a pause of just that, for so long; or its end.
    """

    enabled: bool
    owner: str
    reason: str
    pool: PoolName | None = None
    direction: str = ""
    for_s: float | None = None


class Check(Struct, frozen=True):
    """Evaluate now; cooldowns and all other guards still apply."""

    owner: str
    pool: PoolName | None = None


class Restart(Struct, frozen=True):
    """Restart these instances in place, one after the other per pool; also the way out of `failed`."""

    instances: tuple[InstanceId, ...]
    owner: str


class RollingRestart(Struct, frozen=True):
    """Restart all of `pool` in place; `max_unavailable` away at once, 0: one more stands in, None: 0 if possible."""

    pool: PoolName
    owner: str
    max_unavailable: int | None = None


class CancelRestart(Struct, frozen=True):
    """End the rolling restart of `pool` after the present step."""

    pool: PoolName
    owner: str


class Drain(Struct, frozen=True):
    """Let one instance finish its work and stop. A core agent only with `force`, and it is started again in place."""

    instance: InstanceId
    owner: str
    force: bool = False


class Configure(Struct, frozen=True):
    """A person changes settings of these running instances; None stays. Until a process ends or a reload says else."""

    instances: tuple[InstanceId, ...]
    owner: str
    concurrency: int | None = None
    interval_s: float | None = None


class Shutdown(Struct, frozen=True):
    """agentd is ending. `keep_agents` False: drain and stop every instance first; `hurry`: without drains."""

    keep_agents: bool
    owner: str
    hurry: bool = False


Event = (
    Restored
    | Tick
    | Beat
    | NextDirective
    | Probed
    | HostSampled
    | InstanceStarted
    | StartFailed
    | InstanceExited
    | InstanceGaveUp
    | InstanceHeld
    | InstanceWarned
    | HostStopping
    | InstanceStopped
    | InstancesListed
    | ConfigChanged
    | SetTarget
    | Collected
    | Propose
    | SetAutoscaling
    | Check
    | Restart
    | RollingRestart
    | CancelRestart
    | Drain
    | Configure
    | Shutdown
)

# -- actions ------------------------------------------------------------------------------------


class Start(Struct, frozen=True):
    spec: InstanceSpec
    decision: str


class Stop(Struct, frozen=True):
    """TERM, `grace_s`, KILL of everything the instance started."""

    instance: InstanceId
    grace_s: float
    decision: str


Action = Start | Stop

# -- what is told -------------------------------------------------------------------------------


class EventType(StrEnum):
    """The kinds of records that people read. The first three are the scaling events of the HTTP API."""

    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    REPLACE = "replace"
    START = "start"
    READY = "ready"
    EXIT = "exit"
    OOM_KILL = "oom_kill"
    RESTART = "restart"
    ROLLING_BEGUN = "rolling_begun"
    ROLLING_STEP = "rolling_step"
    ROLLING_DONE = "rolling_done"
    ROLLING_STOPPED = "rolling_stopped"
    ROLLING_CANCELLED = "rolling_cancelled"
    START_FAILED = "start_failed"
    CRASH_LOOP = "crash_loop"
    LATE = "late"
    RECOVERED = "recovered"
    DRAIN = "drain"
    RESUME = "resume"
    CONFIGURE = "configure"
    STOP = "stop"
    STOP_FORCED = "stop_forced"
    ADOPT = "adopt"
    VANISHED = "vanished"
    HELD = "held"
    RESUMED = "resumed"
    WARNING = "warning"
    HOST_STOPPING = "host_stopping"
    HOLD = "hold"
    EFFECT = "effect"  # what a scaling has brought
    PORT_CONFLICT = "port_conflict"
    TARGET = "target"
    TARGET_EXPIRED = "target_expired"
    OFFER = "offer"  # a program asks for a count, or takes that back
    OFFER_EXPIRED = "offer_expired"
    SCHEDULE = "schedule"  # a window of time has begun or ended
    AUTOSCALING = "autoscaling"
    CONFIG = "config"
    CONFIG_REJECTED = "config_rejected"
    AGENTD_START = "agentd_start"
    AGENTD_STOP = "agentd_stop"
    STORE = "store"


SCALING_EVENTS = (EventType.SCALE_UP, EventType.SCALE_DOWN, EventType.REPLACE)


class Record(Struct, frozen=True):
    """One change of state, for the journal, the store and everybody who watches."""

    type: EventType
    reason: str
    pool: str = ""
    instance: str = ""
    decision: str = ""
    actor: str = ""


# -- replies ------------------------------------------------------------------------------------


class BeatReply(Struct, frozen=True):
    directive: Directive
    interval_s: float


class Refusal(Struct, frozen=True):
    """The event was not taken. `reason` is a stable UPPER_SNAKE code, `status` a gRPC status name."""

    reason: str
    text: str
    status: str = "FAILED_PRECONDITION"


class Grant(Struct, frozen=True):
    """What one pool got of a person's wish."""

    pool: PoolName
    current: int
    wanted: int
    granted: int
    limits: tuple[str, ...] = ()


class TargetReply(Struct, frozen=True):
    grants: tuple[Grant, ...]


class CheckReply(Struct, frozen=True):
    decisions: tuple[Decision, ...]


class Done(Struct, frozen=True):
    """Accepted, nothing to add."""


DONE = Done()


class ConfigureReply(Struct, frozen=True):
    """Who was asked, or will be once it is ready."""

    instances: tuple[InstanceId, ...]


Reply = BeatReply | Refusal | TargetReply | CheckReply | ConfigureReply | Done


class Outcome(Struct, frozen=True):
    """What one step asks for. Records and rows are to be stored before the actions are performed."""

    actions: tuple[Action, ...] = ()
    records: tuple[Record, ...] = ()
    decisions: tuple[Decision, ...] = ()
    effects: tuple[Effect, ...] = ()  # of earlier decisions
    directed: tuple[InstanceId, ...] = ()  # those that have a new directive
    rows: Mapping[str, str | None] = field(default_factory=dict)  # changed state, key -> JSON or None
    reply: Reply | None = None


NOTHING = Outcome()
NOTHING_DONE = Outcome(reply=DONE)


class StoredRecord(Struct, frozen=True):
    """A record as the store keeps it. `id` counts up by one with each record and survives restarts."""

    id: int
    wall: float
    record: Record
