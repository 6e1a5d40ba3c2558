"""The first minute: core agents start, and every command and page answers from the real thing."""

from __future__ import annotations

import os
import signal

import pytest
from e2e_fleet import Fleet
from e2e_hosts import is_alive

pytestmark = pytest.mark.host

COMMANDS = (
    ("status",),
    ("ps",),
    ("up", "3"),
    ("down", "1", "--pool", "research"),
    ("auto",),
    ("auto", "off"),
    ("check",),
    ("plan",),
    ("explain", "research"),
    ("explain", "research", "--at", "10m"),
    ("events",),
    ("events", "--follow"),
    ("logs", "research-9101"),
    ("logs", "researcher", "--follow"),
    ("restart", "researcher"),
    ("reload",),
    ("shutdown",),
)


def two_pools(fleet: Fleet) -> tuple[str, str]:
    """A pool of one, and one that may grow to three; the ids of their core agents."""
    fleet.configure(
        {
            "primary": fleet.core("primary", 1),
            "research": {"core": {"researcher": fleet.ports[2]}, "ports": [fleet.ports[3], fleet.ports[6]], "max": 3},
        }
    )
    fleet.start()
    ids = f"primary-{fleet.ports[1]}", f"research-{fleet.ports[2]}"
    fleet.ready(*ids)
    return ids


def test_core_agents_start_and_are_shown(fleet: Fleet) -> None:
    ids = two_pools(fleet)
    listed = fleet.ctl("ps")
    assert tuple(one["id"] for one in listed) == ids
    assert [list(one)[:5] for one in listed] == [["id", "pool", "port", "pid", "state"]] * 2
    assert all(is_alive(one["pid"]) and one["state"] == "ready" and one["load"] == 0.0 for one in listed)
    assert {(process.pid, process.instance) for process in fleet.running()} == {(o["pid"], o["id"]) for o in listed}

    status = fleet.ctl("status")
    assert (status["enabled"], status["driver"], status["degraded"]) == (True, "process", [])
    assert (status["config_file"], status["state_dir"]) == (str(fleet.file), str(fleet.state_dir))
    assert {pool["name"]: (pool["count"], pool["ready"], pool["max"]) for pool in status["pools"]} == {
        "primary": (1, 1, 1),
        "research": (1, 1, 3),
    }
    assert [event["type"] for event in fleet.ctl("events", "--instance", ids[0])] == ["start", "ready"]
    assert fleet.ctl("logs", "researcher") == [
        {"instance": ids[1], "line": f"{ids[1]} listens on {fleet.ports[2]}"},
    ]
    for table in ("status", "ps", "events"):
        shown = fleet.run(table)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "research" in shown.stdout


def test_people_steer_the_fleet(fleet: Fleet) -> None:
    primary, researcher = two_pools(fleet)
    second = f"research-{fleet.ports[3]}"
    assert fleet.ctl("up", "2", "--pool", "research", "--reason", "a test")["granted_in_full"] is True
    fleet.ready(primary, researcher, second)
    assert fleet.pool("research")["target"]["reason"] == "a test"

    partly = fleet.ctl("up", "9", "--pool", "research", code=4)
    assert (partly["grants"][0]["wanted"], partly["grants"][0]["granted"]) == (9, 3)
    assert "max_agents" in partly["grants"][0]["limits"][0]
    third = f"research-{fleet.ports[4]}"
    fleet.ready(primary, researcher, second, third)
    assert fleet.ctl("up", "1", "--pool", "research", code=2) is None
    assert fleet.ctl("down", "9", "--pool", "research", code=2) is None
    assert fleet.ctl("down", "1", "--pool", "nosuch", code=1) is None

    explained = fleet.ctl("explain", "research")
    assert explained["pool"]["next"]["reasons"][0]["code"] == "target"
    assert [(made["current"], made["granted"]) for made in explained["decisions"][-2:]] == [(2, 3), (1, 2)]
    then = fleet.ctl("explain", "research", "--at", "1h")
    assert then["decisions"] == [] and then["following"]["granted"] == 2
    (plan,) = fleet.ctl("plan", "--pool", "research")["plans"]
    assert plan["decision"]["current"] == explained["pool"]["next"]["current"] and plan["decision"]["chain"]
    assert fleet.ctl("explain", "research", "--limit", "1")["decisions"] == explained["decisions"][:1]

    assert fleet.ctl("down", "2")["granted_in_full"] is True
    fleet.ready(primary, researcher)
    # Core agents are never let go.
    assert fleet.ctl("down", "0", code=4)["granted_in_full"] is False
    fleet.ready(primary, researcher)
    assert fleet.event("scale_up", pool="research", count=2)["instance"] == third
    assert {event["instance"] for event in fleet.events("scale_down")} == {second, third}


