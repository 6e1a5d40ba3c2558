"""The HashiCorp Nomad Autoscaler: strategies, how their actions combine, and the states of a policy.

Source of the rule: hashicorp/nomad-autoscaler@ede4e617, plugins/builtin/strategy/, sdk/strategy.go, policy/handler.go.
A policy is evaluated every 10 seconds over the last 60 seconds of its query; after an action it cools for 5 minutes.

A strategy's configuration is what an operator writes: names to strings. A strategy that has nothing to say abstains
(None); `none` is a wish of its own, to leave the count as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum

from msgspec import Struct
from msgspec.structs import replace

INTERVAL_S = 10.0
WINDOW_S = 60.0
COOLDOWN_S = 300.0
TARGET_THRESHOLD = 0.01
WITHIN_BOUNDS_TRIGGER = 5
DRY_RUN_COUNT = -1

Strings = Mapping[str, str]


class Direction(IntEnum):
    """In the order in which they win over each other: safety before economy."""

    DOWN = 0
    NONE = 1
    UP = 2
    RECOMMENDATION = 3


class Action(Struct, frozen=True):
    """`count` is 0 for `none`. `original` is the count before it was capped, None when it was not; `recorded` the count
    of a dry run, whose submitted count is -1. `history` holds the reasons before `reason`, oldest first.
    """

    direction: Direction
    count: int
    factor: float | None = None
    reason: str = ""
    history: tuple[str, ...] = ()
    original: int | None = None
    recorded: int | None = None


NOTHING = Action(Direction.NONE, 0)


class ConfigError(Exception):
    """A strategy's configuration cannot be used: `kind` is missing, invalid or conflict."""

    def __init__(self, field: str, kind: str) -> None:
        super().__init__(f"cannot use {field}: {kind}")
        self.field = field
        self.kind = kind


# --- strategies


def target_value(config: Strings, metrics: Sequence[float], count: int) -> Action | None:
    """Proportional to the newest sample. Raises ConfigError."""
    target = _number(config, "target")
    if target is None:
        raise ConfigError("target", "missing")
    threshold = _number(config, "threshold")
    most_up, most_down = _integer(config, "max_scale_up"), _integer(config, "max_scale_down")
    if not metrics:
        return None
    factor = metrics[-1] / target if target else metrics[-1]
    direction = target_direction(count, factor, TARGET_THRESHOLD if threshold is None else threshold)
    if direction is Direction.NONE:
        return NOTHING
    wanted = math.ceil(factor) if count == 0 else math.ceil(count * factor)
    action = _action(count, _stepped(count, wanted, most_up, most_down))
    return action if action is NOTHING else replace(action, factor=factor)


def target_direction(count: int, factor: float, threshold: float) -> Direction:
    """Where `factor`, the sample over its target, points to; within `threshold` of 1 nowhere."""
    if count == 0:
        return Direction.UP if factor > 0 else Direction.NONE
    if factor < 1 - threshold:
        return Direction.DOWN
    return Direction.UP if factor > 1 + threshold else Direction.NONE


def threshold(config: Strings, metrics: Sequence[float], count: int) -> Action | None:
    """One step when enough samples are within lower <= sample < upper. Raises ConfigError."""
    if not metrics:
        return None
    lower, upper = _number(config, "lower_bound"), _number(config, "upper_bound")
    if lower is None and upper is None:
        raise ConfigError("lower_bound|upper_bound", "missing")
    trigger = _integer(config, "within_bounds_trigger")
    ways = [name for name in ("delta", "percentage", "value") if config.get(name)]
    if len(ways) != 1:
        raise ConfigError("delta|percentage|value", "conflict" if ways else "missing")
    step = _step(config, ways[0], count)
    low, high = -math.inf if lower is None else lower, math.inf if upper is None else upper
    hits = sum(low <= metric < high for metric in metrics)
    if hits < (WITHIN_BOUNDS_TRIGGER if trigger is None else trigger):
        return NOTHING
    return _action(count, max(0, step))


def pass_through(config: Strings, metrics: Sequence[float], count: int) -> Action | None:
    """The newest sample is the count. Raises ConfigError."""
    most_up, most_down = _integer(config, "max_scale_up"), _integer(config, "max_scale_down")
    if not metrics:
        return None
    return _action(count, _stepped(count, int(metrics[-1]), most_up, most_down))


def fixed_value(config: Strings, count: int) -> Action:
    """Always the same count. Raises ConfigError."""
    value = _integer(config, "value")
    if value is None:
        raise ConfigError("value", "missing")
    return _action(count, value)


