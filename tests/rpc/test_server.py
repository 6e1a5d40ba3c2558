"""The addresses of the gRPC servers: nobody's is taken away, and what keeps one from being used is told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from serving import asynchronous, serving

from agentd.rpc.server import ListenError, Servers
from agentd.v1 import control_pb2


def both(directory: Path, *, control: str = "control.sock") -> Servers:
    return Servers(f"unix:{directory}/agents.sock", f"unix:{directory}/{control}")


@asynchronous
async def test_a_socket_in_use_is_not_taken_from_another_agentd(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with serving(tmp_path) as agentd:
        with pytest.raises(ListenError, match=r"cannot listen on unix:.*/control.sock: another agentd \(pid \d+\)"):
            Servers(f"unix:{other}/agents.sock", f"unix:{tmp_path}/control.sock")
        await agentd.control.GetStatus(control_pb2.GetStatusRequest())
        both(other)  # of the one that was refused, nothing is held
    both(tmp_path)


@asynchronous
async def test_a_socket_in_use_is_not_taken_from_another_program(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ListenError, match=r"another process listens on .*/control.sock; set listen: to"):
            both(tmp_path)
        assert path.is_socket()


@asynchronous
async def test_a_socket_that_a_killed_agentd_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    servers = both(tmp_path)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    await servers.stop()


@asynchronous
async def test_what_is_no_socket_is_left_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("precious")
    with pytest.raises(ListenError, match=r"control.sock: it is no socket; move it away"):
        both(tmp_path)
    assert (tmp_path / "control.sock").read_text() == "precious"
    (tmp_path / "folder").mkdir()
    with pytest.raises(ListenError, match=r"folder: it is no socket"):
        both(tmp_path, control="folder")


@asynchronous
async def test_a_path_that_cannot_be_used_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on unix:.*/nowhere/a.sock: no such file or directory"):
        both(tmp_path, control="nowhere/a.sock")
    (tmp_path / "a.sock.lock").mkdir()
    with pytest.raises(ListenError, match=r"cannot listen on unix:.*/a.sock: is a directory"):
        both(tmp_path, control="a.sock")
