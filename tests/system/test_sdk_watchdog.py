"""Agents that use the SDK under PID 1's eyes alone: agentd does not run in any of these tests."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator

import pytest
from testhost import PATIENCE, Host, wait_until

PYTHON = "/usr/lib/agentd/venv/bin/python"
INSTANCE = "research-9101"
UNIT = f"agent@{INSTANCE}.service"
DROP_IN = f"/run/systemd/system/{UNIT}.d/test.conf"
WATCHDOG_S = 5.0 * PATIENCE  # the agent's own start is within it
AGENT = """
import asyncio, ctypes, signal
from agentd.sdk import Agent

async def main():
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    # All threads stand still: the one that sleeps does not give the interpreter's lock back.
    loop.add_signal_handler(signal.SIGUSR1, lambda: ctypes.PyDLL(None).sleep(1000))
    async with Agent.from_env():
        print("the agent is ready", flush=True)
        await end.wait()

asyncio.run(main())
"""
# What the SDK does while agentd's drain goes on, for longer than the unit's own stop timeout.
DRAINING = """
import os, signal, time
from agentd.sdk.notify import Notifier

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
notifier = Notifier.from_env(os.environ, os.getpid())
notifier.ready(time.monotonic())
signal.sigwait({signal.SIGTERM})
deadline = time.monotonic() + 8.0
while (left_s := deadline - time.monotonic()) > 0.0:
    notifier.ping(time.monotonic(), left_s)
    time.sleep(0.2)
print("drained", flush=True)
notifier.end(stopping=True)
"""

Start = Callable[..., None]


@pytest.fixture
def start(shared_host: Host) -> Iterator[Start]:
    """Start the instance with a program and, of its unit, other settings; it is gone after the test."""

    def start(program: str, **settings: str) -> None:
        shared_host.write("/opt/agent.py", textwrap.dedent(program))
        order = json.dumps({"command": [PYTHON, "/opt/agent.py"], "env": {}, "notify": False})
        told = {
            "AGENTD_INSTANCE": INSTANCE,
            "AGENTD_PORT": "9101",
            "AGENTD_ENDPOINT": "unix:/run/agentd/agents.sock",
            "AGENTD_CONCURRENCY": "1",
            "AGENTD_LAUNCH": f"'{order}'",
        }
        lines = "".join(f"{name}={value}\n" for name, value in told.items())
        shared_host.write(f"/run/agentd/instances/{INSTANCE}.env", lines)
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        shared_host.write(DROP_IN, f"[Service]\n{lines}")
        shared_host.exec("systemctl", "daemon-reload")
        shared_host.exec("systemctl", "start", UNIT)

    yield start
    shared_host.exec("systemctl", "kill", "--signal=KILL", UNIT, check=False)
    shared_host.exec("systemctl", "stop", UNIT, check=False)
    shared_host.exec("systemctl", "reset-failed", UNIT, check=False)
    shared_host.exec("rm", "-f", DROP_IN, f"/run/agentd/instances/{INSTANCE}.env")
    shared_host.exec("systemctl", "daemon-reload")
    # What this test's agents have said is not what the next one's say.
    shared_host.exec("journalctl", "--rotate", "--vacuum-time=1us")


def shown(host: Host, name: str) -> str:
    return host.show(UNIT, name)[name]


def said(host: Host) -> list[str]:
    """What has been said of the unit in this test, by its agents and by systemd."""
    return [str(entry["MESSAGE"]) for entry in host.journal(f"--unit={UNIT}")]


def armed(host: Host) -> str:
    """Wait until the SDK has armed the watchdog; its timeout."""
    return wait_until(lambda: (found := shown(host, "WatchdogUSec")) not in ("0", "infinity") and found, "it is armed")


def test_the_sdk_arms_the_watchdog_where_the_unit_has_none(shared_host: Host, start: Start) -> None:
    start(AGENT)
    assert armed(shared_host) == "30s"
    shared_host.exec("systemctl", "stop", UNIT)
    assert shared_host.show(UNIT, "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}


def test_an_agent_pings_for_as_long_as_it_lives_without_agentd(shared_host: Host, start: Start) -> None:
    start(AGENT, WatchdogSec=f"{WATCHDOG_S:g}")
    began = int(shown(shared_host, "ActiveEnterTimestampMonotonic"))
    enough = began + int(2.5e6 * WATCHDOG_S)
    wait_until(lambda: int(shown(shared_host, "WatchdogTimestampMonotonic")) > enough, "pings over two such times")
    assert shared_host.show(UNIT, "NRestarts", "ActiveState") == {"NRestarts": "0", "ActiveState": "active"}


@pytest.mark.parametrize("signal", ["STOP", "USR1"], ids=["stopped", "locked up"])
def test_an_agent_that_stands_still_is_killed_and_started_again(shared_host: Host, start: Start, signal: str) -> None:
    start(AGENT, WatchdogSec=f"{WATCHDOG_S:g}")
    wait_until(lambda: "the agent is ready" in said(shared_host), "the agent is ready")
    before = shown(shared_host, "MainPID")
    shared_host.exec("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", UNIT)
    wait_until(lambda: shown(shared_host, "NRestarts") == "1" and shown(shared_host, "MainPID") != "0", "a new start")
    assert shown(shared_host, "MainPID") != before
    assert f"{UNIT}: Failed with result 'watchdog'." in said(shared_host)


def test_a_drain_may_take_longer_than_the_units_stop_timeout(shared_host: Host, start: Start) -> None:
    start(DRAINING, TimeoutStopSec="5")
    wait_until(lambda: shown(shared_host, "WatchdogUSec") == "30s", "it waits for its TERM")
    shared_host.exec("systemctl", "stop", UNIT)
    assert shared_host.show(UNIT, "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert "drained" in said(shared_host)
