"""Guards of the way down: who finishes its work at the same time, who has just been restarted, who always stays."""

from __future__ import annotations

from agentd.core import bounce, planner
from agentd.core.model import Limit, State
from agentd.core.rules import ThresholdTrigger
from agentd.core.situation import Bound, Situation


def no_bounce(s: Situation) -> list[Bound]:
    """No step down after which the same rule would want one up; a shorter one where that is none.

    `threshold` is exact: it takes one whenever the load is low, unless the pool's configuration says otherwise.
    """
    exact = isinstance(s.rule, ThresholdTrigger) and not s.pool.config.guards.no_bounce
    if s.up or s.rule is None or exact:
        return []
    least, why, until = bounce.step(s.fleet, s.pool, s.rule, s.sums, s.wanted, s.now)
    return [(least, Limit("no_bounce", why, until))] if why else []


def drain_share(s: Situation) -> list[Bound]:
    """Only so many may drain at once. Who is not ready yet has nothing to finish."""
    if s.up or s.in_the_end:
        return []
    draining, most, size = planner.drain_share(s.pool)
    unready = sum(1 for victim in planner.victims(s.pool) if victim.state is not State.READY)
    text = f"at most {most} of {size} may drain at once" + ("; the others follow" if s.asked_for else "")
    return [(s.count - unready - max(0, most - draining), Limit("drain_share", text))]


def rolling(s: Situation) -> list[Bound]:
    """Whom a rolling restart has just given a new process, nobody takes away; nor is anybody let go in its midst."""
    rolling = s.pool.rolling
    if s.up or s.in_the_end or rolling is None or not rolling.on:
        return []
    text = f"its restart is under way ({rolling.done} of {rolling.total}); fewer when that has ended"
    return [(s.count, Limit("rolling_restart", text))]


def core_only(s: Situation) -> list[Bound]:
    if s.up:
        return []
    left = s.count - len(planner.victims(s.pool))
    return [(left, Limit("only_core_left", f"only core agents left ({left})"))]
