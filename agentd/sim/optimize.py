"""Which settings would have served a recorded load better: a search through the real controller, in virtual time.

Pure: how much time has passed is asked of a function, and chance comes from seeds. Candidates meet the same requests
(common random numbers), so that what differs between them is the settings alone.

1. Successive halving: all candidates on a short part of the load, the better third on a longer one, and so on.
2. The best few and what holds today on all of it, with several seeds.
3. A bootstrap over pieces of the time says how sure the difference is.

What was chosen for a part of the load looks better there than it is. Where the load is long enough its last 30 % are
held back: one is chosen without them, and only they are measured in the end, in runs that begin with the rest. Else the
bound is for the best of several: chance has had that many tries.

The measure is that of the simulator, J = agent-hours / those of a plan that knows all arrivals + late_weight x the late
share, lower is better.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from agentd.sim.candidates import TODAY, Candidate
from agentd.sim.trials import Case, Run, needed_ratio, simulate
from agentd.traces import Arrival

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
# So much of the load, the last, is held back to judge by, where that is at least a day.
HELD_OUT_SHARE = 0.3
HELD_OUT_S_MIN = 86_400.0


class Budget(Struct, frozen=True):
    """What a search may take: simulations, and seconds on `clock`."""

    runs: int
    time_limit_s: float
    clock: Callable[[], float]


class Standing(Struct, frozen=True):
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


class Finding(Struct, frozen=True):
    """What a search has found. `best` None: nothing that is better than today by more than its uncertainty.

    `others`: the rest of those that were compared at the end, the best first. `length_s` is how much of the load that
    was, the latest part; `held_out`: nothing was chosen by it. `piece_s` is what the bootstrap drew; `cut_short`: the
    time or the runs did not suffice.
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
    held_out: bool = False


class OutOfTime(Exception):
    """The time is over, in the middle of a run."""


class _Part(Struct, frozen=True):
    """Requests from `begin_s` of the load on; their offsets count from there."""

    load: Sequence[Arrival]
    seed: int
    begin_s: float


class _Search(Struct):
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
    held_back_s: float = 0.0  # the last of the load, which nothing is chosen by

    @property
    def passed_s(self) -> float:
        return self.budget.clock() - self.began

    def part(self, seed: int, length_s: float, *, judging: bool = False) -> _Part:
        """The latest requests with `seed`, of `length_s`; of those before what is held back, unless for `judging`."""
        if seed not in self.loads:
            self.loads[seed] = self.case.loads(seed)
        found = self.loads[seed]
        end = found[-1].offset_s - (0.0 if judging else self.held_back_s)
        begin = max(0.0, end - length_s)
        chosen = [Arrival(one.offset_s - begin, one.service_s) for one in found if begin <= one.offset_s <= end]
        return _Part(chosen or [Arrival(0.0, 0.0)], seed, begin)

    def run(self, candidate: Candidate, part: _Part, until_s: float, measured_from_s: float = 0.0) -> Run:
        """One simulation; it ends with OutOfTime when `until_s` of the time have passed."""

        def progress(share: float) -> None:
            self.on_progress(candidate.name, (self.done + share) / max(self.planned, self.done + 1))
            if self.passed_s > until_s:
                raise OutOfTime

        before_s = self.passed_s
        self.runs += 1
        found = simulate(self.case, candidate, part.load, part.seed, part.begin_s, progress, measured_from_s)
        self.done += 1
        self.speeds[candidate.name] = (self.passed_s - before_s) / max(1.0, part.load[-1].offset_s)
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
    began, load = budget.clock(), case.loads(seed)
    length_s = load[-1].offset_s
    searching = _Search(replace(case, needed_ratio=needed_ratio(case, load)), budget, on_progress, began)
    candidates = [one for one in candidates if one.changes(case.pool)]
    held_back_s = HELD_OUT_SHARE * length_s
    searching.held_back_s = held_back_s = held_back_s if held_back_s >= HELD_OUT_S_MIN else 0.0
    choosing_s = length_s - held_back_s
    finalists, seeds = FINALISTS, SEEDS
    while seeds > 1 and (finalists + 1) * seeds > budget.runs / 2:
        seeds -= 1
    while finalists > 1 and (finalists + 1) * seeds > budget.runs / 2:
        finalists -= 1
    rounds = [(share, keep) for share, keep in ROUNDS if _slice_s(choosing_s, share) < 0.9 * choosing_s]
    if held_back_s or not rounds:
        rounds.append((1.0, finalists))
    while len(rounds) > 1 and 1 + len(rounds) + 2 * seeds > budget.runs:
        del rounds[0]
    left = max(1, budget.runs - 1 - (finalists + 1) * seeds)
    later = sum(keep for _, keep in rounds[:-1])
    tried = list(candidates)[: max(1, left - later)]
    searching.cut_short = len(tried) < len(candidates)
    searching.planned = 1 + len(tried) + later + (finalists + 1) * seeds
    kept = tried
    searching.run(Candidate(TODAY), searching.part(seed, TRIAL_S), budget.time_limit_s)  # how fast that is
    for number, (share, keep) in enumerate(rounds, 1):
        until_s = budget.time_limit_s * SEARCH_SHARE * number / len(rounds)
        kept = _round(searching, kept, _slice_s(choosing_s, share), seed, until_s)[: max(finalists, keep)]
    found, final_s, measured_from_s = _last_round(searching, kept[:finalists], seed, seeds, length_s)
    return _finding(searching, found, seed, len(tried), final_s - measured_from_s)


