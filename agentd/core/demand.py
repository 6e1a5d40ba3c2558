"""What is known of the tasks of a pool at the moment: at work, and waiting."""

from __future__ import annotations

from msgspec import Struct

from agentd.core.metrics import Totals
from agentd.core.rules import QUEUE
from agentd.core.state import Pool

# Where nobody tells what waits, so busy agents are full, and there may be more.
FULL_RATIO = 0.85


class Demand(Struct, frozen=True):
    """Tasks at work and waiting, by what is known; `sure`: nothing is missing that could be more.

    `whole`: it can be compared with what was known before, for nothing is missing that was there. `waits_show`: were
    there tasks that wait, somebody would tell; where a load is all that is told, `at_work` makes up for it already.
    """

    at_work: float
    waiting: float
    sure: bool
    whole: bool = True
    waits_show: bool = True

    @property
    def total(self) -> float:
        return self.at_work + self.waiting


def known(pool: Pool, sums: Totals) -> Demand | None:
    """What is known of the tasks of `pool`; None: nothing."""
    if sums.demand is not None:
        if sums.at_work is not None:
            waiting = max(0.0, sums.demand - sums.in_flight)
            return Demand(sums.at_work, waiting, True, waits_show=waiting > 0.0 or _waits_show(pool))
        # Nobody tells whether agents are busy: they are while something waits, and may be when nothing does.
        return Demand(float(sums.ready * pool.config.concurrency) if sums.demand else 0.0, sums.demand, False)
    if sums.told:
        return Demand(sums.at_work or 0.0, float(sums.queue_length), False, whole=False)
    if sums.at_work is not None:
        readable = not pool.config.collector(QUEUE)
        return Demand(sums.at_work / FULL_RATIO, 0.0, sure=readable, whole=readable)
    return None


def _waits_show(pool: Pool) -> bool:
    """Whether somebody reads the queue, or a task that waits has been told of before."""
    return pool.config.collector(QUEUE) is not None or (pool.adaptive is not None and pool.adaptive.flow.waited)
