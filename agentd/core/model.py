"""The nouns of agentd: instances, pools, host samples, decisions, and the views shown to people.

Everything here is a frozen value with no behaviour beyond arithmetic on itself. The mutable state of the
fleet lives in `core.state`; this module is what every other part of agentd may import and pass around.

Times are seconds on the monotonic clock unless the name says `wall`. Durations end in `_s`, sizes in
`_bytes`, shares in `_ratio` (0..1). Loads are in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NewType

from msgspec import Struct, field

from agentd.core.cron import Window
from agentd.core.effects import Effect
from agentd.core.rates import FREE, UNBOUNDED, Budget, Rates
from agentd.core.rules import GUARDS_DEFAULT, CollectorConfig, GuardConfig, ScheduleTrigger, ThresholdTrigger, Trigger

InstanceId = NewType("InstanceId", str)
PoolName = NewType("PoolName", str)
Incarnation = NewType("Incarnation", str)

MIB = 1024 * 1024
DRAIN_TIMEOUT_S_DEFAULT = 120.0
STOP_GRACE_S_DEFAULT = 10.0
CONCURRENCY_MAX = 10_000
POOL_NAME = re.compile(r"[a-z][a-z0-9]{0,18}\Z")
INSTANCE_ID = re.compile(r"([a-z][a-z0-9]{0,18})-([0-9]{1,5})\Z")


def instance_id(pool: PoolName, port: int) -> InstanceId:
    """The id of the instance of `pool` on `port`: `research-9101`."""
    return InstanceId(f"{pool}-{port}")


def parse_instance_id(text: str) -> tuple[PoolName, int]:
    """The pool and port in an instance id.

    Raises:
        ValueError: `text` is no `<pool>-<port>` with a port in 1..65535.
    """
    found = INSTANCE_ID.match(text)
    if not found or not 1 <= int(found[2]) <= 65535 or found[2] != str(int(found[2])):
        raise ValueError(f"cannot read instance id {text!r}: expected <pool>-<port>, for example research-9101")
    return PoolName(found[1]), int(found[2])


class State(StrEnum):
    """Where an instance is in its life; `core.lifecycle` holds the allowed moves."""

    PENDING = "pending"  # decided and recorded, the driver has not confirmed the start
    STARTING = "starting"  # the process runs, it has not reported ready
    READY = "ready"  # takes work
    DRAINING = "draining"  # asked to finish; takes no new work
    STOPPING = "stopping"  # the driver was told to stop it
    STOPPED = "stopped"  # gone
    BACKOFF = "backoff"  # exited; the driver restarts it after a delay
    FAILED = "failed"  # the driver gave up; needs a person or a new configuration
    HELD = "held"  # agentd leaves it alone: it runs unconfigured, or an operator stopped it (see the cause)


class HealthCheck(StrEnum):
    """How agentd learns that an instance of a pool is alive and ready."""

    HEARTBEAT = "heartbeat"  # it calls AgentService.Heartbeat
    HTTP = "http"  # agentd asks GET / on its port
    GRPC = "grpc"  # agentd asks grpc.health.v1 on its port
    NONE = "none"  # running is ready


class DirectiveKind(StrEnum):
    """What agentd tells an agent in answer to a heartbeat."""

    CONTINUE = "continue"
    DRAIN = "drain"  # finish what you have, take nothing new; a TERM follows
    RESUME = "resume"  # take work again: the drain is called off
    CONFIGURE = "configure"  # go on with other settings
    SHUT_DOWN = "shut_down"  # finish your task and exit: you were superseded


class RollingState(StrEnum):
    """How a rolling restart stands."""

    ROLLING = "rolling"
    CANCELLED = "cancelled"  # it ends after the present step
    STOPPED = "stopped"  # an instance did not become ready: the others are left as they are


class Direction(StrEnum):
    UP = "up"
    DOWN = "down"
    NONE = "none"


class ExitKind(StrEnum):
    EXIT = "exit"  # code: the exit status
    SIGNAL = "signal"  # code: the signal number
    OOM = "oom"  # killed by the kernel for memory; code: the signal number
    WATCHDOG = "watchdog"  # it did not report to its watchdog in time
    TIMEOUT = "timeout"  # it took too long to start or to stop, and was killed
    SETUP = "setup"  # the host could not set it up; code: systemd's exit status, for example 226
    UNKNOWN = "unknown"  # it ended while nobody watched


class StartFailure(StrEnum):
    """Why a driver could not start an instance."""

    PORT_TAKEN = "port_taken"
    COMMAND_NOT_FOUND = "command_not_found"
    SPAWN_FAILED = "spawn_failed"
    CRASH_LOOP = "crash_loop"
    TIMEOUT = "start_timeout"  # its program never said that it is ready
    SETUP_FAILED = "setup_failed"  # sandbox, limits or user could not be set up
    UNIT_MISSING = "unit_missing"  # the unit's template is not installed, or is masked
    DENIED = "denied"  # systemd does not let us: the polkit rule is missing
    DRIVER_AWAY = "driver_away"  # systemd cannot be reached at the moment


class Phase(StrEnum):
    """What a driver sees of an instance on the host."""

    RUNNING = "running"
    BACKOFF = "backoff"
    FAILED = "failed"


# -- configuration, as the core needs it --------------------------------------------------------


class RestartPolicy(Struct, frozen=True):
    """Delays between restarts in place of a process that exits: exponential to a cap, with jitter.

    A process that ran for `healthy_s` is forgiven its earlier failures. After `attempts_max` failures
    without such a period the driver gives up and says so.
    """

    initial_s: float = 0.05
    max_s: float = 60.0
    factor: float = 2.0
    jitter_ratio: float = 0.25
    healthy_s: float = 60.0
    attempts_max: int = 10

    def delay_s(self, failures: int, chance: float) -> float:
        """The wait before the restart that follows failure number `failures` (from 1).

        `chance` in [0, 1) spreads it by up to `jitter_ratio` upwards; the result never exceeds `max_s`.
        """
        exponent = min(max(failures, 1) - 1, 64)
        base = min(self.max_s, self.initial_s * self.factor**exponent)
        return min(self.max_s, base * (1.0 + self.jitter_ratio * chance))


class PortRange(Struct, frozen=True):
    """Ports `first`..`last`, both included."""

    first: int
    last: int

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1


class CoreAgent(Struct, frozen=True):
    """A protected instance with a name and a fixed port."""

    name: str
    port: int


class Resources(Struct, frozen=True):
    """Limits of one instance, enforced by drivers that can. None: no limit."""

    memory_max_bytes: int | None = None
    memory_high_bytes: int | None = None
    cpu_weight: int | None = None
    cpu_quota_ratio: float | None = None  # 1.0 is one core
    tasks_max: int | None = None
    io_weight: int | None = None


class PoolConfig(Struct, frozen=True):
    """Everything agentd is told about one pool. `command` empty: the bundled sample agent."""

    name: PoolName
    core: tuple[CoreAgent, ...] = ()
    min: int = 1
    max: int = 5
    ports: PortRange | None = None
    triggers: tuple[Trigger, ...] = (ThresholdTrigger(),)
    policy: str = "threshold"
    collectors: tuple[CollectorConfig, ...] = ()
    scale_up_cooldown_s: float = 300.0
    scale_down_cooldown_s: float = 600.0
    # The same for what triggers other than `threshold` decide: these look ahead themselves.
    quick_up_cooldown_s: float = 0.0
    quick_down_cooldown_s: float = 0.0
    guards: GuardConfig = GUARDS_DEFAULT
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    concurrency: int = 1
    priority: int = 0
    health: HealthCheck = HealthCheck.HEARTBEAT
    health_path: str = "/"
    notify: bool = False  # its program says READY=1 itself (systemd driver)
    start_timeout_s: float = 60.0
    drain_timeout_s: float = DRAIN_TIMEOUT_S_DEFAULT
    stop_grace_s: float = STOP_GRACE_S_DEFAULT  # between TERM and KILL once the drain timeout has passed
    drain_share_max: float = 0.5  # of the pool that may drain at once, at least one instance
    restart: RestartPolicy = RestartPolicy()
    resources: Resources = Resources()
    rates: Rates = FREE
    budget: Budget = UNBOUNDED

    def core_name(self, port: int) -> str | None:
        """The name of the core agent on `port`, or None where `port` is not a core agent's."""
        return next((agent.name for agent in self.core if agent.port == port), None)

    @property
    def quick(self) -> bool:
        """It is also evaluated between the checks, as soon as what its triggers look at has changed."""
        return any(not isinstance(trigger, ThresholdTrigger) for trigger in self.triggers)

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows of its schedules, in their order."""
        windows: tuple[Window, ...] = ()
        for trigger in self.triggers:  # asked for with every tick
            if isinstance(trigger, ScheduleTrigger):
                windows += trigger.windows
        return windows

    @property
    def threshold(self) -> ThresholdTrigger | None:
        """The first of its triggers of that type."""
        return next((trigger for trigger in self.triggers if isinstance(trigger, ThresholdTrigger)), None)

    def collector(self, name: str) -> CollectorConfig | None:
        for collector in self.collectors:  # asked for in every evaluation
            if collector.name == name:
                return collector
        return None


class HostReserve(Struct, frozen=True):
    """What a scale-up must leave free. None switches a check off.

    `cpu_ratio` is the share of all cores kept idle; the pressures are upper bounds for the kernel's
    `some avg10` in percent.
    """

    memory_bytes: int = 512 * 1024 * 1024
    memory_ratio: float = 0.10
    disk_bytes: int = 1024 * 1024 * 1024
    cpu_ratio: float | None = 0.05
    memory_pressure_percent_max: float | None = 10.0
    io_pressure_percent_max: float | None = 40.0

    def memory_reserve_bytes(self, total_bytes: int) -> int:
        return max(self.memory_bytes, int(total_bytes * self.memory_ratio))


class FleetConfig(Struct, frozen=True):
    """The configuration of the core: what pools there are and the rules they share."""

    pools: Mapping[PoolName, PoolConfig]
    enabled: bool = False
    autoscaling_enabled: bool = False
    check_interval_s: float = 60.0
    unhealthy_threshold: int = 3
    heartbeat_timeout_s: float = 120.0
    # The global values, shown by the HTTP API; pools carry their own effective ones.
    scale_up_threshold: float = 0.75
    scale_down_threshold: float = 0.25
    min_agents_per_type: int = 1
    max_agents_per_type: int = 5
    reserve: HostReserve = HostReserve()
    # How many instances may be on their way to ready at once; core agents and people's targets included
    # in the count, core starts never held by it.
    starting_max: int = 16
    currency: str = ""
    budget: Budget = UNBOUNDED  # of all pools together
    fingerprint: str = ""  # by which it is found later; empty: nobody keeps it

    @property
    def heartbeat_interval_s(self) -> float:
        """How often agents are asked to beat."""
        return min(10.0, self.heartbeat_timeout_s / 3.0)


# -- what is observed ---------------------------------------------------------------------------


class InstanceSpec(Struct, frozen=True):
    """What a driver needs to start one instance."""

    id: InstanceId
    pool: PoolName
    port: int
    core_name: str | None
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    concurrency: int
    health: HealthCheck
    restart: RestartPolicy
    resources: Resources = Resources()
    notify: bool = False
    pool_max: int = 0  # how many instances its pool may have; 0: unknown
    start_timeout_s: float = 60.0

    @property
    def has_last_word(self) -> bool:
        """Nothing but its program's own READY=1 tells when it is ready."""
        return self.notify and self.health is HealthCheck.NONE