def _round(
    searching: _Search, kept: Sequence[Candidate], length_s: float, seed: int, until_s: float
) -> list[Candidate]:
    """`kept` by how well they do on the latest `length_s` to choose by, the best first; as many as time allowed."""
    fitting_s = searching.fitting_s(kept, until_s)
    if fitting_s < length_s:
        length_s = min(length_s, max(TRIAL_S, fitting_s))
    part = searching.part(seed, length_s)
    found: list[Run] = []
    for candidate in kept:
        try:
            found.append(searching.run(candidate, part, until_s))
        except OutOfTime:
            searching.cut_short = True
            break
    if not found:
        return list(kept)
    return [one.candidate for one in sorted(found, key=lambda one: one.j)]


def _last_round(
    searching: _Search, kept: Sequence[Candidate], seed: int, seeds: int, length_s: float
) -> tuple[list[list[Run]], float, float]:
    """Today and `kept`, on as much of the load as there is time for: the runs of each, one for each seed.

    With them how long that part is, and from when on it is measured.

    Raises:
        OutOfTime: there was time for none.
    """
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
    measured_from_s = max(0.0, final_s - searching.held_back_s) if searching.held_back_s else 0.0
    searching.planned = searching.done + len(entered) * seeds
    found: list[list[Run]] = [[] for _ in entered]
    for number in range(seeds):
        part = searching.part(seed + number, final_s, judging=True)
        limit_s = 1.5 * searching.budget.time_limit_s
        try:
            runs = [searching.run(one, part, limit_s, measured_from_s) for one in entered]
        except OutOfTime:
            searching.cut_short = True
            break
        for row, run in zip(found, runs, strict=True):
            row.append(run)
    if not found[0]:
        raise OutOfTime
    return found, final_s, measured_from_s


def _finding(searching: _Search, found: list[list[Run]], seed: int, tried: int, length_s: float) -> Finding:
    """What the runs of the last round say. Those of today come first, then those of who was best before."""
    held_out = searching.held_back_s > 0.0
    weight = searching.case.late_weight
    tries = 1 if held_out else len(found) - 1
    today, *others = (_standing(row, found[0], weight, tries, seed) for row in found)
    candidates = others[:1] if held_out else sorted(others, key=lambda one: one.j)
    best = next((one for one in candidates if one.gain_low > 0.0 and one.gain >= GAIN_MIN), None)
    others.sort(key=lambda one: one.j)
    pieces = len(found[0][0].pieces)
    return Finding(
        today=today,
        best=best,
        others=tuple(one for one in others if one is not best),
        tried=tried,
        runs=searching.runs,
        seeds=len(found[0]),
        requests=found[0][0].requests,
        length_s=length_s,
        pieces=pieces,
        piece_s=length_s / max(1, pieces),
        cut_short=searching.cut_short,
        held_out=held_out,
    )


def _slice_s(length_s: float, share: float) -> float:
    return min(length_s, max(SLICE_S_MIN, length_s * share))


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
