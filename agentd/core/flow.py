"""The stream of tasks through one pool, as far as its agents tell: how many arrive, and how long one takes.

Arrivals are not seen by themselves: what has been completed and what is at work or waiting has arrived. The mean
service time is busy slot-seconds over completions (Little's law), with a memory of some thousand tasks.

Counts are tasks, rates tasks per second; times are seconds on the monotonic clock.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from msgspec import Struct, field

# The two windows over which arrivals are counted, and the share of the short one in what is expected.
SHORT_S, LONG_S = 120.0, 600.0
SHORT_RATIO = 0.25
# Before so much has been seen, a rate is of this span all the same: one task in the first second is no flood.
SPAN_S_MIN = 20.0
# The cumulative count is noted so often.
MARK_S = 5.0
# What is believed of the service time before anything was seen counts as one task; older tasks count half.
SERVICE_S_DEFAULT = 10.0
TASKS_REMEMBERED = 3000.0
SERVICE_S_MIN = 0.001
# Reports cross each other; what has not come back after this long has left without being done.
DEBT_S_MAX = 30.0
# Of how many pieces the last arrivals are kept, which may still be waiting in time.
FRESH_PIECES = 8
# Silence for longer than this (agentd was away) begins a new stream; what was learned of the service time stays.
GAP_S_MAX = 60.0


class Lately(Struct, frozen=True):
    """What has passed through since the last look: `came` and `done` tasks, and `busy_s`, the seconds that slots were
    at work. `at_work`: slots that were at work at that look. `fresh`: tasks that came so lately that none of them has
    waited for too long yet."""

    came: float
    done: float
    busy_s: float
    at_work: float
    fresh: float


class Flow(Struct):
    """`marks`: (time, the most that had arrived until then), oldest first, at least the last LONG_S. `demand`,
    `completed`: as last told; None before that. `resumed`: agentd was away, and the next numbers are where counting
    goes on from."""

    began: float = 0.0
    at: float = 0.0
    arrived: float = 0.0
    demand: float | None = None
    completed: float | None = None
    busy_s: float = 0.0
    done: float = 0.0
    resumed: bool = False
    marks: list[tuple[float, float]] = field(default_factory=list)
    # Since the last step: what the shadows are to live through.
    arrived_lately: float = 0.0
    done_lately: float = 0.0
    busy_lately_s: float = 0.0
    at_work_then: float = 0.0
    fresh: list[tuple[float, float]] = field(default_factory=list)  # (until when, how many came), oldest first
    debt_at: float = 0.0  # since when more has left than came, of that; 0: not
    # The most that had arrived by any moment; where it is less by now, the least since then, and for how long it is.
    most: float = 0.0
    least: float = 0.0
    short_s: float = 0.0
    at_work: float = 0.0  # as last told
    waited: bool = False  # a waiting task has been told of, ever

    @property
    def service_s(self) -> float:
        """The mean time that a task keeps one slot busy."""
        return max(SERVICE_S_MIN, (self.busy_s + SERVICE_S_DEFAULT) / (self.done + 1.0))

    @property
    def rate(self) -> float:
        """Tasks that arrive per second, by what came lately."""
        seen_s = max(self.at - self.began, SPAN_S_MIN)
        return SHORT_RATIO * self._rate(SHORT_S, seen_s) + (1.0 - SHORT_RATIO) * self._rate(LONG_S, seen_s)

    def observe(self, now: float, demand: float, at_work: float, completed: float | None) -> None:
        """Take what the agents tell: tasks at work or waiting, those of them at work, and completed ones ever.

        Without a count of completed tasks, those that left are taken as completed, and only growth as arrivals.
        """
        passed_s = now - self.at
        if self.demand is None or passed_s > GAP_S_MAX:
            self._begin(now)
        elif not self.resumed:
            more = demand - self.demand
            if completed is None or self.completed is None:
                done, came = max(0.0, -more), max(0.0, more)
            else:
                done = max(0.0, completed - self.completed)
                came = more + done
            self.busy_s += at_work * passed_s
            self.busy_lately_s += at_work * passed_s
            # What is done while nobody is said to work says nothing of how long it took.
            if at_work > 0.0 or self.at_work > 0.0:
                self.done += done
            self.done_lately += done
            # Reports do not come at one moment: what seems to have left without being done comes back with the next.
            self.arrived += came
            self.arrived_lately += came
            self._write_off(passed_s)
            if self.done > TASKS_REMEMBERED:
                self.done /= 2.0
                self.busy_s /= 2.0
        self.at, self.demand, self.completed, self.resumed = now, demand, completed, False
        self.at_work = at_work
        self.waited = self.waited or demand > at_work
        if not self.marks or now - self.marks[-1][0] >= MARK_S:
            self.marks.append((now, self.most))
            if len(self.marks) > 2 * LONG_S / MARK_S:
                del self.marks[: bisect_left(self.marks, (now - LONG_S, -math.inf)) - 1]

    def take_lately(self, fresh_s: float) -> Lately:
        """What has passed through since this was asked last. Who came in the last `fresh_s` is fresh."""
        came = max(0.0, self.arrived_lately)
        self.arrived_lately = min(0.0, self.arrived_lately)
        if self.arrived_lately == 0.0:
            self.debt_at = 0.0
        elif not self.debt_at:
            self.debt_at = self.at
        elif self.at - self.debt_at > DEBT_S_MAX:
            self.arrived_lately = self.debt_at = 0.0
        lately = Lately(came, self.done_lately, self.busy_lately_s, self.at_work_then, self._fresh(came, fresh_s))
        self.done_lately = self.busy_lately_s = 0.0
        self.at_work_then = self.at_work
        return lately

    def _fresh(self, came: float, fresh_s: float) -> float:
        """Tasks that came in the last `fresh_s`, `came` of them since the last look."""
        fresh = self.fresh
        while fresh and fresh[0][0] <= self.at - fresh_s:
            fresh.pop(0)
        if came and fresh and self.at - fresh[-1][0] < fresh_s / FRESH_PIECES:
            fresh[-1] = (fresh[-1][0], fresh[-1][1] + came)
        elif came:
            fresh.append((self.at, came))
        return sum(number for _, number in fresh)

    def _begin(self, now: float) -> None:
        self.began = self.at = now
        self.arrived = self.arrived_lately = self.done_lately = self.busy_lately_s = 0.0
        self.debt_at = self.most = self.least = self.short_s = 0.0
        self.marks.clear()
        self.fresh.clear()

    def _write_off(self, passed_s: float) -> None:
        """What has left without being done, and does not come back, has arrived all the same: a queue was purged."""
        if self.arrived >= self.most:
            self.most, self.short_s = self.arrived, 0.0
            return
        self.least = min(self.least, self.arrived) if self.short_s else self.arrived
        self.short_s += passed_s
        if self.short_s > DEBT_S_MAX:
            self.arrived += self.most - self.least
            self.most, self.short_s = self.arrived, 0.0

    def _rate(self, window_s: float, seen_s: float) -> float:
        if not self.marks:
            return 0.0
        # The last mark before the window; at the beginning of the stream its first.
        place = bisect_left(self.marks, (self.at - window_s, math.inf)) - 1
        came = max(self.most, self.arrived) - self.marks[place if place > 0 else 0][1]
        return came / min(window_s, seen_s) if came > 0.0 else 0.0
