"""How many instances of a pool were started and retired in a period of time, and how many more may be.

The rule is that of the Kubernetes autoscaler (horizontal.go): of `count` and `percent` the one that allows more, over
what there was at the beginning of the period. What counts is what came about, from when it was decided: a start that
failed and a retirement that was taken back do not, those under way do.
"""

from __future__ import annotations

import math

from agentd.core.lifecycle import LEAVING, ON_ITS_WAY
from agentd.core.model import State
from agentd.core.rules import RateLimit
from agentd.core.state import SHRINKING, Pool, Purpose

_COMING = ON_ITS_WAY | {State.BACKOFF}
# What floating point makes of a whole number must not cost or give an instance.
_EPSILON = 1e-9


def note(pool: Pool, at: float, *, up: bool) -> None:
    """One instance more, or fewer, has come about; it was decided at `at`."""
    limits = [limit for limit in (pool.config.guards.up_rate, pool.config.guards.down_rate) if limit]
    if not limits:
        pool.ups.clear()
        pool.downs.clear()
        return
    times = pool.ups if up else pool.downs
    times.append(at)
    times.sort()
    oldest = max(times[-1], at) - max(limit.period_s for limit in limits)
    times[:] = [each for each in times if each > oldest]


def allowed(pool: Pool, limit: RateLimit, count: int, now: float, *, up: bool) -> tuple[int, int, float]:
    """The furthest that `count` may go now; how many have gone that way in the period; when it may go further."""
    since = now - limit.period_s
    ups, downs = _since(pool.ups, _coming(pool), since), _since(pool.downs, _leaving(pool), since)
    before = count - len(ups) + len(downs)
    sign = 1 if up else -1
    steps = [before + sign * limit.count] if limit.count is not None else []
    if limit.percent is not None:
        share = before * (1.0 + sign * limit.percent / 100.0)
        steps.append(math.ceil(share - _EPSILON) if up else math.floor(share + _EPSILON))
    same = ups if up else downs
    until = (same[0] if same else now) + limit.period_s
    return (max(count, *steps) if up else min(count, *steps)), len(same), until


def _since(done: list[float], under_way: list[float], since: float) -> list[float]:
    return sorted(at for at in (*done, *under_way) if at > since)


def _coming(pool: Pool) -> list[float]:
    return [
        i.created_at
        for i in pool.instances.values()
        if i.purpose is Purpose.SCALE_UP and not i.ever_ready and i.state in _COMING
    ]


def _leaving(pool: Pool) -> list[float]:
    return [
        i.leaving_at
        for i in pool.instances.values()
        if i.stop_purpose in SHRINKING and i.state in LEAVING and not i.is_resuming
    ]
