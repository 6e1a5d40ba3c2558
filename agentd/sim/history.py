"""Arrivals out of a pool's recorded history, which keeps how much there was to do and not each request.

By Little's law as many requests are at work as begin per second, times the mean time that one takes: so the work
between two samples gives how many began. What the queue has grown by has arrived besides, and what it has lost had
arrived before. When requests came within a sample's time, and how long each took, is not recorded: it is drawn by the
rule by which count series are expanded, differently for each seed.

Where agents report no tasks, the share of their capacity that they used stands for tasks at work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec import Struct

from agentd.traces import EXPANSION_SEED, Arrival, expand

# What was recorded last holds for so long at most; beyond that nothing is known, and nothing is made up.
HOLD_S_MAX = 900.0
BUCKET_S = 60.0
# Of fewer tasks than these nobody says what one takes in the mean.
COMPLETED_MIN = 50.0


class Sample(Struct, frozen=True):
    """What a pool had to do at `at` (seconds, of any clock): tasks at work, and tasks waiting."""

    at: float
    in_flight: float
    queue_length: float = 0.0


class Recorded(Struct, frozen=True):
    """One row of the metric history. `load` None: no instance reported one. `completed`: tasks done ever, if known."""

    wall: float
    count: float
    ready: float
    load: float | None
    queue_length: float
    in_flight: float
    completed: float | None = None


class Rebuilt(Struct, frozen=True):
    """The load that a history stands for. `first_wall`: when it begins; `missing_s`: how much of it is not known.

    `by_load`: agents reported no tasks, and their load was taken for it. `shows_queue`: tasks were seen waiting.
    `completed`: so many tasks were done while `completed_work_s` seconds of them were worked on.
    """

    samples: tuple[Sample, ...]
    first_wall: float
    length_s: float
    missing_s: float
    by_load: bool
    shows_queue: bool
    completed: float = 0.0
    completed_work_s: float = 0.0

    @property
    def service_mean_s(self) -> float | None:
        """What a task takes in the mean; None: too few were counted to say it."""
        return self.completed_work_s / self.completed if self.completed >= COMPLETED_MIN else None


def rebuild(rows: Sequence[Recorded], concurrency: int) -> Rebuilt:
    """What `rows`, at least two in the order of time, say of a pool whose agents have `concurrency` slots each."""
    by_load = not any(row.in_flight for row in rows) and any(row.load for row in rows)

    def at_work(row: Recorded) -> float:
        return (row.load or 0.0) * row.ready * concurrency if by_load else row.in_flight

    samples = tuple(Sample(row.wall, at_work(row), row.queue_length) for row in rows)
    completed, work_s = _done(rows, samples)
    return Rebuilt(
        samples=samples,
        first_wall=rows[0].wall,
        length_s=rows[-1].wall - rows[0].wall,
        missing_s=sum(max(0.0, later.at - sooner.at - HOLD_S_MAX) for sooner, later in pairwise(samples)),
        by_load=by_load,
        shows_queue=any(row.queue_length for row in rows),
        completed=completed,
        completed_work_s=work_s,
    )


def in_all(rows: Sequence[Recorded], values: Sequence[float]) -> float:
    """The sum of `values`, one of each row, times the seconds that it holds: rows are a minute long, or five."""
    held_s = (min(later.wall - sooner.wall, HOLD_S_MAX) for sooner, later in pairwise(rows))
    return sum(value * passed_s for value, passed_s in zip(values, held_s, strict=False))


def arrivals(
    samples: Sequence[Sample], service_mean_s: float, bucket_s: float = BUCKET_S, seed: int = EXPANSION_SEED
) -> Iterator[Arrival]:
    """Requests that would have given `samples`, at least two in the order of time; offsets count from the first.

    A sample holds until the next one, for HOLD_S_MAX at most.
    """
    first_at = samples[0].at
    buckets = max(2, math.ceil((samples[-1].at - first_at) / bucket_s))
    came = [0.0] * buckets
    came[0] += samples[0].queue_length
    for sample, following in pairwise(samples):
        start, until = sample.at - first_at, following.at - first_at
        end = min(until, start + HOLD_S_MAX)
        grown = (following.queue_length - sample.queue_length) / (end - start) if end > start else 0.0
        per_s = sample.in_flight / service_mean_s + grown
        for bucket in range(int(start / bucket_s), min(buckets, int(end / bucket_s) + 1)):
            overlap_s = min(end, (bucket + 1) * bucket_s) - max(start, bucket * bucket_s)
            came[bucket] += per_s * max(0.0, overlap_s)
    counts: list[tuple[float, int]] = []
    owed = 0.0  # a part of a request goes over to the next bucket, and so does what left more than came
    for number, count in enumerate(came):
        owed += count
        whole = max(0, int(owed))
        counts.append((number * bucket_s, whole))
        owed -= whole
    return expand(counts, service_mean_s, seed)


def _done(rows: Sequence[Recorded], samples: Sequence[Sample]) -> tuple[float, float]:
    """How many tasks were done where somebody counted, and for how long agents worked on some meanwhile."""
    completed = work_s = 0.0
    for (sooner, later), sample in zip(pairwise(rows), samples, strict=False):
        passed_s = later.wall - sooner.wall
        if sooner.completed is None or later.completed is None or passed_s > HOLD_S_MAX:
            continue
        if later.completed >= sooner.completed:  # less: another pool of that name
            completed += later.completed - sooner.completed
            work_s += sample.in_flight * passed_s
    return completed, work_s
