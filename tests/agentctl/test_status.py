"""What `agentctl status` and `agentctl explain` show."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agentd.agentctl.status import limit_text, outcome, status_lines
from agentd.agentctl.trouble import pool_lines
from agentd.v1 import common_pb2
from agentd.v1 import control_pb2 as pb


def test_trouble_with_agentd_itself_comes_first(ctl: Callable[..., Any]) -> None:
    lines = ctl("status").out.splitlines()
    assert lines[0] == "DEGRADED the store is read-only: disk full; history is not kept"


def test_status_answers_what_people_ask(ctl: Callable[..., Any]) -> None:
    out = ctl("status").out
    flat = " ".join(out.split())
    for fact in (
        "4 instances in 2 pools",
        "configuration: /etc/agentd/agentd.yaml",
        "http://127.0.0.1:8766",
        "autoscaling off, set by bob",
        '"measuring"',
        "next check in 42s",
        "nothing is replaced for 8s",
        "1 instance late",
        "sample agent runs in: execution",
        "research 3 3 1 5 0.88 0.25 0.75 12 3/6",
        "research: 1 failed (agentctl restart ID starts it again), 1 unhealthy, 1 starting, 1 draining "
        "research-9102 failed: crash_loop: exit code 1, 10 times in a row; see agentctl logs research-9102",
        "execution 1 5 1 5 - 0.25 0.75 0 0/1",
        "2 -> 3, wants 4: High load: 0.88 > 0.75",
        "limit: headroom: memory headroom allows 3 (needs 310 MiB more)",
        "limit: up_cooldown: last scale-up 90 s ago (lifts in 3m30s)",
        "would change: with 310 MiB more memory it would grow to 4",
        'target 4 set by alice, for another 42m: "batch run"',
        "2.5 of 4 cores free",
        "3.0 GiB of 16 GiB available, reserve 1.6 GiB, so 1.4 GiB to use, pressure 2.5 %",
        "20 GiB free",
        "ollama running, 2 processes, 4.0 GiB, 1.2 cores",
        "redis not running",
        "cost 1.50 EUR per hour (research 1.50); 812.50 projected this month; 1.00 more than the 20.00 for today; "
        "659.75 of 1000.00 left this month",
    ):
        assert fact in flat


@pytest.mark.parametrize("command", [("status",), ("status", "--full"), ("explain", "research"), ("check",), ("ps",)])
def test_everything_fits_into_80_columns(
    ctl: Callable[..., Any], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = ctl(*command)
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80


def test_a_fleet_without_trouble_shows_no_trouble() -> None:
    quiet = pb.Status(version="0.1.0", enabled=True, pools=[pb.Pool(name="research", count=1, ready=1)])
    text = "\n".join(status_lines(quiet, now=0.0))
    for word in ("DEGRADED", "recovering", "late", "sample", "HOST", "per hour", "failed"):
        assert word not in text


@pytest.mark.parametrize("command", [("status",), ("explain", "research")])
def test_a_disabled_fleet_says_so_first_and_suggests_nothing_else(
    ctl: Callable[..., Any], daemon: Any, command: tuple[str, ...]
) -> None:
    daemon.fake.status.enabled = False
    for pool in daemon.fake.status.pools:
        pool.next.counterfactual = "agentctl auto on switches scaling on"
    out = ctl(*command).out
    assert out.splitlines()[0] == "multi_agent.enabled is false: agentd starts and stops nothing"
    assert "nothing until multi_agent.enabled is true" in out
    assert "auto on" not in out


def broken(number: int, state: common_pb2.InstanceState.ValueType, cause: str, pool: str = "research") -> pb.Instance:
    return pb.Instance(id=f"{pool}-{9100 + number}", pool=pool, state=state, cause=cause)


def test_a_broken_pool_says_why_once_per_cause_the_worst_first() -> None:
    pool = pb.Pool(name="research", count=4, starting=2, failed=2, min=1)
    instances = [
        broken(1, common_pb2.INSTANCE_STATE_HELD, "its pool is not configured"),
        broken(2, common_pb2.INSTANCE_STATE_BACKOFF, "exit code 2"),
        broken(3, common_pb2.INSTANCE_STATE_BACKOFF, "exit code 2"),
        broken(4, common_pb2.INSTANCE_STATE_FAILED, "crash_loop"),
        broken(5, common_pb2.INSTANCE_STATE_FAILED, "crash_loop", pool="execution"),
        broken(6, common_pb2.INSTANCE_STATE_READY, ""),
    ]
    assert pool_lines(pool, instances, 100) == [
        "research: 2 failed (agentctl restart ID starts it again), 2 starting, below its minimum of 1",
        "  research-9104 failed: crash_loop; see agentctl logs research-9104",
        "  2 instances in backoff: exit code 2; see agentctl logs research-9102",
        "  research-9101 held: its pool is not configured",
    ]


def test_a_pool_that_cannot_start_says_why_the_last_start_failed() -> None:
    pool = pb.Pool(name="research", min=1, start_failure="denied: the polkit rule is missing")
    assert pool_lines(pool, [], 100) == [
        "research: below its minimum of 1",
        "  the last start failed: denied: the polkit rule is missing",
    ]
    failed = [broken(4, common_pb2.INSTANCE_STATE_FAILED, "denied: the polkit rule is missing")]
    assert sum("polkit" in line for line in pool_lines(pool, failed, 100)) == 1
    assert pool_lines(pb.Pool(name="research", start_failure="some time ago"), [], 100) == []


@pytest.mark.parametrize(("causes", "last"), [(3, ""), (4, "  and 1 more instance"), (5, "  and 2 more instances")])
def test_of_many_causes_the_first_three_are_shown(causes: int, last: str) -> None:
    instances = [broken(n, common_pb2.INSTANCE_STATE_FAILED, f"exit code {n}") for n in range(causes)]
    lines = pool_lines(pb.Pool(name="research"), instances, 100)
    assert sum("see agentctl logs" in line for line in lines) == 3
    assert (lines[3:] or [""])[0] == last


@pytest.mark.parametrize(
    ("pool", "note"),
    [
        (pb.Pool(name="a", min=1), ["a: below its minimum of 1"]),
        (pb.Pool(name="a", min=2, ready=1, starting=1), ["a: 1 starting"]),
        (pb.Pool(name="a", min=1, ready=1), []),
    ],
)
def test_a_pool_below_its_minimum_says_so(pool: pb.Pool, note: list[str]) -> None:
    assert pool_lines(pool, [], 100) == note


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("scale-up cooldown: 9 s left", ""),
        ("the last 2 starts failed; next try in 9 s", ""),
        ("alice has paused up, 23h50m left", ""),
        ("agentd started a moment ago; waits 9 s", ""),
        ("at most 2 started in 30 s; 2 were", " (lifts in 8.8s)"),
        ("last scale-up 90 s ago", " (lifts in 8.8s)"),
        ("3 sessions of 2 members", " (lifts in 8.8s)"),
    ],
)
def test_how_long_a_limit_holds_is_told_once(text: str, shown: str) -> None:
    assert limit_text(pb.Limit(code="up_cooldown", text=text, lifts_in_s=8.8)) == f"up_cooldown: {text}{shown}"


def test_event_loops_that_stand_still_are_told(ctl: Callable[..., Any], daemon: Any) -> None:
    assert "\nthe event loop of execution-9003 stands still\n" in ctl("status").out
    daemon.fake.status.instances[1].loop_blocked_s = 2.0
    assert "\nthe event loop of execution-9003 and 1 more stands still\n" in ctl("status").out
    for one in daemon.fake.status.instances:
        one.ClearField("loop_blocked_s")
    assert "event loop" not in ctl("status").out


def test_pauses_are_shown_with_their_owner(ctl: Callable[..., Any], daemon: Any) -> None:
    everywhere = pb.Pause(direction="down", owner="eve", everywhere=True)
    own = pb.Pause(direction="up", owner="alice", reason="costs", expires_in_s=1800.0)
    daemon.fake.status.autoscaling.pauses.append(everywhere)
    daemon.fake.status.pools[0].pauses.extend([own, everywhere])
    text = " ".join(ctl("status").out.split())
    assert text.count("down paused in all pools by eve") == 1
    assert 'up paused by alice, for another 30m: "costs"' in text
    explained = " ".join(ctl("explain", daemon.fake.status.pools[0].name).out.split())
    assert "down paused in all pools by eve" in explained


def test_from_how_many_on_more_add_little_is_shown(ctl: Callable[..., Any], daemon: Any) -> None:
    text = "more than 9 add little: what they share is saturated (sigma 0.12, kappa 0.004, confidence 87 %)"
    pool = daemon.fake.status.pools[0]
    pool.useful_max = 9
    pool.scaling_law.CopyFrom(pb.ScalingLaw(sigma=0.12, kappa=0.004, confidence=0.87, text=text))
    assert text in " ".join(ctl("status").out.split())
    assert text in " ".join(ctl("explain", pool.name).out.split())
    assert json.loads(ctl("status", "-o", "json").out)["pools"][0]["useful_max"] == 9


def test_texts_of_others_cannot_move_the_cursor(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.status.degraded.append("\x1b[2Jgone\nand more")
    assert "?[2Jgone and more" in " ".join(ctl("status").out.split())


def test_output_to_a_pipe_has_no_colours(ctl: Callable[..., Any]) -> None:
    assert "\x1b" not in ctl("status").out


def test_status_as_json_has_the_fields_of_the_protocol(ctl: Callable[..., Any]) -> None:
    value = json.loads(ctl("status", "--output", "json").out)
    assert set(value) == set(pb.Status.DESCRIPTOR.fields_by_name)
    assert value["autoscaling"] == {
        "enabled": False,
        "owner": "bob",
        "reason": "measuring",
        "since_wall": 1_700_000_000.0,
        "pauses": [],
    }
    research, execution = value["pools"]
    assert (research["name"], research["count"], research["load"]) == ("research", 3, 0.88)
    assert research["target"]["expires_in_s"] == 2520.0
    assert (execution["load"], execution["target"], execution["headroom"]["instances"]) == (None, None, None)
    assert research["next"]["limits"][0] == {
        "code": "headroom",
        "text": "memory headroom allows 3 (needs 310 MiB more)",
        "lifts_in_s": None,
        "allows": None,
        "until_wall": None,
    }
    assert value["host"]["cpu_pressure_percent"] is None
    assert value["host"]["memory_available_bytes"] == 3 * 2**30
    assert value["instances"][0]["state"] == "ready"


@pytest.mark.parametrize(
    ("current", "wanted", "granted", "text"),
    [(3, 3, 3, "stays at 3"), (3, 4, 3, "stays at 3, wants 4"), (3, 4, 4, "3 -> 4"), (5, 2, 4, "5 -> 4, wants 2")],
)
def test_the_outcome_of_a_decision_in_words(current: int, wanted: int, granted: int, text: str) -> None:
    assert outcome(pb.Decision(current=current, wanted=wanted, granted=granted)) == text


def test_explain_shows_the_chain_the_limits_and_the_way_out(ctl: Callable[..., Any]) -> None:
    flat = " ".join(ctl("explain", "research", "--history", "2").out.split())
    for fact in (
        "research: 2 -> 3, wants 4",
        "min 1, max 5, capacity 3",
        "fewer below 0.25, more above 0.75; 12 tasks wait, 3 of 6 run",
        "an instance takes 100 MiB (measured)",
        "cooldown: up for 3m30s",
        "REASONS threshold: High load: 0.88 > 0.75",
        "LIMITS headroom: memory headroom allows 3",
        "WOULD CHANGE with 310 MiB more memory",
        "research-9102 failed: crash_loop: exit code 1, 10 times in a row; see agentctl logs research-9102",
        "[d-0]",
        "[d-1]",
    ):
        assert fact in flat


def test_explain_without_history_asks_for_none_to_be_shown(ctl: Callable[..., Any]) -> None:
    value = json.loads(ctl("explain", "research", "--history", "0", "--output", "json").out)
    assert (value["pool"]["name"], value["decisions"]) == ("research", [])


def test_check_shows_each_decision(ctl: Callable[..., Any], daemon: Any) -> None:
    result = ctl("check", "research")
    assert result.code == 0
    assert "research   2 -> 3, wants 4: High load: 0.88 > 0.75" in result.out
    assert daemon.fake.requests[0].pool == "research"
    value = json.loads(ctl("check", "--output", "json").out)
    assert [one["pool"] for one in value["decisions"]] == ["research", "execution"]
