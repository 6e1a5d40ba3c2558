"""One simulation for the search: what is searched, and what one candidate makes of a part of the load.

Only a part of a run may be measured: what comes before it is there to learn from, and to have the pool in full swing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from agentd.core.model import FleetConfig, PoolConfig
from agentd.sim import clairvoyant
from agentd.sim.candidates import Candidate
from agentd.sim.measure import BUCKETS, Measure, Moment, quantile, result
from agentd.sim.opening import opening
from agentd.sim.options import Options
from agentd.sim.world import TRACE_AT_S, TRACE_WALL, Setup, World
from agentd.traces import Arrival

DAYS_MIN = 4
# What a load needs is known from its latest requests, so many at most: a second for each forty thousand.
PLANNED_MAX = 100_000
PIECES = 12


class Case(Struct, frozen=True):
    """What is searched: `fleet` has the one pool, made for simulation. `loads(seed)` are its requests, at least one.

    `tells_tasks`: its agents tell their tasks beside their load. `needed_ratio`: the agent-hours of a plan that knows
    all arrivals, over the least that the work would take if it came evenly.
    """

    fleet: FleetConfig
    loads: Callable[[int], Sequence[Arrival]]
    startup_s: float = 30.0
    slo_s: float = 5.0
    late_weight: float = 10.0
    wall: float = TRACE_WALL
    tells_tasks: bool = True
    needed_ratio: float = 1.0

    @property
    def pool(self) -> PoolConfig:
        (pool,) = self.fleet.pools.values()
        return pool


class Piece(Struct, frozen=True):
    """A part of the time: requests, how many were late, agent-hours."""

    requests: int
    late: int
    hours: float


class Run(Struct, frozen=True):
    """One candidate on one part of the load with one seed: of what was measured. `least_hours`: what a plan takes."""

    candidate: Candidate
    seed: int
    requests: int
    late_share: float
    wait_p95_s: float
    agent_hours: float
    peak: int
    least_hours: float
    j: float
    pieces: tuple[Piece, ...]


def simulate(
    case: Case, candidate: Candidate, load: Sequence[Arrival], seed: int, begin_s: float = 0.0,
    on_progress: Callable[[float], None] | None = None, measured_from_s: float = 0.0,
) -> Run:  # fmt: skip
    """`candidate` on `load`, which begins `begin_s` into the history; measured from `measured_from_s` of it on."""
    pool = candidate.apply(case.pool)
    fleet = replace(case.fleet, pools={pool.name: pool})
    initial = opening(fleet, load, case.wall + begin_s)
    setup = Setup(
        startup_s=case.startup_s, initial=initial, seed=seed, wall=case.wall + begin_s, tells_tasks=case.tells_tasks
    )  # fmt: skip
    world = World(fleet, load, setup)
    world.on_progress = on_progress
    measure = world.run()
    found = result(candidate.name, measure, load, slo_s=case.slo_s, cost_per_hour=0.0, end_s=world.now - TRACE_AT_S)
    bucket_s = load[-1].offset_s / BUCKETS
    first = min(len(found.timeline) - 1, round(measured_from_s / bucket_s)) if bucket_s > 0.0 and found.timeline else 0
    if not first:
        requests, late_share, wait_p95_s, hours = found.requests, found.late_share, found.wait_p95_s, found.agent_hours
    else:
        part = found.timeline[first:]
        requests = sum(moment.arrivals for moment in part)
        late_share = sum(moment.late for moment in part) / max(1, requests)
        wait_p95_s = _wait_p95_s(measure, load, first * bucket_s, world.now - TRACE_AT_S)
        hours = found.agent_hours * _agents(part) / max(_agents(found.timeline), 1e-9)
    length_s = load[-1].offset_s - first * bucket_s
    work_s = sum(one.service_s for one in load if one.offset_s >= first * bucket_s)
    least = case.needed_ratio * _even_hours(pool, work_s, length_s)
    return Run(
        candidate=candidate,
        seed=seed,
        requests=requests,
        late_share=late_share,
        wait_p95_s=wait_p95_s,
        agent_hours=hours,
        peak=found.peak,
        least_hours=least,
        j=hours / least + case.late_weight * late_share,
        pieces=_pieces(found.timeline[first:], hours, length_s),
    )


def needed_ratio(case: Case, load: Sequence[Arrival]) -> float:
    """How much more than its work a `load` takes because it does not come evenly and starts take their time."""
    latest = load[-PLANNED_MAX:]
    begin_s = latest[0].offset_s if len(latest) < len(load) else 0.0
    latest = [Arrival(one.offset_s - begin_s, one.service_s) for one in latest]
    pool, end_s = case.pool, latest[-1].offset_s
    options = Options(
        startup_s=case.startup_s, concurrency=pool.concurrency, agents_max=pool.max, slo_s=case.slo_s
    )  # fmt: skip
    steps = clairvoyant.plan(latest, options, opening(case.fleet, latest, case.wall + begin_s), pool.min)
    even = _even_hours(pool, sum(one.service_s for one in latest), end_s)
    return max(1.0, clairvoyant.hours(steps, end_s) / even)


def _even_hours(pool: PoolConfig, work_s: float, length_s: float) -> float:
    """The agent-hours of `work_s` seconds of tasks in `length_s`, if all slots were always taken."""
    return max(work_s / 3600.0 / pool.concurrency, pool.min * length_s / 3600.0, 1e-9)


def _wait_p95_s(measure: Measure, load: Sequence[Arrival], from_s: float, end_s: float) -> float:
    waited = sorted(
        wait_s if wait_s >= 0.0 else max(0.0, end_s - arrival.offset_s)
        for wait_s, arrival in zip(measure.waits, load, strict=True)
        if arrival.offset_s >= from_s
    )
    return quantile(waited, 0.95) if waited else 0.0


def _agents(part: Sequence[Moment]) -> float:
    return sum(moment.agents for moment in part)


def _pieces(timeline: Sequence[Moment], hours: float, length_s: float) -> tuple[Piece, ...]:
    """The timeline in days, or in PIECES where there are few of these."""
    days = length_s / 86_400.0
    count = min(round(days) if days >= DAYS_MIN else PIECES, len(timeline))
    total = _agents(timeline)
    pieces = []
    for number in range(count):
        part = timeline[number * len(timeline) // count : (number + 1) * len(timeline) // count]
        share = _agents(part) / total if total else 0.0
        requests, late = sum(moment.arrivals for moment in part), sum(moment.late for moment in part)
        pieces.append(Piece(requests, late, share * hours))
    return tuple(pieces)
