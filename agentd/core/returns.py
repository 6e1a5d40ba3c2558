"""What a pool's diminishing returns are learned from: its rounds in which all agents had work, before and after.

`core.scalability` is the law. A round counts where the same agents were ready at its beginning, and at both ends nearly
all of what they can work on at a time was in flight: what is done then is what they can do.
"""

from __future__ import annotations

from agentd.core import scalability
from agentd.core.model import State
from agentd.core.state import Fleet, Pool
from agentd.core.trial import Sample

# In flight, as a share of what all can work on at a time.
SATURATED_RATIO = 0.9
# Of rounds that say something, so many go by until what is learned is written down.
ROUNDS_PER_WRITE = 30


def observe(fleet: Fleet, pool: Pool, sample: Sample | None, now: float) -> None:
    """A round of `pool` has ended with `sample`."""
    history = pool.history
    before, history.saturated = history.saturated, sample.ready if sample and _saturated(pool, now, fleet) else 0
    if pool.config.guards.diminishing_returns == "off" or sample is None or not sample.throughput:
        return
    if not before or history.saturated != before:
        return
    scalability.note(history.levels, sample.ready, sample.throughput, now)
    pool.law = scalability.fit(history.levels)
    # Not by a level's weight: it fades, and stands still once there is as much of it as counts.
    history.unsaved += 1
    if history.unsaved >= ROUNDS_PER_WRITE or history.levels[sample.ready].weight == 1.0:  # one that is new
        history.unsaved = 0
        fleet.touch_history(pool.name)


def _saturated(pool: Pool, now: float, fleet: Fleet) -> bool:
    fresh_since = now - fleet.config.heartbeat_timeout_s
    in_flight = slots = 0
    for instance in pool.instances.values():
        if instance.state is State.READY and not instance.replaced_by:
            if instance.in_flight is None or instance.beat_at <= fresh_since:
                return False
            in_flight += instance.in_flight
            slots += instance.slots or pool.config.concurrency
    return slots > 0 and in_flight >= SATURATED_RATIO * slots
