"""Settings that a pool could have instead of its own: what the search chooses from.

Owns the list, how each is applied to a pool, and how a configuration file says it. The real readers of the
configuration make of that text what was simulated; a test holds that for every candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from agentd.core.model import PoolConfig
from agentd.core.rules import AUTO, AdaptiveTrigger, DemandTrigger, TargetTrigger, ThresholdTrigger, Trigger

TODAY = "today"
# The seed's own cooldowns, brisk ones, and those of an autoscaler that looks ahead itself.
_THRESHOLDS = (
    (0.75, 0.25, 300.0, 600.0), (0.75, 0.25, 30.0, 120.0), (0.6, 0.2, 30.0, 300.0),
    (0.85, 0.5, 30.0, 120.0), (0.85, 0.5, 0.0, 60.0), (0.9, 0.6, 0.0, 30.0),
)  # fmt: skip
_TARGETS = ((0.5, 300.0), (0.6, 300.0), (0.7, 300.0), (0.7, 60.0), (0.8, 300.0), (0.8, 60.0), (0.9, 60.0))
_DEMANDS = (
    (0.6, 300.0), (0.7, 300.0), (0.8, 300.0), (0.8, 60.0), (0.9, 300.0), (0.9, 60.0), (0.95, 300.0), (0.95, 60.0),
    (1.0, 30.0),
)  # fmt: skip
_STANDBYS = (0, 1, 2)
# For agents that tell only a load, which says nothing of what waits: with more room, and sooner to follow.
_LOAD_TARGETS = (*_TARGETS, (0.4, 300.0), (0.5, 60.0), (0.6, 60.0), (0.7, 0.0), (0.9, 300.0))
_LOAD_STANDBYS = (*_STANDBYS, 3, 5)

# What each kind of trigger has in a file, by its field.
_KEYS = {
    ThresholdTrigger: ("scale_up_threshold", "scale_down_threshold"),
    TargetTrigger: ("signal", "target", "tolerance_ratio", "up_window_s", "down_window_s"),
    DemandTrigger: ("target_ratio", "down_window_s"),
    AdaptiveTrigger: ("wait_target_s", "late_weight", "standby", "expert", "forecast"),
}
# What a pool may say that stands in the way of `triggers`.
IN_THE_WAY = ("policy", "scale_up_threshold", "scale_down_threshold")


class Candidate(Struct, frozen=True):
    """A trigger in place of a pool's own, and the cooldowns with it. `trigger` None: the pool as it is."""

    name: str
    trigger: Trigger | None = None
    up_cooldown_s: float = 0.0
    down_cooldown_s: float = 0.0

    def apply(self, pool: PoolConfig) -> PoolConfig:
        """`pool` as it would be."""
        if self.trigger is None:
            return pool
        own = isinstance(self.trigger, ThresholdTrigger)  # it has cooldowns of its own
        return replace(
            pool,
            triggers=(self.trigger,),
            policy=self.trigger.kind,
            scale_up_cooldown_s=self.up_cooldown_s,
            scale_down_cooldown_s=self.down_cooldown_s,
            quick_up_cooldown_s=0.0 if own else self.up_cooldown_s,
            quick_down_cooldown_s=0.0 if own else self.down_cooldown_s,
        )

    def changes(self, pool: PoolConfig) -> bool:
        """Whether `pool` would do anything else with it. Each kind of trigger has cooldowns that the others pass by."""
        made = self.apply(pool)
        if made.threshold is None:
            slow = (pool.scale_up_cooldown_s, pool.scale_down_cooldown_s)
            made = replace(made, scale_up_cooldown_s=slow[0], scale_down_cooldown_s=slow[1])
        else:
            quick = (pool.quick_up_cooldown_s, pool.quick_down_cooldown_s)
            made = replace(made, quick_up_cooldown_s=quick[0], quick_down_cooldown_s=quick[1])
        return made != pool

    def lines(self, written: Sequence[str] = ()) -> list[str]:
        """What a drop-in has under the pool's name. `written`: the keys that the pool has in the file by now."""
        assert self.trigger is not None, "what a pool has already needs no file"
        fields = ", ".join(f"{_key(field)}: {_shown(getattr(self.trigger, field))}" for field in _fields(self.trigger))
        lines = [f"{key}:  # none: the trigger decides" for key in IN_THE_WAY if key in written]
        return [
            *lines,
            f"triggers: [{{type: {self.trigger.kind}, {fields}}}]",
            f"scale_up_cooldown_sec: {self.up_cooldown_s:g}",
            f"scale_down_cooldown_sec: {self.down_cooldown_s:g}",
        ]


def candidates(slo_s: float, own: AdaptiveTrigger, *, tells_tasks: bool = True) -> tuple[Candidate, ...]:
    """Those that are tried beside what a pool has, the first of each kind before the second of any.

    `own`: its adaptive trigger, or one with the defaults; what that is told of prices, experts and forecasts stays.
    `tells_tasks`: its agents tell what they have at work or waiting; `demand` knows nothing without, and those that
    look at the load have more to choose from then.
    """
    standbys, loads = (_STANDBYS, _TARGETS) if tells_tasks else (_LOAD_STANDBYS, _LOAD_TARGETS)
    kinds: list[list[Candidate]] = [
        [_adaptive(replace(own, wait_target_s=slo_s, standby=standby)) for standby in standbys],
        [_demand(DemandTrigger(share, window_s)) for share, window_s in _DEMANDS if tells_tasks],
        [_target(TargetTrigger(target=load, down_window_s=window_s)) for load, window_s in loads],
        [_threshold(ThresholdTrigger(up, down), *cooldowns) for up, down, *cooldowns in _THRESHOLDS],
    ]
    longest = max(map(len, kinds))
    return tuple(kind[place] for place in range(longest) for kind in kinds if place < len(kind))


def _adaptive(trigger: AdaptiveTrigger) -> Candidate:
    told = [f"wait {trigger.wait_target_s:g} s", f"standby {trigger.standby}"]
    told += [f"expert {trigger.expert}"] if trigger.expert != AUTO else []
    told += [f"forecast {trigger.forecast}"] if trigger.forecast != AUTO else []
    return Candidate(", ".join(["adaptive", *told]), trigger)


def _demand(trigger: DemandTrigger) -> Candidate:
    return Candidate(f"demand at {trigger.target_ratio:g}, fewer after {trigger.down_window_s:g} s", trigger)


def _target(trigger: TargetTrigger) -> Candidate:
    return Candidate(f"target load {trigger.target:g}, fewer after {trigger.down_window_s:g} s", trigger)


def _threshold(trigger: ThresholdTrigger, up_s: float, down_s: float) -> Candidate:
    bounds = f"{trigger.scale_up_threshold:g}/{trigger.scale_down_threshold:g}"
    return Candidate(f"threshold {bounds}, cooldowns {up_s:g}/{down_s:g} s", trigger, up_s, down_s)


def _fields(trigger: Trigger) -> tuple[str, ...]:
    return _KEYS[type(trigger)]


def _key(field: str) -> str:
    return f"{field[:-2]}_sec" if field.endswith("_s") else field


def _shown(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
