"""The disk with the state and the logs is full: agentd keeps managing, says so, and recovers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_fleet import Fleet, call

pytestmark = pytest.mark.host


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of two mebibytes."""
    folder = Path("/tmp") / f"agd-disk-{os.getpid()}"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "agentd-test", os.fspath(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        folder.rmdir()
        pytest.skip("a disk of its own size needs root and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", os.fspath(folder)], check=True)
        folder.rmdir()


def fill(disk: Path) -> Path:
    """Leave no byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    return ballast


def test_a_full_disk_stops_no_agent_and_no_work(disk: Path, make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(disk / "s")
    fleet.configure({"research": fleet.elastic(2, 5, min=1, max=3)})
    fleet.start()
    first, second = (f"research-{fleet.ports[number]}" for number in (2, 3))
    before = fleet.ready(first)
    ballast = fill(disk)
    # What changes from here on cannot be stored.
    fleet.ctl("auto", "on")
    fleet.ctl("auto", "off", "--reason", "while full")
    degraded = fleet.until("it says so", lambda: fleet.status()["degraded"])
    assert "state is kept in memory only" in degraded[0]
    assert "DEGRADED" in fleet.run("status").stdout
    assert fleet.http("GET", "/readyz")[1]["degraded"] == degraded
    assert call(before[first]["port"], "POST", "/task", {"service_s": 0})[0] == 200
    # It still repairs, starts and stops.
    os.kill(before[first]["pid"], signal.SIGKILL)
    fleet.event("restart", instance=first)
    fleet.ready(first)
    fleet.ctl("up", "2")
    fleet.ready(first, second)
    fleet.ctl("down", "1")
    fleet.event("scale_down")
    fleet.until("one is left", lambda: len(fleet.ps()) == 1)
    told = fleet.events()

    ballast.unlink()
    fleet.until("it recovers", lambda: fleet.status()["degraded"] == [])
    assert fleet.events()[: len(told)] == told
    left = fleet.ready(*fleet.ps())
    fleet.kill()
    fleet.start()
    assert fleet.events()[: len(told)] == told
    assert fleet.status()["autoscaling"]["reason"] == "while full"
    assert {i: one["pid"] for i, one in fleet.ready(*left).items()} == {i: one["pid"] for i, one in left.items()}


def test_agentd_comes_back_on_a_full_disk(disk: Path, make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(disk / "s")
    fleet.configure({"research": fleet.elastic(2, 5, min=1, max=3)})
    fleet.start()
    first = f"research-{fleet.ports[2]}"
    before = fleet.ready(first)
    fleet.kill()
    ballast = fill(disk)
    fleet.start()
    assert fleet.ready(first)[first]["pid"] == before[first]["pid"]
    fleet.until("it says so", lambda: fleet.status()["degraded"])
    ballast.unlink()
    fleet.until("it recovers", lambda: fleet.status()["degraded"] == [])
