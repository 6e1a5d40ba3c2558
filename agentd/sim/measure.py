"""What a run is measured by: waits, agent-hours, starts, and how the pool looked over time.

Owns the arithmetic of the result. A wait goes from the arrival of a request to the start of its service; a request
that was never served, or whose service was cut off, has none and counts as late. Agent-hours count from the request
for a start until the agent is gone, and not beyond the last arrival.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct, field

from agentd.traces import Arrival

BUCKETS = 240
SAMPLES_PER_BUCKET = 20
UNSERVED = -1.0


class Moment(Struct, frozen=True):
    """A piece of the timeline that begins `offset_s` seconds into the trace: means, but `arrivals` and `late` count.

    `agents` are all that exist, `ready` those that take work; `busy` counts tasks in service.
    """

    offset_s: float
    agents: float
    ready: float
    busy: float
    queue: float
    arrivals: int
    late: int


class Result(Struct, frozen=True):
    """One policy on one trace. Times in seconds; `late_share` of all requests, in [0, 1]."""

    policy: str
    requests: int
    unserved: int
    late_share: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    agent_hours: float
    starts: int
    peak: int
    cost: float
    ups: int
    downs: int
    held: int
    evaluations: int
    steps: int
    timeline: tuple[Moment, ...] = ()


class Measure(Struct):
    """Gathers one run. `waits[n]` is that of the n-th request, or UNSERVED."""

    waits: list[float]
    agent_s: float = 0.0
    starts: int = 0
    alive: int = 0
    peak: int = 0
    ups: int = 0
    downs: int = 0
    held: int = 0
    evaluations: int = 0
    steps: int = 0
    samples: list[tuple[int, int, int, int]] = field(default_factory=list)  # agents, ready, busy, queue

    def came(self) -> None:
        self.alive += 1
        self.peak = max(self.peak, self.alive)

    def went(self, existed_s: float) -> None:
        self.alive -= 1
        self.agent_s += existed_s


def result(
    policy: str, measure: Measure, arrivals: Sequence[Arrival], *, slo_s: float, cost_per_hour: float, end_s: float
) -> Result:
    """The result of a run that ended at `end_s` of the trace, perhaps with requests that still waited."""
    late = [wait_s < 0.0 or wait_s > slo_s for wait_s in measure.waits]
    # Who is still waiting has waited at least until the end.
    waited = sorted(
        wait_s if wait_s >= 0.0 else max(0.0, end_s - arrival.offset_s)
        for wait_s, arrival in zip(measure.waits, arrivals, strict=True)
    )
    hours = measure.agent_s / 3600.0
    return Result(
        policy=policy,
        requests=len(arrivals),
        unserved=sum(1 for wait_s in measure.waits if wait_s < 0.0),
        late_share=sum(late) / len(late),
        wait_p50_s=quantile(waited, 0.50),
        wait_p95_s=quantile(waited, 0.95),
        wait_p99_s=quantile(waited, 0.99),
        agent_hours=hours,
        starts=measure.starts,
        peak=measure.peak,
        cost=hours * cost_per_hour,
        ups=measure.ups,
        downs=measure.downs,
        held=measure.held,
        evaluations=measure.evaluations,
        steps=measure.steps,
        timeline=_timeline(measure, arrivals, late),
    )


def quantile(ascending: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of sorted values, at least one; 0 < share <= 1."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def _timeline(measure: Measure, arrivals: Sequence[Arrival], late: Sequence[bool]) -> tuple[Moment, ...]:
    """The samples of the run, summed up in buckets of equal length up to the last arrival."""
    length_s = arrivals[-1].offset_s / BUCKETS
    if length_s <= 0.0:
        return ()
    counts, lates = [0] * BUCKETS, [0] * BUCKETS
    for arrival, was_late in zip(arrivals, late, strict=True):
        bucket = min(BUCKETS - 1, int(arrival.offset_s / length_s))
        counts[bucket] += 1
        lates[bucket] += was_late
    moments = []
    for bucket in range(BUCKETS):
        rows = measure.samples[bucket * SAMPLES_PER_BUCKET : (bucket + 1) * SAMPLES_PER_BUCKET]
        if not rows:
            break
        agents, ready, busy, queue = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        moments.append(Moment(bucket * length_s, agents, ready, busy, queue, counts[bucket], lates[bucket]))
    return tuple(moments)
