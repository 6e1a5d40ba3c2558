"""From which number of agents on one more does little: the universal scalability law, fitted to what was measured.

Neil Gunther's law: X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1)), the tasks per second of N agents that all
have work. sigma is the share of the work that they must do one after the other (a model server, a disk, a lock), kappa
what it costs each pair of them to agree; without either, X grows in proportion.

`Level` remembers what a number of agents did while they had work; older samples weigh less. `fit` needs three numbers
of agents. N / X is linear in (1, N - 1, N (N - 1)): weighted least squares, none of the three below 0.

The confidence comes from the spread, without resampling: each level has a relative error of its mean, from the spread
of its samples (neighbours are alike, so nine count as one) and from what differs between one time and another; the
covariance of the least squares, widened where levels miss the curve by more than that, is carried over to the gain of
the next agent (delta method); the confidence is the chance, under a normal distribution, that this agent brings less
than a quarter of what the first one did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

LEVELS_MAX = 64
LEVELS_MIN = 3
# So many samples of a number of agents must there be, and no more than so many count.
SAMPLES_MIN = 6.0
SAMPLES_MAX = 120.0
# With no sample for so long, those of a number of agents count half: what they share may have been changed since.
HALF_LIFE_S = 12 * 3600.0
# Neighbouring samples are alike: so many say as much as one.
ALIKE = 9.0
# What may differ from one time to another although nothing has changed: the tasks, the hour. A relative error.
ERROR_MIN = 0.05
# A curve that misses the levels by more than that, relatively, in the mean, is none.
MISFIT_MAX = 0.15
# The next agent is of little use when it brings less than that share of what the first one does.
GAIN_MIN = 0.10
# Sure of it is who is sure that it brings less than that.
GAIN_SURE = 0.25
CONFIDENCE_TOLD = 0.75
CONFIDENCE_GUARD = 0.90
_SURELY_MORE = 2.0  # standard errors

_Row = tuple[float, float, float]


class Level(Struct):
    """Tasks per second of a number of agents: a mean that forgets. `weight`: in samples; `at`: of the newest."""

    weight: float = 0.0
    mean: float = 0.0
    spread: float = 0.0  # weighted sum of squared differences from the mean
    at: float = 0.0

    def add(self, throughput: float, now: float) -> None:
        kept = self.weight_at(now)
        fade = min(kept, SAMPLES_MAX - 1.0) / self.weight if self.weight else 0.0
        self.weight = self.weight * fade + 1.0
        off = throughput - self.mean
        self.mean += off / self.weight
        self.spread = self.spread * fade + off * (throughput - self.mean)
        self.at = now

    def weight_at(self, now: float) -> float:
        return self.weight * math.pow(0.5, max(0.0, now - self.at) / HALF_LIFE_S)


class ScalingLaw(Struct, frozen=True):
    """What more agents than `useful_max` add is little. `per_agent`: tasks per second of one that shares with nobody.

    `confidence` in 0..1; `counts`: of how many numbers of agents it is.
    """

    useful_max: int
    per_agent: float
    sigma: float
    kappa: float
    confidence: float
    counts: int

    @property
    def text(self) -> str:
        percent = min(99, math.floor(self.confidence * 100.0))
        return (
            f"more than {self.useful_max} add little: what they share is saturated "
            f"(sigma {self.sigma:.2g}, kappa {self.kappa:.2g}, confidence {percent} %)"
        )


class _Point(Struct, frozen=True):
    """A number of agents with its mean throughput, and the relative error of that."""

    count: int
    throughput: float
    error: float


def note(levels: dict[int, Level], count: int, throughput: float, now: float) -> None:
    """`count` agents that all had work did `throughput` tasks per second."""
    levels.setdefault(count, Level()).add(throughput, now)
    for gone in [each for each, level in levels.items() if level.weight_at(now) < 1.0]:
        del levels[gone]
    while len(levels) > LEVELS_MAX:
        del levels[min(levels, key=lambda each: (levels[each].weight_at(now), each))]


def fit(levels: Mapping[int, Level]) -> ScalingLaw | None:
    """What `levels` say; None where that is nothing: too few, no law, no end of the gain in what was seen; unsure."""
    points = _points(levels)
    if len(points) < LEVELS_MIN:
        return None
    found = _least_squares(points)
    if found is None:
        return None
    (a, b, c), covariance = found
    sigma, kappa = b / a, c / a
    misfit = math.sqrt(sum((_curve(p.count, a, b, c) / p.throughput - 1.0) ** 2 for p in points) / len(points))
    if misfit > MISFIT_MAX:
        return None
    seen = points[-1].count
    useful = next((n for n in range(1, seen) if _gain(n + 1, sigma, kappa) < GAIN_MIN), seen)
    useful = max(useful, _proven(points, 1.0 / a))
    if useful >= seen:
        return None
    confidence = _confidence(useful + 1, (a, b, c), covariance)
    if confidence < CONFIDENCE_TOLD:
        return None
    return ScalingLaw(useful, 1.0 / a, sigma, kappa, confidence, len(points))


def _points(levels: Mapping[int, Level]) -> list[_Point]:
    newest = max((level.at for level in levels.values()), default=0.0)
    points = []
    for count in sorted(levels):
        level = levels[count]
        weight = level.weight_at(newest)
        if weight < SAMPLES_MIN or level.mean <= 0.0:
            continue
        ratio = math.sqrt(max(0.0, level.spread) / max(1.0, level.weight - 1.0)) / level.mean
        points.append(_Point(count, level.mean, math.sqrt(ratio**2 * ALIKE / weight + ERROR_MIN**2)))
    return points


def _curve(count: int, a: float, b: float, c: float) -> float:
    return count / (a + b * (count - 1) + c * count * (count - 1))


def _gain(count: int, sigma: float, kappa: float) -> float:
    """What agent number `count` adds, as a share of what the first one does."""
    return _curve(count, 1.0, sigma, kappa) - (_curve(count - 1, 1.0, sigma, kappa) if count > 1 else 0.0)


def _proven(points: Sequence[_Point], per_agent: float) -> int:
    """The highest count that surely did more than every lower one, and enough more for each further agent."""
    proven = points[0].count
    for place, point in enumerate(points[1:], start=1):
        best = max(points[:place], key=lambda each: each.throughput)
        more = point.throughput - best.throughput
        error = math.hypot(point.error * point.throughput, best.error * best.throughput)
        if more >= _SURELY_MORE * error and more >= GAIN_MIN * per_agent * (point.count - best.count):
            proven = point.count
    return proven


def _least_squares(points: Sequence[_Point]) -> tuple[_Row, list[list[float]]] | None:
    """The best (a, b, c), none below 0 and a above it, and the covariance of the three."""
    rows: list[_Row] = [(1.0, p.count - 1.0, float(p.count * (p.count - 1))) for p in points]
    values = [p.count / p.throughput for p in points]
    weights = [1.0 / (p.error * value) ** 2 for p, value in zip(points, values, strict=True)]
    best: tuple[float, _Row] | None = None
    covariance = None
    for used in ((0, 1, 2), (0, 1), (0, 2), (0,)):
        inverse = _inverse(
            [[sum(w * r[i] * r[j] for w, r in zip(weights, rows, strict=True)) for j in used] for i in used]
        )
        if inverse is None:
            continue
        right = [sum(w * r[i] * v for w, r, v in zip(weights, rows, values, strict=True)) for i in used]
        solved = [sum(x * y for x, y in zip(row, right, strict=True)) for row in inverse]
        a, b, c = (solved[used.index(i)] if i in used else 0.0 for i in range(3))
        off = sum(w * (v - a * r[0] - b * r[1] - c * r[2]) ** 2 for w, r, v in zip(weights, rows, values, strict=True))
        if len(used) == 3:
            wider = max(1.0, off / (len(points) - 3)) if len(points) > 3 else 1.0
            covariance = [[each * wider for each in row] for row in inverse]
        if a > 0.0 and b >= 0.0 and c >= 0.0 and (best is None or off < best[0]):
            best = off, (a, b, c)
    return None if best is None or covariance is None else (best[1], covariance)


def _confidence(count: int, found: _Row, covariance: Sequence[Sequence[float]]) -> float:
    """The chance that agent number `count` adds less than GAIN_SURE of what the first one does."""

    def gain(values: Sequence[float]) -> float:
        return _gain(count, values[1] / values[0], values[2] / values[0])

    steps = [1e-4 * max(abs(value), 1e-3 * found[0]) for value in found]
    slopes = []
    for place, step in enumerate(steps):
        up, down = list(found), list(found)
        up[place] += step
        down[place] -= step
        slopes.append((gain(up) - gain(down)) / (2.0 * step))
    variance = sum(slopes[i] * slopes[j] * covariance[i][j] for i in range(3) for j in range(3))
    away = (GAIN_SURE - gain(found)) / math.sqrt(max(variance, 1e-12))
    return 0.5 * (1.0 + math.erf(away / math.sqrt(2.0)))


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]] | None:
    """By Gauss and Jordan, over columns of like size; None where there is none."""
    size = len(matrix)
    scale = [math.sqrt(matrix[i][i]) for i in range(size)]
    if not all(scale):
        return None
    work = [
        [matrix[i][j] / scale[i] / scale[j] for j in range(size)] + [1.0 if i == j else 0.0 for j in range(size)]
        for i in range(size)
    ]
    for place in range(size):
        pivot = max(range(place, size), key=lambda row: abs(work[row][place]))
        if abs(work[pivot][place]) < 1e-9:
            return None
        work[place], work[pivot] = work[pivot], work[place]
        work[place] = [each / work[place][place] for each in work[place]]
        for row in range(size):
            if row != place:
                factor = work[row][place]
                work[row] = [x - factor * y for x, y in zip(work[row], work[place], strict=True)]
    return [[work[i][size + j] / scale[i] / scale[j] for j in range(size)] for i in range(size)]
