"""ControlClient, as a program uses it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentd.sdk.control import UP, ControlClient, ControlError, NoDaemonError, find_address

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples/steer_pool.py"


def test_a_program_reads_and_steers(daemon: Any) -> None:
    with ControlClient(daemon.address, owner="nightly") as client:
        assert [pool.name for pool in client.status().pools] == ["research", "execution"]
        assert [one.id for one in client.instances("execution")] == ["execution-9003"]
        assert client.scale(UP, 4, pool="research", for_s=60.0)[0].granted == 4
        assert client.events(1)[0].resume_token == "t5"
    assert daemon.fake.requests[2].owner == "nightly"


def run_example(address: str) -> tuple[int, str, str]:
    env = {**os.environ, "AGENTD_ADDRESS": address}
    command = [sys.executable, str(EXAMPLE), "research", "4"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.host
def test_the_example_of_the_docs_steers_a_pool(daemon: Any, tmp_path: Path) -> None:
    code, out, err = run_example(daemon.address)
    assert (code, err) == (0, "")
    first, *there = out.splitlines()
    assert first.startswith("research: from ") and first.endswith(" to 4 of 4")
    assert there == ["research-9002: ready, load 0.90", "research-9101: starting", "research-9102: failed"]
    assert daemon.fake.requests[0].owner == "steer_pool.py"
    daemon.fake.refusals["Scale"] = daemon.refused("POOL_DISABLED", "no", grpc.StatusCode.FAILED_PRECONDITION)
    assert run_example(daemon.address) == (1, "", "refused: no [POOL_DISABLED]\n")
    code, _, err = run_example(f"unix:{tmp_path}/none.sock")
    assert (code, err.startswith("later: no agentd is running")) == (3, True)


def test_the_page_shows_the_example() -> None:
    shown = (DOCS / "agents.md").read_text().partition("## Programs that steer agentd")[2]
    block = shown.partition("```python\n")[2].partition("```")[0]
    assert textwrap.indent(block, " " * 8) in EXAMPLE.read_text()


def test_an_error_carries_code_and_reason(daemon: Any) -> None:
    daemon.fake.refusals["Scale"] = daemon.refused("POOL_DISABLED", "no", grpc.StatusCode.FAILED_PRECONDITION)
    with ControlClient(daemon.address) as client, pytest.raises(ControlError) as caught:
        client.scale(UP, 4)
    assert (caught.value.code, caught.value.reason, str(caught.value)) == ("FAILED_PRECONDITION", "POOL_DISABLED", "no")


def test_a_stream_left_early_is_cancelled(daemon: Any) -> None:
    daemon.fake.log = b"x" * 1000
    with ControlClient(daemon.address) as client:
        pieces = client.logs("research-9101")
        assert next(pieces) == b"xxx"
        pieces.close()  # type: ignore[attr-defined]  # the iterator is a generator
        assert client.events(1)


def test_nobody_there_is_told_apart(tmp_path: Path) -> None:
    with ControlClient(f"unix:{tmp_path}/none.sock") as client, pytest.raises(NoDaemonError, match="no agentd is"):
        client.status()


def test_a_daemon_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    path = f"{tmp_path}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with ControlClient(f"unix:{path}", timeout_s=0.2) as client, pytest.raises(ControlError) as caught:
            client.status()
    assert (caught.value.code, str(caught.value)) == (
        "DEADLINE_EXCEEDED",
        f"agentd at unix:{path} did not answer within 0.2 s",
    )


def test_the_environment_decides_before_the_usual_places(tmp_path: Path) -> None:
    assert find_address({"AGENTD_ADDRESS": "127.0.0.1:1"}, 0) == "127.0.0.1:1"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/control.sock")
        assert find_address({"RUNTIME_DIRECTORY": str(tmp_path)}, 0) == f"unix:{tmp_path}/control.sock"
