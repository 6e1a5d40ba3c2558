"""What a scaling brought, as people are told: frozen nouns. `core.validation` makes them.

Numbers that nobody reported are None. Times in seconds, sizes in bytes, pressures in percent as in `HostSample`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct


class Verdict(StrEnum):
    """What a scaling did to the agents of its pool, at equal demand per ready agent."""

    HELPED = "helped"
    MADE_IT_WORSE = "made_it_worse"
    UNCLEAR = "unclear"  # the reason says why


class Metric(StrEnum):
    """What a comparison compares. More is worse for all of them."""

    RESPONSE_TIME = "response_time_p50"  # mean over the agents; compared as a ratio
    WORK = "work_per_agent"  # tasks begun or queued per ready agent
    LOAD = "load"


class Demand(StrEnum):
    """By what samples are held to be of equal demand."""

    ARRIVALS = "arrivals"  # tasks per second, counted by the agents: done, plus what their work in hand grew by
    WORK = "work"  # tasks begun or queued; where agents do not count what they have done


class Measured(Struct, frozen=True):
    """Means over one window, plainly: demand may have been another in the other window.

    `samples`: how many there are. `throughput_per_agent`: tasks done per second. `queue_length` is of the whole pool.
    """

    samples: int
    ready: float
    demand_per_agent: float | None = None
    load: float | None = None
    response_time_p50_s: float | None = None
    response_time_p95_s: float | None = None
    throughput_per_agent: float | None = None
    queue_length: float | None = None
    cpu_used_cores: float | None = None
    memory_used_bytes: float | None = None
    cpu_pressure_percent: float | None = None
    memory_pressure_percent: float | None = None
    io_pressure_percent: float | None = None


class Comparison(Struct, frozen=True):
    """After against before at equal demand: `change` with its interval `low`..`high`.

    A ratio where `relative` (-0.3: 30 % less), else in the units of `metric`. `before` and `after` count the samples of
    demand that both windows have seen; only these are compared.
    """

    metric: Metric
    demand: Demand
    relative: bool
    change: float
    low: float
    high: float
    before: int
    after: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0.0 or self.high < 0.0


class Effect(Struct, frozen=True):
    """What the scaling of `decision` brought. `wall`: when that scaling was decided.

    `per_agent` compares at equal demand per ready agent and makes the verdict. `whole` compares at equal demand on the
    whole pool: what the same work met before and after. Either is None where it cannot be had.
    """

    decision: str
    pool: str
    wall: float
    verdict: Verdict
    reason: str
    before: Measured | None = None
    after: Measured | None = None
    per_agent: Comparison | None = None
    whole: Comparison | None = None


def restored(value: Mapping[str, Any]) -> Effect:
    """The effect that `msgspec.to_builtins` made `value` of, by way of JSON perhaps."""
    fields = dict(value)
    fields["verdict"] = Verdict(value["verdict"])
    for window in ("before", "after"):
        fields[window] = None if value[window] is None else Measured(**value[window])
    for one in ("per_agent", "whole"):
        fields[one] = None if value[one] is None else _comparison(value[one])
    return Effect(**fields)


def _comparison(value: Mapping[str, Any]) -> Comparison:
    return Comparison(**{**value, "metric": Metric(value["metric"]), "demand": Demand(value["demand"])})
