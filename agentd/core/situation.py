"""What the guards of a decision look at, and what they answer."""

from __future__ import annotations

from msgspec import Struct

from agentd.core.capacity import Promised
from agentd.core.metrics import Totals
from agentd.core.model import Limit
from agentd.core.rules import ThresholdTrigger, Trigger
from agentd.core.state import Fleet, Pool

# The count that a guard allows, and the limit that it leaves where that is less of a change than was wanted.
Bound = tuple[int, Limit]


class Situation(Struct, frozen=True):
    """What the guards look at. `wanted` is already within the bounds, and differs from `count`."""

    fleet: Fleet
    pool: Pool
    count: int
    wanted: int
    now: float
    extra: Promised
    asked_for: bool  # by a person
    in_the_end: bool
    back: int  # how many draining instances a scale-up could take back
    sums: Totals
    rule: Trigger | None  # whose proposal it is; None: a person's target, or the bounds

    @property
    def up(self) -> bool:
        return self.wanted > self.count

    @property
    def trigger(self) -> str:
        """The type of `rule`; empty where there is none."""
        return self.rule.kind if self.rule else ""


def lasting(seconds: float) -> str:
    """A time that passes, as texts of decisions say it: seconds, and what is longer as 59m, 23h50m or 8d7h."""
    if seconds < 1200.0:
        return f"{max(1.0, seconds) if seconds > 0.0 else 0.0:.0f} s"  # what is not over yet is no 0 s
    hours, minutes = divmod(round(seconds / 60.0), 60)
    if not hours:
        return f"{minutes}m"
    if hours < 24:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    days, hours = divmod(round(seconds / 3600.0), 24)
    return f"{days}d{hours}h" if hours else f"{days}d"


def is_slow(trigger: str) -> bool:
    """Whether it is one step at a time: `threshold` knows nothing of steps under way, nor do people."""
    return trigger in ("", ThresholdTrigger.kind)
