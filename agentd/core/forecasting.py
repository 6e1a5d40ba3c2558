"""Forecasts of the pools' tasks: what is told to them, and what follows.

The tasks at work and waiting are noted of every pool whose agents tell them, whatever its triggers, and of each
`workload` and `project` that agents name in their labels. The `adaptive` trigger takes the middle of what is expected
while a start lasts as a floor, where that has paid (`core.shadow` keeps the score): a forecast may raise a pool, and
never lowers one.
"""

from __future__ import annotations

from agentd.core import demand
from agentd.core.forecast import Forecast
from agentd.core.metrics import Totals
from agentd.core.state import EVALUATE_S_MAX, Fleet, Pool

# The labels by whose values the tasks of a pool are told apart; they are summed up at most so often.
LABELS = ("workload", "project")
LABELS_S = 5.0


def note(fleet: Fleet, pool: Pool, sums: Totals, now: float) -> None:
    """Take what the agents of `pool` tell now."""
    found = demand.known(pool, sums)
    if found is None or not found.whole or now < fleet.recovering_until:
        return
    if pool.forecast is None:
        pool.forecast = Forecast(labels_at=now - LABELS_S)
    forecast, wall = pool.forecast, fleet.wall(now)
    ended = forecast.note(wall, found.total)
    if ended or now - forecast.labels_at >= LABELS_S:
        forecast.labels_at = now
        forecast.note_labels(wall, _by_label(pool))
    if ended:
        fleet.touch_forecast(pool.name)


def floor(fleet: Fleet, pool: Pool, start_s: float, now: float) -> float:
    """The most tasks that are expected before what is started at the next look has started; 0: unknown."""
    if pool.forecast is None:
        return 0.0
    return pool.forecast.floor(fleet.wall(now), start_s + EVALUATE_S_MAX)


def _by_label(pool: Pool) -> dict[str, int]:
    tasks: dict[str, int] = {}
    for instance in pool.instances.values():
        for label in LABELS:
            if label in instance.labels and instance.work is not None:
                name = f"{label}={instance.labels[label]}"
                tasks[name] = tasks.get(name, 0) + instance.work
    return tasks
