"""Windows of time in which a pool has other bounds: when they begin and end, and what holds meanwhile.

A window that gives a minimum or a maximum puts it in the place of the pool's own; of several active ones the highest
counts, of each bound apart. The minimum is kept by repair, as the pool's own is; the maximum is kept by the guards.
"""

from __future__ import annotations

from datetime import datetime

from agentd.core.cron import Window
from agentd.core.messages import EventType
from agentd.core.model import PoolConfig, Proposal, Reason
from agentd.core.rules import ScheduleTrigger
from agentd.core.state import NO_SCHEDULE, Fleet, Pool, Schedule


def move(fleet: Fleet, now: float, *, anew: bool = False) -> list[Pool]:
    """Begin and end windows whose time has come; the pools whose bounds have changed. `anew`: look at all of them."""
    wall = fleet.wall(now)
    return [
        pool
        for pool in fleet.pools.values()
        if (pool.schedule is not NO_SCHEDULE or pool.config.windows) and _move(fleet, pool, wall, now, anew=anew)
    ]


def deadline(fleet: Fleet) -> float | None:
    """When a window may begin or end next, on the monotonic clock."""
    times = [pool.schedule.until for pool in fleet.pools.values() if pool.schedule.until is not None]
    return min(times) - fleet.wall_offset if times else None


def proposal(pool: Pool) -> Proposal:
    """The minimum of the moment where nothing else has a say in the pool's size; else it leaves that to the others."""
    text = "; ".join(_held(window) for window in _active(pool)) or "no window of the schedule is active"
    alone = all(isinstance(trigger, ScheduleTrigger) for trigger in pool.config.triggers)
    return Proposal(ScheduleTrigger.kind, pool.min if alone else None, Reason("schedule", text))


def turning(pool: Pool) -> str:
    """When it changes next."""
    until = pool.schedule.until
    if until is None:
        return ""
    at = datetime.fromtimestamp(until, pool.config.windows[0].zone)
    return f"its bounds may change at {at:%Y-%m-%d %H:%M %Z}".rstrip()


def _move(fleet: Fleet, pool: Pool, wall: float, now: float, *, anew: bool) -> bool:
    known, was = pool.config.windows, pool.schedule
    if pool.removed or not known:
        if was == NO_SCHEDULE:
            return False
        pool.schedule = NO_SCHEDULE
        fleet.touch_pool(pool.name)
        return was.bounds != (None, None)
    # A clock that was put back begins anew, too.
    if not anew and was.since <= wall and (was.until is None or wall < was.until) and was.since:
        return False
    active = tuple(window.name for window in known if window.active(wall))
    times = [at for window in known if (at := window.boundary(wall)) is not None]
    pool.schedule = Schedule(wall, min(times, default=None), active, *_bounds(pool.config, active))
    fleet.touch_pool(pool.name)
    if pool.schedule.active == was.active and pool.schedule.bounds == was.bounds:
        return False
    for window in known:
        if (window.name in active) != (window.name in was.active):
            begun = window.name in active
            text = f"begins: {_said(window)}" if begun else f"ends: from {pool.min} to {pool.max}"
            fleet.tell(EventType.SCHEDULE, f"{window.name} {text}", pool=pool.name)
    pool.stir(now)
    return True


def _bounds(config: PoolConfig, active: tuple[str, ...]) -> tuple[int | None, int | None]:
    holding = [window for window in config.windows if window.name in active]
    low = max((window.min for window in holding if window.min is not None), default=None)
    high = max((window.max for window in holding if window.max is not None), default=None)
    least, most = config.min if low is None else low, config.max if high is None else high
    # Of windows that contradict each other, or the pool, the one that asks for more is right.
    return low, max(least, most) if least > most else high


def _active(pool: Pool) -> list[Window]:
    return [window for window in pool.config.windows if window.name in pool.schedule.active]


def _held(window: Window) -> str:
    return f"{window.name}: {_said(window)}"


def _said(window: Window) -> str:
    low = f"at least {window.min}" if window.min is not None else ""
    high = f"at most {window.max}" if window.max is not None else ""
    return ", ".join(text for text in (low, high) if text)
