"""Whether a number differs between two windows at equal demand: an interval that does not promise too much.

A plain difference of means would mostly show regression to the mean: scaling happens at peaks, and peaks end by
themselves. So demand is taken out first, and three things that make such intervals too narrow are answered:

1. *Demand differs.* Analysis of covariance (W. G. Cochran, "Analysis of covariance: its nature and uses", Biometrics
   13, 1957): one straight line of the number over demand for both windows, and the distance between the windows. Only
   samples of demand that both windows have seen are used; a line is not trusted beyond them.
2. *Neighbouring samples are alike.* The error comes from sums over groups of consecutive samples, and the quantile
   from t with one degree of freedom less than the window with fewer groups has groups (C. A. Bester, T. G. Conley,
   C. B. Hansen, "Inference with dependent data using cluster covariance estimators", J. of Econometrics 165, 2011).
3. *Demand is measured with noise*, which flattens the line and leaves part of a difference in demand in the result
   (regression dilution; W. A. Fuller, "Measurement Error Models", 1987). The share of demand's variance that is not
   noise is at least its correlation from one sample to the next; the interval is widened on both sides by all that the
   rest could feign.

The interval is meant for 99 %. The price: small effects, and effects seen over few samples, are not told from none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

# Consecutive samples that are taken for one, and what each window must have of demand that both have seen.
GROUP = 6
GROUPS_MIN = 3
SAMPLES_MIN = 8
# The part of the windows' difference that demand must leave unexplained: below it the windows hardly overlap.
UNEXPLAINED_MIN_RATIO = 0.3
# A correlation below this is not believed: it would widen the interval without end.
RELIABILITY_MIN_RATIO = 0.2
# Student's t, two-sided 99 %, for 1, 2, ... degrees of freedom. More are not used: windows are short.
_T99 = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169)
_TINY = 1e-9


class Point(Struct, frozen=True):
    """One sample: `demand`, and the `value` it went with."""

    demand: float
    value: float


class Difference(Struct, frozen=True):
    """After less before at equal demand, its interval, and how many samples of each window are in it."""

    change: float
    low: float
    high: float
    before: int
    after: int


class TooFew(Struct, frozen=True):
    """The windows have seen too little of the same demand: so many samples of each."""

    before: int
    after: int


def compare(before: Sequence[Point], after: Sequence[Point]) -> Difference | TooFew:
    """The difference in value between two windows, each in the order of time, at equal demand."""
    if not before or not after:
        return TooFew(len(before), len(after))
    low = max(min(p.demand for p in before), min(p.demand for p in after)) - _TINY
    high = min(max(p.demand for p in before), max(p.demand for p in after)) + _TINY
    sides = [
        [(n // GROUP, point) for n, point in enumerate(window) if low <= point.demand <= high]
        for window in (before, after)
    ]
    counts = [len(side) for side in sides]
    groups = [len({group for group, _ in side}) for side in sides]
    if min(counts) < SAMPLES_MIN or min(groups) < GROUPS_MIN:
        return TooFew(counts[0], counts[1])
    demand = [point.demand for side in sides for _, point in side]
    value = [point.value for side in sides for _, point in side]
    is_after = [0.0] * counts[0] + [1.0] * counts[1]
    # What demand explains is taken from the value and from the window; the rest of the one over the rest of the other.
    rest_of_value, rest_of_window = _rest(value, demand), _rest(is_after, demand)
    weight = _dot(rest_of_window, rest_of_window)
    if weight < UNEXPLAINED_MIN_RATIO * counts[0] * counts[1] / sum(counts):
        return TooFew(counts[0], counts[1])
    change = _dot(rest_of_value, rest_of_window) / weight
    sums: dict[tuple[int, int], float] = {}
    names = [(which, group) for which, side in enumerate(sides) for group, _ in side]
    for name, left, of_window in zip(names, rest_of_value, rest_of_window, strict=True):
        sums[name] = sums.get(name, 0.0) + (left - change * of_window) * of_window
    variance = sum(part * part for part in sums.values()) * len(sums) / (len(sums) - 1)
    half = _T99[min(min(groups) - 1, len(_T99)) - 1] * math.sqrt(variance) / weight
    half += _feigned(before, after, _slope(value, demand, counts[0])) + _TINY
    return Difference(change, change - half, change + half, counts[0], counts[1])


def _feigned(before: Sequence[Point], after: Sequence[Point], slope: float) -> float:
    """What a noisy measure of demand could leave of the difference in demand between the windows."""
    windows = [[point.demand for point in window] for window in (before, after)]
    signal = sum(_correlation(window) * len(window) for window in windows) / sum(map(len, windows))
    reliability = min(1.0, max(RELIABILITY_MIN_RATIO, signal))
    return abs(slope * (1.0 - reliability) / reliability * (_mean(windows[0]) - _mean(windows[1])))


def _slope(value: Sequence[float], demand: Sequence[float], first: int) -> float:
    """How the value rises with demand within the windows, of which the first has `first` samples."""
    within = [x - _mean(part) for part in (demand[:first], demand[first:]) for x in part]
    spread = _dot(within, within)
    return _dot(within, value) / spread if spread > _TINY else 0.0


def _correlation(values: Sequence[float]) -> float:
    """From one sample to the next; of a constant 1."""
    rest = [value - _mean(values) for value in values]
    spread = _dot(rest, rest)
    return _dot(rest[:-1], rest[1:]) / spread if spread > _TINY else 1.0


def _rest(values: Sequence[float], by: Sequence[float]) -> list[float]:
    """`values` less the straight line over `by` that fits them best."""
    middle, mean = _mean(by), _mean(values)
    off = [x - middle for x in by]
    spread = _dot(off, off)
    slope = _dot(off, values) / spread if spread > _TINY else 0.0
    return [y - mean - slope * x for x, y in zip(off, values, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(left, right, strict=True))