def test_check_auto_restart_and_reload(fleet: Fleet) -> None:
    primary, researcher = two_pools(fleet)
    assert [decision["pool"] for decision in fleet.ctl("check")["decisions"]] == ["primary", "research"]
    assert fleet.ctl("auto")["enabled"] is True
    assert fleet.ctl("auto", "off", "--reason", "a test")["enabled"] is False
    assert fleet.status()["autoscaling"]["reason"] == "a test"

    before = fleet.ps()
    assert fleet.ctl("restart", "researcher") == {"instances": [researcher], "restart": None, "ended": None}
    fleet.event("restart", instance=researcher, count=2)  # asked for, and done
    after = fleet.ready(primary, researcher)
    assert after[researcher]["incarnation"] != before[researcher]["incarnation"]
    assert after[primary]["pid"] == before[primary]["pid"]
    assert fleet.ctl("restart", "nobody", code=1) is None

    assert fleet.ctl("reload")["changes"] == []
    assert fleet.ctl("explain", "nosuch", code=1) is None
    for nobody in ("nosuch", "x" * 20_000):  # the text of a refusal travels in headers, which have a limit
        refused = fleet.run("restart", nobody)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert refused.stderr.startswith("agentctl: no instance, core agent or pool is called")


def test_the_http_api_has_the_original_shapes(fleet: Fleet) -> None:
    two_pools(fleet)
    assert fleet.http("GET", "/autoscaler/stats") == (
        200,
        {
            "policy": {
                "scale_up_threshold": 0.75,
                "scale_down_threshold": 0.25,
                "min_agents_per_type": 1,
                "max_agents_per_type": 5,
            },
            "specializations": {
                "primary": {"count": 1, "avg_load": 0.0},
                "research": {"count": 1, "avg_load": 0.0},
            },
            "scaling_events": 0,
            "unhealthy_agents": 0,
        },
    )
    assert fleet.http("GET", "/autoscaler/events?limit=10") == (200, {"events": []})
    # From the user who runs agentd, without any further ceremony.
    assert fleet.http("POST", "/autoscaler/enable") == (200, {"enabled": True})
    assert fleet.status()["autoscaling"]["enabled"] is True
    assert fleet.http("POST", "/autoscaler/disable") == (200, {"enabled": False})
    assert fleet.status()["autoscaling"]["enabled"] is False
    status, checked = fleet.http("POST", "/autoscaler/check")
    assert (status, [decision["pool"] for decision in checked["decisions"]]) == (200, ["primary", "research"])

    fleet.ctl("up", "2", "--pool", "research")
    fleet.event("scale_up")
    (event,) = fleet.http("GET", "/autoscaler/events?limit=5")[1]["events"]
    assert set(event) == {"timestamp", "type", "specialization", "reason", "agent_id"}
    assert (event["type"], event["specialization"]) == ("scale_up", "research")
    assert event["agent_id"] == f"research-{fleet.ports[3]}"

    assert fleet.http("GET", "/healthz")[0] == fleet.http("GET", "/readyz")[0] == 200
    assert "<html" in fleet.http("GET", "/")[1]
    assert "agentd_" in fleet.http("GET", "/metrics")[1]


def test_a_web_page_from_elsewhere_changes_nothing(fleet: Fleet) -> None:
    two_pools(fleet)
    assert fleet.http("POST", "/autoscaler/enable", Origin="http://evil.example")[0] == 403
    assert fleet.http("POST", "/autoscaler/enable", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert fleet.http("GET", "/autoscaler/stats", Host="evil.example")[0] == 421
    assert fleet.http("GET", "/autoscaler/enable")[0] == 405
    assert fleet.status()["autoscaling"]["enabled"] is False


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_daemon_a_command_ends_with_one_line(fleet: Fleet, command: tuple[str, ...]) -> None:
    done = fleet.run(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "no agentd is running" in done.stderr


def test_a_socket_that_a_killed_agentd_left_behind_is_no_daemon(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()})
    fleet.start()
    fleet.kill()
    assert os.path.exists(fleet.address.removeprefix("unix:"))
    done = fleet.run("status", "--output", "json")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)


def test_agentctl_finds_the_agentd_of_its_user(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()})
    fleet.state_dir = fleet.root / ".local/state/agentd"
    fleet.start()
    found = fleet.run("ps", "--output", "json", find=True)
    assert found.returncode == 0, found.stderr
    fleet.signal(signal.SIGTERM)
    assert fleet.ended() == 0
    assert fleet.run("ps", find=True).returncode == 3
