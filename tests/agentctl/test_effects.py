"""What `agentctl explain` tells of scalings and starts."""

from __future__ import annotations

from agentd.agentctl.effects import comparison_text, effect_lines, starts_text
from agentd.agentctl.explain import explain_lines
from agentd.agentctl.values import as_value
from agentd.v1 import control_pb2 as pb

WALL = 1_700_000_000.0


def change(**values: object) -> pb.Comparison:
    made = {"metric": "response_time_p50", "demand": "arrivals", "relative": True, "change": -0.31, "low": -0.42,
            "high": -0.18, "before": 30, "after": 22} | values  # fmt: skip
    return pb.Comparison(**made)


def effect() -> pb.Effect:
    return pb.Effect(
        decision="7-4",
        wall=WALL,
        verdict="made_it_worse",
        reason="response time +44 % (+20 % to +70 %) at equal demand per agent",
        before=pb.Measured(
            samples=41, ready=3.0, demand_per_agent=0.9, load=0.88, response_time_p50_s=2.5, response_time_p95_s=4.0,
            throughput_per_agent=0.85, queue_length=12.0, cpu_used_cores=3.2, memory_used_bytes=5.5 * 2**30,
            memory_pressure_percent=0.4,
        ),
        after=pb.Measured(samples=24, ready=4.0),
        per_agent=change(change=0.44, low=0.2, high=0.7),
        whole=change(),
    )  # fmt: skip


def flat(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def test_an_effect_in_words() -> None:
    text = flat(effect_lines(effect(), 100))
    for fact in (
        "made it worse: response time +44 % (+20 % to +70 %) at equal demand per agent",
        "whole pool: response time -31 % (-42 % to -18 %) at equal demand on all of it",
        "before: 3.0 ready over 41 samples; 0.90 tasks/s arrive per agent; 0.85 tasks/s done per agent; load 0.88; "
        "response time p50 2.5s, p95 4.0s; 12.0 tasks wait; host: 3.2 cores, 5.5 GiB, memory pressure 0 %",
        "after: 4.0 ready over 24 samples",
    ):
        assert fact in text
    assert text.endswith("24 samples"), "what nobody reported is not shown as nothing"


def test_an_unclear_effect_without_windows_is_its_reason() -> None:
    unclear = pb.Effect(verdict="unclear", reason="agentd was restarted meanwhile")
    assert effect_lines(unclear, 100) == ["      unclear: agentd was restarted meanwhile"]


def test_a_change_that_is_no_ratio_has_the_unit_of_its_metric() -> None:
    text = comparison_text(change(metric="work_per_agent", relative=False, change=1.5, low=-0.25, high=3.0))
    assert text == "tasks in hand per agent +1.50 (-0.25 to +3.00)"


def test_starts_in_words() -> None:
    def starts(**values: float) -> str:
        return starts_text(pb.Pool(start_times=pb.StartTimes(**values)))  # type: ignore[arg-type]

    assert starts() == ""
    assert starts(failed=2) == "2 starts failed"
    took = "ready 1.2s after the start request (p50; p95 4.0s), of the last 12 starts"
    assert starts(p50_s=1.2, p95_s=4.0, counted=12) == took
    assert starts(p50_s=1.2, p95_s=4.0, counted=12, failed=1) == f"{took}; 1 start failed"


def test_explain_shows_each_effect_below_its_decision_and_what_is_being_measured() -> None:
    pool = pb.Pool(name="research", measuring="7-5", start_times=pb.StartTimes(p50_s=1.2, p95_s=4.0, counted=1))
    decisions = [pb.Decision(id="7-5", wall=WALL), pb.Decision(id="7-4", wall=WALL, granted=4, effect=effect())]
    lines = explain_lines(pb.ExplainResponse(pool=pool, decisions=decisions), pb.Status(enabled=True), now=WALL)
    at = next(n for n, line in enumerate(lines) if "[7-4]" in line)
    assert lines[at + 1].strip().startswith("made it worse:")
    assert "[7-5]" in lines[at - 1]
    assert lines[-1].strip() == "what 7-5 brings is being measured"
    assert "ready 1.2s after the start request" in flat(lines)


def test_the_effect_in_json_has_every_field_and_null_for_what_is_unknown() -> None:
    value = as_value(pb.Decision(effect=effect()))["effect"]
    assert (value["verdict"], value["per_agent"]["low"], value["whole"]["after"]) == ("made_it_worse", 0.2, 22)
    assert (value["after"]["load"], value["before"]["load"]) == (None, 0.88)
    assert as_value(pb.Decision())["effect"] is None
    assert as_value(pb.Pool())["start_times"] is None
