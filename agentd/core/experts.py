"""How much capacity a pool ought to have: eight experts, who look at the same numbers.

Each gives a band of counts. Below it the pool grows, above it the pool shrinks, within it nothing happens: what has
just been let go would not be asked for again by the same numbers. The lower end is what the pool will need when an
instance that is started now is ready:

    expected   = demand x exp(-s/S) + rate x S x (1 - exp(-s/S))        s: start time, S: mean service time
    lower      = max(expected + up x sqrt(expected), floor) / concurrency
    floor      = at work / full + max(0, waiting - relied x at work x s / S) / (1 + 0.25 x wait target / S)
    upper      = max(expected + down x sqrt(expected), hold x recent peak) / concurrency

The first is the mean of an infinite-server queue with what is there now (of the tasks at hand a share exp(-s/S) is
still there, the others have come since); its square root is the spread of a Poisson stream. The second is the reactive
floor: what is at work and waits now, but for what those at work will have finished by then, as far as that is relied
on; `full` is 1, and 0.85 where nobody tells of tasks that wait: full agents may then have more to do. The recent peak,
which counts all that waits, fades with a time constant. The parameters were chosen on public traces with
`bench/policies.py`; none of them fits every pool, so `core.shadow` chooses among them.
"""

from __future__ import annotations

import math

from msgspec import Struct

from agentd.core.flow import Flow

# A task that may wait as long as it takes lets this share of the waiting be served by those that become free.
PATIENCE_RATIO = 0.25
# The start time that the time constants below were chosen at: peaks are worth holding the longer, the slower a start.
START_S_USUAL = 30.0
_ROUNDING = 1e-9


class Expert(Struct, frozen=True):
    """`up`, `down`: spreads of expected demand kept, before growing and shrinking. `hold_ratio` of the recent peak is
    kept, which fades with `hold_s`. `relied_ratio`: so much of what the slots at work will finish until a start has
    ended is relied on to clear the backlog, and not started for."""

    name: str
    up: float
    down: float
    hold_ratio: float
    hold_s: float
    relied_ratio: float = 0.0


# The first is whom a pool begins with: before anything is known, agents cost less than tasks that nobody is there for.
EXPERTS = (
    Expert("standing", up=1.0, down=2.0, hold_ratio=0.6, hold_s=900.0, relied_ratio=0.2),
    Expert("even", up=1.5, down=2.0, hold_ratio=1.3, hold_s=80.0),
    Expert("bursty", up=0.0, down=0.5, hold_ratio=1.3, hold_s=160.0),
    Expert("lean", up=0.5, down=2.0, hold_ratio=1.0, hold_s=10.0),
    Expert("steady", up=1.5, down=2.0, hold_ratio=1.0, hold_s=10.0),
    Expert("holding", up=0.5, down=1.5, hold_ratio=1.0, hold_s=240.0),
    Expert("careful", up=2.0, down=2.5, hold_ratio=1.0, hold_s=10.0),
    Expert("sparse", up=0.0, down=1.0, hold_ratio=2.0, hold_s=160.0),
)
NAMES = tuple(expert.name for expert in EXPERTS)


class Outlook(Struct, frozen=True):
    """What all experts share: expected tasks and their spread when a start has ended, the service time, how much of the
    waiting must be served at once, by how much their time constants are stretched, and how many tasks a slot finishes
    until a start has ended (`turns`). `full_ratio`: so busy agents count as full."""

    service_s: float
    arriving: float
    staying_ratio: float
    urgent_ratio: float
    stretch: float
    turns: float
    full_ratio: float = 1.0

    def expected(self, demand: float) -> float:
        """Tasks at hand when a start that begins now has ended."""
        return self.staying_ratio * demand + self.arriving

    def floor(self, at_work: float, waiting: float, relied_ratio: float = 0.0) -> float:
        """Slots that tasks at hand call for now. `relied_ratio`: see Expert."""
        if relied_ratio:
            waiting -= relied_ratio * at_work * self.turns
        # Asked for by every shadow in every step.
        return at_work / self.full_ratio + (waiting * self.urgent_ratio if waiting > 0.0 else 0.0)


def outlook(flow: Flow, start_s: float, wait_target_s: float, full_ratio: float = 1.0) -> Outlook:
    """What is to be expected of `flow` in `start_s`. `full_ratio`: see Outlook."""
    service_s = flow.service_s
    staying_ratio = math.exp(-start_s / service_s)
    return Outlook(
        service_s=service_s,
        arriving=flow.rate * service_s * (1.0 - staying_ratio),
        staying_ratio=staying_ratio,
        urgent_ratio=1.0 / (1.0 + PATIENCE_RATIO * wait_target_s / service_s),
        stretch=(start_s + START_S_USUAL) / (2.0 * START_S_USUAL),
        turns=start_s / service_s,
        full_ratio=full_ratio,
    )


def remembered(expert: Expert, peak: float, floor: float, passed_s: float, stretch: float, most: float) -> float:
    """The recent peak with `floor` now, `passed_s` after it was `peak`.

    A peak counts for at most what the pool can serve at once (`most`): a backlog of ten times as much does not want ten
    times as long a memory.
    """
    floor = floor if floor < most else most
    faded = peak * math.exp(-passed_s / (expert.hold_s * stretch))
    return faded if faded > floor else floor


def band(expert: Expert, expected: float, floor: float, peak: float, slots: int) -> tuple[int, int]:
    """The lower and upper end, in instances of `slots` tasks each. `floor`: at work and urgently waiting."""
    spread = math.sqrt(expected)
    grow, shrink, held = expected + expert.up * spread, expected + expert.down * spread, expert.hold_ratio * peak
    low = math.ceil((grow if grow > floor else floor) / slots - _ROUNDING)
    high = math.ceil((shrink if shrink > held else held) / slots - _ROUNDING)
    return low, high if high > low else low


def most_expected(expert: Expert, tasks: float) -> float:
    """The most that may be expected before the lower end of the band is above `tasks`."""
    return ((math.sqrt(expert.up * expert.up + 4.0 * tasks) - expert.up) / 2.0) ** 2


def instances(tasks: float, slots: int) -> int:
    """How many instances of `slots` tasks each hold so many."""
    return math.ceil(tasks / slots - _ROUNDING)
