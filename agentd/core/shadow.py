"""What each expert would have cost: a small fleet in shadow for each of them, which lives through the same arrivals.

A shadow starts and lets go instances as its expert says, waits for them as long as a start takes, and serves the tasks
that have arrived, as fast as the real agents were seen to finish theirs. It counts what it would have paid: the time of
its instances, and a price for each task that would have waited for longer than the wait target. The expert whose shadow
has paid least lately is the one to follow (follow the leader: Cesa-Bianchi and Lugosi, Prediction, Learning, and Games,
2006, chapter 2; every expert is seen at every moment, as what arrives does not depend on whom we follow).

A shadow finishes a task when the real agents do, as far as it has as many at work; where it has more at work than they,
those take the mean time. So where neither makes tasks wait, both have the same tasks. Times are seconds, costs
instance-seconds; tasks may be fractions.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

from agentd.core.experts import EXPERTS, Expert, Outlook, band, remembered
from agentd.core.flow import Lately

# What was paid counts half as much after two thirds of this time.
MEMORY_S = 86_400.0
# Somebody else is followed only when that has cost so much less; and for one who keeps fewer instances, less by so many
# seconds' share of the time that has been seen: a burst that has not come yet is not one that never comes.
BETTER_RATIO = 0.02
DOUBT_S = 300.0
# Nobody is left before so much has been seen.
TRIAL_S = 600.0
# Whether the forecast pays is judged by a week: much comes once in it. It is heeded after a day in shadow, when it has
# saved so much, and until it has cost more than it saved.
WEEK_S = 604_800.0
FORECAST_TRIAL_S = 86_400.0
FORECAST_BETTER_RATIO = 0.005
# The share of the leader's instances that a plan which knows all arrivals would need: measured on the traces.
NEEDED_RATIO = 0.75


class Step(Struct, frozen=True):
    """What all shadows live through: `passed_s` up to `now`, in which `lately` passed through the real agents.

    A start takes `start_s`; an instance works on `slots` tasks; there are between `least` and `most` of them, `standby`
    more than the tasks at hand need.
    """

    view: Outlook
    now: float
    passed_s: float
    lately: Lately
    start_s: float
    slots: int
    least: int
    most: int
    standby: int = 0


class Shadow(Struct):
    """The fleet of one expert. `coming`: (ready at, how many), oldest first; `count` is with them.

    `paid`: what it has cost, `held_s`: the time of its instances alone, both as remembered. `open`: of the tasks that
    wait, those of which it is not known yet whether they wait for too long.
    """

    count: int
    ready: int
    demand: float = 0.0
    peak: float = 0.0
    coming: list[tuple[float, int]] = field(default_factory=list)
    paid: float = 0.0
    held_s: float = 0.0
    open: float = 0.0

    def live(self, expert: Expert, step: Step, kept: int = 0) -> float:
        """Live through `step`; the tasks that have waited for too long by now. At least `kept` instances are kept."""
        # All of them live in every step, and to choose between two numbers without a call takes half as long.
        view, lately = step.view, step.lately
        while self.coming and self.coming[0][0] <= step.now:
            self.ready += self.coming.pop(0)[1]
        capacity = float(self.ready * step.slots)
        before = self.demand
        usual = lately.busy_s / step.passed_s
        at_work = usual - lately.at_work + (before if before < capacity else capacity)
        at_work = 0.0 if at_work < 0.0 else at_work if at_work < capacity else capacity
        done = lately.done
        if at_work > usual:
            done += (at_work - usual) * step.passed_s / view.service_s
        elif at_work < usual:
            done *= at_work / usual
        there = before + lately.came
        self.demand = there = there - done if done < there else 0.0
        waiting = there - capacity if there > capacity else 0.0
        # In the order in which they came: who came last may wait for as long as they may.
        unknown = self.open + lately.came
        unknown = unknown if unknown < waiting else waiting
        late = unknown - lately.fresh
        self.open = lately.fresh if late > 0.0 else unknown
        urgent = floor = view.floor(there - waiting, waiting)
        if expert.relied_ratio:
            urgent = view.floor(there - waiting, waiting, expert.relied_ratio)
        self.peak = remembered(expert, self.peak, floor, step.passed_s, view.stretch, float(step.most * step.slots))
        low, high = band(expert, view.expected(there), urgent, self.peak, step.slots)
        if step.standby:
            kept = max(kept, math.ceil(there / step.slots) + step.standby)
        if kept > low:
            low, high = kept, kept if kept > high else high
        wanted = low if self.count < low else high if self.count > high else self.count
        wanted = step.least if wanted < step.least else step.most if wanted > step.most else wanted
        if wanted != self.count:
            self._resize(wanted, step.now + step.start_s)
        return late if late > 0.0 else 0.0

    def _resize(self, wanted: int, ready_at: float) -> None:
        if wanted > self.count:
            self.coming.append((ready_at, wanted - self.count))
        while self.count > wanted:
            # Who has not started yet goes first, as in the real fleet.
            if not self.coming:
                self.ready -= self.count - wanted
                break
            at, number = self.coming.pop()
            gone = min(number, self.count - wanted)
            if number > gone:
                self.coming.append((at, number - gone))
            self.count -= gone
        self.count = wanted


class Trial(Struct):
    """Two more shadows, both with the expert that the pool follows, one of which keeps what the forecast expects.

    `lived_s`: for how long. `heeded`: whether that has saved enough, and has not stopped to.
    """

    with_it: Shadow
    without: Shadow
    lived_s: float = 0.0
    heeded: bool = False

    @classmethod
    def beginning(cls, like: Shadow) -> Trial:
        """Both as `like` is now, with nothing paid."""
        with_it, without = (Shadow(like.count, like.count, like.demand, like.peak) for _ in range(2))
        return cls(with_it, without)

    @property
    def saved_ratio(self) -> float:
        """So much of what was paid without the forecast would have been saved with it; below 0 it costs more."""
        return 1.0 - self.with_it.paid / self.without.paid if self.without.paid else 0.0

    def live(self, expert: Expert, step: Step, price: float, kept: int) -> None:
        """Let both live through `step`; a late task costs `price`, and the forecast expects `kept` instances."""
        kept_ratio = math.exp(-step.passed_s / WEEK_S)
        for fleet, least in ((self.with_it, kept), (self.without, 0)):
            held_s = fleet.count * step.passed_s
            late = fleet.live(expert, step, least)
            fleet.paid = fleet.paid * kept_ratio + held_s + late * price
            fleet.held_s = fleet.held_s * kept_ratio + held_s
        self.lived_s += step.passed_s
        if self.lived_s >= FORECAST_TRIAL_S:
            self.heeded = self.saved_ratio >= (0.0 if self.heeded else FORECAST_BETTER_RATIO)


class Shadows(Struct):
    """One shadow for each of EXPERTS, and whom the pool follows.

    `hours_s`: the instances' time of whoever was followed, `tasks`: what has arrived; both as remembered.
    """

    fleets: list[Shadow]
    leader: int = 0
    since: float = 0.0
    lived_at: float = 0.0
    hours_s: float = 0.0
    tasks: float = 0.0
    trial: Trial | None = None  # of the forecast, from when there is one

    @classmethod
    def beginning(cls, count: int, now: float) -> Shadows:
        """All with `count` instances, ready."""
        return cls([Shadow(count, count) for _ in EXPERTS], since=now, lived_at=now)

    def live(self, step: Step, late_weight: float, kept: int = 0, pinned: int | None = None) -> None:
        """Let all live through `step`, and follow whoever has paid least.

        `late_weight`: so many percent of the instances' time is one percent of late tasks worth. `kept`: so many
        instances are what the forecast expects. `pinned`: the place of the expert whom the pool follows always.
        """
        followed = self.leader if pinned is None else pinned
        self.lived_at = step.now
        kept_ratio = math.exp(-step.passed_s / MEMORY_S)
        held_s = [fleet.count * step.passed_s for fleet in self.fleets]
        late = [fleet.live(expert, step) for expert, fleet in zip(EXPERTS, self.fleets, strict=True)]
        self.hours_s = self.hours_s * kept_ratio + held_s[self.leader]
        self.tasks = self.tasks * kept_ratio + step.lately.came
        price = late_weight * NEEDED_RATIO * self.hours_s / self.tasks if self.tasks > 0.0 else 0.0
        for place, fleet in enumerate(self.fleets):
            fleet.paid = fleet.paid * kept_ratio + held_s[place] + late[place] * price
            fleet.held_s = fleet.held_s * kept_ratio + held_s[place]
        if self.trial is not None:
            self.trial.live(EXPERTS[followed], step, price, kept)
        elif kept:
            self.trial = Trial.beginning(self.fleets[followed])
        self._follow(step.now - self.since)

    def _follow(self, seen_s: float) -> None:
        if seen_s <= TRIAL_S:
            return
        paid = [fleet.paid for fleet in self.fleets]
        best = paid.index(min(paid))
        better_ratio = BETTER_RATIO
        if self.fleets[best].held_s < self.fleets[self.leader].held_s:
            better_ratio += DOUBT_S / seen_s
        if paid[best] < (1.0 - better_ratio) * paid[self.leader]:
            self.leader = best
