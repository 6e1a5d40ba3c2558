"""What a scaling brought and how long starts take, as protobuf."""

from __future__ import annotations

from agentd.core.effects import Comparison, Demand, Effect, Measured, Metric, Verdict
from agentd.core.model import Decision, PoolName
from agentd.rpc import convert_decisions

MADE = Effect(
    decision="7-4",
    pool="research",
    wall=5.0,
    verdict=Verdict.MADE_IT_WORSE,
    reason="why",
    before=Measured(samples=41, ready=3.0, load=0.5, memory_used_bytes=1e9),
    per_agent=Comparison(Metric.WORK, Demand.ARRIVALS, False, 1.5, 0.5, 2.5, 30, 22),
)


def decision(effect: Effect | None) -> Decision:
    return Decision(
        id="7-4", pool=PoolName("research"), at=1.0, wall=2.0, current=3, wanted=4, granted=4, reasons=(), effect=effect
    )


def test_an_effect_says_what_is_known_and_leaves_out_the_rest() -> None:
    shown = convert_decisions.decision(decision(MADE), now=9.0).effect
    assert (shown.decision, shown.wall, shown.verdict, shown.reason) == ("7-4", 5.0, "made_it_worse", "why")
    assert (shown.before.samples, shown.before.load, shown.before.memory_used_bytes) == (41, 0.5, 1e9)
    assert not shown.before.HasField("queue_length")
    assert not shown.HasField("after")
    assert not shown.HasField("whole")
    one = shown.per_agent
    assert (one.metric, one.demand, one.relative) == ("work_per_agent", "arrivals", False)
    assert (one.change, one.low, one.high, one.before, one.after) == (1.5, 0.5, 2.5, 30, 22)


def test_a_decision_that_was_not_judged_has_none() -> None:
    assert not convert_decisions.decision(decision(None), now=9.0).HasField("effect")
