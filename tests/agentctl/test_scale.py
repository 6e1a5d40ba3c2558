"""up, down and auto: what is asked, what is shown, and the exit codes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from agentd.v1 import control_pb2 as pb

PARTIAL = [
    pb.Grant(pool="execution", current=1, wanted=2, granted=2),
    pb.Grant(pool="research", current=2, wanted=6, granted=5, limits=["max_agents: at most 5"]),
]


def test_the_split_is_shown_before_it_is_carried_out(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.grants = [
        pb.Grant(pool="execution", current=1, wanted=2, granted=2),
        pb.Grant(pool="research", current=2, wanted=3, granted=3),
    ]
    result = ctl("up", "5")
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()] == [
        ["POOL", "PRESENT", "WANTED", "GRANTED", "LIMITS"],
        ["execution", "1", "2", "2"],
        ["research", "2", "3", "3"],
        ["total", "3", "5", "5"],
        ["going", "from", "3", "to", "5"],
    ]
    trial, real = daemon.fake.requests
    assert (trial.dry_run, real.dry_run) == (True, False)
    assert trial.request_id != real.request_id


def test_one_pool_is_asked_for_at_once(ctl: Callable[..., Any], daemon: Any) -> None:
    result = ctl("up", "4", "--pool", "research", "--for", "90m", "--reason", "batch run")
    assert (result.code, result.out.splitlines()[-1]) == (0, "going from 2 to 4")
    (request,) = daemon.fake.requests
    assert request.direction == pb.ScaleRequest.DIRECTION_UP
    assert (request.count, request.pool, request.for_s, request.reason) == (4, "research", 5400.0, "batch run")
    assert uuid.UUID(request.request_id).version == 4
    assert request.owner


def test_without_for_agentds_default_holds(ctl: Callable[..., Any], daemon: Any) -> None:
    ctl("down", "1", "--pool", "research")
    (request,) = daemon.fake.requests
    assert not request.HasField("for_s")
    assert request.direction == pb.ScaleRequest.DIRECTION_DOWN


def test_a_dry_run_asks_once_and_changes_nothing(ctl: Callable[..., Any], daemon: Any) -> None:
    result = ctl("up", "4", "--dry-run")
    assert (result.code, result.out.splitlines()[-1]) == (0, "would go from 2 to 4")
    assert [request.dry_run for request in daemon.fake.requests] == [True]


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--pool", "research")])
def test_granted_in_part_is_exit_code_4_and_names_the_limit(
    ctl: Callable[..., Any], daemon: Any, options: tuple[str, ...]
) -> None:
    daemon.fake.grants = PARTIAL
    result = ctl("up", "8", *options)
    assert result.code == 4
    *_, verdict, limit = result.out.splitlines()
    assert verdict.endswith("from 3 to 7, not 8")
    assert limit == "  limit: research: max_agents: at most 5"


def test_nothing_granted_says_that_it_stays(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.grants = [pb.Grant(pool="research", current=2, wanted=4, granted=2, limits=["headroom", "ports"])]
    result = ctl("up", "4", "--pool", "research")
    assert result.code == 4
    assert result.out.splitlines()[-3:] == [
        "stays at 2, not 4",
        "  limit: research: headroom",
        "  limit: research: ports",
    ]


@pytest.mark.parametrize(
    ("way", "count", "limit"),
    [("up", "20", "every pool is at its maximum"), ("down", "1", "core agents and the minimum of each pool stay")],
)
def test_a_total_that_the_pools_cannot_take_together_is_granted_in_part(
    ctl: Callable[..., Any], daemon: Any, way: str, count: str, limit: str
) -> None:
    """Each pool gets all that the division gave it, and yet the sum is not what was asked for."""
    daemon.fake.grants = [
        pb.Grant(pool="execution", current=3, wanted=5, granted=5),
        pb.Grant(pool="research", current=3, wanted=5, granted=5),
    ]
    result = ctl(way, count)
    assert result.code == 4
    assert f"going from 6 to 10, not {count}" in result.out
    assert limit in result.out
    assert json.loads(ctl(way, count, "-o", "json").out)["granted_in_full"] is False


def test_a_grant_as_json(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.grants = PARTIAL
    result = ctl("up", "8", "--output", "json")
    assert result.code == 4
    value = json.loads(result.out)
    assert (value["dry_run"], value["granted_in_full"]) == (False, False)
    assert value["grants"][1] == {
        "pool": "research",
        "current": 2,
        "wanted": 6,
        "granted": 5,
        "limits": ["max_agents: at most 5"],
    }


@pytest.mark.parametrize(("command", "reason"), [("up", "TARGET_BELOW_CURRENT"), ("down", "TARGET_ABOVE_CURRENT")])
def test_a_count_on_the_wrong_side_is_a_usage_error(
    ctl: Callable[..., Any], daemon: Any, command: str, reason: str
) -> None:
    daemon.fake.refusals["Scale"] = daemon.refused(reason, "3 instances now", grpc.StatusCode.FAILED_PRECONDITION)
    result = ctl(command, "2")
    assert (result.code, result.out, result.err) == (2, "", f"agentctl: 3 instances now ({reason})\n")
    assert len(daemon.fake.requests) == 1


@pytest.mark.parametrize("count", ["-1", "1.5", "many", "", "１"])
def test_a_count_is_a_whole_number_from_0_up(ctl: Callable[..., Any], daemon: Any, count: str) -> None:
    assert ctl("up", count).code == 2
    assert daemon.fake.requests == []


@pytest.mark.parametrize("count", ["100001", "4294967296", "99999999999999999999", "9" * 5000])
def test_a_count_above_the_maximum_is_a_usage_error_that_names_it(
    ctl: Callable[..., Any], daemon: Any, count: str
) -> None:
    result = ctl("up", count)
    assert result.code == 2
    assert "above the maximum of 100000" in result.err
    assert daemon.fake.requests == []


def test_the_greatest_count_is_asked_for(ctl: Callable[..., Any], daemon: Any) -> None:
    ctl("up", "00100000", "--pool", "research")
    assert daemon.fake.requests[0].count == 100_000


@pytest.mark.parametrize("text", ["0", "-5", "0s", "1w", "h", "1h30", "ten", "inf", "nan", "1e3", ""])
def test_a_bad_duration_is_a_usage_error_with_an_example(ctl: Callable[..., Any], daemon: Any, text: str) -> None:
    result = ctl("up", "4", "--for", text)
    assert result.code == 2
    assert "for example 30s, 10m, 1h or 1d" in result.err
    assert daemon.fake.requests == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("1h", 3600), ("1d", 86400), ("45", 45), ("1h30m", 5400), ("0.5h", 1800)],
)
def test_durations(ctl: Callable[..., Any], daemon: Any, text: str, seconds: float) -> None:
    ctl("up", "4", "--pool", "research", "--for", text)
    assert daemon.fake.requests[0].for_s == seconds


@pytest.mark.parametrize("text", ["9999d", "3651d", "99999999999999999999s", "9" * 400, "9" * 400 + "d"])
def test_a_duration_above_ten_years_is_a_usage_error_with_the_maximum(
    ctl: Callable[..., Any], daemon: Any, text: str
) -> None:
    result = ctl("up", "4", "--for", text)
    assert result.code == 2
    assert "above the maximum of 3650d" in result.err
    assert daemon.fake.requests == []


def test_auto_alone_switches_scaling_on(ctl: Callable[..., Any], daemon: Any) -> None:
    result = ctl("auto")
    assert result.out.startswith("autoscaling on, set by ")
    assert result.err == ""
    assert daemon.fake.requests[-1].enabled


def test_auto_on_of_a_disabled_fleet_warns_that_nothing_runs(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.status.enabled = False
    result = ctl("auto", "on", "-o", "json")
    assert (result.code, json.loads(result.out)["enabled"]) == (0, True)
    assert result.err == "agentctl: warning: nothing runs until multi_agent.enabled is true\n"
    assert ctl("auto", "off").err == ""


def test_auto_off_carries_owner_and_reason(
    ctl: Callable[..., Any], daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "alice")
    value = json.loads(ctl("auto", "off", "--reason", "measuring", "-o", "json").out)
    assert (value["enabled"], value["owner"], value["reason"]) == (False, "alice", "measuring")
    (request,) = daemon.fake.requests
    assert (request.enabled, request.owner) == (False, "alice")


def test_a_pause_is_of_a_direction_a_pool_and_a_while(ctl: Callable[..., Any], daemon: Any) -> None:
    words = ("--direction", "up", "--pool", "research", "--for", "1h", "--reason", "costs")
    result = ctl("auto", "off", *words)
    (request,) = daemon.fake.requests
    assert (request.enabled, request.direction, request.pool) == (False, "up", "research")
    assert (request.for_s, request.reason) == (3600.0, "costs")
    assert result.out == f'research: up paused by {request.owner}, for another 1h: "costs"\n'
    value = json.loads(ctl("auto", "off", *words, "-o", "json").out)
    assert [one["pool"] for one in value["pools"]] == ["research"]
    assert value["pools"][0]["pauses"][0]["direction"] == "up"


@pytest.mark.parametrize("words", [("--for", "10m"), ("--pool", "research"), ("--direction", "both")], ids="-".join)
def test_a_part_without_a_direction_is_both(ctl: Callable[..., Any], daemon: Any, words: tuple[str, ...]) -> None:
    assert ctl("auto", "off", *words).code == 0
    assert daemon.fake.requests[-1].direction == "both"


def test_the_end_of_a_pause_asks_for_no_time(ctl: Callable[..., Any], daemon: Any) -> None:
    assert ctl("auto", "on", "--pool", "research").out == "nothing is paused in research\n"
    result = ctl("auto", "on", "--for", "1h")
    assert (result.code, len(daemon.fake.requests)) == (2, 1)
    assert "--for is for off" in result.err


def test_sudo_user_of_someone_who_is_not_root_is_not_believed(
    ctl: Callable[..., Any], daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 65534)
    monkeypatch.setenv("SUDO_USER", "alice")
    ctl("auto", "off")
    assert daemon.fake.requests[0].owner == "nobody"
