"""agentd as a service: how it knows, and how it feeds the watchdog."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from agentd.service import ServiceManager, is_service, watchdog_s


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/agentd.slice/agentd.service\n", True),
        ("12:cpu:/testhost\n1:name=systemd:/payload/agentd.slice/agentd.service\n0::/\n", True),
        ("0::/user.slice/user-0.slice/session-1.scope\n", False),
        ("0::/agentd.slice/agentd-agents.slice/agentd-agents-research.slice/agent@research-9101.service\n", False),
        ("4:memory:/agentd.slice/agentd.service\n", False),
    ],
)
def test_it_is_the_service_where_systemds_own_hierarchy_says_so(tmp_path: Path, text: str, expected: bool) -> None:
    file = tmp_path / "cgroup"
    file.write_text(text)
    assert is_service(file) is expected


def test_without_proc_it_is_no_service(tmp_path: Path) -> None:
    assert not is_service(tmp_path / "absent")


def test_the_watchdog_is_for_the_process_it_names() -> None:
    ours = str(os.getpid())
    assert watchdog_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ours}) == 30.0
    assert watchdog_s({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert watchdog_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_s({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_s({}) is None


def test_the_watchdog_is_fed_only_while_there_is_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    asked, gate = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def progress() -> None:
        asked.release()
        await gate.acquire()

    async def feed(heard: socket.socket) -> None:
        manager = ServiceManager()
        manager.ready("3 agents")
        assert heard.recv(4096) == b"READY=1\nSTATUS=3 agents"
        statuses = iter(("3 agents", "4 agents"))
        feeding = asyncio.create_task(manager.feed_watchdog(0.003, progress, lambda: next(statuses)))
        for message in (b"WATCHDOG=1", b"WATCHDOG=1\nSTATUS=4 agents"):
            await asked.acquire()
            with pytest.raises(BlockingIOError):
                heard.recv(4096)
            gate.release()
            assert await asyncio.get_running_loop().sock_recv(heard, 4096) == message
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        asyncio.run(feed(heard))
