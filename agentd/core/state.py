"""The mutable state of the fleet.

One `Fleet` belongs to one `Controller`. The modules of the core change it through the methods here, which
also collect what a step brings about: actions, records, decisions and the rows that are to be saved anew
(`core.rows` knows their form).
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from agentd.core import lifecycle
from agentd.core.effects import Effect
from agentd.core.forecast import Forecast
from agentd.core.health import Alarms
from agentd.core.instances import NO_INCARNATION, SHRINKING, Instance, Purpose
from agentd.core.learned import Learned
from agentd.core.ledger import Ledger, agent_time, work
from agentd.core.messages import SCALING_EVENTS, Action, EventType, Record, Start
from agentd.core.model import (
    AutoscalingMode,
    Decision,
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
    instance_id,
)
from agentd.core.recent import Recent
from agentd.core.rules import Offer, Pause, Reading
from agentd.core.scalability import ScalingLaw
from agentd.core.trial import History

__all__ = [
    "NO_INCARNATION",
    "NO_SCHEDULE",
    "SHRINKING",
    "Fleet",
    "Instance",
    "Pool",
    "Purpose",
    "Rolling",
    "Schedule",
    "hears",
]

# A pool that is evaluated between the checks is so when something has changed, at most and at least so often.
EVALUATE_S_MIN = 1.0
EVALUATE_S_MAX = 10.0
FOOTPRINT_BYTES_DEFAULT = 100 * 1024 * 1024


class Rolling(Struct):
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


class Schedule(Struct, frozen=True):
    """What the windows of a pool's schedule come to, as looked at, at the wall time `since`, until `until`."""

    since: float = 0.0
    until: float | None = None
    active: tuple[str, ...] = ()
    min: int | None = None
    max: int | None = None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        return self.min, self.max


NO_SCHEDULE = Schedule()


