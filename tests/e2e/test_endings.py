"""agentd ends: with its agents or without them, and never with anybody else's."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
from e2e_fleet import Fleet, pids, shell
from e2e_hosts import is_alive

pytestmark = pytest.mark.host


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like an agent, of no agentd."""
    process = subprocess.Popen(["sleep", "1000"], env={"AGENTD_INSTANCE": "research-1", "AGENTD_STATE_ID": "else"})
    yield process
    process.kill()
    process.wait()


def two(fleet: Fleet) -> dict[str, tuple[int, str]]:
    fleet.configure({"primary": fleet.core("primary", 1), "research": fleet.elastic(2, 5, min=1)})
    fleet.start()
    return pids(fleet.ready(f"primary-{fleet.ports[1]}", f"research-{fleet.ports[2]}"))


def test_interrupt_ends_every_agent_and_nobody_else(fleet: Fleet, stranger: subprocess.Popen[bytes]) -> None:
    two(fleet)
    fleet.signal(signal.SIGINT)
    assert fleet.ended() == 0
    assert fleet.running() == []
    assert stranger.poll() is None
    assert fleet.log.count(" stop pool=") == 2
    assert "stop_forced" not in fleet.log
    for ident in (f"primary-{fleet.ports[1]}", f"research-{fleet.ports[2]}"):
        assert (fleet.state_dir / "logs" / f"{ident}.log").read_text().endswith("finished, 0 tasks\n")


def test_terminate_leaves_the_agents_running(fleet: Fleet) -> None:
    before = two(fleet)
    fleet.signal(signal.SIGTERM)
    assert fleet.ended() == 0
    assert {process.instance: (process.pid, process.incarnation) for process in fleet.running()} == before
    assert "agents run on" in fleet.log


def test_shutdown_ends_the_agents_too(fleet: Fleet) -> None:
    two(fleet)
    assert fleet.ctl("shutdown") == {"stopping": 2}
    assert fleet.ended() == 0
    assert fleet.running() == []
    # The next one begins anew, in the same places.
    fleet.start()
    fleet.ready(f"primary-{fleet.ports[1]}", f"research-{fleet.ports[2]}")


def test_shutdown_can_keep_the_agents(fleet: Fleet) -> None:
    before = two(fleet)
    assert fleet.ctl("shutdown", "--keep-agents") == {"stopping": 0}
    assert fleet.ended() == 0
    assert {process.instance: (process.pid, process.incarnation) for process in fleet.running()} == before
    fleet.start()
    assert pids(fleet.ready(*before)) == before


@pytest.mark.parametrize("twice", ["interrupt", "shutdown"])
def test_asked_a_second_time_agentd_hurries(fleet: Fleet, twice: str) -> None:
    slow = shell("trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    fleet.configure({"research": fleet.core(command=slow, health="none", drain_timeout_sec=3600)})
    fleet.start()
    core = f"research-{fleet.ports[1]}"
    pid = fleet.ready(core)[core]["pid"]
    fleet.until("it ignores TERM", lambda: fleet.run("logs", core).stdout == "deaf\n")
    fleet.signal(signal.SIGINT)
    fleet.until("it is being stopped", lambda: fleet.ps()[core]["state"] == "stopping")
    assert is_alive(pid)
    if twice == "interrupt":
        fleet.signal(signal.SIGINT)
    else:
        fleet.ctl("shutdown")
    assert fleet.ended() == 0
    assert fleet.running() == []
    assert "stop_forced" in fleet.log


def test_terminate_while_agents_are_being_stopped_leaves_them_to_themselves(fleet: Fleet) -> None:
    slow = shell("trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    fleet.configure({"research": fleet.core(command=slow, health="none", drain_timeout_sec=3600)})
    fleet.start()
    core = f"research-{fleet.ports[1]}"
    pid = fleet.ready(core)[core]["pid"]
    fleet.until("it ignores TERM", lambda: fleet.run("logs", core).stdout == "deaf\n")
    fleet.signal(signal.SIGINT)
    fleet.until("it is being stopped", lambda: fleet.ps()[core]["state"] == "stopping")
    fleet.signal(signal.SIGTERM)
    assert fleet.ended() == 0
    assert is_alive(pid)


def test_who_follows_does_not_hold_agentd_up_and_is_told(fleet: Fleet) -> None:
    two(fleet)
    events, log = fleet.follow("events", "--follow"), fleet.follow("logs", f"primary-{fleet.ports[1]}", "--follow")
    assert events.stdout is not None and log.stdout is not None
    assert json.loads(events.stdout.readline())["type"] == "agentd_start"
    assert "listens on" in json.loads(log.stdout.readline())["line"]
    host, _, port = fleet.status()["http_address"].rpartition(":")
    with socket.create_connection((host, int(port))) as stream:
        stream.sendall(f"GET /events/stream HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert b" 200 " in stream.recv(4096)
        fleet.signal(signal.SIGTERM)
        assert fleet.ended() == 0
    complaint = log.communicate(timeout=30)[1]
    assert (log.returncode, complaint.count("\n")) == (3, 1), complaint
    assert events.stderr is not None
    assert events.stderr.readline() == "agentctl: agentd is away; going on when it is back\n"
    events.send_signal(signal.SIGINT)
    assert events.communicate(timeout=30)[1] == ""
    assert events.returncode == 130
    assert fleet.log.count("Traceback") == 0


def test_interrupted_before_it_began_agentd_says_nothing(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()})
    for sign in (fleet.state_dir, fleet.state_dir / "identity", fleet.state_dir / "agentd.db"):
        daemon = fleet.start(wait=False)
        fleet.until(f"{sign.name} is there", sign.exists)
        daemon.send_signal(signal.SIGINT)
        assert fleet.ended() in (130, 0)
        shutil.rmtree(fleet.state_dir)
    assert "Traceback" not in fleet.log
    assert "KeyboardInterrupt" not in fleet.log
