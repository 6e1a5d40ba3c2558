"""What people are shown of the fleet: frozen nouns; `core.showing` makes them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from agentd.core.effects import Effect
from agentd.core.ledger import Scaling, Spent
from agentd.core.model import (
    AutoscalingMode,
    Decision,
    HealthCheck,
    HostSample,
    Incarnation,
    InstanceId,
    PoolName,
    RollingState,
    State,
    Target,
)
from agentd.core.scalability import ScalingLaw
from agentd.core.season import Quantiles


class Headroom(Struct, frozen=True):
    """How many more instances of a pool the host can carry now, and what says so. None: unknown."""

    instances: int | None
    resource: str
    text: str


class StartTimes(Struct, frozen=True):
    """What a pool's last starts took, from asking the driver to ready; None: none is known.

    `counted`: how many the quantiles are of. `failed`: starts that never came to that, as long as the pool is known.
    """

    p50_s: float | None = None
    p95_s: float | None = None
    counted: int = 0
    failed: int = 0


class InstanceView(Struct, frozen=True):
    """One instance as people see it. Ages in seconds; numbers the agent never sent are None.

    The response times are the last that its process has sent.
    """

    id: InstanceId
    pool: PoolName
    port: int
    core_name: str | None
    incarnation: Incarnation
    pid: int
    state: State
    cause: str
    age_s: float
    state_age_s: float
    load: float | None
    queue_length: int | None
    in_flight: int | None
    tasks_completed: int | None
    response_time_p50_s: float | None
    response_time_p95_s: float | None
    last_beat_age_s: float | None
    missed_beats: int
    restarts: int
    oom_kills: int
    memory_bytes: int | None
    cpu_cores: float | None
    labels: Mapping[str, str]
    health: HealthCheck
    concurrency: int
    loop_blocked_s: float | None  # for how long its event loop has stood still; None: it runs, or there is none


class RollingView(Struct, frozen=True):
    """A rolling restart as people see it: of `total` instances `done` are restarted, and those `away` are not back.

    `stand_in` is empty where nobody stands in (any more), `no_stand_in` says why where people did not ask for that;
    `text` is how far it has come and what it waits for.
    """

    state: RollingState
    owner: str
    total: int
    done: int
    max_unavailable: int
    away: tuple[InstanceId, ...]
    stand_in: str
    text: str
    no_stand_in: str


class ReadingView(Struct, frozen=True):
    """What a collector has read, as people see it.

    `value` and `age_s` None: nothing yet. `stale`: nobody decides on it. `trouble` is why the last attempt failed.
    """

    name: str
    kind: str
    value: float | None
    age_s: float | None
    every_s: float
    stale: bool
    trouble: str


class OfferView(Struct, frozen=True):
    """A count that the program `source` asks for, and for how much longer."""

    source: str
    count: int
    owner: str
    reason: str
    expires_in_s: float


class PauseView(Struct, frozen=True):
    """A direction in which a person keeps agentd from scaling. `expires_in_s` None: until somebody lifts it.

    `everywhere`: in all pools.
    """

    direction: str
    owner: str
    reason: str
    since_wall: float
    expires_in_s: float | None
    everywhere: bool


class Condition(Struct, frozen=True):
    """How a pool stands with scaling: `core.conditions` has the types. `since` is wall time."""

    type: str
    status: bool
    reason: str  # a stable code
    text: str
    since: float


class PoolPlan(Struct, frozen=True):
    """What a check now would decide for one pool, and whom it would start, take back and let go."""

    decision: Decision
    starts: tuple[InstanceId, ...] = ()
    takes_back: tuple[InstanceId, ...] = ()
    stops: tuple[InstanceId, ...] = ()


class BudgetView(Struct, frozen=True):
    """A budget as people see it: what is `left` of `amount` in this hour, day or month, which ends in `ends_in_s`.

    `left` below 0: so much more was spent.
    """

    window: str
    amount: float
    spent: float
    left: float
    ends_in_s: float


class CostView(Struct, frozen=True):
    """What a pool, or all of them together, cost. Hours, days and months are those of the calendar, in UTC.

    `per_hour` is what an hour costs as it is now, `one_more_per_hour` what one more agent does (None: of which pool?).
    `projected_month`: what was spent this month, and the mean of the last 24 hours until it ends. `scalings`: what the
    last ones cost, or save, in each hour, newest first.
    """

    currency: str
    per_hour: float
    one_more_per_hour: float | None
    spent_hour: Spent
    spent_day: Spent
    spent_month: Spent
    projected_month: float
    budgets: tuple[BudgetView, ...]
    scalings: tuple[Scaling, ...]


class RuleView(Struct, frozen=True):
    """A trigger of a pool as people see it: its parameters under the names of the configuration, and its cooldowns."""

    kind: str
    parameters: tuple[tuple[str, str], ...]
    up_cooldown_s: float
    down_cooldown_s: float


class Advice(Struct, frozen=True):
    """Something that a person might change, and why. `pool` empty: it is about all of them."""

    code: str
    pool: str
    text: str


class ForecastAhead(Struct, frozen=True):
    """How many tasks are expected at work and waiting `ahead_s` from now, the most of five minutes."""

    ahead_s: float
    expected: Quantiles


class ForecastSummary(Struct, frozen=True):
    """What a pool will have to do, in short; `core.forecasting.show` has all of it. `ahead`: nearest first, of what can
    be said by now. `heeded`: whether the forecast may raise the pool, with why as a code and as text.
    """

    heeded: bool
    code: str
    text: str
    ahead: tuple[ForecastAhead, ...]


class PoolView(Struct, frozen=True):
    """One pool as people see it.

    `count` is committed capacity: ready, starting, failed, unhealthy not replaced, draining to be started again in
    place; without whoever stands in.
    """

    name: PoolName
    count: int
    ready: int
    starting: int
    draining: int
    unhealthy: int
    failed: int
    min: int
    max: int
    capacity: int
    core: int
    load: float | None
    queue_length: int
    in_flight: int
    concurrency: int
    policy: str
    scale_up_threshold: float
    scale_down_threshold: float
    target: Target | None
    target_expires_in_s: float | None
    headroom: Headroom
    footprint_bytes: int
    footprint_learned: bool
    next: Decision
    up_cooldown_s: float
    down_cooldown_s: float
    bundled_agent: bool
    cost_per_hour: float
    start_failure: str  # why the last start failed; empty since one succeeded
    rolling: RollingView | None  # it is being restarted, or its restart has stopped
    start_times: StartTimes
    effect: Effect | None  # what the last scaling that was judged has brought
    measuring: str  # the decision whose effect is being measured; empty: none is
    readings: tuple[ReadingView, ...] = ()  # of its collectors, in the order of the configuration
    offers: tuple[OfferView, ...] = ()  # by source
    pauses: tuple[PauseView, ...] = ()  # its own, then those of all pools
    law: ScalingLaw | None = None  # from how many on more of them add little; None: nothing is known of that
    conditions: tuple[Condition, ...] = ()
    cost: CostView | None = None  # None: nobody has said what it costs
    completed: float | None = None  # tasks that its instances have done ever; None: none of them counts
    forecast: ForecastSummary | None = None  # None: its agents have told no tasks, or not long enough to expect any
    rules: tuple[RuleView, ...] = ()  # its triggers, in their order
    guards: tuple[tuple[str, str], ...] = ()  # what is set of its guards, bounds and cooldowns aside
    held_s: float | None = None  # for how long something has been wanted and not granted; None: nothing is


class ForecastSlot(Struct, frozen=True):
    """Five minutes from the wall time `at`: the peak of the tasks that came, and what is expected; None: not known."""

    at: float
    came: float | None
    expected: Quantiles | None


class ForecastSkill(Struct, frozen=True):
    """How right forecasts for `ahead_s` were: their mean distance from what came, and that of the same time yesterday.

    `at_or_below`: the share of the time in which what came was not above the 10, 50 and 90 % quantile. `scored`: of so
    many slots.
    """

    ahead_s: float
    off_by: float
    naive_off_by: float | None
    at_or_below: tuple[float, ...]
    scored: int


class ForecastView(Struct, frozen=True):
    """The forecast of a pool, or of one of its `labels`: the last day and the next one, `slots` oldest first.

    `heeded`: whether it may raise the pool, with why as a code and as text. `seen_s` of `needed_s` have been seen.
    """

    pool: PoolName
    label: str
    labels: tuple[str, ...]
    heeded: bool
    code: str
    text: str
    seen_s: float
    needed_s: float
    slots: tuple[ForecastSlot, ...]
    skills: tuple[ForecastSkill, ...]
    wall: float


class FleetView(Struct, frozen=True):
    """The whole fleet as people see it."""

    enabled: bool
    autoscaling: AutoscalingMode
    pools: tuple[PoolView, ...]
    instances: tuple[InstanceView, ...]
    host: HostSample | None
    recovering_s: float
    next_check_s: float | None
    scaling_events: int
    unhealthy: int
    epoch: int
    pauses: tuple[PauseView, ...] = ()  # of all pools
    cost: CostView | None = None  # of all pools; None: nobody has said what any costs
    advice: tuple[Advice, ...] = ()

    @property
    def processes(self) -> int:
        """How many instances have a process: not those that wait, have failed or are stopped."""
        return sum(instance.pid > 0 for instance in self.instances)