class Pool(Struct):
    """What is remembered of one pool. `instances` is an index, kept by `Fleet`, and not saved."""

    config: PoolConfig
    instances: dict[InstanceId, Instance] = field(default_factory=dict)
    last_up_at: float | None = None
    last_down_at: float | None = None
    last_resume_at: float | None = None
    # When starts and retirements that came about were decided, ascending; of the longest period that is limited.
    ups: list[float] = field(default_factory=list)
    downs: list[float] = field(default_factory=list)
    down_in_steps: bool = False  # a person's wish for fewer goes on with another step, and costs one cooldown
    start_failures: int = 0
    start_failure: str = ""  # why the last start failed, until one succeeds
    backoff_until: float = 0.0
    start_times_s: list[float] = field(default_factory=list)  # the last ones, newest at the end
    starts_failed: int = 0
    target: Target | None = None
    pauses: dict[str, Pause] = field(default_factory=dict)  # by direction
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
    held_from: float | None = None  # since when every evaluation has wanted something that was not granted
    history: History = field(default_factory=History)
    law: ScalingLaw | None = None  # what the levels in `history` come to
    ledger: Ledger = field(default_factory=Ledger)  # what it has spent
    recheck_at: float = 0.0  # when a person's target that was held is looked at again; 0: at the next check
    # What agents do not say: of collectors by name, of programs by source.
    readings: dict[str, Reading] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    recent: dict[str, Recent] = field(default_factory=dict)  # what its triggers have wanted lately
    schedule: Schedule = NO_SCHEDULE
    conditions: dict[str, tuple[bool, float]] = field(default_factory=dict)  # status, and since when (wall time)
    adaptive: Learned | None = None  # what the trigger of that name has learned
    forecast: Forecast | None = None  # what it has had to do at which time
    completed_gone: int = 0  # tasks of instances that are gone
    quick: bool = False  # it is also evaluated between the checks
    evaluated_at: float = 0.0
    evaluate_at: float = 0.0  # when that is due next; 0: nothing is

    @property
    def name(self) -> PoolName:
        """Its configurations come and go, and all have this name."""
        return self.config.name

    def take(self, config: PoolConfig) -> None:
        """Take over `config`; what was remembered for what it no longer says is forgotten."""
        if config.triggers != self.config.triggers:
            self.recent.clear()
        self.readings = {name: it for name, it in self.readings.items() if config.collector(name)}
        self.config, self.removed = config, False

    @property
    def min(self) -> int:
        """The fewest it may have at the moment."""
        return self.config.min if self.schedule.min is None else self.schedule.min

    @property
    def max(self) -> int:
        """The most it may have at the moment."""
        return self.config.max if self.schedule.max is None else self.schedule.max

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
        self.pauses: dict[str, Pause] = {}  # of all pools, by direction
        self.listed = False  # nothing is started before the host has been looked at
        self.recovering_until = 0.0
        self.next_check: float | None = None
        self.ticked_at = 0.0
        self.shutting_down = False
        self.capacity_max: int | None = None
        self.scaling_events = 0
        self.decisions_made = self.evaluations = 0
        self.keeps_basis = True  # decisions carry what they were made from
        self.directives_made = 0
        self.wall_offset = 0.0
        self.actions: list[Action] = []
        self.directed: list[InstanceId] = []
        self.records: list[Record] = []
        self.decisions: list[Decision] = []
        self.effects: list[Effect] = []
        self.changed: dict[str, None] = {}
        self.past = Ledger()  # what pools have spent that are there no more
        # What pools cost in an hour that are only told of: where a decision is made again from what was written of it.
        self.standing_elsewhere = 0.0
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
                self.pools[name].take(config.pools[name])
            else:
                self.pools[name] = Pool(config=config.pools[name])
                self.touch_history(name)
            self.touch_pool(name)
        for name, pool in list(self.pools.items()):
            pool.quick = name in config.pools and pool.config.quick
            if name not in config.pools:
                pool.removed = True
                pool.config = replace(pool.config, core=(), min=0, max=0, ports=None)
                if not pool.instances:
                    self.drop_pool(name)
        self.pools = {name: self.pools[name] for name in sorted(self.pools)}
        for instance in self.instances.values():
            instance.core_name = self.pools[instance.pool].config.core_name(instance.port)

    def drop_pool(self, name: PoolName) -> None:
        forecast, ledger = self.pools[name].forecast, self.pools[name].ledger
        days = forecast.days if forecast else ()
        if ledger.since:
            self.past.merge(ledger)
            self.touch_ledger("")
        del self.pools[name]
        self.changed[f"pool/{name}"] = None
        self.touch_history(name)
        self.touch_adaptive(name)
        self.touch_ledger(name)
        self.changed[f"forecast/{name}"] = None
        for day in days:
            self.changed[f"season/{name}/{day}"] = None

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
        self._meter(instance, now)
        self.touch(instance)
        self.pools[instance.pool].stir(now)
        if state is State.STOPPED:
            self.remove(instance, now)

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
        self._meter(instance, now)
        self.touch(instance)
        self.actions.append(Start(self.spec(instance), decision))

    def _meter(self, instance: Instance, now: float) -> None:
        """Its time begins to cost, or costs no longer and is entered."""
        if instance.occupies and instance.costs_from is None:
            instance.costs_from = now
        elif not instance.occupies:
            self._enter_all_of(instance, now)

    def _enter_all_of(self, instance: Instance, now: float) -> None:
        """Nothing of it is left: enter what it has cost."""
        pool, start = self.pools[instance.pool], instance.costs_from
        if pool.config.rates and start is not None:
            start = min(now, pool.ledger.due_from(start, now, self.wall(now)))
            pool.ledger.enter(agent_time(pool.config.rates, now - start), self.wall(start), self.wall(now))
        if pool.config.rates and instance.tasks_due:
            pool.ledger.enter(work(pool.config.rates, instance.tasks_due), self.wall(now), self.wall(now))
        if pool.config.rates:
            self.touch_ledger(pool.name)
        instance.costs_from, instance.unpaid_tasks = None, 0
        instance.paid_tasks = instance.tasks_completed or 0

    def remove(self, instance: Instance, now: float) -> None:
        """Nobody needs to know of it any more."""
        self._enter_all_of(instance, now)
        self.waiting.pop(instance.id, None)
        self.coming.pop(instance.id, None)
        del self.instances[instance.id]
        pool = self.pools[instance.pool]
        del pool.instances[instance.id]
        pool.completed_gone += instance.completed
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
            pool_max=max([config.max, *(window.max or 0 for window in config.windows)]),
            start_timeout_s=config.start_timeout_s,
        )

    # -- what a step brings about ---------------------------------------------------------------

    def touch(self, instance: Instance) -> None:
        self.changed[f"instance/{instance.id}"] = None

    def touch_pool(self, name: PoolName) -> None:
        self.changed[f"pool/{name}"] = None

    def touch_adaptive(self, name: PoolName) -> None:
        self.changed[f"adaptive/{name}"] = None

    def touch_forecast(self, name: PoolName) -> None:
        """What was learned, and the days that have changed by that."""
        forecast = self.pools[name].forecast
        assert forecast is not None, f"broken invariant: {name} has no forecast"
        self.changed[f"forecast/{name}"] = None
        for day in forecast.take_changed():
            self.changed[f"season/{name}/{day}"] = None

    def touch_history(self, name: PoolName) -> None:
        self.changed[f"history/{name}"] = None

    def touch_ledger(self, name: str) -> None:
        """Of a pool; empty: of those that are there no more."""
        self.changed[f"ledger/{name}"] = None

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
