"""`agentctl plan` shows what a check would do; `explain --at` what was decided and why, in numbers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from agentd.agentctl import when
from agentd.agentctl.explain import explain_at_lines
from agentd.agentctl.explain_words import chain_text, change_text
from agentd.v1 import control_pb2 as pb

Ctl = Callable[..., Any]
WALL = 1_700_000_000.0


def test_plan_tells_what_would_be_done_and_what_would_change_it(ctl: Ctl) -> None:
    result = ctl("plan")
    assert result.code == 0
    assert result.out.splitlines() == [
        "research: 2 -> 4, wants 7",
        "  21 tasks in flight or waiting",
        "  chain: wanted 7 -> its maximum 5 -> memory headroom 4; granted 4",
        "  limit: max_agents: its maximum is 5",
        "  limit: host_memory: memory: 12 MiB more needed",
        "  would start: research-9103",
        "  would take back: research-9104",
        "  would change: would go to 7 without max_agents, host_memory",
    ]


def test_plan_asks_for_one_pool_and_as_json(ctl: Ctl, daemon: Any) -> None:
    result = ctl("plan", "--pool", "research", "--json")
    assert result.code == 0
    (request,) = daemon.fake.requests
    assert request == pb.PlanRequest(pool="research")
    (plan,) = json.loads(result.out)["plans"]
    assert plan["starts"] == [{"id": "research-9103", "port": 9103}]
    assert plan["decision"]["binding"] == "host_memory"
    assert plan["decision"]["chain"][1] == {"code": "max_agents", "count": 5}


def test_json_is_the_same_as_output_json(ctl: Ctl) -> None:
    assert ctl("status", "--json").out == ctl("status", "--output", "json").out


def test_explain_at_shows_what_was_in_force_then_and_what_followed(ctl: Ctl, daemon: Any) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(WALL - 3))
    result = ctl("explain", "research", "--at", moment, "--limit", "5")
    assert result.code == 0
    assert any(
        isinstance(request, pb.ExplainRequest) and request.at_wall == WALL - 3 and request.history == 5
        for request in daemon.fake.requests
    )
    lines = result.out.splitlines()
    assert lines[0].startswith("research at ") and lines[0].endswith("[d-3]")
    then = lines.index("THEN")
    assert "[d-99]" in " ".join(lines[then + 1 : lines.index("BEFORE")])
    assert "[d-4]" in " ".join(lines[lines.index("BEFORE") :])


def test_what_was_done_then_is_told_as_done_and_what_it_brought_by_itself() -> None:
    made = pb.Decision(id="d-3", current=3, wanted=2, granted=2, victims=["research-9103"])
    made.effect.verdict = "helped"
    answer = pb.ExplainResponse(pool=pb.Pool(name="research"), decisions=[made])
    lines = explain_at_lines(answer, WALL, now=WALL)
    assert "  retired: research-9103" in lines
    assert "helped" in lines[lines.index("EFFECT") + 1]


def test_before_the_first_decision_there_was_none(ctl: Ctl) -> None:
    result = ctl("explain", "research", "--at", "2001-01-31T12:03")
    assert result.code == 0 and "no decision until then is known" in result.out.splitlines()[0]


@pytest.mark.parametrize("text", ["12:60", "tomorrow", "", "25:00", "2026-13-01", "10x"])
def test_what_is_no_time_gets_one_clear_line(ctl: Ctl, text: str) -> None:
    result = ctl("explain", "research", "--at", text)
    assert result.code == 2 and "is no time; write a time of today (12:03:10)" in result.err


def test_a_time_to_come_is_refused(ctl: Ctl) -> None:
    result = ctl("explain", "research", "--at", "2999-01-01T00:00")
    assert result.code == 2 and "has not come yet" in result.err


def test_an_instance_has_no_decision_of_a_moment(ctl: Ctl) -> None:
    result = ctl("explain", "research-9101", "--at", "10m")
    assert result.code == 2 and "--at is for pools" in result.err


def test_times_are_read_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = time.mktime((2026, 1, 31, 12, 10, 30, 0, 0, -1))
    monkeypatch.setattr(when.time, "time", lambda: noon)

    def read(text: str) -> Any:
        return when.Moment().convert(text, None, None)

    assert read("10m") == noon - 600.0
    assert read("1h30m") == noon - 5400.0
    assert read("12:03:10") == pytest.approx(noon - 7 * 60 - 20, abs=1.0)
    assert read("12:10:30") == noon  # and not half a second later
    assert read("12:03") == pytest.approx(noon - 7 * 60 - 30, abs=1.0)
    assert read("2026-01-31T12:10:00") == noon - 30.0


def test_a_limit_that_lifts_by_itself_names_the_time_of_day(daemon: Any) -> None:
    made = daemon.fake.plans[0].decision
    assert change_text(made, now=WALL) == "would go to 7 without max_agents, host_memory"
    del made.limits[:]
    made.limits.append(pb.Limit(code="up_cooldown", text="40 s left", until_wall=WALL + 40.0))
    made.counterfactual = "would go to 4 if load stays above 0.75 for 40 s more; blocked by up_cooldown"
    at = time.strftime("%H:%M:%S", time.localtime(WALL + 40.0))
    assert change_text(made, now=WALL) == f"{made.counterfactual} until {at}"
    made.counterfactual = "would go to 4 in 40 s if nothing changes; blocked by up_cooldown, up_rate; the target holds"
    assert f"blocked by up_cooldown, up_rate until {at}; the target holds" in change_text(made, now=WALL)


def test_without_a_limit_there_is_no_chain_to_tell() -> None:
    made = pb.Decision(wanted=3, granted=3, chain=[pb.Link(code="wanted", count=3), pb.Link(code="granted", count=3)])
    assert chain_text(made) == ""


def test_status_says_in_one_line_what_limits_a_pool(ctl: Ctl, daemon: Any) -> None:
    assert "ScalingLimited" not in ctl("status").out
    daemon.fake.status.pools[0].conditions.append(
        pb.Condition(type="ScalingLimited", status=True, reason="max_agents", text="", since_wall=WALL)
    )
    assert ctl("status").out.count("ScalingLimited since") == 1