class Observed(Struct, frozen=True):
    """An instance as a driver finds it on the host.

    `ready` False: it runs, and its program has not said yet, or does not say any more, that it is ready.
    """

    id: InstanceId
    incarnation: Incarnation
    pid: int
    phase: Phase = Phase.RUNNING
    started_wall: float = 0.0
    ready: bool = True


class ExitCause(Struct, frozen=True):
    kind: ExitKind
    code: int = 0

    def __str__(self) -> str:
        match self.kind:
            case ExitKind.EXIT:
                return f"exit code {self.code}"
            case ExitKind.SIGNAL:
                return f"signal {self.code}"
            case ExitKind.OOM:
                return "out of memory"
            case ExitKind.WATCHDOG:
                return "watchdog: no sign of life in time"
            case ExitKind.TIMEOUT:
                return "killed: took too long to start or to stop"
            case ExitKind.SETUP:
                return f"could not be set up (status {self.code})"
            case ExitKind.UNKNOWN:
                return "ended unwatched"


class Usage(Struct, frozen=True):
    """Measured use of one instance's process tree. `cpu_cores` 1.0 is one busy core."""

    memory_bytes: int
    cpu_cores: float


class Wall(Struct, frozen=True):
    """A limit around several instances: what its slice may use of the host's memory, and what it uses."""

    memory_max_bytes: int
    memory_bytes: int


