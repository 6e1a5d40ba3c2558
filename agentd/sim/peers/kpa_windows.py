"""What Knative's autoscaler averages and remembers over time.

Source of the rule: knative/serving@98e5ef90, pkg/autoscaler/aggregation/bucketing.go and aggregation/max.

Times are cut to buckets of `granularity_s`. An average is divided by the buckets since the first write, not by the
whole window: a metric that is young is not taken for one that was zero.
"""

from __future__ import annotations

import math
from collections import deque

DIGITS = 6  # an average is rounded to this many, so that sums and differences of buckets do not show


class WindowMax:
    """The largest of the values recorded at the last `size` indices. Indices never go back."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._falling = deque[tuple[int, int]]()  # (index, value): values fall, so the first is the largest

    def record(self, index: int, value: int) -> None:
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((index, value))
        while self._falling[0][0] <= index - self._size:
            self._falling.popleft()

    def current(self) -> int:
        """0 before anything was recorded."""
        return self._falling[0][1] if self._falling else 0


class TimeWindowMax:
    """The largest of the values recorded within the last `window_s`."""

    def __init__(self, window_s: float, granularity_s: float) -> None:
        self._granularity_s = granularity_s
        self._max = WindowMax(math.ceil(window_s / granularity_s))

    def record(self, at: float, value: int) -> None:
        self._max.record(math.floor(at / self._granularity_s), value)

    def current(self) -> int:
        return self._max.current()


class WindowAverage:
    """The mean of what was recorded, by bucket; values of one bucket add up."""

    def __init__(self, window_s: float, granularity_s: float) -> None:
        self._granularity_s = granularity_s
        self._size = math.ceil(window_s / granularity_s)
        self._buckets = [0.0] * self._size
        self._first = self._last = -1
        self._total = 0.0
        self._empty = True

    def record(self, at: float, value: float) -> None:
        """A value older than the window is passed over; one in the future of a whole silent window starts anew."""
        index = self._index(at)
        if self._empty or index - self._last >= self._size:
            self._buckets = [0.0] * self._size
            self._total = 0.0
            self._first = self._last = index
            self._empty = False
        elif index <= self._last - self._size:
            return
        else:
            for skipped in range(self._last + 1, index + 1):
                self._total -= self._buckets[skipped % self._size]
                self._buckets[skipped % self._size] = 0.0
            self._first = min(self._first, index)
            self._last = max(self._last, index)
        self._buckets[index % self._size] += value
        self._total += value

    def average(self, at: float) -> float:
        """The mean over the buckets from the first write until `at`; 0 after a silence as long as the window."""
        index = self._index(at)
        silent = index - self._last
        if self._empty or silent >= self._size:
            return 0.0
        if silent <= 0:
            return round(self._total / min(self._last - self._first + 1, self._size), DIGITS)
        left = self._total - sum(self._buckets[gone % self._size] for gone in range(self._last + 1, index + 1))
        return round(left / min(index - self._first + 1, self._size - silent), DIGITS)

    def has_data(self, at: float) -> bool:
        return not self._empty and self._index(at) - self._last < self._size

    def _index(self, at: float) -> int:
        return math.floor(at / self._granularity_s)


class WeightedAverage(WindowAverage):
    """A mean in which a bucket counts for a share of what is left after the newer ones."""

    def average(self, at: float) -> float:
        """Silence fades the mean; after a silence as long as the window it is 0."""
        if not self.has_data(at):
            return 0.0
        silent = max(0, self._index(at) - self._last)
        coefficient = smoothing(self._size)
        weight = coefficient * math.pow(1.0 - coefficient, silent)
        mean = 0.0
        for back in range(self._size - silent):
            mean += weight * self._buckets[(self._last - back) % self._size]
            weight *= 1.0 - coefficient
        return mean


def smoothing(buckets: int) -> float:
    """The newest bucket's share, such that 99.99 % of the weight is within the window, and 0.2 at least."""
    return max(1.0 - math.pow(1.0 - 0.9999, 1.0 / buckets), 0.2)
