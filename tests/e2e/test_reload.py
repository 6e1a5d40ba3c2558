"""The configuration changes under a running agentd, for better or worse, and the two switches do what they say."""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import threading
from contextlib import suppress
from http.client import HTTPException

import pytest
from e2e_fleet import SAMPLE, Fleet, call, pids, set_load
from e2e_hosts import PATIENCE_S, environment

pytestmark = pytest.mark.host


def test_pools_come_and_go_with_a_reload(fleet: Fleet) -> None:
    research = fleet.core("researcher", 1)
    fleet.configure({"research": research, "analysis": fleet.core("analyst", 2)})
    fleet.start()
    stays, goes, comes = f"research-{fleet.ports[1]}", f"analysis-{fleet.ports[2]}", f"testing-{fleet.ports[3]}"
    before = fleet.ready(stays, goes)
    fleet.configure({"research": research, "testing": fleet.core("tester", 3)})
    fleet.signal(signal.SIGHUP)
    changed = fleet.event("config")
    assert (changed["reason"], changed["actor"]) == ("pool analysis removed; pool testing added", "SIGHUP")
    after = fleet.ready(stays, comes)
    assert after[stays]["pid"] == before[stays]["pid"]
    assert fleet.events("stop_forced", "exit") == []
    assert len(fleet.running()) == 2

    fleet.configure({"research": {**research, "drain_timeout_sec": 7}, "testing": fleet.core("tester", 3)})
    assert fleet.ctl("reload")["changes"] == ["pools.research.drain_timeout_sec: 10 -> 7"]
    assert pids(fleet.ready(stays, comes)) == pids(after)


def test_the_next_process_of_an_agent_is_made_by_the_new_file(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core(env={"MODEL": "old"}), "primary": fleet.core("primary", 2)})
    fleet.start()
    core, other = f"research-{fleet.ports[1]}", f"primary-{fleet.ports[2]}"
    before = fleet.ready(core, other)
    fleet.configure({"research": fleet.core(env={"MODEL": "new"}), "primary": fleet.core("primary", 2)})
    assert fleet.ctl("reload")["changes"] == ["pools.research.env.MODEL changed"]
    assert environment(before[core]["pid"])["MODEL"] == "old"
    os.kill(before[core]["pid"], signal.SIGKILL)
    fleet.event("restart", instance=core)
    after = fleet.ready(core, other)
    assert environment(after[core]["pid"])["MODEL"] == "new"
    assert after[other]["pid"] == before[other]["pid"]


def _occupy(port: int) -> None:
    """Give the agent there a task that outlasts the test."""
    with suppress(OSError, HTTPException):
        call(port, "POST", "/task", {"service_s": 600})


def test_agents_that_run_follow_another_concurrency(fleet: Fleet) -> None:
    pool = {"command": SAMPLE, "core": {"researcher": fleet.ports[1]}, "concurrency": 1}
    fleet.configure({"research": pool})
    fleet.start()
    ident = f"research-{fleet.ports[1]}"
    before = fleet.ready(ident)
    for _ in range(4):
        threading.Thread(target=_occupy, args=(fleet.ports[1],), daemon=True).start()
    fleet.until("one works and three wait", lambda: fleet.ps()[ident]["queue_length"] == 3)
    fleet.configure({"research": {**pool, "concurrency": 3}})
    assert fleet.ctl("reload")["changes"] == ["pools.research.concurrency: 1 -> 3"]
    fleet.until("three work at once", lambda: fleet.ps()[ident]["in_flight"] == 3)
    fleet.until("it has said so", lambda: fleet.ps()[ident]["concurrency"] == 3)
    (asked,) = fleet.ctl("configure", "researcher", "--concurrency", "4")["instances"]
    assert asked["id"] == ident
    fleet.until("all four work", lambda: fleet.ps()[ident]["in_flight"] == 4)
    assert pids(fleet.ready(ident)) == pids(before)
    assert [event["reason"] for event in fleet.events("configure")] == [
        "asked to work on 3 at a time instead of 1",
        "works on 3 at a time",
        "asked to work on 4 at a time instead of 3",
        "works on 4 at a time",
    ]
    assert fleet.ctl("configure", "research", "--interval", "1h", code=1) is None


