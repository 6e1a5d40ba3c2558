"""The mutable state of the fleet.

One `Fleet` belongs to one `Controller`. The modules of the core change it through the methods here, which
also collect what a step brings about: actions, records, decisions and the rows that are to be saved anew
(`core.rows` knows their form).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agentd.core import lifecycle
from agentd.core.effects import Effect
from agentd.core.health import Alarms
from agentd.core.messages import SCALING_EVENTS, Action, EventType, Record, Stage, Start
from agentd.core.model import (
    AutoscalingMode,
    Decision,
    DirectiveKind,
    FleetConfig,
    HealthCheck,
    HostSample,
    Incarnation,
    InstanceId,
    InstanceSpec,
    PoolConfig,
    PoolName,
    RollingState,
    State,
    Target,
    Usage,
    instance_id,
)
from agentd.core.rules import Offer, Reading
from agentd.core.trial import History

NO_INCARNATION = Incarnation("")
# A pool that is evaluated between the checks is so when something has changed, at most and at least so often.
EVALUATE_S_MIN = 1.0
EVALUATE_S_MAX = 10.0
FOOTPRINT_BYTES_DEFAULT = 100 * 1024 * 1024


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


# An instance that leaves for one of these makes its pool smaller.
SHRINKING = frozenset({Purpose.SCALE_DOWN, Purpose.RELIEF})


@dataclass(slots=True)
class Instance:
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
    # The last that it reported, of whichever heartbeat: one without a task finished since says nothing of its speed.
    response_time_p50_s: float | None = None
    response_time_p95_s: float | None = None
    timed_at: float = 0.0  # when they came
    labels: Mapping[str, str] = field(default_factory=dict)
    still_at: float = 0.0  # since when its event loop has stood still, by its own word; 0: it runs, or there is none
    turned_at: float = 0.0  # since when it has had work, or none, without a break; 0: it does not say
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
    def is_resuming(self) -> bool:
        """It drains, and has been asked to take work again."""
        return self.state is State.DRAINING and self.directive_kind is DirectiveKind.RESUME

    @property
    def counts(self) -> bool:
        """It is committed capacity of its pool: ready, on its way (back) to it, failed, or not yet replaced."""
        if self.replaced_by or self.purpose is Purpose.STAND_IN:
            return False  # one that stands in does not change what its pool has: those it stands in for count
        return self.state in lifecycle.COMMITTED or self.again or self.is_resuming

    def forget_reports(self) -> None:
        """A new process begins: what the old one said is no longer true."""
        self.seq = 0
        self.missed = 0
        self.load = self.queue_length = self.in_flight = self.tasks_completed = None
        self.response_time_p50_s = self.response_time_p95_s = None
        self.timed_at = 0.0
        self.labels = {}
        self.still_at = self.turned_at = 0.0
        self.usage = None


@dataclass(slots=True)
class Rolling:
    """A rolling restart of a pool, from when it is asked for until it has ended; `core.rolling` is its rule."""

    owner: str
    total: int
    ready: int  # how many took work when it began
    max_unavailable: int  # 0: one more is started first and stands in
    no_stand_in: str  # why nobody does, where people did not ask for that
    left: dict[InstanceId, Incarnation]  # whose turn has not come, each with the process that it had
    away: list[InstanceId] = field(default_factory=list)  # whose process has ended or is to end, and who is not back
    done: int = 0  # have a new process and are back, or are gone
    state: RollingState = RollingState.ROLLING
    why: str = ""  # it was cancelled, or has stopped
    trouble: str = ""  # what went wrong with a start in the pool, until that is looked at

    @property
    def on(self) -> bool:
        """It goes on, to its end or to that of the present step."""
        return self.state is not RollingState.STOPPED


@dataclass(slots=True)
class Pool:
    """What is remembered of one pool. `instances` is an index, kept by `Fleet`, and not saved."""

    config: PoolConfig
    instances: dict[InstanceId, Instance] = field(default_factory=dict)
    last_up_at: float | None = None
    last_down_at: float | None = None
    last_resume_at: float | None = None
    down_in_steps: bool = False  # a person's wish for fewer goes on with another step, and costs one cooldown
    start_failures: int = 0
    start_failure: str = ""  # why the last start failed, until one succeeds
    backoff_until: float = 0.0
    start_times_s: list[float] = field(default_factory=list)  # the last ones, newest at the end
    starts_failed: int = 0
    target: Target | None = None
    footprint_bytes: int = FOOTPRINT_BYTES_DEFAULT
    footprint_learned: bool = False
    footprint_cores: float = 0.0
    # ports found taken by somebody else -> when to try again
    conflicts: dict[int, float] = field(default_factory=dict)
    restart_queue: list[InstanceId] = field(default_factory=list)
    restarting: InstanceId | None = None
    rolling: Rolling | None = None
    removed: bool = False  # no longer configured; goes with its last instance
    # The last evaluation, for people; and its gist, by which a repeated hold is known: current, wanted, limits.
    last_decision: Decision | None = None
    last_gist: list[int | str] = field(default_factory=list)
    history: History = field(default_factory=History)
    recheck_at: float = 0.0  # when a person's target that was held is looked at again; 0: at the next check
    # What agents do not say: of collectors by name, of programs by source.
    readings: dict[str, Reading] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    quick: bool = False  # it is also evaluated between the checks
    evaluated_at: float = 0.0
    evaluate_at: float = 0.0  # when that is due next; 0: nothing is

    @property
    def name(self) -> PoolName:
        return self.config.name

    def stir(self, now: float) -> None:
        """What its triggers look at has changed: evaluate it as soon as it may be."""
        if self.quick:
            at = max(now, self.evaluated_at + EVALUATE_S_MIN)
            if not self.evaluate_at or at < self.evaluate_at:
                self.evaluate_at = at

    def committed(self) -> list[Instance]:
        """The instances that count: ready, starting, failed, restarting, resuming, and unhealthy not yet replaced."""
        return [instance for instance in self.instances.values() if instance.counts]


class Fleet:
    """All pools and instances, the host, the mode, and what the current step has brought about."""

    def __init__(self, config: FleetConfig, epoch: int) -> None:
        self.config = config
        self.epoch = epoch
        self.pools: dict[PoolName, Pool] = {}
        self.instances: dict[InstanceId, Instance] = {}
        self.alarms = Alarms()
        # pending instances the driver has not been asked for yet, and those it has been, first come first
        self.waiting: dict[InstanceId, None] = {}
        self.coming: dict[InstanceId, None] = {}
        self.host: HostSample | None = None
        self.host_at = 0.0
        self.mode = AutoscalingMode(enabled=config.autoscaling_enabled)
        self.mode_is_persons = False
        self.listed = False  # nothing is started before the host has been looked at
        self.recovering_until = 0.0
        self.next_check: float | None = None
        self.ticked_at = 0.0
        self.shutting_down = False
        self.capacity_max: int | None = None
        self.scaling_events = 0
        self.decisions_made = 0
        self.directives_made = 0
        self.wall_offset = 0.0
        self.actions: list[Action] = []
        self.directed: list[InstanceId] = []
        self.records: list[Record] = []
        self.decisions: list[Decision] = []
        self.effects: list[Effect] = []
        self.changed: dict[str, None] = {}
        self.apply_config(config)

    @property
    def acts(self) -> bool:
        """Whether anything may be started, stopped or decided now."""
        return self.listed and self.config.enabled and not self.shutting_down

    # -- configuration --------------------------------------------------------------------------

    def apply_config(self, config: FleetConfig) -> None:
        """Take over `config`: pools are added, changed, or marked removed; instances keep running."""
        self.config = config
        if not self.mode_is_persons:
            self.mode = AutoscalingMode(enabled=config.autoscaling_enabled)
        for name in sorted(config.pools):
            if name in self.pools:
                self.pools[name].config = config.pools[name]
                self.pools[name].removed = False
            else:
                self.pools[name] = Pool(config=config.pools[name])
                self.touch_history(name)
            self.touch_pool(name)
        for name, pool in list(self.pools.items()):
            pool.quick = name in config.pools and pool.config.quick
            pool.readings = {key: it for key, it in pool.readings.items() if pool.config.collector(key)}
            if name not in config.pools:
                pool.removed = True
                pool.config = replace(pool.config, core=(), min=0, max=0, ports=None)
                if not pool.instances:
                    self.drop_pool(name)
        self.pools = {name: self.pools[name] for name in sorted(self.pools)}
        for instance in self.instances.values():
            instance.core_name = self.pools[instance.pool].config.core_name(instance.port)

    def drop_pool(self, name: PoolName) -> None:
        del self.pools[name]
        self.changed[f"pool/{name}"] = None
        self.touch_history(name)

    # -- instances ------------------------------------------------------------------------------

    def add(self, pool: Pool, port: int, state: State, purpose: Purpose, now: float, decision: str = "") -> Instance:
        """A new instance of `pool` on `port`, which nobody of ours uses."""
        ident = instance_id(pool.name, port)
        assert ident not in self.instances, f"broken invariant: two instances on port {port}"
        instance = Instance(ident, pool.name, port, state, now, now, purpose, decision)
        instance.core_name = pool.config.core_name(port)
        instance.started_at = instance.heard_at = instance.born_at = now
        self.insert(instance)
        return instance

    def insert(self, instance: Instance) -> None:
        """Take in `instance`, whose pool is there."""
        self.instances[instance.id] = instance
        self.pools[instance.pool].instances[instance.id] = instance
        self._index(instance)
        self.changed[f"instance/{instance.id}"] = None

    def move(self, instance: Instance, state: State, now: float, cause: str = "") -> None:
        """Change the state of `instance`; `stopped` also removes it."""
        lifecycle.check_move(instance.state, state)
        instance.state = state
        instance.since = now
        instance.cause = cause
        self._index(instance)
        self.touch(instance)
        self.pools[instance.pool].stir(now)
        if state is State.STOPPED:
            self.remove(instance)

    def _index(self, instance: Instance) -> None:
        """Keep `waiting` and `coming` in step with the instance's state."""
        self.waiting.pop(instance.id, None)
        if instance.state in lifecycle.ON_ITS_WAY:
            (self.coming if instance.launched else self.waiting)[instance.id] = None
        if instance.state not in lifecycle.ON_ITS_WAY or not instance.launched:
            self.coming.pop(instance.id, None)

    def launch(self, instance: Instance, decision: str, now: float) -> None:
        """Ask the driver to start `instance`, which waits in `pending`."""
        assert instance.state is State.PENDING, f"broken invariant: {instance.id} is {instance.state}, not pending"
        instance.launched = True
        instance.requested_at = now
        self._index(instance)
        self.touch(instance)
        self.actions.append(Start(self.spec(instance), decision))

    def remove(self, instance: Instance) -> None:
        self.waiting.pop(instance.id, None)
        self.coming.pop(instance.id, None)
        del self.instances[instance.id]
        pool = self.pools[instance.pool]
        del pool.instances[instance.id]
        if pool.removed and not pool.instances:
            self.drop_pool(pool.name)

    def used_ports(self) -> set[int]:
        """The ports of all instances, also of those that are leaving."""
        return {instance.port for instance in self.instances.values()}

    def spec(self, instance: Instance) -> InstanceSpec:
        """What a driver needs to start `instance` under the present configuration."""
        config = self.pools[instance.pool].config
        return InstanceSpec(
            id=instance.id,
            pool=instance.pool,
            port=instance.port,
            core_name=instance.core_name,
            command=config.command,
            env=config.env,
            concurrency=config.concurrency,
            health=config.health,
            restart=config.restart,
            resources=config.resources,
            notify=config.notify,
            pool_max=config.max,
            start_timeout_s=config.start_timeout_s,
        )

    # -- what a step brings about ---------------------------------------------------------------

    def touch(self, instance: Instance) -> None:
        self.changed[f"instance/{instance.id}"] = None

    def touch_pool(self, name: PoolName) -> None:
        self.changed[f"pool/{name}"] = None

    def touch_history(self, name: PoolName) -> None:
        self.changed[f"history/{name}"] = None

    def touch_self(self) -> None:
        self.changed["controller"] = None

    def tell(
        self, kind: EventType, reason: str, instance: Instance | None = None, *, pool: str = "", decision: str = "",
        actor: str = "",
    ) -> None:  # fmt: skip
        """Record a change of state for people."""
        if kind in SCALING_EVENTS:
            self.scaling_events += 1
            self.touch_self()
        self.records.append(
            Record(
                type=kind,
                reason=reason,
                pool=instance.pool if instance else pool,
                instance=instance.id if instance else "",
                decision=decision,
                actor=actor,
            )
        )

    def new_decision_id(self) -> str:
        self.decisions_made += 1
        self.touch_self()
        return f"{self.epoch}-{self.decisions_made}"

    def direct(self, instance: Instance) -> int:
        """The id of a new directive for `instance`, which is told at once where it listens."""
        self.directives_made += 1
        self.touch_self()
        self.directed.append(instance.id)
        return self.directives_made

    def wall(self, now: float) -> float:
        """The wall time of the monotonic `now`, as the last Tick had it."""
        return now + self.wall_offset


def hears(config: PoolConfig) -> bool:
    """Whether silence of this pool's instances means anything."""
    return config.health is not HealthCheck.NONE
