"""What the `adaptive` trigger has learned of one pool, and its form in the store."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from agentd.core.experts import EXPERTS
from agentd.core.flow import Flow
from agentd.core.shadow import Shadow, Shadows


@dataclass(slots=True)
class Learned:
    """`peaks`: the recent peak of demand as each expert remembers it, as of `flow.at`."""

    flow: Flow = field(default_factory=Flow)
    shadows: Shadows | None = None
    peaks: list[float] = field(default_factory=lambda: [0.0] * len(EXPERTS))
    saved_at: float = 0.0


def row(learned: Learned) -> dict[str, Any]:
    """Its form in the store."""
    shadows = learned.shadows
    return {
        "flow": asdict(learned.flow),
        "peaks": learned.peaks,
        "saved_at": learned.saved_at,
        "shadows": None
        if shadows is None
        else {
            **{name: getattr(shadows, name) for name in ("since", "lived_at", "hours_s", "tasks")},
            "leader": EXPERTS[shadows.leader].name,
            "fleets": {expert.name: astuple(fleet) for expert, fleet in zip(EXPERTS, shadows.fleets, strict=True)},
        },
    }


def load(value: dict[str, Any], shift: float) -> Learned:
    """What `row` gave, with its times moved by `shift`. Experts that it does not know begin anew."""
    flow = Flow(**value["flow"])
    flow.began += shift
    flow.at += shift
    flow.debt_at += shift if flow.debt_at else 0.0
    flow.marks = [(at + shift, count) for at, count in flow.marks]
    learned = Learned(flow, saved_at=value["saved_at"] + shift)
    if len(value["peaks"]) == len(EXPERTS):
        learned.peaks = list(value["peaks"])
    saved = value["shadows"]
    names = [expert.name for expert in EXPERTS]
    if saved is not None and list(saved["fleets"]) == names:
        fleets = []
        for fields in saved["fleets"].values():
            count, ready, demand, peak, coming, paid, held_s = fields
            fleets.append(Shadow(count, ready, demand, peak, [(at + shift, n) for at, n in coming], paid, held_s))
        learned.shadows = Shadows(
            fleets, names.index(saved["leader"]), saved["since"] + shift, saved["lived_at"] + shift,
            saved["hours_s"], saved["tasks"],
        )  # fmt: skip
    return learned
