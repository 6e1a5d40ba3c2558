"""Who has switched scaling off: all of it, or one direction, of one pool or of all, for a while or for good.

A pause holds what agentd decides by itself: triggers, what is above max, and relief under memory pressure. It does not
hold people's targets, nor repair, of which the minimum is part.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentd.core.messages import Done, EventType, Refusal, SetAutoscaling
from agentd.core.model import AutoscalingMode, PoolName
from agentd.core.rules import DIRECTIONS, Pause
from agentd.core.state import Fleet, Pool

BOTH = "both"
PAUSE_S_MAX = 366 * 86_400.0


def set_autoscaling(fleet: Fleet, event: SetAutoscaling, now: float) -> Done | Refusal:
    """Switch scaling on, which also ends people's targets and every pause, or off; or one direction, or one pool."""
    refusal = _refuse(fleet, event)
    if refusal:
        return refusal
    if event.direction or event.pool is not None or event.for_s is not None:
        _switch_part(fleet, event, now)
        return Done()
    fleet.mode = AutoscalingMode(event.enabled, event.owner, event.reason, fleet.wall(now))
    # Somebody's "off" holds until somebody says "on"; an "on" that the file says too gives the choice back to it.
    fleet.mode_is_persons = not event.enabled or not fleet.config.autoscaling_enabled
    fleet.touch_self()
    if event.enabled:
        fleet.pauses.clear()
        for pool in fleet.pools.values():
            if pool.target is not None or pool.pauses:
                pool.target = None
                pool.pauses.clear()
                fleet.touch_pool(pool.name)
    why = f": {event.reason}" if event.reason else ""
    fleet.tell(EventType.AUTOSCALING, f"{'on' if event.enabled else 'off'}{why}", actor=event.owner)
    return Done()


def holding(fleet: Fleet, pool: Pool, direction: str) -> tuple[Pause, bool] | None:
    """The pause that keeps `pool` from going in `direction` for longest, and whether it is one of all pools."""
    found = [
        (pauses[direction], pauses is fleet.pauses) for pauses in (pool.pauses, fleet.pauses) if direction in pauses
    ]
    return max(found, key=lambda each: (each[0].expires is None, each[0].expires or 0.0), default=None)


def expire(fleet: Fleet, now: float) -> None:
    """Let go of pauses whose time has passed."""
    for name, pauses in _all(fleet):
        for direction, pause in list(pauses.items()):
            if pause.expires is not None and pause.expires <= now:
                del pauses[direction]
                _touch(fleet, name, now)
                fleet.tell(EventType.AUTOSCALING, f"{direction} goes on: {pause.owner}'s pause has ended", pool=name)


def deadline(fleet: Fleet) -> float | None:
    """When the next pause ends."""
    if not fleet.pauses and not any(pool.pauses for pool in fleet.pools.values()):
        return None
    ends = [pause.expires for _, pauses in _all(fleet) for pause in pauses.values() if pause.expires is not None]
    return min(ends, default=None)


def _refuse(fleet: Fleet, event: SetAutoscaling) -> Refusal | None:
    if event.direction not in ("", BOTH, *DIRECTIONS):
        text = f"direction {event.direction!r} is not up, down or both"
        return Refusal("INVALID_DIRECTION", text, "INVALID_ARGUMENT")
    if event.pool is not None and (event.pool not in fleet.pools or fleet.pools[event.pool].removed):
        known = ", ".join(fleet.config.pools)
        return Refusal("UNKNOWN_POOL", f"no pool {event.pool!r} (there are {known})", "NOT_FOUND")
    if event.for_s is not None and event.enabled:
        return Refusal("INVALID_DURATION", "for_s is for off: scaling that is on stays on", "INVALID_ARGUMENT")
    if event.for_s is not None and not 0.0 < event.for_s <= PAUSE_S_MAX:
        text = f"for_s: {event.for_s} is not a duration of more than 0 and at most {PAUSE_S_MAX:.0f} seconds"
        return Refusal("INVALID_DURATION", text, "INVALID_ARGUMENT")
    return None


def _switch_part(fleet: Fleet, event: SetAutoscaling, now: float) -> None:
    directions = (event.direction,) if event.direction in DIRECTIONS else DIRECTIONS
    what = " and ".join(directions)
    why = f": {event.reason}" if event.reason else ""
    name = event.pool or ""
    if event.enabled:
        text = f"{what} goes on{why}" if len(directions) == 1 else f"{what} go on{why}"
        # What goes on in all pools is held in none.
        lifted = [(other, pauses) for other, pauses in _all(fleet) if not name or other == name]
        for other, pauses in lifted:
            for direction in directions:
                if pauses.pop(direction, None) is not None:
                    _touch(fleet, other, now)
    else:
        text = f"{what} paused{f' for {event.for_s:g} s' if event.for_s else ''}{why}"
        expires = None if event.for_s is None else now + event.for_s
        pauses = fleet.pools[event.pool].pauses if event.pool else fleet.pauses
        for direction in directions:
            pauses[direction] = Pause(event.owner, event.reason, fleet.wall(now), expires)
        _touch(fleet, name, now)
    fleet.tell(EventType.AUTOSCALING, text, pool=name, actor=event.owner)


def _all(fleet: Fleet) -> Iterator[tuple[str, dict[str, Pause]]]:
    """The pauses of all pools together, under no name, and of each, where there are any."""
    if fleet.pauses:
        yield "", fleet.pauses
    for pool in fleet.pools.values():
        if pool.pauses:
            yield pool.name, pool.pauses


def _touch(fleet: Fleet, name: str, now: float) -> None:
    """The pauses under `name` have changed."""
    if not name:
        fleet.touch_self()
        for pool in fleet.pools.values():
            pool.stir(now)
        return
    fleet.touch_pool(PoolName(name))
    fleet.pools[PoolName(name)].stir(now)
