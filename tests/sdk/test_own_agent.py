"""The example of a user's own agent is short, and works: under agentd and by hand."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs/examples/own_agent.py"

pytestmark = pytest.mark.host


def connect(port: int) -> socket.socket:
    """A connection to the example, once it listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the example does not listen"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_it_has_forty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40


@pytest.mark.parametrize("by_hand", [True, False])
def test_it_answers_reports_and_finishes_on_term(fake: Any, by_hand: bool) -> None:
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
    env |= {} if by_hand else fake.env()
    process = subprocess.Popen([sys.executable, EXAMPLE], env={**env, "AGENTD_PORT": str(port)})
    try:
        with connect(port) as client, client.makefile("rw") as lines:
            lines.write('{"question": "Why?"}\n')
            lines.flush()
            if not by_hand:
                fake.until(lambda beats: any(beat.in_flight == 1 for beat in beats))
                process.send_signal(signal.SIGTERM)  # it finishes what it was asked
            assert json.loads(lines.readline()) == {"answer": "Why? Because."}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    if not by_hand:
        assert fake.beats[-1].instance.id == "research-9101"
