"""How long the starts of a pool take: from asking the driver to ready. What that has taken is learned, and shown.

Exactly: a start begins when agentd hands it to the driver (waiting for a turn under `starting_max` is not part of it)
and ends when the instance is ready, by its own word, its probe's or its driver's. New instances, replacements,
restarts that agentd makes, and core agents all count. Not counted: a start that failed or was not ready within the
start timeout (`failed` tells how many), a process that the driver restarted in place, an instance that was found
running, and a start during which agentd itself was restarted, for nobody saw when that one was ready.
"""

from __future__ import annotations

from agentd.core.metrics import quantile
from agentd.core.state import Instance, Pool
from agentd.core.views import StartTimes

# The starts of each pool that are remembered, over restarts of agentd: the last ones tell what the next will take.
STARTS_MAX = 50


def ended(pool: Pool, instance: Instance, now: float) -> None:
    """`instance` is ready: its start counts, where agentd has seen all of it."""
    if instance.requested_at is not None:
        pool.start_times_s.append(round(now - instance.requested_at, 3))
        del pool.start_times_s[:-STARTS_MAX]
    instance.requested_at = None


def learned(pool: Pool) -> StartTimes:
    """What the last STARTS_MAX starts of `pool` took, by nearest rank."""
    times = pool.start_times_s
    return StartTimes(
        p50_s=quantile(times, 0.50) if times else None,
        p95_s=quantile(times, 0.95) if times else None,
        counted=len(times),
        failed=pool.starts_failed,
    )
