"""The rules by which a pool's size is chosen, and what they look at that agents do not say: frozen nouns.

One noun per type of trigger, with its parameters and their defaults; `core.triggers` is what each of them does. A pool
has one or more. Besides, the numbers that its collectors have read and the counts that programs ask for.

Times are seconds on the monotonic clock; windows and durations end in `_s`.
"""

from __future__ import annotations

import re
from typing import ClassVar

from msgspec import Struct

from agentd.core.cron import Window

# Names of collectors, and of programs that ask for a count.
COLLECTOR_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
SOURCE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
# The collector of this name reads the tasks that wait outside the agents: they are part of the pool's demand.
QUEUE = "queue"
# A reading is stale when its collector has missed so many turns, and is at least so old.
STALE_INTERVALS = 3.0
STALE_S_MIN = 30.0
# Whom an adaptive pool follows where nobody says it, and whether it heeds its forecast: by what would have paid lately.
AUTO = "auto"
# What an adaptive pool makes of its forecast.
FORECASTS = (AUTO, "on", "off")
# What a `target` may look at besides the pool's collectors.
SIGNALS = ("load", "in_flight", "demand", "throughput")
DIRECTIONS = ("up", "down")
# What is done with what is learned of a pool's diminishing returns.
RETURNS = ("advise", "guard", "off")


class ThresholdTrigger(Struct, frozen=True):
    """Seed A's rule: one more above `scale_up_threshold`, one fewer below `scale_down_threshold`."""

    kind: ClassVar[str] = "threshold"

    scale_up_threshold: float = 0.75
    scale_down_threshold: float = 0.25


class TargetTrigger(Struct, frozen=True):
    """So many that each has `target` of the signal: a load, or tasks, or what a collector reads, per instance.

    Within `tolerance_ratio` of the target nothing changes. Going down takes the most that was wanted within
    `down_window_s`, going up the least within `up_window_s`.
    """

    kind: ClassVar[str] = "target"

    signal: str = "load"
    target: float = 0.7
    tolerance_ratio: float = 0.1
    up_window_s: float = 0.0
    down_window_s: float = 300.0


class DemandTrigger(Struct, frozen=True):
    """So many that the tasks begun and waiting fill `target_ratio` of what they can work on at a time.

    Going down takes the most that was wanted within `down_window_s`.
    """

    kind: ClassVar[str] = "demand"

    target_ratio: float = 0.95
    down_window_s: float = 300.0


class LatencyTrigger(Struct, frozen=True):
    """So many that the response time (`quantile` p50 or p95, as agents report it) stays at `target_s` or below."""

    kind: ClassVar[str] = "latency"

    target_s: float
    quantile: str = "p95"
    tolerance_ratio: float = 0.1
    down_window_s: float = 300.0


class ScheduleTrigger(Struct, frozen=True):
    """Moves the pool's minimum and maximum while one of its `windows` is active."""

    kind: ClassVar[str] = "schedule"

    windows: tuple[Window, ...] = ()


class ExternalTrigger(Struct, frozen=True):
    """As many as programs ask for; the highest of them counts. `sources`: who may ask, () for anybody."""

    kind: ClassVar[str] = "external"

    sources: tuple[str, ...] = ()


class AdaptiveTrigger(Struct, frozen=True):
    """As many as will be needed when a start that begins now has ended; learns how much reserve pays.

    `wait_target_s`: a task that waits for longer is late. `late_weight`: one percent of late tasks is worth so many
    percent of the instances' time. `standby`: so many more than the tasks at hand need, always. `expert`: the one to
    follow (`core.experts` has them), or auto: whoever would have paid least lately. `forecast`: one of FORECASTS:
    whether what is expected at this time of the day and week may raise it; auto: while that pays.
    """

    kind: ClassVar[str] = "adaptive"

    wait_target_s: float = 5.0
    late_weight: float = 10.0
    standby: int = 0
    expert: str = AUTO
    forecast: str = AUTO


Trigger = (
    ThresholdTrigger
    | TargetTrigger
    | DemandTrigger
    | LatencyTrigger
    | ScheduleTrigger
    | ExternalTrigger
    | AdaptiveTrigger
)


class RateLimit(Struct, frozen=True):
    """At most so many in `period_s`: `count`, or `percent` of what there was before, whichever allows more."""

    period_s: float
    count: int | None = None
    percent: float | None = None


class GuardConfig(Struct, frozen=True):
    """What people set of a pool's guards, its cooldowns and bounds aside. Rates None: no bound.

    `no_bounce`: also `threshold` makes no step down after which it would want one up; the others never do.
    `diminishing_returns`: one of RETURNS; `advise` tells how many agents are of use, `guard` also keeps to it.
    """

    up_rate: RateLimit | None = None
    down_rate: RateLimit | None = None
    no_bounce: bool = False
    diminishing_returns: str = "advise"


GUARDS_DEFAULT = GuardConfig()


class CollectorConfig(Struct, frozen=True):
    """Something to read one number from, every `every_s`, for at most `timeout_s`; what else is of its `kind` alone."""

    name: str
    kind: str
    every_s: float = 10.0
    timeout_s: float = 5.0
    settings: tuple[tuple[str, str | float], ...] = ()

    @property
    def stale_s(self) -> float:
        """From this age on a reading says nothing any more."""
        return max(STALE_S_MIN, STALE_INTERVALS * self.every_s)


class Reading(Struct, frozen=True):
    """What a collector read last, and when. `trouble`: why it could not read since; empty when all is well."""

    value: float | None
    at: float
    trouble: str = ""


class Offer(Struct, frozen=True):
    """A count that the program `source` asks for, until `expires`."""

    source: str
    count: int
    owner: str
    reason: str
    expires: float


class Pause(Struct, frozen=True):
    """A person keeps agentd from scaling in one direction, until `expires`; None: until somebody lifts it."""

    owner: str
    reason: str
    since_wall: float
    expires: float | None
