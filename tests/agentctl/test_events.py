"""events: the past, the present, and nothing twice or lost in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from agentd.agentctl import following
from agentd.core.messages import EventType
from agentd.v1 import control_pb2 as pb


def tokens(text: str) -> list[str]:
    return [json.loads(line)["resume_token"] for line in text.splitlines()]


def test_the_past_is_shown_oldest_first(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.past.append(daemon.event(6, type="autoscaling", instance="", pool="", actor="bob", reason="off"))
    lines = ctl("events", "-n", "3").out.splitlines()
    assert [line.split()[2:4] for line in lines] == [
        ["scale_up", "research-9104"],
        ["scale_up", "research-9105"],
        ["autoscaling", "agentd"],
    ]
    assert lines[-1].endswith("off (by bob)")


def test_events_as_json_are_a_list(ctl: Callable[..., Any]) -> None:
    value = json.loads(ctl("events", "-n", "2", "-o", "json").out)
    assert [one["resume_token"] for one in value] == ["t4", "t5"]
    assert value[0] == {
        "resume_token": "t4",
        "wall": 1_700_000_004.0,
        "type": "scale_up",
        "pool": "research",
        "instance": "research-9104",
        "reason": "High load: 0.88 > 0.75",
        "decision": "d-4",
        "actor": "",
    }


def test_no_events_are_an_empty_list_and_no_text(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.past = []
    assert ctl("events").out == ""
    assert json.loads(ctl("events", "-o", "json").out) == []


def test_filters_go_to_agentd_and_names_become_ids(ctl: Callable[..., Any], daemon: Any) -> None:
    ctl("events", "--pool", "research", "--instance", "researcher", "--type", "exit", "--type", "ready")
    request = next(one for one in daemon.fake.requests if isinstance(one, pb.ListEventsRequest))
    assert (request.pool, request.instance, list(request.types)) == ("research", "research-9002", ["exit", "ready"])


def test_following_shows_each_event_once(ctl: Callable[..., Any], daemon: Any) -> None:
    """An event between the token and the list of the past comes twice from agentd."""
    event = daemon.event
    daemon.fake.streams = [[event(5), event(6), event(7)]]
    result = ctl("events", "-f", "-n", "2", "-o", "json")
    assert tokens(result.out) == ["t4", "t5", "t6", "t7"]
    assert daemon.fake.requests[-1].resume_token == "t5"


def test_following_filters_what_comes(ctl: Callable[..., Any], daemon: Any) -> None:
    event = daemon.event
    daemon.fake.streams = [[event(6, type="late"), event(7, instance="research-9101"), event(8)]]
    result = ctl("events", "-f", "-n", "0", "--type", "scale_up", "--instance", "research-9108", "-o", "json")
    assert tokens(result.out) == ["t8"]


def test_an_agentd_that_stays_away_ends_it(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.streams = [[]]
    result = ctl("events", "-f")
    assert (result.code, result.err.splitlines()[-1]) == (3, "agentctl: agentd is not back after 0 s")


@pytest.mark.usefixtures("own_time")
def test_events_go_on_when_agentd_is_back_and_none_is_missed(
    ctl: Callable[..., Any], daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "AWAY_MAX_S", 0.1)
    monkeypatch.setattr(following, "RETRY_S", 0.06)
    killed = daemon.refused("", "Socket closed", grpc.StatusCode.CANCELLED)
    daemon.fake.streams = [[daemon.event(6), killed], [daemon.event(7)]]
    assert tokens(ctl("events", "-f", "-n", "0", "-o", "json").out) == ["t6", "t7"]
    asked = [one.resume_token for one in daemon.fake.requests if hasattr(one, "resume_token")]
    assert asked[:3] == ["t5", "t6", "t7"]


def test_lost_events_are_told_and_following_goes_on(ctl: Callable[..., Any], daemon: Any) -> None:
    expired = daemon.refused("TOKEN_EXPIRED", "the oldest is t90", grpc.StatusCode.OUT_OF_RANGE)
    daemon.fake.streams = [[daemon.event(6), expired], [daemon.event(99)]]
    result = ctl("events", "-f", "-n", "0", "-o", "json")
    assert tokens(result.out) == ["t6", "t99"]
    assert result.err.startswith("agentctl: some events were lost (the oldest is t90)\n")
    assert daemon.fake.requests[-1].resume_token == ""


def test_a_refusal_that_repeats_ends_it(ctl: Callable[..., Any], daemon: Any) -> None:
    expired = daemon.refused("TOKEN_EXPIRED", "too slow", grpc.StatusCode.OUT_OF_RANGE)
    daemon.fake.streams = [[expired], [expired], [expired]]
    result = ctl("events", "-f", "-n", "0")
    assert result.code == 1
    assert len(daemon.fake.streams) == 1


def test_the_columns_hold_the_longest_type(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.past = [daemon.event(n, type=kind.value) for n, kind in enumerate(EventType)]
    lines = ctl("events", "-n", "100").out.splitlines()
    assert len(lines) == len(EventType)
    assert len({line.index("research-9") for line in lines}) == 1


@pytest.mark.parametrize("options", [(), ("-f",), ("-n", "0"), ("-o", "json")])
def test_a_pool_that_never_was_is_refused(ctl: Callable[..., Any], daemon: Any, options: tuple[str, ...]) -> None:
    text = "no pool 'bogus' (there are research)"
    daemon.fake.refusals["ListInstances"] = daemon.refused("UNKNOWN_POOL", text, grpc.StatusCode.NOT_FOUND)
    result = ctl("events", "--pool", "bogus", *options)
    assert (result.code, result.out, result.err) == (1, "", f"agentctl: {text} (UNKNOWN_POOL)\n")


def test_a_pool_that_is_gone_or_quiet_is_no_mistake(ctl: Callable[..., Any], daemon: Any) -> None:
    quiet = ctl("events", "--pool", "execution")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    daemon.fake.refusals["ListInstances"] = daemon.refused("UNKNOWN_POOL", "no pool", grpc.StatusCode.NOT_FOUND)
    gone = ctl("events", "--pool", "research", "--type", "exit")
    assert (gone.code, gone.out, gone.err) == (0, "", "")


def test_an_instance_without_events_is_named(ctl: Callable[..., Any]) -> None:
    result = ctl("events", "--instance", "bogus", "-o", "json")
    assert (result.code, json.loads(result.out), result.err) == (0, [], "agentctl: no events of 'bogus'\n")
    filtered = ctl("events", "--instance", "research-9101", "--type", "exit")
    assert (filtered.code, filtered.out, filtered.err) == (0, "", "")
