"""`agentctl forecast` draws what came and what is expected, and says how right that was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentd.agentctl.forecast import forecast_lines
from agentd.v1 import control_pb2 as pb

Ctl = Callable[..., Any]
NOON = 1_699_963_200.0  # 2023-11-14T12:00:00Z


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def answer(label: str = "") -> pb.GetForecastResponse:
    """At 12:20: two hours with 4 and 8 tasks at most are over, 10 to 14 are expected in the next two."""
    slots = [pb.ForecastSlot(wall=NOON - 7200.0 + n * 300.0, came=4.0 if n < 12 else 8.0) for n in range(24)]
    slots += [pb.ForecastSlot(wall=NOON + n * 300.0, came=2.0) for n in range(4)]
    slots.append(pb.ForecastSlot(wall=NOON + 1200.0, came=3.0, low=6.0, middle=8.0, high=10.0))
    slots += [pb.ForecastSlot(wall=NOON + n * 300.0, low=10.0, middle=12.0, high=16.0) for n in range(5, 24)]
    skills = [
        pb.ForecastSkill(ahead_s=600.0, off_by=1.25, naive_off_by=3.0, at_or_below=[0.09, 0.5, 0.9], scored=500),
        pb.ForecastSkill(ahead_s=3600.0, off_by=1.5, at_or_below=[0.1, 0.5, 0.9], scored=40),
        pb.ForecastSkill(ahead_s=86400.0),
    ]
    return pb.GetForecastResponse(
        pool="research", label=label, labels=["workload=chat", "workload=mail"], heeded=True,
        reason=pb.Reason(code="forecast_pays", text="of the last week it would save 3.0 %"), seen_s=86400.0,
        needed_s=86400.0, slots=slots, skills=skills, wall=NOON + 1260.0,
    )  # fmt: skip


def test_it_draws_what_came_what_is_expected_and_the_error(ctl: Ctl, daemon: Any) -> None:
    daemon.fake.forecast = answer()
    result = ctl("forecast", "research")
    assert result.code == 0
    (request,) = daemon.fake.requests
    assert request == pb.GetForecastRequest(pool="research")
    lines = result.out.splitlines()
    assert lines[:3] == [
        "research",
        "  forecast heeded: of the last week it would save 3.0 %",
        "  labels with a forecast of their own: workload=chat, workload=mail",
    ]
    assert lines[5] == "in numbers: what came, of the 10, 50 and 90 % quantiles of what is expected"
    assert lines[6] == "  Tue 14 Nov"
    hours = lines[7:11]
    assert [line[:7] for line in hours] == ["  10:00", "  11:00", "> 12:00", "  13:00"]
    assert [line.split()[-3:] for line in hours[2:]] == [["10", "12", "16"]] * 2
    assert hours[2].endswith("3 of 10 12 16") and hours[0].endswith(" 4")
    assert lines[-4:-1] == [
        "10m          1.2        3.0    81 %",
        "1h           1.5          -    80 %",
        "1d       nothing to compare with yet",
    ]


def test_bars_are_in_proportion() -> None:
    lines = forecast_lines(answer(), 24, 74, fancy=False)
    bars = {line[2:7]: line[8:48] for line in lines if line[4:5] == ":" or line[2:4].isdigit()}
    assert bars["10:00"].count("#") == 10 and bars["11:00"].count("#") == 20
    assert (bars["13:00"].index("|"), bars["13:00"].count("="), len(bars["13:00"].rstrip())) == (30, 25, 40)


def test_hours_of_which_nothing_is_known_are_not_drawn_around_the_others() -> None:
    found = answer()
    for slot in found.slots[:12]:
        slot.ClearField("came")
    for slot in found.slots[36:]:
        slot.ClearField("low")
        slot.ClearField("middle")
        slot.ClearField("high")
    lines = forecast_lines(found, 24, 80)
    assert [line[2:7] for line in lines if line[4:5] == ":"] == ["11:00", "12:00"]


def test_fewer_hours_and_one_label(ctl: Ctl, daemon: Any) -> None:
    daemon.fake.forecast = answer("workload=chat")
    result = ctl("forecast", "research", "--label", "workload=chat", "--hours", "1")
    (request,) = daemon.fake.requests
    assert request == pb.GetForecastRequest(pool="research", label="workload=chat")
    assert result.out.startswith("research, workload=chat\n")
    assert "10:00" not in result.out and "labels with" not in result.out


def test_json_has_every_slot(ctl: Ctl, daemon: Any) -> None:
    daemon.fake.forecast = answer()
    value = json.loads(ctl("forecast", "research", "--json").out)
    assert len(value["slots"]) == 48 and value["slots"][0] == {
        "wall": NOON - 7200.0, "came": 4.0, "low": None, "middle": None, "high": None,
    }  # fmt: skip
    assert value["reason"]["code"] == "forecast_pays"


def test_nothing_is_drawn_of_nothing(ctl: Ctl) -> None:
    result = ctl("forecast", "research")
    assert result.code == 0 and "nothing is known yet" in result.out


@pytest.mark.parametrize("hours", ["0", "25", "x"])
def test_hours_have_bounds(ctl: Ctl, hours: str) -> None:
    assert ctl("forecast", "research", "--hours", hours).code == 2
