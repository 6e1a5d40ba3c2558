"""A plan made with every arrival known: few agent-hours with at most a given share of late requests.

It is achievable, and so an upper bound of the least that is possible; not the optimum itself.

The pool is looked at as levels: the k-th level is in use while more than (k-1) x c tasks are in service. A level opens
when a request has waited as long as it may and every slot is taken; it closes when it was last used, unless it is used
again within the time for which a start costs as much as waiting (the start-up delay: agent-hours count it). Requests
wait in turn, so not to open a level makes some late until the queue has been worked off: the plan looks ahead how
many, and leaves the level closed where that costs less than `price` late requests per agent-second saved. The price is
raised as far as the bound on late requests allows.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from agentd.sim.options import Options
from agentd.traces import Arrival

LATE_SHARE_MAX = 0.01
# The controller acts up to a second after it is asked, and hears of an agent's change up to a second late.
MARGIN_S = 1.0
_PRICES = 8  # how often the price is halved towards the bound
_PRICE_MAX = 1.0
# Which share of the longest wait a request waits for a level to open. Where requests are short, those that come while
# it waits would each want a level of their own when their turn has come.
_PATIENCES = (1.0, 0.8)


class Interval(Struct, frozen=True):
    """A level in use, in seconds of the trace."""

    level: int
    open_s: float
    close_s: float


def plan(
    arrivals: Sequence[Arrival],
    options: Options,
    initial: int,
    agents_min: int = 1,
    late_share_max: float = LATE_SHARE_MAX,
) -> list[tuple[float, int]]:
    """The counts to ask for: (offset in seconds, count), by offset; the first is at 0."""
    plans = [_cheapest(arrivals, options, agents_min, initial, share, late_share_max) for share in _PATIENCES]
    holding = [found for found in plans if found.late <= late_share_max * len(arrivals)]
    best = min(holding, key=_Levels.agent_s) if holding else min(plans, key=lambda found: found.late)
    return _steps(best.intervals, options.startup_s + MARGIN_S, arrivals[-1].offset_s)


def hours(steps: Sequence[tuple[float, int]], end_s: float) -> float:
    """The agent-hours of a plan's `steps` until `end_s` of the trace."""
    ends = (*(at for at, _ in steps[1:]), end_s)
    return sum(count * max(0.0, end - at) for (at, count), end in zip(steps, ends, strict=True)) / 3600.0


def _cheapest(
    arrivals: Sequence[Arrival], options: Options, agents_min: int, initial: int, patience: float, late_share_max: float
) -> _Levels:
    """The pass at the highest price that holds the bound; at no price where none does."""
    low, high = 0.0, _PRICE_MAX
    best = _Levels(arrivals, options, agents_min, initial, patience=patience, price=low).pass_through()
    for _ in range(_PRICES if best.late <= late_share_max * len(arrivals) else 0):
        price = (low + high) / 2.0
        found = _Levels(arrivals, options, agents_min, initial, patience=patience, price=price).pass_through()
        if found.late <= late_share_max * len(arrivals):
            low, best = price, found
        else:
            high = price
    return best


def _steps(intervals: Sequence[Interval], ahead_s: float, end_s: float) -> list[tuple[float, int]]:
    """How many levels are open or opening, with each asked for `ahead_s` before it opens; the last stay open."""
    changes: dict[float, int] = {0.0: 0}
    for interval in intervals:
        at = max(0.0, interval.open_s - ahead_s)
        changes[at] = changes.get(at, 0) + 1
        if interval.close_s < end_s:
            changes[interval.close_s] = changes.get(interval.close_s, 0) - 1
    steps: list[tuple[float, int]] = []
    count = 0
    for at in sorted(changes):
        count += changes[at]
        if not steps or steps[-1][1] != count:
            steps.append((at, count))
    return steps


class _Levels:
    """One pass through the trace at one price."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        options: Options,
        agents_min: int,
        initial: int,
        patience: float,
        price: float,
    ) -> None:
        self.arrivals = arrivals
        self.slots = options.concurrency
        self.slo_s = options.slo_s
        self.patience_s = patience * options.slo_s
        self.startup_s = options.startup_s
        self.most = options.agents_max
        self.least = agents_min
        self.price = price
        self.intervals: list[Interval] = []
        self.late = 0
        self.count = max(agents_min, initial)  # open levels
        self.opened = [0.0] * (self.most + 1)
        self.used = [0.0] * (self.most + 1)  # when a level was last in use
        self.busy = 0
        self.ends: list[float] = []
        self.queue: deque[Arrival] = deque()
        self.closed_until_empty = False  # the queue is to be worked off without another level

    def pass_through(self) -> _Levels:
        arrivals, ends, queue, patience_s = self.arrivals, self.ends, self.queue, self.patience_s
        number, total = 0, len(arrivals)
        while number < total or queue:
            arrives = arrivals[number].offset_s if number < total else math.inf
            ended = ends[0] if ends else math.inf
            may_open = queue and not self.closed_until_empty and self.count < self.most
            expires = queue[0].offset_s + patience_s if may_open else math.inf
            now = min(arrives, ended, expires)
            self._close_unused(now)
            if ended == now:
                heapq.heappop(ends)
                level = -(-self.busy // self.slots)
                self.busy -= 1
                if self.busy <= self.slots * (level - 1):
                    self.used[level] = now
            elif arrives == now:
                queue.append(arrivals[number])
                number += 1
            elif self._worth_it(now, number):
                self.count += 1
                self.opened[self.count] = self.used[self.count] = now
            else:
                self.closed_until_empty = True
            while queue and self.busy < self.slots * self.count:
                self._begin(queue.popleft(), now)
            if not queue:
                self.closed_until_empty = False
        end_s = arrivals[-1].offset_s
        for level in range(1, self.count + 1):
            self.intervals.append(Interval(level, self.opened[level], end_s))
        return self

    def agent_s(self) -> float:
        """What the levels cost, starts included."""
        return sum(min(one.open_s, self.startup_s) + one.close_s - one.open_s for one in self.intervals)

    def _begin(self, request: Arrival, now: float) -> None:
        self.busy += 1
        self.used[-(-self.busy // self.slots)] = now
        heapq.heappush(self.ends, now + request.service_s)
        if now - request.offset_s > self.slo_s + 1e-9:
            self.late += 1

    def _close_unused(self, now: float) -> None:
        while self.count > self.least and self.busy <= self.slots * (self.count - 1):
            used = self.used[self.count]
            if used + self.startup_s >= now:
                return
            self.intervals.append(Interval(self.count, self.opened[self.count], used))
            self.count -= 1

    def _worth_it(self, now: float, number: int) -> bool:
        """Whether to open a level for the request that has waited as long as it may, or let the queue be late."""
        if self.price <= 0.0:
            return True
        ends, queue, arrivals = list(self.ends), deque(self.queue), self.arrivals
        heapq.heapify(ends)
        late, began = 0, now
        while queue:
            if ends and (number >= len(arrivals) or ends[0] <= arrivals[number].offset_s):
                at = heapq.heappop(ends)
                request = queue.popleft()
                heapq.heappush(ends, at + request.service_s)
                if at - request.offset_s > self.slo_s:
                    late += 1
                    if late > self.price * (self.startup_s + at - began):
                        return True
            elif number < len(arrivals):
                queue.append(arrivals[number])
                number += 1
            else:
                return True  # nobody is at work, and nobody would ever come
        return False