class Watched(Struct, frozen=True):
    """A process that people want to see beside the host's figures, for example ollama."""

    name: str
    running: bool
    pids: int
    memory_bytes: int
    cpu_cores: float


class HostSample(Struct, frozen=True):
    """The host at one moment. Pressures are `some avg10` in percent, None where the kernel has none."""

    cores: int
    cpu_used_cores: float
    memory_total_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    memory_pressure_percent: float | None = None
    cpu_pressure_percent: float | None = None
    io_pressure_percent: float | None = None
    disk_read_bytes_per_s: float = 0.0
    disk_write_bytes_per_s: float = 0.0
    load_average: float = 0.0
    instances: Mapping[InstanceId, Usage] = field(default_factory=dict)
    # The slices that have a memory limit: of a pool under its name, of all agents under "".
    walls: Mapping[str, Wall] = field(default_factory=dict)
    watched: tuple[Watched, ...] = ()


# -- decisions ----------------------------------------------------------------------------------


class Reason(Struct, frozen=True):
    """One link of a decision's chain: a stable `code` and a sentence with the numbers."""

    code: str
    text: str


class Proposal(Struct, frozen=True):
    """The count a trigger asks for. `count` None: the trigger abstains (no data)."""

    trigger: str
    count: int | None
    reason: Reason


