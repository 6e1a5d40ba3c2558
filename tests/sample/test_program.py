"""The sample agent as a real process, without agentd."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agentd.sample.__main__ import main

pytestmark = pytest.mark.host
LONG_S = 5.0  # a task that is under way for long enough to be seen, also on a busy machine


@contextmanager
def sample(**env: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program, listening on a port of the kernel's choice."""
    process = subprocess.Popen(
        [sys.executable, "-m", "agentd.sample", "--service-s", "0.01"],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("AGENTD_")}, **env},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"listens on 127\.0\.0\.1:(\d+)", line):
                yield process, int(found[1])
                break
        else:
            raise AssertionError(f"the sample agent ended: {lines}")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def post(port: int, body: object) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/task", json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def is_open(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        fields: dict[str, object] = json.loads(connection.getresponse().read())
        return fields
    finally:
        connection.close()


def test_it_serves_and_finishes_accepted_work_on_term() -> None:
    with sample(AGENTD_CONCURRENCY="1") as (process, port):
        assert post(port, {})[0] == 200
        answers: list[tuple[int, dict[str, object]]] = []
        clients = []
        for service_s, field in ((LONG_S, "in_flight"), (0.0, "queue_length")):  # one works, one waits
            task = {"service_s": service_s}
            clients.append(threading.Thread(target=lambda task=task: answers.append(post(port, task))))
            clients[-1].start()
            while get(port, "/")[field] != 1:
                pass
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(30)
        assert [status for status, _fields in answers] == [200, 200]
        assert process.wait(30) == 0


def test_a_second_term_drops_nothing() -> None:
    """An agentd that was killed meanwhile does not know that the last one has sent one, and stops the agent again."""
    with sample(AGENTD_CONCURRENCY="1") as (process, port):
        answers: list[tuple[int, dict[str, object]]] = []
        client = threading.Thread(target=lambda: answers.append(post(port, {"service_s": LONG_S})))
        client.start()
        while get(port, "/")["in_flight"] != 1:
            pass
        process.send_signal(signal.SIGTERM)
        while is_open(port):
            pass
        process.send_signal(signal.SIGTERM)
        client.join(30)
        assert [status for status, _fields in answers] == [200]
        assert process.wait(30) == 0


def test_a_term_that_comes_when_all_is_done_is_no_failure() -> None:
    with sample() as (process, port):
        process.send_signal(signal.SIGTERM)
        while is_open(port):
            pass
        # From now on there is no moment at which the next one may not find it at its very end.
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        assert process.returncode == 0


def test_a_second_interrupt_drops_what_is_left() -> None:
    with sample() as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/task", json.dumps({"service_s": 3600}))
        while get(port, "/")["in_flight"] != 1:
            pass
        process.send_signal(signal.SIGINT)
        while is_open(port):
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        connection.close()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "agentd.sample"],
            env={**os.environ, "AGENTD_PORT": str(port)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("--queue-max", "-1", "a whole number, 0 or more"),
        ("--queue-max", "x", "a whole number, 0 or more"),
        ("--speed", "x", "a number above 0"),
        ("--service-s", "nan", "a number above 0"),
    ],
)
def test_wrong_options_are_refused(option: str, text: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option, text])
    assert ended.value.code == 2
    assert f"argument {option}: {text}: expected {expected}\n" in capsys.readouterr().err
