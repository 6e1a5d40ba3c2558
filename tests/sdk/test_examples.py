"""The examples of docs/agents.md are what the page shows, and work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentd.v1 import agent_pb2

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "agents.md").read_text()
ACCEPTED, DONE = agent_pb2.Acknowledgement.STAGE_ACCEPTED, agent_pb2.Acknowledgement.STAGE_DONE

pytestmark = pytest.mark.host


@contextmanager
def running(example: str, fake: Any) -> Iterator[int]:
    """The example as an agent of `fake`; gives its port, once it listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
    env |= {**fake.env(), "AGENTD_PORT": str(port)}
    process = subprocess.Popen([sys.executable, DOCS / "examples" / example], env=env, stderr=subprocess.DEVNULL)
    try:
        fake.until(lambda _beats: True)
        yield port
    finally:
        process.kill()
        process.wait()


def directive(kind: int, **values: Any) -> agent_pb2.HeartbeatReply:
    return agent_pb2.HeartbeatReply(directive=agent_pb2.Directive(kind=kind, id=7, **values), interval_s=0.05)  # type: ignore[arg-type]


def stages(beat: agent_pb2.Heartbeat) -> dict[int, int]:
    return {ack.id: ack.stage for ack in beat.acks}


def test_the_page_shows_the_files() -> None:
    assert (DOCS / "examples/ten_lines.py").read_text() in PAGE
    shown = PAGE.partition("```python\ndef resize")[2].partition("```")[0]
    assert f"def resize{shown}" in (DOCS / "examples/thread_agent.py").read_text()


def test_ten_lines_answer_report_and_leave(fake: Any) -> None:
    lines = [line for line in (DOCS / "examples/ten_lines.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 15
    with running("ten_lines.py", fake) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        with client.makefile("rw") as stream:
            stream.write("why?\n")
            stream.flush()
            assert stream.readline() == "WHY?\n"
        fake.until(lambda beats: beats[-1].tasks_completed == 1)
        fake.tell(directive(agent_pb2.Directive.KIND_DRAIN, deadline_s=60.0))
        fake.until(lambda beats: stages(beats[-1]) == {7: DONE})


def test_threads_follow_another_concurrency(fake: Any) -> None:
    def ask(port: int) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=b"why?", timeout=30) as answer:
            return bytes(answer.read())

    with running("thread_agent.py", fake) as port:
        assert ask(port) == b"why? Because."
        for ident, concurrency in ((7, 5), (8, 1)):
            told = directive(agent_pb2.Directive.KIND_CONFIGURE, concurrency=concurrency)
            told.directive.id = ident
            fake.tell(told)
            fake.until(lambda beats, ident=ident: any(stages(beat) == {ident: ACCEPTED} for beat in beats))
            assert ask(port) == b"why? Because."
        fake.until(lambda beats: beats[-1].tasks_completed == 3)
