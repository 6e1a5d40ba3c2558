"""What the `adaptive` trigger has learned of one pool, and its form in the store."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict, astuple

from agentd.core.experts import EXPERTS
from agentd.core.flow import Flow
from agentd.core.shadow import Shadow, Shadows, Trial


class Learned(Struct):
    """`peaks`: the recent peak of demand as each expert remembers it, as of `flow.at`.

    `forecast`: the tasks that are expected at this time of the day and week; 0: unknown.
    """

    flow: Flow = field(default_factory=Flow)
    shadows: Shadows | None = None
    peaks: list[float] = field(default_factory=lambda: [0.0] * len(EXPERTS))
    saved_at: float = 0.0
    forecast: float = 0.0


def row(learned: Learned) -> dict[str, Any]:
    """Its form in the store."""
    shadows = learned.shadows
    return {
        "flow": asdict(learned.flow),
        "peaks": {expert.name: peak for expert, peak in zip(EXPERTS, learned.peaks, strict=True)},
        "saved_at": learned.saved_at,
        "forecast": learned.forecast,
        "shadows": None
        if shadows is None
        else {
            **{name: getattr(shadows, name) for name in ("since", "lived_at", "hours_s", "tasks")},
            "leader": EXPERTS[shadows.leader].name,
            "fleets": {expert.name: astuple(fleet) for expert, fleet in zip(EXPERTS, shadows.fleets, strict=True)},
            "trial": None if shadows.trial is None else _trial_row(shadows.trial),
        },
    }


def _trial_row(trial: Trial) -> tuple[object, ...]:
    return astuple(trial.with_it), astuple(trial.without), trial.lived_s, trial.heeded


def load(value: dict[str, Any], shift: float) -> Learned:
    """What `row` gave, with its times moved by `shift`.

    Of an expert that it does not know nobody has seen what he would have cost: he begins with what the leader has. A
    leader that is no more leaves nothing to compare with: all shadows begin anew.
    """
    flow = Flow(**value["flow"])
    flow.began += shift
    flow.at += shift
    flow.debt_at += shift if flow.debt_at else 0.0
    flow.marks = [(at + shift, count) for at, count in flow.marks]
    flow.fresh = [(at + shift, count) for at, count in flow.fresh]
    learned = Learned(flow, saved_at=value["saved_at"] + shift, forecast=value.get("forecast", 0.0))
    if isinstance(value["peaks"], dict):
        learned.peaks = [value["peaks"].get(expert.name, 0.0) for expert in EXPERTS]
    saved = value["shadows"]
    names = [expert.name for expert in EXPERTS]
    if saved is not None and saved["leader"] in names:
        trial = None
        if saved.get("trial") is not None:
            with_it, without, lived_s, heeded = saved["trial"]
            trial = Trial(_shadow(with_it, shift), _shadow(without, shift), lived_s, heeded)
        fleets = saved["fleets"]
        learned.shadows = Shadows(
            [_shadow(fleets.get(name, fleets[saved["leader"]]), shift) for name in names], names.index(saved["leader"]),
            saved["since"] + shift, saved["lived_at"] + shift, saved["hours_s"], saved["tasks"], trial,
        )  # fmt: skip
    return learned


def _shadow(saved: list[Any], shift: float) -> Shadow:
    count, ready, demand, peak, coming, *others = saved
    return Shadow(count, ready, demand, peak, [(at + shift, number) for at, number in coming], *others)
