"""Forecasts of the pools' tasks: what is told to them, and what follows.

The tasks at work and waiting are noted of every pool whose agents tell them, whatever its triggers, and of each
`workload` and `project` that agents name in their labels. The `adaptive` trigger takes the middle of what is expected
while a start lasts as a floor, where that has paid (`core.shadow` keeps the score): a forecast may raise a pool, and
never lowers one.
"""

from __future__ import annotations

from msgspec import Struct

from agentd.core import demand
from agentd.core.forecast import ALL, SEEN_SLOTS, Forecast
from agentd.core.learned import Learned
from agentd.core.messages import Refusal
from agentd.core.metrics import Totals
from agentd.core.model import PoolName
from agentd.core.rules import AUTO, AdaptiveTrigger
from agentd.core.season import DAY_SLOTS, LEADS, SLOT_S
from agentd.core.shadow import FORECAST_BETTER_RATIO, FORECAST_TRIAL_S, Trial
from agentd.core.state import EVALUATE_S_MAX, Fleet, Pool
from agentd.core.views import ForecastAhead, ForecastSkill, ForecastSlot, ForecastSummary, ForecastView

# The labels by whose values the tasks of a pool are told apart; they are summed up at most so often.
LABELS = ("workload", "project")
LABELS_S = 5.0


class Standing(Struct, frozen=True):
    """Whether a pool heeds its forecast, and why. `may_be`: it has a trigger that could."""

    heeded: bool
    code: str
    text: str
    may_be: bool = True


def note(fleet: Fleet, pool: Pool, sums: Totals, now: float) -> None:
    """Take what the agents of `pool` tell now."""
    found = demand.known(pool, sums)
    if found is None or not found.whole or now < fleet.recovering_until:
        return
    if pool.forecast is None:
        pool.forecast = Forecast(labels_at=now - LABELS_S)
        fleet.touch_forecast(pool.name)
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


def heeds(trigger: AdaptiveTrigger, learned: Learned | None) -> bool:
    """Whether the forecast may raise the pool now."""
    if trigger.forecast != AUTO:
        return trigger.forecast == "on"
    trial = _trial(learned)
    return trial is not None and trial.heeded


def heeded(pool: Pool) -> bool | None:
    """Whether `pool` heeds its forecast; None: it has no trigger that could. `standing` says why."""
    trigger = _trigger(pool)
    if trigger is None:
        return None
    return pool.forecast is not None and pool.forecast.ready and heeds(trigger, pool.adaptive)


def standing(pool: Pool) -> Standing:
    """Whether `pool` heeds its forecast, and why."""
    trigger = _trigger(pool)
    if trigger is None:
        text = "it is only shown: the pool has no adaptive trigger, which alone heeds one"
        return Standing(False, "forecast_unused", text, may_be=False)
    if trigger.forecast == "off":
        return Standing(False, "forecast_off", "forecast: off in the configuration")
    if pool.forecast is None or not pool.forecast.ready:
        seen_h = (pool.forecast.seen if pool.forecast else 0) * SLOT_S / 3600.0
        text = f"a day has to be seen first, so far {seen_h:.1f} h"
        return Standing(False, "forecast_learning", text)
    if trigger.forecast == "on":
        return Standing(True, "forecast_on", "forecast: on in the configuration")
    trial = _trial(pool.adaptive)
    if trial is None:
        return Standing(False, "forecast_in_shadow", "it has to run in shadow for a day first")
    saved = 100.0 * trial.saved_ratio
    would = f"save {saved:.1f} %" if saved >= 0.0 else f"cost {-saved:.1f} % more"
    if trial.lived_s < FORECAST_TRIAL_S:
        text = f"it runs in shadow for a day first, so far {trial.lived_s / 3600.0:.1f} h, in which it would {would}"
        return Standing(False, "forecast_in_shadow", text)
    if trial.heeded:
        return Standing(True, "forecast_pays", f"of the last week it would {would}")
    text = f"of the last week it would {would}, and is heeded from {100.0 * FORECAST_BETTER_RATIO:g} % saved on"
    return Standing(False, "forecast_costs", text)


def show(fleet: Fleet, name: PoolName, label: str, now: float) -> ForecastView | Refusal:
    """What came in the last day and what is expected of the next one. Changes nothing.

    `label`: of the tasks of agents with that label (`workload=chat`) alone; empty: of the pool.
    """
    if name not in fleet.config.pools:
        known = ", ".join(fleet.config.pools)
        return Refusal("UNKNOWN_POOL", f"no pool {name!r} (there are {known})", "NOT_FOUND")
    pool = fleet.pools[name]
    forecast = pool.forecast or Forecast()
    labels = tuple(sorted(series for series in forecast.series if series != ALL))
    if label not in forecast.series:
        known = f"there are {', '.join(labels)}" if labels else f"its agents name no {' or '.join(LABELS)}"
        return Refusal("UNKNOWN_LABEL", f"no tasks of {label!r} were seen in pool {name} ({known})", "NOT_FOUND")
    series, slots = forecast.series[label], []
    if series.slot is not None:
        for slot in range(series.slot - DAY_SLOTS, series.slot + DAY_SLOTS):
            came = series.at(slot) if slot < series.slot else series.peak if slot == series.slot else None
            expected = series.forecast(slot) if slot >= series.slot else None
            slots.append(ForecastSlot(slot * SLOT_S, came, expected))
    skills = tuple(
        ForecastSkill(lead * SLOT_S, skill.off_by, skill.naive_off_by, tuple(skill.at_or_below), skill.scored)
        for lead, skill in zip(LEADS, series.skills, strict=True)
    )
    stands = standing(pool)
    return ForecastView(
        name, label, labels, stands.heeded, stands.code, stands.text, forecast.seen * SLOT_S, SEEN_SLOTS * SLOT_S,
        tuple(slots), skills, fleet.wall(now),
    )  # fmt: skip


def summary(fleet: Fleet, pool: Pool, now: float) -> ForecastSummary | None:
    """What is expected at each lead; None: nothing can be said yet. Changes nothing that is saved."""
    if pool.forecast is None:
        return None
    ahead = tuple(ForecastAhead(lead * SLOT_S, expected) for lead, expected in pool.forecast.ahead(fleet.wall(now)))
    stands = standing(pool)
    return ForecastSummary(stands.heeded, stands.code, stands.text, ahead) if ahead else None


def _trigger(pool: Pool) -> AdaptiveTrigger | None:
    for trigger in pool.config.triggers:  # asked for in every evaluation
        if isinstance(trigger, AdaptiveTrigger):
            return trigger
    return None


def _trial(learned: Learned | None) -> Trial | None:
    return learned.shadows.trial if learned and learned.shadows else None


def _by_label(pool: Pool) -> dict[str, int]:
    tasks: dict[str, int] = {}
    for instance in pool.instances.values():
        for label in LABELS:
            if label in instance.labels and instance.work is not None:
                name = f"{label}={instance.labels[label]}"
                tasks[name] = tasks.get(name, 0) + instance.work
    return tasks
