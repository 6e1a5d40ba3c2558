"""Arrivals out of a pool's recorded history, which keeps how much there was to do and not each request.

By Little's law what is in service and waiting is the rate of arrivals times the time that a request stays; where
little waits that is the mean service time. So the work between two samples gives how many requests arrived between
them. When they did within a sample's time, and how long each took, is not recorded: it is drawn by the rule by which
count series are expanded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agentd.traces import Arrival, expand


@dataclass(frozen=True, slots=True)
class Sample:
    """What a pool had to do at `at` (seconds, of any clock): tasks in service and waiting."""

    at: float
    demand: float


def arrivals(samples: Sequence[Sample], service_mean_s: float, bucket_s: float = 60.0) -> Iterator[Arrival]:
    """Requests that would have given `samples`, at least two in the order of time; offsets count from the first.

    A sample's demand holds until the next one.
    """
    first_at = samples[0].at
    buckets = max(2, math.ceil((samples[-1].at - first_at) / bucket_s))
    work_s = [0.0] * buckets
    for sample, following in pairwise(samples):
        start, end = sample.at - first_at, following.at - first_at
        for bucket in range(int(start / bucket_s), min(buckets, int(end / bucket_s) + 1)):
            overlap_s = min(end, (bucket + 1) * bucket_s) - max(start, bucket * bucket_s)
            work_s[bucket] += sample.demand * max(0.0, overlap_s)
    counts: list[tuple[float, int]] = []
    owed = 0.0  # a part of a request goes over to the next bucket
    for number, work in enumerate(work_s):
        owed += work / service_mean_s
        counts.append((number * bucket_s, int(owed)))
        owed -= int(owed)
    return expand(counts, service_mean_s)
