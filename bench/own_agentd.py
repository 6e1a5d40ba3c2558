"""An agentd for one measurement: its process, its connection, its end.

Everything it writes is in a temporary directory; it listens there and on a loopback port that was free. The agents
of these benchmarks hold no work, so they are killed by pid at the end instead of being drained.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from harness import BenchError, end, environment, wait_until

from agentd.sdk.control import ControlClient, NoDaemonError
from agentd.v1 import common_pb2, control_pb2

START_S_MAX = 60.0
READY = common_pb2.INSTANCE_STATE_READY


@dataclass(slots=True)
class Daemon:
    """A running agentd. `launched`: the monotonic time just before its process was made."""

    process: subprocess.Popen[bytes]
    directory: Path
    launched: float
    control: ControlClient

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def agents_address(self) -> str:
        return f"unix:{self.directory}/agents.sock"

    @property
    def control_address(self) -> str:
        return f"unix:{self.directory}/control.sock"

    def instances(self) -> list[control_pb2.Instance]:
        return self.control.instances()

    def running(self) -> list[control_pb2.Instance]:
        return [instance for instance in self.instances() if instance.pid]

    def wait_running(self, count: int, timeout_s: float) -> None:
        wait_until(f"{count} instances run", lambda: len(self.running()) >= count, timeout_s, 0.1)

    def wait_ready(self, count: int, timeout_s: float) -> None:
        def are_ready() -> bool:
            return sum(instance.state == READY for instance in self.instances()) >= count

        wait_until(f"{count} instances are ready", are_ready, timeout_s, 0.25)

    def restart(self) -> None:
        """End agentd as a service manager would, and start it anew, without waiting for that. The agents run on."""
        end(self.process)
        self.launched = time.monotonic()
        self.process = _launch(self.directory)


@contextmanager
def own_agentd(settings: Mapping[str, Any]) -> Iterator[Daemon]:
    """An agentd of its own under `settings` (as in its configuration file), ended with its agents."""
    with tempfile.TemporaryDirectory(prefix="agentd-bench-") as name:
        directory = Path(name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            http = f"127.0.0.1:{probe.getsockname()[1]}"
        sockets = {role: f"unix:{directory}/{role}.sock" for role in ("agents", "control")}
        file = directory / "agentd.yaml"
        whole = {"driver": "process", "listen": {**sockets, "http": http}, **settings}
        file.write_text(yaml.safe_dump(whole), encoding="utf-8")
        launched = time.monotonic()
        process = _launch(directory)
        control = ControlClient(sockets["control"])
        daemon = Daemon(process, directory, launched, control)
        try:
            wait_until("agentd answers", lambda: _answers(daemon), START_S_MAX, 0.02)
            yield daemon
        finally:
            _end_with_agents(daemon)


def _launch(directory: Path) -> subprocess.Popen[bytes]:
    words = ("-m", "agentd", "--config", str(directory / "agentd.yaml"), "--state-dir", str(directory / "state"))
    with (directory / "stderr").open("ab") as log:
        return subprocess.Popen(
            (sys.executable, *words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
        )


def _answers(daemon: Daemon) -> bool:
    if daemon.process.poll() is not None:
        raise BenchError(f"agentd ended: {(daemon.directory / 'stderr').read_text(errors='replace')[-2000:]}")
    if not (daemon.directory / "control.sock").exists():
        return False
    try:
        daemon.control.status()
    except NoDaemonError:
        return False
    return True


def _end_with_agents(daemon: Daemon) -> None:
    """SIGTERM leaves the agents alone; they hold no work, and are killed by pid. That takes no drain of minutes."""
    daemon.control.close()
    end(daemon.process)
    mark = os.fsencode(f"{daemon.directory}/agents.sock")
    for name in os.listdir("/proc"):
        if name.isdigit():
            _kill_marked(int(name), mark)


def _kill_marked(pid: int, mark: bytes) -> None:
    """Kill `pid` if its environment holds `mark`: the temporary directory's name makes it ours beyond doubt."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # it has ended, or is a thread's number
        return
    try:
        if mark in Path(f"/proc/{pid}/environ").read_bytes():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return
    finally:
        os.close(pidfd)


def fleet_settings(pools: Mapping[str, Mapping[str, Any]], **autoscaling: Any) -> dict[str, Any]:
    """Settings with these pools; without autoscaling unless its settings are given. No reserve holds a start."""
    scaling = {"enabled": bool(autoscaling), "min_agents_per_type": 0, "max_agents_per_type": 10_000, **autoscaling}
    reserve = {"memory": "1M", "memory_ratio": 0, "disk": "1M", "cpu_ratio": False}
    reserve |= {"memory_pressure_percent": False, "io_pressure_percent": False}
    return {
        "multi_agent": {"enabled": True, "autoscaling": scaling},
        "pools": {name: dict(pool) for name, pool in pools.items()},
        "host": {"starting_max": 64, "reserve": reserve},
    }
