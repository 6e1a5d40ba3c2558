"""What an agent has to do and how fast it does it: the numbers behind a heartbeat.

Counts tasks in flight, waiting and done, and measures load and response times over a sliding window. Safe to
use from several threads. It knows nothing of agentd, and its memory is bounded whatever the rate of tasks.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_SAMPLES_MAX = 512  # response times kept: the newest of the window
_SPANS_MAX = 64  # pieces of the window kept; one is added with each report


@dataclass(frozen=True, slots=True)
class Report:
    """An agent's numbers at one moment. `load` in [0, 1]; response times None where no task finished."""

    load: float
    queue_length: int
    in_flight: int
    tasks_completed: int
    response_time_p50_s: float | None
    response_time_p95_s: float | None


@dataclass(frozen=True, slots=True)
class _Span:
    """A closed piece of time; `area` is the integral of the load over it."""

    start: float
    end: float
    area: float


class Workload:
    """The running totals of one agent that works on up to `concurrency` tasks at a time.

    `on_change` is called, from whatever thread makes it, after each change of the tasks in flight or waiting.
    """

    def __init__(
        self, concurrency: int, on_change: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._concurrency = concurrency
        self._on_change = on_change
        self._clock = clock
        self._lock = threading.Lock()
        self._in_flight = 0
        self._queue_length = 0
        self._completed = 0
        self._load_given: float | None = None
        # The open piece of the window began at `_opened`; `_area` holds the integral of the load from there
        # up to `_counted_to`.
        self._opened = self._counted_to = clock()
        self._area = 0.0
        self._spans: deque[_Span] = deque(maxlen=_SPANS_MAX)
        self._finished: deque[tuple[float, float]] = deque(maxlen=_SAMPLES_MAX)  # (when, response time)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def queue_length(self) -> int:
        return self._queue_length

    def set_queue_length(self, tasks: int) -> None:
        with self._lock:
            self._count_up_to_now()
            self._queue_length = tasks
        self._on_change()

    def set_concurrency(self, concurrency: int) -> None:
        """Work on up to `concurrency` tasks at a time from now on."""
        with self._lock:
            self._count_up_to_now()
            self._concurrency = concurrency
        self._on_change()

    def set_load(self, load: float | None) -> None:
        """Report `load` as it is from now on; None: measure it."""
        with self._lock:
            self._load_given = load

    def begin(self) -> None:
        """A task begins."""
        with self._lock:
            self._count_up_to_now()
            self._in_flight += 1
        self._on_change()

    def end(self, since: float) -> None:
        """A task that came at `since` (on the clock) ends."""
        with self._lock:
            now = self._count_up_to_now()
            self._in_flight -= 1
            self._completed += 1
            self._finished.append((now, max(0.0, now - since)))
        self._on_change()

    def report(self, window_s: float) -> Report:
        """The numbers now; load and response times over the last `window_s` seconds, or since the last report.

        The longer of the two: what an agent did while its report was late is told with it, not forgotten.
        """
        with self._lock:
            now = self._count_up_to_now()
            since = min(now - window_s, self._opened)
            if now > self._opened:
                self._spans.append(_Span(self._opened, now, self._area))
                self._opened, self._area = now, 0.0
            times = sorted(took for when, took in self._finished if when > since)
            return Report(
                load=self._mean_load(since) if self._load_given is None else self._load_given,
                queue_length=self._queue_length,
                in_flight=self._in_flight,
                tasks_completed=self._completed,
                response_time_p50_s=quantile(times, 0.50),
                response_time_p95_s=quantile(times, 0.95),
            )

    def _level(self) -> float:
        return min(1.0, (self._in_flight + self._queue_length) / self._concurrency)

    def _count_up_to_now(self) -> float:
        now = max(self._clock(), self._counted_to)
        self._area += self._level() * (now - self._counted_to)
        self._counted_to = now
        return now

    def _mean_load(self, since: float) -> float:
        area = time_s = 0.0
        for span in self._spans:
            inside = span.end - max(span.start, since)
            if inside > 0:
                time_s += inside
                area += span.area * inside / (span.end - span.start)
        # A piece's rounding may leave the mean a hair outside the range that agentd accepts.
        return min(1.0, max(0.0, area / time_s)) if time_s > 0 else self._level()


def quantile(ascending: list[float], share: float) -> float | None:
    """The nearest-rank quantile of sorted values; None without values."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
