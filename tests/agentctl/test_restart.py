"""The command restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from agentd.agentctl import following
from agentd.agentctl.trouble import pool_lines
from agentd.v1 import control_pb2 as pb

NAMES = ["research-9002", "research-9101"]
TEXT = "restarting 1 of 2, waiting for research-9101 to be ready"


def rolling(**changes: Any) -> pb.RestartResponse:
    values = {"state": "rolling", "total": 2, "stand_in": "research-9103", "text": TEXT} | changes
    return pb.RestartResponse(instances=NAMES, restart=pb.RollingRestart(**values))


@pytest.fixture
def asked(daemon: Any) -> Any:
    """The fake restarts its pool; `daemon.told` makes an event of it."""
    daemon.fake.restarted = rolling()
    numbers = iter(range(6, 100))

    def told(kind: str, reason: str, instance: str = "") -> pb.Event:
        return daemon.event(next(numbers), type=f"rolling_{kind}", reason=reason, instance=instance)

    daemon.told = told
    return daemon


def test_an_instance_is_named_and_restarted(ctl: Callable[..., Any], daemon: Any) -> None:
    assert ctl("restart", "research-9101").out == "restarting research-9101\n"
    (request,) = daemon.fake.requests
    assert (request.name, request.rolling, request.HasField("max_unavailable")) == ("research-9101", False, False)
    assert request.request_id


ID = "research-9101"


@pytest.fixture
def alive(asked: Any) -> Any:
    """The fake restarts research-9101, and has it in a new incarnation as soon as somebody follows."""
    asked.fake.restarted = pb.RestartResponse(instances=[ID])

    def reborn(events: list[Any]) -> Iterator[Any]:
        for one in asked.fake.status.instances:
            one.incarnation = "new" if one.id == ID else one.incarnation
        yield from events

    asked.reborn = reborn
    return asked


def test_of_one_instance_it_waits_for_the_new_process_to_be_ready(ctl: Callable[..., Any], alive: Any) -> None:
    alive.fake.streams = [
        alive.reborn(
            [
                alive.event(6, type="restart", instance=ID, reason="asked for"),
                alive.event(7, type="stop", instance=ID, reason="restarted"),
                alive.event(8, type="ready", instance="research-9102", reason="somebody else"),
                alive.event(9, type="ready", instance=ID, reason="ready after 0.4 s"),
            ]
        )
    ]
    result = ctl("restart", ID, "--wait")
    assert (result.code, result.out) == (0, f"restarting {ID}\n{ID}: ready after 0.4 s\n")
    assert [one.rolling for one in alive.fake.requests if isinstance(one, pb.RestartRequest)] == [False]
    alive.fake.streams = [[alive.event(6, type="ready", instance=ID, reason="the old one")]]
    assert ctl("restart", ID, "--wait").code == 3, "the same incarnation is the old process"


def test_one_that_does_not_come_up_is_told_with_1(ctl: Callable[..., Any], alive: Any) -> None:
    why = "spawn_failed: no such file"
    alive.fake.streams = [[alive.event(6, type="start_failed", instance=ID, reason=why)]]
    found = ctl("restart", ID, "--wait", "-o", "json")
    assert (found.code, json.loads(found.out)["ended"]["reason"]) == (1, why)
    alive.fake.streams = [[alive.event(6, type="stop", instance="research-9109", reason="Low load")]]
    alive.fake.restarted = pb.RestartResponse(instances=["research-9109"])
    gone = ctl("restart", "research-9109", "--wait")
    assert (gone.code, gone.err) == (1, "agentctl: research-9109 is gone: Low load\n")


def test_a_name_is_the_pools_first_whatever_the_options(ctl: Callable[..., Any], asked: Any) -> None:
    ctl("restart", "research")
    ctl("restart", "research", "--max-unavailable", "1")
    assert [one.rolling for one in asked.fake.requests] == [True, True]


def test_a_name_that_no_pool_has_is_a_core_agents(ctl: Callable[..., Any], asked: Any) -> None:
    refused = asked.refused("UNKNOWN_POOL", "no pool 'researcher'", grpc.StatusCode.NOT_FOUND)
    asked.fake.restarted = pb.RestartResponse(instances=["research-9002"])
    asked.fake.pools_only = refused
    assert ctl("restart", "researcher").out == "restarting research-9002\n"
    assert [one.rolling for one in asked.fake.requests] == [True, False]
    result = ctl("restart", "researcher", "--cancel")
    assert (result.code, result.err) == (1, "agentctl: no pool 'researcher' (UNKNOWN_POOL)\n")


def test_of_a_pool_it_says_how_it_goes_about_it(ctl: Callable[..., Any], asked: Any) -> None:
    head = "restarting research-9002, research-9101\n"
    assert ctl("restart", "research").out == f"{head}one at a time; research-9103 stands in, and starts first\n"
    asked.fake.restarted = rolling(max_unavailable=1, stand_in="", no_stand_in="no free port (9101-9102)")
    assert ctl("restart", "research").out == f"{head}one at a time; nobody stands in: no free port (9101-9102)\n"
    asked.fake.restarted = rolling(max_unavailable=2, stand_in="")
    assert ctl("restart", "research", "--max-unavailable", "2").out == f"{head}2 at a time\n"
    request = asked.fake.requests[-1]
    assert (request.rolling, request.max_unavailable, request.cancel) == (True, 2, False)


def test_as_json_it_is_the_answer_and_the_end(ctl: Callable[..., Any], asked: Any) -> None:
    found = json.loads(ctl("restart", "research", "-o", "json").out)
    assert found["instances"] == NAMES
    assert (found["restart"]["state"], found["restart"]["stand_in"]) == ("rolling", "research-9103")
    assert found["ended"] is None
    asked.fake.streams = [[asked.told("begun", "2 instances"), asked.told("done", "2 of 2 restarted")]]
    found = json.loads(ctl("restart", "research", "--wait", "-o", "json").out)
    assert (found["ended"]["type"], found["ended"]["reason"]) == ("rolling_done", "2 of 2 restarted")


def test_waiting_shows_each_step_and_ends_with_the_restart(ctl: Callable[..., Any], asked: Any) -> None:
    asked.fake.streams = [
        [
            asked.told("stopped", "that was the one before"),
            asked.told("begun", "2 instances"),
            asked.event(50, type="drain", instance="research-9101"),
            asked.told("step", "restarted, 1 of 2", "research-9101"),
            asked.told("step", "research-9002 is gone, 2 of 2"),
            asked.told("done", "2 of 2 restarted"),
            asked.told("stopped", "that comes later"),
        ]
    ]
    result = ctl("restart", "research", "--wait")
    assert result.code == 0
    assert result.out.splitlines()[2:] == [
        "research-9101: restarted, 1 of 2",
        "research: research-9002 is gone, 2 of 2",
        "research: 2 of 2 restarted",
    ]
    newest, restart, watched = asked.fake.requests
    assert (newest.limit, restart.rolling) == (1, True)
    assert (watched.resume_token, watched.pool) == (asked.fake.past[-1].resume_token, "research")


def test_one_that_stops_ends_the_waiting_with_1(ctl: Callable[..., Any], asked: Any) -> None:
    why = "research-9101: not ready within 60 s; 0 of 2 restarted"
    asked.fake.streams = [[asked.told("begun", "2 instances"), asked.told("stopped", why)]]
    result = ctl("restart", "research", "--wait")
    assert (result.code, result.out.splitlines()[-1]) == (1, f"research: {why}")


def test_waiting_in_vain_is_told_and_the_restart_goes_on(ctl: Callable[..., Any], asked: Any) -> None:
    asked.fake.streams = [[asked.told("begun", "2 instances"), asked.event(9, type="endless")]]
    result = ctl("restart", "research", "--wait", "--timeout", "0.1s")
    text = "agentctl: the restart of research is still under way after 0.1 s, and goes on\n"
    assert (result.code, result.err) == (1, text)


def test_a_restart_of_agentd_meanwhile_is_waited_out(
    ctl: Callable[..., Any], asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "AWAY_MAX_S", 30.0)
    monkeypatch.setattr(following, "RETRY_S", 0.01)
    asked.fake.streams = [[asked.told("begun", "2 instances")], [asked.told("done", "2 of 2 restarted")]]
    result = ctl("restart", "research", "--wait")
    assert (result.code, result.out.splitlines()[-1]) == (0, "research: 2 of 2 restarted")
    away, back = "agentctl: agentd is away; going on when it is back", "agentctl: agentd is back"
    assert result.err.splitlines() == [away, back]


def test_a_timeout_holds_while_agentd_is_away(
    ctl: Callable[..., Any], asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "AWAY_MAX_S", 30.0)
    monkeypatch.setattr(following, "RETRY_S", 0.05)
    asked.fake.streams = [[asked.told("begun", "2 instances")]]
    result = ctl("restart", "research", "--wait", "--timeout", "0.1s")
    assert (result.code, "is still under way after 0.1 s, and goes on" in result.err) == (1, True)


def test_events_that_were_lost_are_owned_up_to(ctl: Callable[..., Any], asked: Any) -> None:
    asked.fake.streams = [[asked.refused("SLOW_READER", "too slow", grpc.StatusCode.OUT_OF_RANGE)]]
    result = ctl("restart", "research", "--wait")
    assert (result.code, result.err.startswith("agentctl: events were lost, and the restart of")) == (1, True)


def test_a_refusal_is_told(ctl: Callable[..., Any], asked: Any) -> None:
    text = f"research is being restarted for bob: {TEXT}"
    asked.fake.refusals["Restart"] = asked.refused("RESTART_UNDER_WAY", text, grpc.StatusCode.FAILED_PRECONDITION)
    result = ctl("restart", "research", "--wait")
    assert (result.code, result.err) == (1, f"agentctl: {text} (RESTART_UNDER_WAY)\n")


def test_it_is_cancelled_and_the_present_step_waited_for(ctl: Callable[..., Any], asked: Any) -> None:
    asked.fake.restarted = rolling(state="cancelled", text="restart cancelled by alice at 1 of 2")
    assert ctl("restart", "research", "--cancel").out == "research: restart cancelled by alice at 1 of 2\n"
    assert asked.fake.requests[-1].cancel
    asked.fake.streams = [[asked.told("stopped", "cancelled by alice; 1 of 2 restarted")]]
    result = ctl("restart", "research", "--cancel", "--wait")
    assert (result.code, result.out.splitlines()[-1]) == (0, "research: cancelled by alice; 1 of 2 restarted")
    asked.fake.restarted = pb.RestartResponse()
    assert ctl("restart", "research", "--cancel", "--wait").out == "research: the restart has ended\n"


def test_an_empty_pool_has_nothing_to_restart(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.restarted = pb.RestartResponse()
    result = ctl("restart", "research", "--wait")
    assert (result.code, result.out) == (0, "nothing to restart: research has no instances\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--timeout", "5s"), "--timeout is for --wait"),
        (("--cancel", "--max-unavailable", "1"), "--cancel ends one"),
        (("--max-unavailable", "-1"), "-1"),
        (("--max-unavailable", "x"), "'x' is not a valid integer."),
    ],
)
def test_what_does_not_go_together_is_a_mistake(ctl: Callable[..., Any], words: tuple[str, ...], text: str) -> None:
    result = ctl("restart", "research", *words)
    assert result.code == 2
    assert text in result.err


@pytest.mark.parametrize("option", [("--cancel",), ("--max-unavailable", "1")])
def test_what_is_for_a_pool_is_not_for_an_instance(ctl: Callable[..., Any], option: tuple[str, ...]) -> None:
    result = ctl("restart", ID, *option)
    assert result.code == 2
    assert f"{ID} is an instance; --max-unavailable and --cancel are for a pool" in " ".join(result.err.split())


def test_status_and_explain_say_how_far_it_is() -> None:
    pool = pb.Pool(name="research", rolling=rolling().restart)
    assert pool_lines(pool, [], 100) == [f"research: {TEXT}"]


def test_a_fleet_without_a_past_is_followed_from_now_on(daemon: Any) -> None:
    from agentd.sdk.control import ControlClient

    daemon.fake.past = list[pb.Event]()
    with ControlClient(daemon.address) as client:
        assert following.present(client) == ""
