"""ps and logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from agentd.agentctl.instances import log_lines

TITLES = "ID NAME POOL PORT PID STATE AGE LOAD CPU MEMORY QUEUE IN-FLIGHT TASKS P95 BEAT RESTARTS CAUSE"


def test_ps_shows_all_columns_where_nothing_bounds_the_width(ctl: Callable[..., Any]) -> None:
    title, *rows = ctl("ps").out.splitlines()
    assert title.split() == TITLES.split()
    busy = "research-9002 researcher research 9002 4242 ready 1h1m 0.90 0.50 8.0 GiB 7 1 9007199254740993 1.2s 3.2s 2"
    assert " ".join(rows[1].split()) == busy
    assert rows[0].endswith("its event loop has stood still for 41s")
    assert rows[3].endswith("crash_loop: exit code 1, 10 times in a row")


def test_a_narrow_terminal_loses_what_the_id_says_already(
    ctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    titles = ctl("ps").out.splitlines()[0].split()
    assert {"ID", "PID", "STATE", "LOAD", "CAUSE"} <= set(titles)
    assert "POOL" not in titles


def test_ps_as_json_is_a_list_of_objects_with_numbers(ctl: Callable[..., Any]) -> None:
    busy = json.loads(ctl("ps", "-o", "json").out)[1]
    assert (busy["id"], busy["pool"], busy["port"], busy["pid"], busy["state"]) == (
        "research-9002",
        "research",
        9002,
        4242,
        "ready",
    )
    assert busy["tasks_completed"] == 2**53 + 1
    assert busy["memory_bytes"] == 2**33
    assert busy["labels"] == {"gpu": "none", "model": "small"}


def test_what_an_agent_never_said_is_null(ctl: Callable[..., Any]) -> None:
    young = json.loads(ctl("--output", "json", "ps").out)[2]
    assert (young["state"], young["load"], young["queue_length"], young["tasks_completed"]) == (
        "starting",
        None,
        None,
        None,
    )


def test_every_instance_has_the_same_keys(ctl: Callable[..., Any]) -> None:
    keys = [tuple(one) for one in json.loads(ctl("ps", "-o", "json").out)]
    assert len(set(keys)) == 1
    assert keys[0][:5] == ("id", "pool", "port", "pid", "state")


def test_ps_of_one_pool_asks_for_that_pool(ctl: Callable[..., Any]) -> None:
    value = json.loads(ctl("ps", "execution", "-o", "json").out)
    assert [one["id"] for one in value] == ["execution-9003"]


def test_an_empty_fleet_is_an_empty_list(ctl: Callable[..., Any], daemon: Any) -> None:
    del daemon.fake.status.instances[:]
    assert json.loads(ctl("ps", "-o", "json").out) == []
    assert ctl("ps").out.split() == TITLES.split()


def test_logs_are_the_bytes_that_the_instance_wrote(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.log = "grün\n\x1b[1mbold\x1b[0m".encode()
    assert ctl("logs", "research-9101", "-n", "7").out == "grün\n\x1b[1mbold\x1b[0m"
    (request,) = daemon.fake.requests
    assert (request.instance, request.lines, request.follow) == ("research-9101", 7, False)


def test_a_core_agent_answers_to_its_name(ctl: Callable[..., Any], daemon: Any) -> None:
    assert ctl("logs", "researcher", "--follow").code == 0
    assert daemon.fake.requests[-1].instance == "research-9002"
    assert daemon.fake.requests[-1].follow


def test_a_name_of_nobody_is_agentds_to_refuse(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.refusals["ReadLogs"] = daemon.refused(
        "UNKNOWN_INSTANCE", "no instance 'nobody'", grpc.StatusCode.NOT_FOUND
    )
    result = ctl("logs", "nobody")
    assert (result.code, result.out, result.err) == (1, "", "agentctl: no instance 'nobody' (UNKNOWN_INSTANCE)\n")


def test_logs_as_json_carry_one_object_for_each_line(ctl: Callable[..., Any]) -> None:
    wanted = [{"instance": "research-9101", "line": line} for line in ("one", "two", "three")]
    assert json.loads(ctl("logs", "research-9101", "-o", "json").out) == wanted
    followed = ctl("logs", "research-9101", "-f", "-o", "json").out.splitlines()
    assert [json.loads(line) for line in followed] == wanted


def test_lines_survive_any_cut() -> None:
    data = "über\nπ".encode()
    assert list(log_lines(bytes([byte]) for byte in data)) == ["über", "π"]
    assert list(log_lines([b"\xff\n"])) == ["\ufffd"]


def test_an_instance_without_health_check_has_no_beat(ctl: Callable[..., Any], daemon: Any) -> None:
    for one in daemon.fake.status.instances:
        one.health = "none"
    rows = ctl("ps", "research").out.splitlines()
    assert " ".join(rows[1].split()).endswith(" 1.2s - 2")
