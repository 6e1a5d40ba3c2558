"""What an agent tells systemd, heard by a stand-in for it."""

from __future__ import annotations

import logging
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd.sdk import Agent
from agentd.sdk.notify import EXTENSION_S, PINGS, WATCHDOG_S, Notifier
from agentd.v1 import agent_pb2

MakeReply = Callable[..., agent_pb2.HeartbeatReply]

DRAIN = agent_pb2.Directive.KIND_DRAIN
FAILED_PRECONDITION = 9
ME = os.getpid()
PING = {"WATCHDOG": "1"}


class Systemd:
    """Hears what is said to $NOTIFY_SOCKET; at once, for the socket holds a few messages and then takes no more."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.env = {"NOTIFY_SOCKET": address, "SYSTEMD_EXEC_PID": str(ME)}
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self._heard.put(message.decode())

    def hear(self) -> dict[str, str]:
        """The next message, each variable with its value."""
        return dict(line.split("=", 1) for line in self._heard.get(timeout=30).split("\n"))

    def forget(self) -> None:
        """What was said until now is heard."""
        while not self._heard.empty():
            self._heard.get()

    def hear_of(self, name: str) -> dict[str, str]:
        while name not in (message := self.hear()):
            pass
        return message

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@agentd-test-{ME}")
    yield made
    made.close()


# -- who may speak ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "@"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/run/x", "SYSTEMD_EXEC_PID": str(ME + 1)},
        {"NOTIFY_SOCKET": "/run/x", "SYSTEMD_EXEC_PID": str(ME), "WATCHDOG_PID": str(ME + 1)},
    ],
)
def test_only_the_main_process_of_a_unit_speaks(env: dict[str, str]) -> None:
    assert Notifier.from_env(env, ME) is None


@pytest.mark.parametrize(
    ("more", "watchdog_s"),
    [
        ({}, WATCHDOG_S),
        ({"SYSTEMD_EXEC_PID": str(ME)}, WATCHDOG_S),
        ({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": str(ME)}, 5.0),
        ({"WATCHDOG_USEC": "5000000"}, 5.0),
        ({"WATCHDOG_USEC": "0"}, WATCHDOG_S),
        ({"WATCHDOG_USEC": "soon"}, WATCHDOG_S),
    ],
)
def test_the_units_own_watchdog_counts(more: dict[str, str], watchdog_s: float) -> None:
    made = Notifier.from_env({"NOTIFY_SOCKET": "/run/x", **more}, ME)
    assert made is not None
    assert made.watchdog_s == watchdog_s


def test_a_child_of_an_agent_stays_quiet(systemd: Systemd) -> None:
    code = "import os; from agentd.sdk import Agent\nwith Agent.from_env(): pass"
    env = {**os.environ, **systemd.env, "AGENTD_ENDPOINT": ""}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    del env["SYSTEMD_EXEC_PID"]  # now it can take itself for the main process
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    assert systemd.hear() == {"READY": "1"}


# -- what is said -----------------------------------------------------------------------------------


def test_the_watchdog_is_armed_pinged_in_time_and_disarmed(systemd: Systemd) -> None:
    made = Notifier.from_env(systemd.env, ME)
    assert made is not None
    assert made.due_in_s(0.0) == float("inf")
    made.ready(100.0)
    assert systemd.hear() == {"READY": "1", "WATCHDOG_USEC": "30000000", **PING}
    assert made.due_in_s(100.0) == WATCHDOG_S / PINGS
    made.ping(109.0, None)
    assert systemd.hear() == PING
    assert made.due_in_s(110.0) == WATCHDOG_S / PINGS - 1.0
    made.end(stopping=False)
    assert systemd.hear() == {"WATCHDOG_USEC": "0"}


def test_a_watchdog_of_the_unit_is_left_as_it_is(systemd: Systemd) -> None:
    made = Notifier.from_env({**systemd.env, "WATCHDOG_USEC": "90000000"}, ME)
    assert made is not None
    made.ready(0.0)
    assert systemd.hear() == {"READY": "1", **PING}
    assert made.due_in_s(0.0) == 30.0
    made.end(stopping=True)
    assert systemd.hear() == {"STOPPING": "1", "WATCHDOG_USEC": "0"}


def test_a_stop_is_extended_until_the_deadline_has_passed(systemd: Systemd) -> None:
    made = Notifier.from_env(systemd.env, ME)
    assert made is not None
    said = []
    for left_s in (600.0, 0.1, 0.0, None):
        made.ping(0.0, left_s)
        said.append(systemd.hear())
    extended = {**PING, "EXTEND_TIMEOUT_USEC": str(int(EXTENSION_S * 1e6))}
    assert said == [extended, extended, PING, PING]
    # With rarer pings each must last until the next.
    rare = Notifier.from_env({**systemd.env, "WATCHDOG_USEC": "300000000"}, ME)
    assert rare is not None
    rare.ping(0.0, 600.0)
    assert systemd.hear() == {**PING, "EXTEND_TIMEOUT_USEC": "300000000"}


def test_a_systemd_that_does_not_listen_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentd.sdk")
    made = Notifier.from_env({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, ME)
    assert made is not None
    for _ in range(3):
        made.ping(0.0, None)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["cannot tell systemd WATCHDOG=1"]


# -- with an agent ----------------------------------------------------------------------------------


QUICK = {"WATCHDOG_USEC": "150000", "WATCHDOG_PID": str(ME)}  # three pings in 150 ms


def test_an_agent_pings_with_and_without_agentd(fake: Any, systemd: Systemd) -> None:
    with Agent.from_env({**fake.env(), **systemd.env, **QUICK}):
        assert systemd.hear() == {"READY": "1", **PING}
        fake.until(lambda beats: beats)
        for _ in range(3):
            assert systemd.hear() == PING
        fake.stop()
        systemd.forget()
        for _ in range(20):
            assert systemd.hear() == PING
    assert systemd.hear_of("WATCHDOG_USEC") == {"WATCHDOG_USEC": "0"}


def test_an_agentd_that_does_not_answer_holds_up_no_ping(fake: Any, make_reply: MakeReply, systemd: Systemd) -> None:
    release = threading.Event()

    def answer(_beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        release.wait(30)
        return make_reply()

    fake.answer = answer
    with Agent.from_env({**fake.env(), **systemd.env, **QUICK}):
        assert systemd.hear() == {"READY": "1", **PING}
        for _ in range(5):
            assert systemd.hear() == PING
        assert not release.is_set()
    release.set()


def test_a_superseded_agent_pings_until_it_has_finished(fake: Any, make_refusal: Any, systemd: Systemd) -> None:
    def answer(_beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        raise make_refusal(FAILED_PRECONDITION, "SUPERSEDED")

    fake.answer = answer
    with Agent.from_env({**fake.env(), **systemd.env, **QUICK}) as agent:
        assert agent.stopping.wait(30)
        beats = len(fake.beats)
        assert systemd.hear() == {"READY": "1", **PING}
        for _ in range(10):
            assert systemd.hear() == PING
        assert len(fake.beats) == beats
    assert systemd.hear_of("STOPPING") == {"STOPPING": "1", "WATCHDOG_USEC": "0"}


def test_a_drain_extends_the_stop_and_says_stopping_at_its_end(
    fake: Any, make_reply: MakeReply, systemd: Systemd
) -> None:
    fake.answer = lambda _beat: make_reply(DRAIN, 7, deadline_s=20.0)
    with Agent.from_env({**fake.env(), **systemd.env, **QUICK}):
        said = [systemd.hear_of("EXTEND_TIMEOUT_USEC") for _ in range(3)]
        assert all(message == {**PING, "EXTEND_TIMEOUT_USEC": "30000000"} for message in said)
        assert not any("STOPPING" in message for message in said)
    assert systemd.hear_of("STOPPING") == {"STOPPING": "1", "WATCHDOG_USEC": "0"}


def test_a_program_on_its_own_is_ready_and_has_no_watchdog(systemd: Systemd) -> None:
    with Agent.from_env(systemd.env):
        assert systemd.hear() == {"READY": "1"}
    with Agent.from_env(systemd.env):  # had the first one said more, it would come before this
        assert systemd.hear() == {"READY": "1"}