def _step(config: Strings, way: str, count: int) -> int:
    number = _number(config, way) if way == "percentage" else _integer(config, way)
    assert number is not None, way
    if way == "value" and number < 0:
        raise ConfigError(way, "invalid")
    if way == "delta":
        return count + int(number)
    return math.ceil(count * (1 + number / 100)) if way == "percentage" else int(number)


def _stepped(count: int, wanted: int, most_up: int | None, most_down: int | None) -> int:
    if most_up is not None:
        wanted = min(wanted, count + most_up)
    return wanted if most_down is None else max(wanted, count - most_down)


def _action(count: int, wanted: int) -> Action:
    if wanted == count:
        return NOTHING
    return Action(Direction.UP if wanted > count else Direction.DOWN, wanted)


def _number(config: Strings, field: str) -> float | None:
    try:
        return float(config[field]) if config.get(field) else None
    except ValueError:
        raise ConfigError(field, "invalid") from None


def _integer(config: Strings, field: str) -> int | None:
    try:
        return int(config[field]) if config.get(field) else None
    except ValueError:
        raise ConfigError(field, "invalid") from None


# --- actions together


def preempt(one: Action, other: Action) -> Action:
    """The winner: the stronger direction, and of two in the same direction the larger count."""
    return max((one, other), key=lambda action: (action.direction, action.count))


class Vote(Struct, frozen=True):
    """What the check of a policy wants; None: it abstains."""

    check: str
    action: Action | None


def pick_winner(groups: Mapping[str, Sequence[Vote]]) -> tuple[str, Action] | None:
    """The check that decides and its action. In a named group `none` does not count, unless all say so (a group of
    `none` and abstentions has no say).
    """
    best: tuple[str, Action] | None = None
    for name, votes in groups.items():
        said = [(vote.check, vote.action) for vote in votes if vote.action is not None]
        loud = [pair for pair in said if pair[1].direction is not Direction.NONE]
        for check, action in loud if name and (loud or len(said) < len(votes)) else said:
            if best is None or preempt(best[1], action) is not best[1]:
                best = (check, action)
    return best


def cap_count(action: Action, least: int, most: int) -> Action:
    """The action with its count within the bounds. What it said before becomes history."""
    count = min(max(action.count, least), most)
    if count == action.count:
        return action
    history = (*action.history, action.reason) if action.reason else action.history
    reason = f"capped count from {action.count} to {count} to stay within limits"
    return replace(action, count=count, original=action.count, reason=reason, history=history)


def dry_run(action: Action) -> Action:
    """The action that is shown and changes nothing."""
    return replace(action, count=DRY_RUN_COUNT, recorded=action.count)


def scaling_needed(action: Action, count: int) -> bool:
    """Whether the target must be asked to change."""
    return action.direction is not Direction.NONE and action.count != count


def remaining_cooldown_s(cooldown_s: float, last_event_at: float, now: float) -> float:
    """How much of the cooldown is left; negative when it is over."""
    return cooldown_s - (now - last_event_at)


# --- the policy's states: idle -> waiting turn -> scaling -> cooldown


class Phase(IntEnum):
    IDLE = 0
    WAITING_TURN = 1
    SCALING = 2
    COOLDOWN = 3


class Machine(Struct):
    """When a policy may act: after its cooldown. A count that somebody else has changed starts one, too."""

    cooldown_s: float = COOLDOWN_S
    cooldown_on_up_s: float | None = None
    phase: Phase = Phase.IDLE
    _count: int | None = None
    _until: float = 0.0

    def may_act(self, count: int, now: float) -> bool:
        """Whether an action may be chosen, at `count`."""
        if self._count is not None and count != self._count and self.phase in (Phase.IDLE, Phase.COOLDOWN):
            self._cool(self.cooldown_s, now)
        self._count = count
        if self.phase is Phase.COOLDOWN and now > self._until:
            self.phase = Phase.IDLE
        return self.phase is Phase.IDLE

    def wants(self) -> None:
        """An action was chosen; it waits for its turn among the policies."""
        assert self.phase is Phase.IDLE, self.phase
        self.phase = Phase.WAITING_TURN

    def begins(self) -> None:
        assert self.phase is Phase.WAITING_TURN, self.phase
        self.phase = Phase.SCALING

    def done(self, action: Action, now: float) -> None:
        """The target has changed."""
        assert self.phase is Phase.SCALING, self.phase
        self._count = action.count
        up_s = self.cooldown_s if self.cooldown_on_up_s is None else self.cooldown_on_up_s
        self._cool(up_s if action.direction is Direction.UP else self.cooldown_s, now)

    def _cool(self, seconds: float, now: float) -> None:
        self.phase = Phase.COOLDOWN
        self._until = now + seconds
