"""agentctl endpoints: the table, the JSON, and what --follow adds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from agentd.agentctl import following
from agentd.v1 import common_pb2
from agentd.v1 import discovery_pb2 as pb


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_pool_is_shown_with_addresses_and_weights(ctl: Callable[..., Any], daemon: Any) -> None:
    result = ctl("endpoints", "research")
    assert result.code == 0
    assert rows(result.out) == [
        "ID ADDRESS STATE LOAD QUEUE IN-FLIGHT P95 WEIGHT",
        "research-9002 127.0.0.1:9002 ready 0.90 7 1 1.2s 0.53",
        "research-9101 127.0.0.1:9101 ready - - - - 1.00",
        "research-9102 127.0.0.1:9102 draining - - - - 0.00",
    ]
    assert daemon.fake.requests[-1].pool == "research"


def test_without_a_pool_it_is_all_of_them(ctl: Callable[..., Any], daemon: Any) -> None:
    assert len(rows(ctl("endpoints").out)) == 4
    assert daemon.fake.requests[-1].pool == ""


def test_as_json_it_is_a_list_with_the_address_flat_and_the_unknown_null(ctl: Callable[..., Any]) -> None:
    busy, young, leaving = json.loads(ctl("endpoints", "research", "-o", "json").out)
    assert list(busy) == [
        *("id", "pool", "port", "state", "host", "incarnation", "weight", "load", "queue_length", "in_flight"),
        *("concurrency", "response_time_p50_s", "response_time_p95_s", "node"),
    ]
    assert (busy["id"], busy["host"], busy["port"], busy["node"]) == ("research-9002", "127.0.0.1", 9002, "")
    assert (busy["load"], busy["state"], leaving["state"], leaving["weight"]) == (0.9, "ready", "draining", 0.0)
    assert (young["load"], young["queue_length"], young["response_time_p95_s"]) == (None, None, None)


def test_a_narrow_terminal_keeps_who_where_and_how_much(ctl: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert {"ID", "ADDRESS", "STATE", "WEIGHT"} <= set(rows(ctl("endpoints").out)[0].split())


def changes(fake: Any) -> list[pb.WatchResponse]:
    drains = pb.InstanceEndpoint()
    drains.CopyFrom(fake.endpoints[1])
    drains.state, drains.weight = common_pb2.INSTANCE_STATE_DRAINING, 0.0
    return [
        *fake.changes,
        pb.WatchResponse(revision="7.2.", endpoints=[drains], removed=["research-9102"]),
        pb.WatchResponse(revision="7.3.", removed=["research-9101"]),
    ]


def test_follow_shows_all_and_then_what_changes(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.changes = changes(daemon.fake)
    result = ctl("endpoints", "research", "-f")
    assert rows(result.out)[4:] == [
        "research-9101 127.0.0.1:9101 draining - - - - 0.00",
        "research-9102 - gone - - - - -",
        "research-9101 - gone - - - - -",
    ]
    lines = result.out.splitlines()
    assert lines[4].index("draining") == lines[3].index("draining"), "the columns stay where they were"
    assert (result.code, "agentd is not back" in result.err) == (3, True)


def test_follow_keeps_its_columns_when_numbers_come(ctl: Callable[..., Any], daemon: Any) -> None:
    """A table by itself is as wide as what is in it: one without numbers is narrower than one with them."""
    _, young, leaving = daemon.fake.endpoints
    works, slow = pb.InstanceEndpoint(), pb.InstanceEndpoint()
    works.MergeFrom(young)
    works.load, works.queue_length, works.response_time_p95_s = 0.5, 12, 11.25
    slow.MergeFrom(young)
    slow.queue_length = 12_345_678
    daemon.fake.changes = [
        pb.WatchResponse(revision="7.1.", snapshot=True, endpoints=[young, leaving]),
        *(pb.WatchResponse(revision="7.2.", endpoints=[one]) for one in (works, slow, young)),
    ]
    title, *_, first, wide, last = ctl("endpoints", "research", "-f").out.splitlines()
    assert len(title) == len(first)
    assert len(wide) == len(last) > len(first), "once wider, they stay so"


@pytest.mark.usefixtures("own_time")
def test_follow_goes_on_when_agentd_is_back_from_where_it_was(
    ctl: Callable[..., Any], daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "AWAY_MAX_S", 0.1)
    monkeypatch.setattr(following, "RETRY_S", 0.06)
    busy, young, _ = daemon.fake.endpoints
    daemon.fake.changes_later = [pb.WatchResponse(revision="8.1.", snapshot=True, endpoints=[busy, young])]
    result = ctl("endpoints", "research", "-f")
    shown = rows(result.out)[4:]
    assert [row.split()[0] for row in shown] == ["ID", "research-9002", "research-9101", "research-9102"]
    assert shown[-1] == "research-9102 - gone - - - - -", "nobody has told that it went while agentd was away"
    away, back = "agentctl: agentd is away; going on when it is back", "agentctl: agentd is back"
    assert result.err.splitlines()[:3] == [away, back, away]
    assert [one.revision for one in daemon.fake.requests if isinstance(one, pb.WatchRequest)][:2] == ["", "7.1."]


def test_follow_as_json_is_an_object_a_line(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.changes = changes(daemon.fake)
    first, second, third = map(json.loads, ctl("endpoints", "-f", "-o", "json").out.splitlines())
    assert list(first) == ["revision", "snapshot", "endpoints", "removed"]
    assert (first["snapshot"], len(first["endpoints"]), first["removed"]) == (True, 3, [])
    assert [(one["id"], one["state"]) for one in second["endpoints"]] == [("research-9101", "draining")]
    assert (third["snapshot"], third["endpoints"], third["removed"]) == (False, [], ["research-9101"])


def test_an_unknown_pool_is_refused_by_name(ctl: Callable[..., Any], daemon: Any) -> None:
    text = "no pool 'reserch' (there are research, testing)"
    daemon.fake.refusals["Resolve"] = daemon.refused("UNKNOWN_POOL", text, grpc.StatusCode.NOT_FOUND)
    result = ctl("endpoints", "reserch")
    assert (result.code, result.err) == (1, f"agentctl: {text} (UNKNOWN_POOL)\n")
