"""agentd cannot begin: one clear line, a status that the service manager understands, and nothing started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_fleet import Fleet
from e2e_hosts import listener

pytestmark = pytest.mark.host


def agentd(fleet: Fleet, *words: str | Path) -> tuple[int, str]:
    """Run agentd to its end: status, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "agentd", *words],
        capture_output=True,
        text=True,
        env=fleet.env,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_bad_configuration_is_shown_in_full(fleet: Fleet) -> None:
    fleet.file.write_text("pools: {research: {min: -1, mx: 3}}\nhosst: {}\n")
    status, said = agentd(fleet, "--config", fleet.file, "--state-dir", fleet.state_dir)
    assert status == 78
    lines = said.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"agentd: {fleet.file}:1:")
    assert all(f"{fleet.file}:" in line for line in lines)
    assert not fleet.state_dir.exists()


def test_a_missing_configuration_is_named(fleet: Fleet) -> None:
    status, said = agentd(fleet, "--config", fleet.root / "nowhere.yaml", "--state-dir", fleet.state_dir)
    assert (status, said.count("\n")) == (78, 1)
    assert "nowhere.yaml" in said


def test_a_state_directory_that_is_none_is_named(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()})
    fleet.state_dir.write_text("a file")
    status, said = agentd(fleet, "--config", fleet.file, "--state-dir", fleet.state_dir)
    assert (status, said.count("\n")) == (78, 1)
    assert str(fleet.state_dir) in said


def test_a_taken_http_port_starts_nothing(fleet: Fleet) -> None:
    address = f"127.0.0.1:{fleet.ports[9]}"
    fleet.configure({"research": fleet.core()}, listen={"http": address})
    with listener(fleet.ports[9]):
        status, said = agentd(fleet, "--config", fleet.file, "--state-dir", fleet.state_dir)
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"agentd: cannot listen on {address}: ")
    assert not (fleet.state_dir / "identity").exists()  # which every agent carries
    fleet.start()
    fleet.ready(f"research-{fleet.ports[1]}")


def test_a_control_socket_in_use_starts_nothing(fleet: Fleet, make_fleet: Callable[..., Fleet]) -> None:
    fleet.configure({"research": fleet.core()})
    holder = fleet.start()
    other = make_fleet()
    other.configure({"research": other.core(number=2)}, listen={"control": fleet.address, "http": "127.0.0.1:0"})
    status, said = agentd(other, "--config", other.file, "--state-dir", other.state_dir)
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"agentd: cannot listen on {fleet.address}: another agentd (pid {holder.pid})")
    fleet.ready(f"research-{fleet.ports[1]}")


def test_any_loopback_address_answers_over_http(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core()}, listen={"http": f"127.0.0.2:{fleet.ports[9]}"})
    fleet.start()
    assert fleet.http("GET", "/status")[0] == 200
