"""How fast a size may change: stabilisation and rate rules of the Kubernetes HorizontalPodAutoscaler.

Source of the rule: kubernetes/kubernetes, pkg/controller/podautoscaler/horizontal.go (@4e62298c and about v1.32).

Without a `behavior` the largest recommendation of the last five minutes counts, and a step up ends at twice the
size (or at four). With one, each direction has a window of its own and policies that allow so many pods, or so many
percent, in a period; what happened in that period is taken off.

Histories are tuples of slots. What is too old to count is written over (the last such slot), and new slots are
appended only when there is none: so they stay as long as what may count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

DOWN_WINDOW_S = 300.0
GROWTH = 2  # without a behavior, a step up ends at this times the size
GROWTH_LEAST = 4


class Select(Enum):
    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class Unit(Enum):
    PODS = "Pods"
    PERCENT = "Percent"


class Why(Enum):
    """What held the size, or that nothing did."""

    WITHIN = "DesiredWithinRange"
    TOO_FEW = "TooFewReplicas"
    TOO_MANY = "TooManyReplicas"
    UP_LIMIT = "ScaleUpLimit"
    DOWN_LIMIT = "ScaleDownLimit"


class RatePolicy(Struct, frozen=True):
    """So many pods or percent within `period_s`."""

    unit: Unit
    value: int
    period_s: float


class Rules(Struct, frozen=True):
    """The rules of one direction. `window_s` None: the controller's own (300 s on the way down)."""

    window_s: float | None
    select: Select
    policies: tuple[RatePolicy, ...]

    @property
    def longest_period_s(self) -> float:
        return max((policy.period_s for policy in self.policies), default=0.0)


DEFAULT_UP = Rules(0.0, Select.MAX, (RatePolicy(Unit.PODS, 4, 15.0), RatePolicy(Unit.PERCENT, 100, 15.0)))
DEFAULT_DOWN = Rules(None, Select.MAX, (RatePolicy(Unit.PERCENT, 100, 15.0),))


class Behavior(Struct, frozen=True):
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN


class Bounds(Struct, frozen=True):
    min: int
    max: int


class Recommendation(Struct, frozen=True):
    at: float
    replicas: int


class ScaleEvent(Struct, frozen=True):
    """The size changed by `change`, always positive: up and down have a history each."""

    at: float
    change: int
    outdated: bool = False


class Events(Struct, frozen=True):
    up: tuple[ScaleEvent, ...] = ()
    down: tuple[ScaleEvent, ...] = ()


Recommendations = tuple[Recommendation, ...]
Slot = TypeVar("Slot")


# --- without a behavior


def stabilise_default(
    history: Recommendations, desired: int, now: float, window_s: float = DOWN_WINDOW_S
) -> tuple[int, Recommendations]:
    """The largest of the recommendations within the window and `desired`; and the history with `desired` in it."""
    best, old = desired, -1
    for slot, recommendation in enumerate(history):
        if now - recommendation.at > window_s:
            old = slot
        else:
            best = max(best, recommendation.replicas)
    return best, _put(history, old, Recommendation(now, desired))


def limit_default(current: int, desired: int, bounds: Bounds, growth: int = GROWTH) -> tuple[int, Why]:
    """`desired` within the bounds and no further up than one step may go."""
    step = max(growth * current, GROWTH_LEAST)
    if desired < bounds.min:
        return bounds.min, Why.TOO_FEW
    if desired > min(bounds.max, step):
        return (step, Why.UP_LIMIT) if bounds.max > step else (bounds.max, Why.TOO_MANY)
    return desired, Why.WITHIN


# --- with one


def stabilise(
    history: Recommendations, current: int, desired: int, behavior: Behavior, now: float
) -> tuple[int, Recommendations]:
    """As far up as the least recommendation of the up window, as far down as the largest of the down window."""
    up_s = behavior.up.window_s or 0.0
    down_s = DOWN_WINDOW_S if behavior.down.window_s is None else behavior.down.window_s
    up = down = desired
    old = -1
    for slot, recommendation in enumerate(history):
        age = now - recommendation.at
        if age < up_s:
            up = min(up, recommendation.replicas)
        if age < down_s:
            down = max(down, recommendation.replicas)
        if age > max(up_s, down_s):
            old = slot
    replicas = min(max(current, up), down)
    return replicas, _put(history, old, Recommendation(now, desired))


def limit(
    current: int, desired: int, bounds: Bounds, behavior: Behavior, events: Events, now: float
) -> tuple[int, Why]:
    """`desired` within the bounds and the rates. A size outside its bounds is not this rule's business."""
    if desired > current:
        step = max(current, up_limit(current, behavior.up, events, now))
        if desired > min(bounds.max, step):
            return (step, Why.UP_LIMIT) if bounds.max > step else (bounds.max, Why.TOO_MANY)
    elif desired < current:
        step = min(current, down_limit(current, behavior.down, events, now))
        if desired < max(bounds.min, step):
            return (step, Why.DOWN_LIMIT) if bounds.min < step else (bounds.min, Why.TOO_FEW)
    return desired, Why.WITHIN


def up_limit(current: int, rules: Rules, events: Events, now: float) -> int:
    """How far up the policies allow; it may be below `current` when the period's budget is spent."""
    if rules.select is Select.DISABLED:
        return current
    allowed = list[int]()
    for policy in rules.policies:
        base = _size_before(current, events, policy.period_s, now)
        grown = base + policy.value if policy.unit is Unit.PODS else math.ceil(base * (1 + policy.value / 100))
        allowed.append(grown)
    return max(allowed) if rules.select is Select.MAX else min(allowed)


def down_limit(current: int, rules: Rules, events: Events, now: float) -> int:
    """How far down the policies allow; `Max` allows the largest change, so the smallest size."""
    if rules.select is Select.DISABLED:
        return current
    allowed = list[int]()
    for policy in rules.policies:
        base = _size_before(current, events, policy.period_s, now)
        shrunk = base - policy.value if policy.unit is Unit.PODS else int(base * (1 - policy.value / 100))
        allowed.append(shrunk)
    return min(allowed) if rules.select is Select.MAX else max(allowed)


def change_in_period(events: Sequence[ScaleEvent], period_s: float, now: float) -> int:
    """What the events younger than `period_s` add up to; one exactly at the edge is outside."""
    return sum(event.change for event in events if now - event.at < period_s)


def store_event(events: tuple[ScaleEvent, ...], change: int, rules: Rules, now: float) -> tuple[ScaleEvent, ...]:
    """The history with one more event."""
    marked = tuple(
        replace(event, outdated=True) if now - event.at > rules.longest_period_s else event for event in events
    )
    old = max((slot for slot, event in enumerate(marked) if event.outdated), default=-1)
    return _put(marked, old, ScaleEvent(now, change))


def _size_before(current: int, events: Events, period_s: float, now: float) -> int:
    return current - change_in_period(events.up, period_s, now) + change_in_period(events.down, period_s, now)


def _put(slots: tuple[Slot, ...], slot: int, new: Slot) -> tuple[Slot, ...]:
    return (*slots, new) if slot < 0 else (*slots[:slot], new, *slots[slot + 1 :])
