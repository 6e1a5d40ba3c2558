"""Agents that die, hang, crash in a loop or cannot be started at all."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from e2e_fleet import PATIENT, QUICK, Fleet, pids, shell
from e2e_hosts import is_alive

pytestmark = pytest.mark.host

RESTART = {"initial_sec": 0.05, "max_sec": 0.1, "attempts_max": 3}
GRPC_AGENT = [sys.executable, str(Path(__file__).with_name("e2e_grpc_agent.py"))]
HTTP_AGENT = shell(f"exec {sys.executable} -m http.server --bind 127.0.0.1 $AGENTD_PORT")


def test_a_killed_agent_is_back_in_place(fleet: Fleet) -> None:
    fleet.configure({"primary": fleet.core("primary", 1), "research": fleet.elastic(2, 5, min=2)})
    fleet.start()
    first, second = (f"research-{fleet.ports[number]}" for number in (2, 3))
    primary = f"primary-{fleet.ports[1]}"
    before = fleet.ready(primary, first, second)
    os.kill(before[first]["pid"], signal.SIGKILL)
    assert "signal 9" in fleet.event("exit", instance=first)["reason"]
    fleet.event("restart", instance=first)
    after = fleet.ready(primary, first, second)
    assert after[first]["port"] == before[first]["port"]
    assert after[first]["incarnation"] != before[first]["incarnation"]
    assert after[first]["restarts"] == 1
    del before[first], after[first]
    assert pids(after) == pids(before)
    assert fleet.status()["scaling_events"] == 0
    assert len(fleet.running()) == 3


def test_a_hung_elastic_agent_is_replaced_on_the_next_port(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(2, 5, min=1)}, rules=QUICK)
    fleet.start()
    old, new = (f"research-{fleet.ports[number]}" for number in (2, 3))
    before = fleet.ready(old)
    os.kill(before[old]["pid"], signal.SIGSTOP)
    fleet.event("late", instance=old)
    assert fleet.event("replace", instance=old)["reason"] == f"Missed heartbeats: 3 >= 3; {new} takes over"
    fleet.ready(new)
    told = [(event["type"], event["instance"]) for event in fleet.events()]
    order = [("late", old), ("replace", old), ("start", new), ("ready", new), ("stop", old)]
    assert [told.index(one) for one in order] == sorted(told.index(one) for one in order)
    assert not is_alive(before[old]["pid"])
    assert fleet.status()["scaling_events"] == 1
    assert [process.instance for process in fleet.running()] == [new]


def test_a_hung_core_agent_is_restarted_in_place(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()}, rules=QUICK)
    fleet.start()
    core = f"research-{fleet.ports[1]}"
    before = fleet.ready(core)
    os.kill(before[core]["pid"], signal.SIGSTOP)
    assert "restarting in place" in fleet.event("replace", instance=core)["reason"]
    fleet.event("restart", instance=core)
    after = fleet.ready(core)
    assert after[core]["incarnation"] != before[core]["incarnation"]
    assert not is_alive(before[core]["pid"])
    assert len(fleet.running()) == 1


def test_an_agent_that_ignores_term_is_killed_with_its_children_after_its_grace(fleet: Fleet) -> None:
    stubborn = shell("trap '' TERM; sleep 1000 & setsid sleep 1000 & while :; do sleep 0.1; done")
    fleet.configure({"research": fleet.elastic(min=0, command=stubborn, health="none", drain_timeout_sec=0.3)})
    fleet.start()
    fleet.ctl("up", "1")
    ident = f"research-{fleet.ports[2]}"
    fleet.ready(ident)
    fleet.until("its children run", lambda: len(fleet.running()) >= 3)
    fleet.ctl("down", "0")
    assert "0.3 s of grace" in fleet.event("stop_forced", instance=ident)["reason"]
    assert fleet.ps() == {}
    assert fleet.running() == []


def test_programs_of_every_health_check_become_ready_and_the_hung_are_replaced(fleet: Fleet) -> None:
    fleet.configure(
        {
            "plain": fleet.core("plain", 1, command=["sleep", "infinity"], health="none"),
            "web": fleet.core("web", 2, command=HTTP_AGENT, health="http", drain_timeout_sec=1),
            "rpc": fleet.elastic(3, 6, command=GRPC_AGENT, health="grpc", drain_timeout_sec=1),
        },
        rules=QUICK,
    )
    fleet.start()
    plain, web, rpc, rpc_next = (
        f"{pool}-{fleet.ports[number]}" for pool, number in (("plain", 1), ("web", 2), ("rpc", 3), ("rpc", 4))
    )
    before = fleet.ready(plain, web, rpc)
    assert [one["health"] for one in before.values()] == ["none", "grpc", "http"]
    for ident in (web, rpc):
        os.kill(before[ident]["pid"], signal.SIGSTOP)
    fleet.event("restart", instance=web)
    after = fleet.ready(plain, web, rpc_next)
    assert after[web]["incarnation"] != before[web]["incarnation"]
    assert after[plain]["pid"] == before[plain]["pid"]
    assert not is_alive(before[rpc]["pid"])


def test_a_crash_loop_ends_in_failed_and_a_person_gets_it_out(fleet: Fleet) -> None:
    starts, fixed = fleet.root / "starts", fleet.root / "fixed"
    command = shell(f"echo $$ >>{starts}; test -e {fixed} && exec sleep infinity; exit 7")
    fleet.configure({"research": fleet.core(command=command, health="heartbeat", restart=RESTART)})
    fleet.start()
    core = f"research-{fleet.ports[1]}"
    reason = fleet.event("crash_loop", instance=core)["reason"]
    assert reason == f"{core} ended 3 times in a row, the last time with exit code 7"
    # Nothing is tried any more, checks and all.
    failed = fleet.until("failed for 1.5 s", lambda: [o for o in fleet.ps().values() if o["state_age_s"] > 1.5])[0]
    assert (failed["state"], failed["cause"], failed["pid"]) == ("failed", f"crash_loop: {reason}", 0)
    assert starts.read_text().count("\n") == 3
    assert fleet.running() == []
    assert fleet.pool("research")["failed"] == 1
    assert "failed" in fleet.run("status").stdout
    assert fleet.ctl("shutdown") == {"stopping": 0}, "nothing is left that could end"
    assert fleet.ended() == 0
    assert "0 agents run on" in fleet.log


def test_a_fixed_program_is_brought_back_by_restart(fleet: Fleet) -> None:
    fixed = fleet.root / "fixed"
    command = shell(f"test -e {fixed} && exec sleep infinity; exit 7")
    fleet.configure({"research": fleet.core(command=command, health="none", restart=RESTART)})
    fleet.start()
    core = f"research-{fleet.ports[1]}"
    fleet.event("crash_loop", instance=core)
    fixed.touch()
    assert fleet.ctl("restart", "researcher")["instances"] == [core]
    after = fleet.ready(core)
    fleet.until("it stays", lambda: fleet.ps()[core]["state_age_s"] > 0.5)
    assert pids(fleet.ps()) == pids(after)


def test_a_command_that_is_not_there_is_named(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core(command=["/nowhere/agent"])})
    fleet.start()
    core = f"research-{fleet.ports[1]}"
    assert "command_not_found" in fleet.event("start_failed", instance=core)["reason"]
    assert "/nowhere/agent" in fleet.events("start_failed")[0]["reason"]
    assert fleet.ps()[core]["state"] in ("failed", "pending")
    assert fleet.run("logs", core).returncode == 1


def test_agentd_that_was_stopped_itself_blames_no_agent(fleet: Fleet) -> None:
    # Nobody is late because this machine hiccups: one silence that is long, instead of several short ones in turn.
    silent = {**PATIENT, "heartbeat_timeout_sec": 5, "unhealthy_threshold": 1}
    fleet.configure({"primary": fleet.core("primary", 1), "research": fleet.elastic(2, 5, min=1)}, rules=silent)
    fleet.start()
    ids = f"primary-{fleet.ports[1]}", f"research-{fleet.ports[2]}"
    before = fleet.ready(*ids)
    fleet.signal(signal.SIGSTOP)
    # As on a laptop whose lid was closed for longer than all patience with an agent.
    over = time.monotonic() + 7
    fleet.until("silence has lasted", lambda: time.monotonic() > over)
    fleet.signal(signal.SIGCONT)
    begun = time.monotonic()
    fleet.until(
        "they are heard again",
        lambda: time.monotonic() - begun > max(one["last_beat_age_s"] for one in fleet.ps().values()),
    )
    assert pids(fleet.ready(*ids)) == pids(before)
    assert fleet.events("late", "replace", "restart") == []