def test_a_bad_file_changes_nothing_and_every_mistake_is_shown(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()})
    fleet.start()
    core = f"research-{fleet.ports[1]}"
    before = fleet.ready(core)
    good = fleet.file.read_text()
    fleet.file.write_text(good.replace("unhealthy_threshold: 3", "unhealthy_treshold: 3").replace("min: 1", "min: -1"))
    fleet.signal(signal.SIGHUP)
    told = fleet.event("config_rejected")["reason"]
    assert told.startswith("kept the old configuration, 2 problems: ")
    assert "unhealthy_treshold" in told and "min must be" in told

    shown = fleet.run("reload")
    assert (shown.returncode, shown.stdout) == (1, "")
    first, *problems = shown.stderr.splitlines()
    assert first == "agentctl: the old configuration stays, the file has errors"
    assert [
        re.fullmatch(rf"{fleet.file}:\d+:\d+: .*(treshold|min must be).*", one) is not None for one in problems
    ] == [
        True,
        True,
    ]
    assert fleet.ctl("config", "check", str(fleet.file), code=1)["ok"] is False

    fleet.file.write_text("pools: [")
    assert fleet.ctl("reload", code=1) is None
    fleet.file.unlink()
    assert fleet.ctl("reload", code=1) is None
    assert pids(fleet.ready(core)) == pids(before)
    fleet.file.write_text(good)
    assert fleet.ctl("reload")["changes"] == []


def test_of_very_many_mistakes_the_first_are_shown(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()})
    fleet.start()
    good = fleet.file.read_text()
    fleet.file.write_text(good + "history:\n" + "".join(f"  größe_{number}: 1\n" for number in range(500)))
    shown = fleet.run("reload")
    assert shown.returncode == 1
    problems = shown.stderr.splitlines()[1:]
    assert len(problems) > 5 and all(f"größe_{number}" in line for number, line in enumerate(problems[:-1]))
    assert problems[-1] == f"and {501 - len(problems)} more; agentctl config check {fleet.file} shows all"
    assert len(fleet.ctl("config", "check", str(fleet.file), code=1)["problems"]) == 500


def test_multi_agent_disabled_starts_nothing_and_stops_nothing(fleet: Fleet) -> None:
    pools = {"research": fleet.elastic(2, 5, min=1)}
    fleet.configure(pools, enabled=False)
    fleet.start()
    assert fleet.ps() == {}
    assert fleet.status()["enabled"] is False
    assert fleet.ctl("up", "2", code=1) is None
    assert fleet.ctl("check", code=1) is None
    assert fleet.http("POST", "/autoscaler/check")[0] == 409
    fleet.configure(pools)
    fleet.ctl("reload")
    ident = f"research-{fleet.ports[2]}"
    before = fleet.ready(ident)
    fleet.configure(pools, enabled=False)
    fleet.ctl("reload")
    assert pids(fleet.ready(ident)) == pids(before)
    os.kill(before[ident]["pid"], signal.SIGKILL)
    assert "left alone" in fleet.event("exit", instance=ident)["reason"]
    fleet.until("it is forgotten", lambda: fleet.ps() == {})
    assert fleet.running() == []
    assert fleet.events("restart") == []


def test_autoscaling_disabled_repairs_and_does_not_scale(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(2, 5, min=1)}, autoscaling=False)
    fleet.start()
    first, second = (f"research-{fleet.ports[number]}" for number in (2, 3))
    before = fleet.ready(first)
    set_load(fleet.ports[2], 0.9)
    fleet.until("the load is known", lambda: fleet.pool("research")["load"] == 0.9)
    (decision,) = fleet.ctl("check")["decisions"]
    assert (decision["wanted"], decision["reasons"][0]["code"]) == (1, "autoscaling_off")
    os.kill(before[first]["pid"], signal.SIGKILL)
    fleet.event("restart", instance=first)
    fleet.ready(first)

    fleet.ctl("auto", "on")
    set_load(fleet.ports[2], 0.9)
    fleet.event("scale_up", instance=second)
    fleet.ctl("auto", "off")
    fleet.kill()
    fleet.start()
    assert fleet.status()["autoscaling"]["enabled"] is False
    fleet.ready(first, second)


def test_a_switch_set_by_a_person_outlives_a_reload(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()}, autoscaling=True)
    fleet.start()
    assert fleet.status()["autoscaling"]["enabled"] is True
    fleet.ctl("auto", "off")
    fleet.ctl("reload")
    assert fleet.status()["autoscaling"]["enabled"] is False


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's socket")
def test_operators_may_steer_from_the_reload_on(fleet: Fleet) -> None:
    nobody = pwd.getpwnam("nobody")

    def check() -> bytes:
        host, _, port = fleet.status()["http_address"].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as caller:
            os.fchown(caller.fileno(), nobody.pw_uid, -1)
            caller.sendall(f"POST /autoscaler/check HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            return caller.makefile("rb").readline().split()[1]

    pools = {"research": fleet.core()}
    fleet.configure(pools)
    fleet.start()
    assert check() == b"403"
    fleet.configure(pools, operators=["nobody"])
    assert fleet.ctl("reload")["changes"] == ["operators: none -> nobody"]
    assert check() == b"200"
    fleet.configure(pools)
    fleet.ctl("reload")
    assert check() == b"403"
