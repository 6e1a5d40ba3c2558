"""What the end-to-end tests need of the host: free ports, the processes of one agentd, a small disk."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 30.0


class Ports:
    """A block of ports that nobody uses; the first one is held, so that tests side by side get blocks of their own.

    Below the range from which the kernel gives ports to clients.
    """

    SIZE = 16

    def __init__(self) -> None:
        for _ in range(200):
            self.first = random.randrange(10_000, 32_000, self.SIZE)
            try:
                self._guard = socket.create_server(("127.0.0.1", self.first), reuse_port=False)
            except OSError:
                continue
            if all(is_free(port) for port in range(self.first + 1, self.first + self.SIZE)):
                return
            self._guard.close()
        raise AssertionError("no free block of ports")

    def __getitem__(self, number: int) -> int:
        assert 1 <= number < self.SIZE
        return self.first + number

    def close(self) -> None:
        self._guard.close()


def is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def listener(port: int) -> Iterator[socket.socket]:
    """A foreign program on `port`: this test itself."""
    with socket.create_server(("127.0.0.1", port)) as held:
        yield held


@dataclass(frozen=True, slots=True)
class Process:
    """A living process with the identity of a state directory in its environment."""

    pid: int
    instance: str
    incarnation: str


def processes(state_id: str) -> list[Process]:
    """All living processes that carry `state_id`, by pid."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            env = environment(int(entry))
            if env.get("AGENTD_STATE_ID") == state_id:
                found.append(Process(int(entry), env.get("AGENTD_INSTANCE", ""), env.get("AGENTD_INCARNATION", "")))
    return sorted(found, key=lambda process: process.pid)


def environment(pid: int) -> dict[str, str]:
    """What a process was born with; empty for one that is gone or dead."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition("=") for item in os.fsdecode(content).split("\0") if "=" in item)
    return {name: value for name, _, value in pairs}


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end_all(state_id: str) -> None:
    """Kill every process that carries `state_id`, each by its pid."""
    deadline = time.monotonic() + PATIENCE_S
    while left := processes(state_id):
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        assert time.monotonic() < deadline, f"cannot end {left}"
        time.sleep(0.01)
