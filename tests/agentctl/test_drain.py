"""The command drain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentd.v1 import control_pb2 as pb

ELASTIC = "research-9101"


def test_it_asks_and_returns(ctl: Callable[..., Any], daemon: Any) -> None:
    assert ctl("drain", ELASTIC).out == f"draining {ELASTIC}\n"
    (request,) = daemon.fake.requests
    assert (request.name, request.force) == (ELASTIC, False)
    assert request.request_id


def test_with_wait_it_says_how_the_instance_has_ended(ctl: Callable[..., Any], daemon: Any) -> None:
    reason = "alice asked for it; deadline of 120 s passed; 2 tasks in flight and 0 queued were cut"
    daemon.fake.streams = [
        [
            daemon.event(6, type="stop", instance="research-9102", reason="somebody else"),
            daemon.event(7, type="drain", instance=ELASTIC, reason="alice asked for it"),
            daemon.event(8, type="stop", instance=ELASTIC, reason=reason),
        ]
    ]
    assert ctl("drain", ELASTIC, "--wait").out == f"{ELASTIC} has stopped: {reason}\n"


SCENARIO = Path(__file__).parents[1] / "scenarios/deadline_of_a_drain.txt"
OF_AGENTD = next(line.partition(": ")[2].rstrip() for line in SCENARIO.open() if " stop research-9101: " in line)


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (OF_AGENTD, 1),
        ("killed after 10 s of grace; deadline of 15 s passed; 1 task in flight and 0 queued were cut", 1),
        ("alice asked for it; deadline of 15 s passed; what it was doing was cut", 1),
        ("alice asked for it; deadline of 15 s passed; 0 tasks in flight and 10 queued were cut", 1),
        ("alice asked for it; deadline of 15 s passed; 0 tasks in flight and 0 queued were cut", 0),
        ("killed after 10 s of grace", 0),
        ("alice asked for it", 0),
    ],
)
def test_the_exit_code_tells_whether_tasks_were_cut(
    ctl: Callable[..., Any], daemon: Any, reason: str, code: int, output: str
) -> None:
    daemon.fake.streams = [[daemon.event(6, type="stop", instance=ELASTIC, reason=reason)]]
    assert ctl("drain", ELASTIC, "--wait", "-o", output).code == code


def test_as_json_it_is_the_instance_and_its_end(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.streams = [[daemon.event(6, type="stop_forced", instance=ELASTIC, reason="killed")]]
    found = json.loads(ctl("drain", ELASTIC, "--wait", "-o", "json").out)
    assert (found["instance"]["id"], found["instance"]["state"]) == (ELASTIC, "draining")
    assert (found["ended"]["type"], found["ended"]["reason"]) == ("stop_forced", "killed")
    daemon.fake.reset()
    assert json.loads(ctl("drain", ELASTIC, "-o", "json").out)["ended"] is None


def test_waiting_in_vain_is_told_and_the_drain_goes_on(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.streams = [[daemon.event(6, type="endless")]]
    result = ctl("drain", ELASTIC, "--wait", "--timeout", "0.1s")
    text = f"agentctl: the drain of {ELASTIC} is still under way after 0.1 s, and goes on\n"
    assert (result.code, result.err) == (1, text)


def test_nothing_that_happens_before_it_listens_is_missed(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.streams = [[daemon.event(6, type="stop", instance=ELASTIC, reason="done")]]
    ctl("drain", ELASTIC, "--wait")
    newest, asked, _, watched = daemon.fake.requests
    assert [type(one).__name__ for one in (newest, asked, watched)] == [
        "ListEventsRequest",
        "DrainRequest",
        "WatchEventsRequest",
    ]
    assert watched.resume_token == daemon.fake.past[-1].resume_token


def test_one_that_is_gone_at_once_has_its_end_among_the_past_events(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.gone = True
    daemon.fake.past.append(daemon.event(6, type="stop", instance=ELASTIC, reason="done"))
    assert ctl("drain", ELASTIC, "--wait").out == f"{ELASTIC} has stopped: done\n"


def test_when_agentd_stays_away_the_drain_goes_on(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.streams = [[]]
    result = ctl("drain", ELASTIC, "--wait")
    away = "agentctl: agentd is away; going on when it is back\n"
    text = f"{away}agentctl: agentd is not back after 0 s; the drain of {ELASTIC} goes on when it is\n"
    assert (result.code, result.err) == (3, text)


def test_a_core_agent_is_refused_and_forced(ctl: Callable[..., Any], daemon: Any) -> None:
    text = "research-9002 is the core agent researcher"
    daemon.fake.refusals["Drain"] = daemon.refused("CORE_AGENT", text, grpc.StatusCode.FAILED_PRECONDITION)
    result = ctl("drain", "researcher")
    assert (result.code, result.err) == (1, f"agentctl: {text} (CORE_AGENT)\n")
    daemon.fake.refusals.clear()
    assert ctl("drain", "researcher", "--force").out == "draining research-9002\n"
    assert daemon.fake.requests[-1].force


def test_an_end_of_which_no_event_tells_is_said(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.past, daemon.fake.gone = list[pb.Event](), True
    result = ctl("drain", ELASTIC, "--wait")
    assert (result.code, result.err) == (1, f"agentctl: {ELASTIC} is gone, and no event says how\n")


def test_a_timeout_without_a_wait_is_a_mistake(ctl: Callable[..., Any]) -> None:
    result = ctl("drain", ELASTIC, "--timeout", "5s")
    assert result.code == 2
    assert "--timeout is for --wait" in result.err
