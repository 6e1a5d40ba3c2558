"""Guards that wait: for a restarted agentd to know its agents, for earlier steps, for time to pass, for starts to work.

What a new start must wait for does not hold draining instances that a scale-up takes back: they are there.
"""

from __future__ import annotations

from agentd.core import pauses
from agentd.core import rate as steps
from agentd.core.lifecycle import LEAVING, ON_ITS_WAY
from agentd.core.model import Limit, State
from agentd.core.situation import Bound, Situation, is_slow, lasting
from agentd.core.state import SHRINKING, Pool, Purpose

_COMING = ON_ITS_WAY | {State.BACKOFF}


def recovery(s: Situation) -> list[Bound]:
    if s.now >= s.fleet.recovering_until or s.asked_for:
        return []
    left = s.fleet.recovering_until - s.now
    return [
        (s.count, Limit("recovering", f"agentd started a moment ago; waits {left:.0f} s", s.fleet.recovering_until))
    ]


def paused(s: Situation) -> list[Bound]:
    """A person has paused that direction; what people ask for goes on."""
    direction = "up" if s.up else "down"
    found = None if s.asked_for else pauses.holding(s.fleet, s.pool, direction)
    if found is None:
        return []
    pause, everywhere = found
    where = " in all pools" if everywhere else ""
    why = f" ({pause.reason})" if pause.reason else ""
    left = "" if pause.expires is None else f", {lasting(pause.expires - s.now)} left"
    return [
        (
            s.count,
            Limit(f"paused_{direction}", f"{pause.owner} has paused {direction}{where}{why}{left}", pause.expires),
        )
    ]


def action_in_flight(s: Situation) -> list[Bound]:
    if not is_slow(s.trigger):
        return []  # what starts counts already, and how many drain at once has its own bound
    for instance in s.pool.instances.values():
        coming = instance.purpose is Purpose.SCALE_UP and not instance.ever_ready and instance.state in _COMING
        # Also the way down waits for it: a scale-up that is taken back at once was none. People need not wait.
        if coming and (s.up or s.pool.target is None):
            return [(s.count, Limit("action_in_flight", f"{instance.id} is still starting"))]
        if instance.is_resuming and (s.up or s.pool.target is None):
            return [(s.count, Limit("action_in_flight", f"{instance.id} is being taken back"))]
        if not s.up and instance.stop_purpose in SHRINKING and instance.state in LEAVING:
            return [(s.count, Limit("action_in_flight", f"{instance.id} is still finishing"))]
    return []


def cooldown_until(pool: Pool, *, up: bool, trigger: str = "") -> float:
    """Until when the pool's cooldown lasts in that direction; 0.0 without one.

    That for `threshold` counts for its own decisions, and where the pool has it for people's, too.
    """
    config = pool.config
    slow = is_slow(trigger) and config.threshold is not None
    if up:
        cooldown_s = config.scale_up_cooldown_s if slow else config.quick_up_cooldown_s
        return 0.0 if pool.last_up_at is None else pool.last_up_at + cooldown_s
    cooldown_s = config.scale_down_cooldown_s if slow else config.quick_down_cooldown_s
    last = [at for at in (pool.last_up_at, pool.last_down_at, pool.last_resume_at) if at is not None]
    return max(last) + cooldown_s if last else 0.0


def cooldown(s: Situation) -> list[Bound]:
    until = cooldown_until(s.pool, up=s.up, trigger=s.trigger)
    if s.now >= until:
        return []
    which = "up" if s.up else "down"
    return [
        (s.count + s.back, Limit(f"{which}_cooldown", f"scale-{which} cooldown: {lasting(until - s.now)} left", until))
    ]


def rate(s: Situation) -> list[Bound]:
    """Only so many in a period; draining instances that are taken back are no starts."""
    limit = s.pool.config.guards.up_rate if s.up else s.pool.config.guards.down_rate
    if limit is None:
        return []
    furthest, done, until = steps.allowed(s.pool, limit, s.count, s.now, up=s.up)
    words = [str(limit.count)] if limit.count is not None else []
    words += [f"{limit.percent:g} %"] if limit.percent is not None else []
    which, deed = ("up", "started") if s.up else ("down", "retired")
    text = f"at most {' or '.join(words)} {deed} in {limit.period_s:g} s; {done} were"
    # A retirement that is taken back was none: as much as it adds to the count it takes off what was there before.
    bound = max(furthest, s.count + s.back) if s.up else furthest
    return [(bound, Limit(f"{which}_rate", text, until))]


def start_backoff(s: Situation) -> list[Bound]:
    if not s.up or s.now >= s.pool.backoff_until:
        return []
    left = s.pool.backoff_until - s.now
    text = f"the last {s.pool.start_failures} starts failed; next try in {lasting(left)}"
    return [(s.count + s.back, Limit("start_backoff", text, s.pool.backoff_until))]
