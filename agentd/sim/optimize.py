"""Which settings would have served a recorded load better: a search through the real controller, in virtual time.

Pure: how much time has passed is asked of a function, and chance comes from seeds. Candidates meet the same requests
(common random numbers), so that what differs between them is the settings alone.

1. Successive halving: all candidates on a short part of the load, the better third on a longer one, and so on.
2. The best few and what holds today on all of it, with several seeds.
3. A bootstrap over pieces of the time says how sure the difference is. The bound is for the best of several: chance
   has had that many tries.

The measure is J = agent-hours / the least that the work takes + late_weight x the late share, lower is better.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from agentd.core.model import FleetConfig, PoolConfig
from agentd.sim.candidates import TODAY, Candidate
from agentd.sim.measure import BUCKETS, Result, result
from agentd.sim.world import TRACE_AT_S, TRACE_WALL, Setup, World
from agentd.traces import Arrival, initial_agents

SEEDS = 3
FINALISTS = 3
# The shares of the load that the rounds before the last one see, and how many candidates each leaves.
ROUNDS = ((1 / 8, 10), (1 / 3, FINALISTS))
SLICE_S_MIN = 6 * 3600.0
# A difference in J below this is not worth a change.
GAIN_MIN = 0.01
RESAMPLES = 2000
LEVEL = 0.05
# The time that the rounds before the last one may take.
SEARCH_SHARE = 0.5
# So short a part says how fast simulations are here, and is the least of a round.
TRIAL_S = 3600.0
DAYS_MIN = 4
PIECES = 12


@dataclass(frozen=True, slots=True)
class Case:
    """What is searched: `fleet` has the one pool, made for simulation. `loads(seed)` are its requests, at least one.

    `tells_tasks`: its agents tell their tasks beside their load.
    """

    fleet: FleetConfig
    loads: Callable[[int], Sequence[Arrival]]
    startup_s: float = 30.0
    slo_s: float = 5.0
    late_weight: float = 10.0
    wall: float = TRACE_WALL
    tells_tasks: bool = True

    @property
    def pool(self) -> PoolConfig:
        (pool,) = self.fleet.pools.values()
        return pool


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search may take: simulations, and seconds on `clock`."""

    runs: int
    time_limit_s: float
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the time: requests, how many were late, agent-hours."""

    requests: int
    late: int
    hours: float


@dataclass(frozen=True, slots=True)
class Run:
    """One candidate on one part of the load with one seed. `least_hours`: what the work alone takes."""

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


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate at the end, in the mean over seeds. `gain_*`: by how much its J is lower than today's, and within
    what bounds; `confidence`: how likely it is lower, in [0, 1]."""

    candidate: Candidate
    late_share: float
    wait_p95_s: float
    agent_hours: float
    peak: int
    j: float
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search has found. `best` None: nothing that is better than today by more than its uncertainty.

    `others`: the rest of those that were compared at the end, the best first. `length_s` is how much of the load that
    was, the latest part; `piece_s` what the bootstrap drew; `cut_short`: the time or the runs did not suffice.
    """

    today: Standing
    best: Standing | None
    others: tuple[Standing, ...]
    tried: int
    runs: int
    seeds: int
    requests: int
    length_s: float
    pieces: int
    piece_s: float
    cut_short: bool


class OutOfTime(Exception):
    """The time is over, in the middle of a run."""


@dataclass(slots=True)
class _Search:
    case: Case
    budget: Budget
    on_progress: Callable[[str, float], None]
    began: float = 0.0
    runs: int = 0
    speeds: dict[str, float] = field(default_factory=dict)  # of candidates: seconds for one of the load, the last time
    cut_short: bool = False
    done: int = 0
    planned: int = 1
    loads: dict[int, Sequence[Arrival]] = field(default_factory=dict)

    @property
    def passed_s(self) -> float:
        return self.budget.clock() - self.began

    def load(self, seed: int, length_s: float) -> list[Arrival]:
        """The latest `length_s` seconds of the requests with `seed`."""
        if seed not in self.loads:
            self.loads[seed] = self.case.loads(seed)
        found = self.loads[seed]
        begin = max(0.0, found[-1].offset_s - length_s)
        return [Arrival(one.offset_s - begin, one.service_s) for one in found if one.offset_s >= begin]

    def run(self, candidate: Candidate, load: Sequence[Arrival], seed: int, begin_s: float, until_s: float) -> Run:
        """One simulation; it ends with OutOfTime when `until_s` of the time have passed."""

        def progress(share: float) -> None:
            self.on_progress(candidate.name, (self.done + share) / max(self.planned, self.done + 1))
            if self.passed_s > until_s:
                raise OutOfTime

        before_s = self.passed_s
        self.runs += 1
        found = simulate(self.case, candidate, load, seed, begin_s, progress)
        self.done += 1
        self.speeds[candidate.name] = (self.passed_s - before_s) / max(1.0, load[-1].offset_s)
        return found

    def fitting_s(self, entered: Sequence[Candidate], until_s: float) -> float:
        """How much of the load all of `entered` can be run on until then."""
        usual = sum(self.speeds.values()) / max(1, len(self.speeds))
        per_s = sum(self.speeds.get(one.name, usual) for one in entered)
        return max(0.0, until_s - self.passed_s) / max(per_s, 1e-12)


def search(
    case: Case, candidates: Sequence[Candidate], budget: Budget, *, seed: int = 1,
    on_progress: Callable[[str, float], None] = lambda _name, _share: None,
) -> Finding:  # fmt: skip
    """The best of `candidates` for `case`, beside what it has.

    Raises:
        OutOfTime: not even today's settings could be simulated.
    """
    searching = _Search(case, budget, on_progress, budget.clock())
    length_s = case.loads(seed)[-1].offset_s
    finalists, seeds = FINALISTS, SEEDS
    while seeds > 1 and (finalists + 1) * seeds > budget.runs / 2:
        seeds -= 1
    while finalists > 1 and (finalists + 1) * seeds > budget.runs / 2:
        finalists -= 1
    left = max(1, budget.runs - 1 - (finalists + 1) * seeds)
    rounds = [(share, keep) for share, keep in ROUNDS if _slice_s(length_s, share) < 0.9 * length_s]
    rounds = rounds or [(1.0, finalists)]
    later = sum(keep for _, keep in rounds[:-1])
    tried = list(candidates)[: max(1, left - later)]
    searching.cut_short = len(tried) < len(candidates)
    searching.planned = 1 + len(tried) + later + (finalists + 1) * seeds
    kept = tried
    _try_speed(searching, seed, length_s)
    for number, (share, keep) in enumerate(rounds, 1):
        until_s = budget.time_limit_s * SEARCH_SHARE * number / len(rounds)
        kept = _round(searching, kept, _slice_s(length_s, share), seed, until_s)[: max(finalists, keep)]
    return _final(searching, kept[:finalists], seed, seeds, length_s, len(tried))


def simulate(
    case: Case, candidate: Candidate, load: Sequence[Arrival], seed: int, begin_s: float = 0.0,
    on_progress: Callable[[float], None] | None = None,
) -> Run:  # fmt: skip
    """`candidate` on `load`, which begins `begin_s` into the history."""
    pool = candidate.apply(case.pool)
    initial = min(pool.max, max(pool.min, initial_agents(load, pool.concurrency)))
    setup = Setup(
        startup_s=case.startup_s, initial=initial, seed=seed, wall=case.wall + begin_s, tells_tasks=case.tells_tasks
    )  # fmt: skip
    world = World(replace(case.fleet, pools={pool.name: pool}), load, setup)
    world.on_progress = on_progress
    measure = world.run()
    found = result(
        candidate.name, measure, load, slo_s=case.slo_s, cost_per_hour=0.0, end_s=world.now - TRACE_AT_S
    )  # fmt: skip
    length_h = load[-1].offset_s / 3600.0
    least = max(sum(one.service_s for one in load) / 3600.0 / pool.concurrency, pool.min * length_h, 1e-9)
    return Run(
        candidate=candidate,
        seed=seed,
        requests=found.requests,
        late_share=found.late_share,
        wait_p95_s=found.wait_p95_s,
        agent_hours=found.agent_hours,
        peak=found.peak,
        least_hours=least,
        j=found.agent_hours / least + case.late_weight * found.late_share,
        pieces=_pieces(found, load[-1].offset_s),
    )


def _try_speed(searching: _Search, seed: int, length_s: float) -> None:
    trial_s = min(TRIAL_S, length_s)
    load = searching.load(seed, trial_s)
    begin_s = max(0.0, searching.loads[seed][-1].offset_s - trial_s)
    searching.run(Candidate(TODAY), load, seed, begin_s, searching.budget.time_limit_s)


def _round(
    searching: _Search, kept: Sequence[Candidate], length_s: float, seed: int, until_s: float
) -> list[Candidate]:
    """`kept` by how well they do on the latest `length_s`, the best first; as many as there was time for."""
    load = searching.load(seed, length_s)
    fitting_s = searching.fitting_s(kept, until_s)
    if fitting_s < length_s:
        length_s = min(length_s, max(TRIAL_S, fitting_s))
        load = searching.load(seed, length_s)
    begin_s = searching.loads[seed][-1].offset_s - length_s
    found: list[Run] = []
    for candidate in kept:
        try:
            found.append(searching.run(candidate, load, seed, begin_s, until_s))
        except OutOfTime:
            searching.cut_short = True
            break
    if not found:
        return list(kept)
    return [one.candidate for one in sorted(found, key=lambda one: one.j)]


def _final(
    searching: _Search, kept: Sequence[Candidate], seed: int, seeds: int, length_s: float, tried: int
) -> Finding:
    """The last round: today and `kept`, on as much of the load as there is time for."""
    entered = [Candidate(TODAY), *kept]
    # Half as much again: neither the load nor the machine is the same all the time.
    fitting_s = searching.fitting_s(entered, searching.budget.time_limit_s) / 1.5
    while seeds > 1 and seeds * length_s > fitting_s:
        seeds -= 1
        searching.cut_short = True
    final_s = length_s
    if length_s > fitting_s:
        searching.cut_short = True
        final_s = max(min(length_s, SLICE_S_MIN), fitting_s)
    searching.planned = searching.done + len(entered) * seeds
    found: list[list[Run]] = [[] for _ in entered]
    requests = 0
    for number in range(seeds):
        load = searching.load(seed + number, final_s)
        begin_s = max(0.0, searching.loads[seed + number][-1].offset_s - final_s)
        try:
            runs = [
                searching.run(one, load, seed + number, begin_s, 1.5 * searching.budget.time_limit_s) for one in entered
            ]
        except OutOfTime:
            searching.cut_short = True
            break
        requests = requests or len(load)
        for row, run in zip(found, runs, strict=True):
            row.append(run)
    if not found[0]:
        raise OutOfTime
    weight = searching.case.late_weight
    today, *others = (_standing(row, found[0], weight, len(kept), seed) for row in found)
    others.sort(key=lambda one: one.j)
    best = next((one for one in others if one.gain_low > 0.0 and one.gain >= GAIN_MIN), None)
    pieces = len(found[0][0].pieces)
    return Finding(
        today=today,
        best=best,
        others=tuple(one for one in others if one is not best),
        tried=tried,
        runs=searching.runs,
        seeds=len(found[0]),
        requests=requests,
        length_s=final_s,
        pieces=pieces,
        piece_s=final_s / max(1, pieces),
        cut_short=searching.cut_short,
    )


def _slice_s(length_s: float, share: float) -> float:
    return min(length_s, max(SLICE_S_MIN, length_s * share))


def _pieces(found: Result, length_s: float) -> tuple[Piece, ...]:
    """The timeline in days, or in PIECES where there are few of these."""
    days = length_s / 86_400.0
    count = round(days) if days >= DAYS_MIN else PIECES
    timeline = found.timeline
    total = sum(moment.agents for moment in timeline)
    pieces = []
    for number in range(min(count, BUCKETS)):
        part = timeline[number * BUCKETS // count : (number + 1) * BUCKETS // count]
        if part:
            share = sum(moment.agents for moment in part) / total if total else 0.0
            requests, late = sum(moment.arrivals for moment in part), sum(moment.late for moment in part)
            pieces.append(Piece(requests, late, share * found.agent_hours))
    return tuple(pieces)


def _standing(runs: Sequence[Run], today: Sequence[Run], late_weight: float, tries: int, seed: int) -> Standing:
    """The mean over seeds, and how sure the difference to `today` is.

    Each resample draws the pieces of time with replacement, each from a seed drawn as well, the same for both.
    """
    count = len(runs)
    mean = Standing(
        candidate=runs[0].candidate,
        late_share=sum(run.late_share for run in runs) / count,
        wait_p95_s=sum(run.wait_p95_s for run in runs) / count,
        agent_hours=sum(run.agent_hours for run in runs) / count,
        peak=max(run.peak for run in runs),
        j=sum(run.j for run in runs) / count,
    )
    pieces = min(len(run.pieces) for run in (*runs, *today))
    if mean.candidate.name == TODAY or not pieces:
        return mean
    rng = random.Random(seed)
    gains = []
    for _ in range(RESAMPLES):
        drawn = [(rng.randrange(count), rng.randrange(pieces)) for _ in range(pieces)]
        least = sum(runs[number].least_hours for number, _ in drawn) / pieces
        hours = late = requests = 0.0
        for number, piece in drawn:
            mine, theirs = runs[number].pieces[piece], today[number].pieces[piece]
            hours += theirs.hours - mine.hours
            late += theirs.late - mine.late
            requests += mine.requests
        gains.append(hours / least + late_weight * late / max(1.0, requests))
    gains.sort()
    level = LEVEL / max(1, tries)
    return replace(
        mean,
        gain=sum(run.j for run in today) / len(today) - mean.j,
        gain_low=gains[math.floor(level * RESAMPLES)],
        gain_high=gains[min(RESAMPLES - 1, math.ceil((1.0 - level) * RESAMPLES))],
        confidence=sum(gain > 0.0 for gain in gains) / RESAMPLES,
    )
