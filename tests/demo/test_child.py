"""agentd as a child of the demo: the real daemon, without any agents."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from agentd.demo.child import Agentd, InUseError
from agentd.demo.fleet import Api

pytestmark = pytest.mark.host


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_it_runs_in_a_group_of_its_own_and_ends_when_it_is_interrupted(tmp_path: Path) -> None:
    async def program() -> None:
        port = free_port()
        agentd = Agentd(f"driver: process\nlisten: {{http: '127.0.0.1:{port}'}}\n", tmp_path)
        agentd.prepare()
        await agentd.start()
        try:
            async with asyncio.timeout(60):
                while not await Api(port).ready(tmp_path):
                    assert agentd.running, agentd.last_lines()
                    await asyncio.sleep(0.05)
                assert os.getpgid(agentd.pid) == agentd.pid
                assert (tmp_path / "run/control.sock").is_socket()
                with pytest.raises(InUseError, match=f"process {agentd.pid}, already runs in"):
                    Agentd("other", tmp_path).prepare()
                assert agentd.config_file.read_text() != "other"
                agentd.interrupt()
                assert await agentd.wait() == 0
        finally:
            if agentd.running:
                os.kill(agentd.pid, 9)
                await agentd.wait()
        assert any("listening" in line for line in agentd.last_lines())
        agentd.interrupt()  # it is gone: nothing happens
        Agentd("other", tmp_path).prepare()

    asyncio.run(program())


def test_why_it_did_not_start_is_in_its_last_lines(tmp_path: Path) -> None:
    async def program() -> None:
        agentd = Agentd("multi_agent: {enabled: perhaps}\n", tmp_path)
        agentd.prepare()
        (tmp_path / "demo.log").write_text("of an earlier run\n")
        await agentd.start()
        async with asyncio.timeout(60):
            assert await agentd.wait() != 0
        lines = agentd.last_lines()
        assert "of an earlier run" not in lines
        assert any("demo-config.yaml:1:" in line for line in lines), lines

    asyncio.run(program())


def test_a_second_demo_leaves_the_configuration_of_one_that_is_about_to_start(tmp_path: Path) -> None:
    first = Agentd("driver: process\n", tmp_path)
    first.prepare()
    with pytest.raises(InUseError, match=f"another demo already runs in {tmp_path}; end it first"):
        Agentd("other", tmp_path).prepare()
    assert first.config_file.read_text() == "driver: process\n"


def test_what_cannot_be_written_is_named_and_the_old_configuration_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agentd = Agentd("new", tmp_path)
    agentd.config_file.write_text("old")

    def full(path: Path, _text: str, **_options: str) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        agentd.prepare()
    assert caught.value.filename == str(agentd.config_file)
    assert agentd.config_file.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["demo-config.yaml", "demo.lock"]
