"""What `agentctl explain` tells of an instance."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from agentd.agentctl.explain_instance import last_birth
from agentd.v1 import control_pb2 as pb

ID = "research-9101"


@pytest.fixture
def lived(daemon: Any) -> Any:
    """research-9101 was started, killed for memory, late for long, and is starting again."""
    numbered = iter(range(1, 2000))

    def told(kind: str, reason: str, decision: str = "", instance: str = ID) -> Any:
        event = daemon.event(next(numbered), type=kind, reason=reason, instance=instance)
        event.decision = decision
        return event

    daemon.fake.past = [
        told("scale_up", "an earlier life", "d-7"),
        told("start", "scale_up, pid 1", "d-7"),
        told("stop", "Low load", "d-8"),
        told("scale_up", "High load: 0.88 > 0.75", "d-3"),
        told("start", "scale_up, pid 4242", "d-3"),
        told("exit", "somebody else", instance="research-9102"),
        told("oom_kill", "out of memory; restart in 0.1 s"),
        told("restart", "pid 4243", "d-3"),
        *(told("late", "no heartbeat for 30.0 s") for _ in range(1200)),
    ]
    return daemon


def test_an_instance_tells_why_it_was_started_and_how_it_has_ended(ctl: Callable[..., Any], lived: Any) -> None:
    del lived
    result = ctl("explain", ID)
    assert (result.code, result.err) == (0, "")
    undated = re.sub(r"(?m)^  [0-9-]* ?[0-9:]{8}  ", "  ", result.out)
    starts, decisions = undated.split("\nDECISIONS\n")
    assert starts == (
        f"{ID}: starting for 0s, pid 4243\n"
        "\nSTARTED\n"
        "  restart: pid 4243 [d-3]\n"
        "  oom_kill: out of memory; restart in 0.1 s\n"
        "  start: scale_up, pid 4242 [d-3]\n"
        "  scale_up: High load: 0.88 > 0.75 [d-3]\n"
        "\nENDS\n"
        "  oom_kill: out of memory; restart in 0.1 s\n"
        "  stop: Low load [d-8]\n"
    )
    assert re.findall(r"(?m)^  (\S.*?):", decisions) == ["2 -> 3, wants 4"] * 3
    assert re.findall(r"\[d-[0-9]+\]", decisions) == ["[d-3]", "[d-7]", "[d-8]"]


def test_as_json_each_part_is_a_list_that_begins_with_the_newest(ctl: Callable[..., Any], lived: Any) -> None:
    del lived
    value = json.loads(ctl("explain", ID, "--history", "1", "-o", "json").out)
    assert value["instance"]["state"] == "starting"
    assert [event["type"] for event in value["started"]] == ["restart", "oom_kill", "start", "scale_up"]
    assert [event["type"] for event in value["ends"]] == ["oom_kill"]
    assert [decision["id"] for decision in value["decisions"]] == ["d-3"]
    none = json.loads(ctl("explain", ID, "--history", "0", "-o", "json").out)
    assert (none["ends"], none["decisions"]) == ([], [])


def told(*lines: str) -> list[pb.Event]:
    """Events newest first, from `type: reason` or, of a person's wish, `type: reason (by WHO)`."""
    found = []
    for line in lines:
        kind, _, rest = line.partition(": ")
        reason, _, actor = rest.removesuffix(")").partition(" (by ")
        found.append(pb.Event(type=kind, reason=reason, actor=actor))
    return found


@pytest.mark.parametrize(
    "lines",
    [
        ("restart: pid 3", "stop: restart of research, 1 of 3", "start: core, pid 1"),
        ("adopt: ready, pid 3", "restart: pid 3", "exit: exit code 1; restart in 0.1 s", "start: minimum, pid 1"),
        ("restart: pid 3", "stop: restarted", "restart: asked for (by alice)", "start: minimum, pid 1"),
        ("restart: pid 3", "stop: stopped", "replace: Missed heartbeats: 3 >= 3; restarting in place"),
        ("adopt: pid 7, found running",),
        (),
    ],
)
def test_why_the_present_process_runs_is_told_whole(lines: tuple[str, ...]) -> None:
    assert last_birth(told(*lines)) == told(*lines)


def test_earlier_processes_of_the_same_instance_are_left_out() -> None:
    now = ("restart: pid 4", "exit: exit code 2; restarting")
    past = ("restart: pid 3", "oom_kill: out of memory", "adopt: ready, pid 2", "restart: asked for (by bob)")
    assert last_birth(told(*now, *past, "start: minimum, pid 1")) == told(*now, "start: minimum, pid 1")


def test_a_core_agent_answers_to_its_name(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.refusals["Explain"] = daemon.refused("UNKNOWN_POOL", "no pool", grpc.StatusCode.NOT_FOUND)
    result = ctl("explain", "researcher")
    assert result.code == 0
    assert result.out.startswith("research-9002: ready for 1h1m, core agent researcher, pid 4242, 2 restarts\n")
    assert "STARTED\n  not known\n\nENDS\n  none\n" in result.out


def test_one_that_is_gone_is_told_of_as_long_as_its_events_are_kept(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.past = [daemon.event(1, type="stop", reason="Low load", instance="research-9109")]
    assert ctl("explain", "research-9109").out.startswith("research-9109: not there any more\n")


def test_one_that_never_was_is_an_error(ctl: Callable[..., Any], daemon: Any) -> None:
    del daemon
    result = ctl("explain", "research-9199")
    assert (result.code, result.out) == (1, "")
    text = "agentctl: no instance 'research-9199', and no event of one; agentctl ps lists the instances there are\n"
    assert result.err == text


def test_an_event_loop_that_stands_still_is_the_first_thing_said(ctl: Callable[..., Any]) -> None:
    first = " ".join(ctl("explain", "execution-9003").out.partition("\n\n")[0].split())
    assert first.endswith("its event loop has stood still for 41s")
    now = json.loads(ctl("explain", "execution-9003", "--output", "json").out)["instance"]
    assert now["loop_blocked_s"] == 41.2