_FLOORS = frozenset({"min_agents", "only_core_left"})


class Limit(Struct, frozen=True):
    """A guard's named reason for granting less than was wanted. `until`: monotonic, None if unknown.

    `allows`: the count that it alone would let be; None in decisions from before that was kept.
    """

    code: str
    text: str
    until: float | None = None
    allows: int | None = None

    def __eq__(self, other: object) -> bool:
        """Whether it is the same limit, however far it holds."""
        if not isinstance(other, Limit):
            return NotImplemented
        return (self.code, self.text, self.until) == (other.code, other.text, other.until)


class Decision(Struct, frozen=True):
    """One evaluation of one pool: what is, what was wanted, what was granted, and why; later what a scaling brought."""

    id: str
    pool: PoolName
    at: float
    wall: float
    current: int
    wanted: int
    granted: int
    reasons: tuple[Reason, ...]
    limits: tuple[Limit, ...] = ()
    counterfactual: str = ""
    victims: tuple[InstanceId, ...] = ()
    effect: Effect | None = None
    trigger: str = ""  # whose proposal it follows; empty: a person's target, or the bounds
    proposals: tuple[Proposal, ...] = ()  # of all triggers, in their order
    # What it was made from, as `core.basis` has it; empty where nobody keeps it.
    basis: str = ""
    configuration: str = ""  # the fingerprint of the one that held

    @property
    def binding(self) -> str:
        """The code of the limit that grants least, the first of several; empty without one."""
        known = [limit for limit in self.limits if limit.allows is not None]
        up = self.wanted > self.current
        least = min(known, key=lambda limit: (limit.allows or 0) * (1 if up else -1), default=None)
        return least.code if least else ""

    @property
    def chain(self) -> tuple[tuple[str, int], ...]:
        """From the wish to the grant: `wanted`, then each limit that lowered what the ones before it had left."""
        links, left = [("wanted", self.wanted)], self.wanted
        up = self.wanted > self.current
        for limit in self.limits:
            if limit.allows is not None and (limit.allows < left if up else limit.allows > left):
                left = limit.allows
                links.append((limit.code, left))
        return (*links, ("granted", self.granted))

    def until_wall(self, limit: Limit) -> float | None:
        """When `limit`, one of its own, lifts, as wall time; that is known after a reboot, too."""
        return None if limit.until is None else self.wall + limit.until - self.at

    @property
    def direction(self) -> Direction:
        if self.granted > self.current:
            return Direction.UP
        return Direction.DOWN if self.granted < self.current else Direction.NONE

    @property
    def at_rest(self) -> bool:
        """An idle pool at its smallest: the floor keeps it where it is, and nobody waits for anything."""
        if not any(limit.code in _FLOORS for limit in self.limits):
            return False
        return not any(reason.code == "target" for reason in self.reasons)

    @property
    def held(self) -> bool:
        """Something was wanted and not granted in full."""
        return self.wanted != self.granted and not self.at_rest


class Successor(Struct, frozen=True):
    """An instance that takes work in place of a draining one, and its share of it: all weights sum to 1."""

    instance: InstanceId
    port: int
    weight: float = 1.0


class Directive(Struct, frozen=True):
    """What an agent is told. `id` 0 needs no acknowledgement. `deadline_s` counts from now. Settings: None stays."""

    kind: DirectiveKind
    id: int = 0
    deadline_s: float = 0.0
    successors: tuple[Successor, ...] = ()
    concurrency: int | None = None
    interval_s: float | None = None


class Target(Struct, frozen=True):
    """A count that a person set for a pool. `expires` monotonic; None: no expiry."""

    count: int
    owner: str
    reason: str
    expires: float | None


class Running(Struct, frozen=True):
    """An instance that ought to run, and how to ask it whether it is well."""

    id: InstanceId
    port: int
    incarnation: Incarnation
    kind: HealthCheck
    path: str
    starting: bool


class AutoscalingMode(Struct, frozen=True):
    """Whether agentd scales, and who said so. `since_wall` 0: it is the configuration's word."""

    enabled: bool
    owner: str = "configuration"
    reason: str = ""
    since_wall: float = 0.0
