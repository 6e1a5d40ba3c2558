"""The relay: every byte arrives, whoever is slow holds up only himself, and grpc learns who calls."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from serving import asynchronous, listening, make_servers, serving

from agentd.core.model import InstanceId, State
from agentd.rpc import identity, origin, relay
from agentd.rpc.identity import Peer
from agentd.rpc.origin import Origin
from agentd.rpc.relay import CHUNK_BYTES, Limits, Relay
from agentd.rpc.server import Inherited, ListenError, Servers
from agentd.units import instance_cgroup
from agentd.v1 import agent_pb2, agent_pb2_grpc
from agentd.v1 import control_pb2 as pb

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MUCH = bytes(range(256)) * 4096 * 8  # 8 MiB, which no socket's buffer holds


@dataclass
class Relayed:
    """A relay between `public` and a server in the test."""

    relay: Relay
    public: str
    listener: socket.socket
    private: Path

    async def connect(self) -> Ends:
        return await asyncio.open_unix_connection(self.public)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30.0):
            while not true():
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def relayed(
    directory: Path, handle: Handle, *, start: bool = True, origin: Origin | None = None, **limits: int
) -> AsyncIterator[Relayed]:
    private = directory / "private.sock"
    server = await asyncio.start_unix_server(handle, private)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "public.sock"))
        listener.listen(1024)
        made = Relay([listener.dup()], private, Limits(**limits) if limits else Limits(), origin)
        if start:
            made.start()
        try:
            yield Relayed(made, str(directory / "public.sock"), listener, private)
        finally:
            made.close()
            server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100_000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def ask(ends: Ends, text: bytes) -> bytes:
    ends[1].write(text)
    return await asyncio.wait_for(ends[0].readexactly(len(text)), 30.0)


@asynchronous
async def test_what_goes_in_comes_out_in_both_directions_at_once(tmp_path: Path) -> None:
    async with relayed(tmp_path, echo) as it:
        reader, writer = await it.connect()
        writer.write(MUCH)
        writer.write_eof()
        async with asyncio.timeout(60.0):
            assert await reader.read() == MUCH
        await it.until(lambda: len(it.relay) == 0)
        writer.close()


@asynchronous
async def test_the_end_of_one_direction_leaves_the_other_open(tmp_path: Path) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        writer.write(b"you said " + asked)
        writer.close()

    async with relayed(tmp_path, answer_at_the_end) as it:
        reader, writer = await it.connect()
        writer.write(b"all I have to say")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 30.0) == b"you said all I have to say"
        writer.close()


@asynchronous
async def test_the_server_may_end_first(tmp_path: Path) -> None:
    async def leave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"goodbye")
        writer.close()

    async with relayed(tmp_path, leave) as it:
        reader, writer = await it.connect()
        assert await asyncio.wait_for(reader.read(), 30.0) == b"goodbye"
        writer.close()
        await it.until(lambda: len(it.relay) == 0)


@asynchronous
async def test_who_does_not_read_is_not_read_for(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    got = asyncio.get_running_loop().create_future()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await go_on.wait()
        writer.transport.resume_reading()
        got.set_result(await reader.read())
        writer.close()

    async with relayed(tmp_path, read_late) as it:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(it.public)
            await it.until(lambda: len(it.relay) == 1)
            taken = 0
            for _ in range(200):  # until nothing goes in any more, however often the relay has its turn
                with contextlib.suppress(BlockingIOError):
                    taken += client.send(MUCH[taken : taken + CHUNK_BYTES])
                await asyncio.sleep(0.001)
            # What the kernel holds for four sockets, and one chunk of ours.
            assert taken < 4 * 2**20
            go_on.set()
            while taken < len(MUCH):
                with contextlib.suppress(BlockingIOError):
                    taken += client.send(MUCH[taken:])
                await asyncio.sleep(0)
            client.shutdown(socket.SHUT_WR)
            assert await asyncio.wait_for(got, 60.0) == MUCH


@asynchronous
async def test_grpc_is_told_who_connects(tmp_path: Path) -> None:
    names: list[str] = []

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names.append(writer.get_extra_info("peername").decode())
        writer.close()

    async with relayed(tmp_path, note) as it:
        for _ in range(2):
            reader, writer = await it.connect()
            await reader.read()
            writer.close()
    peers = [identity.relayed(f"unix-abstract:{name[1:]}") for name in names]
    assert peers == [Peer(os.getuid(), os.getpid())] * 2
    assert len(set(names)) == 2


@asynchronous
async def test_grpc_is_told_of_which_instance_they_are_who_connect(tmp_path: Path) -> None:
    names: list[str] = []

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names.append(writer.get_extra_info("peername").decode())
        writer.close()

    # The longest id that there can be: the name of a Unix socket has 108 bytes.
    ident = InstanceId(f"{'r' * 19}-65535")
    for pid, group in ((1, "init.scope"), (os.getpid(), instance_cgroup(ident))):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(f"0::/{group}\n")
    (tmp_path / "plain").mkdir()
    async with (
        relayed(tmp_path, note, origin=origin.find(tmp_path)) as told,
        relayed(tmp_path / "plain", note) as untold,
    ):
        for it in (told, untold):
            reader, writer = await it.connect()
            await reader.read()
            writer.close()
    peers = [identity.relayed(f"unix-abstract:{name[1:]}") for name in names]
    assert peers == [Peer(os.getuid(), os.getpid(), ident), Peer(os.getuid(), os.getpid(), None)]


@asynchronous
async def test_who_cannot_be_told_for_want_of_descriptors_waits_and_is_told_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(origin.Origin):
        failures = 3

        def instance_of(self, *_: object) -> InstanceId | None:
            if Short.failures:
                Short.failures -= 1
                raise OSError(24, "Too many open files")
            return InstanceId("research-9101")

    async with relayed(tmp_path, echo, origin=Short(b"", b"")) as it:
        monkeypatch.setattr(relay, "RETRY_S", 0.001)
        ends = await it.connect()
        assert await ask(ends, b"at last") == b"at last"
        assert Short.failures == 0
        ends[1].close()


@pytest.mark.parametrize("limits", [{"all": 2, "of_uid": 9}, {"all": 9, "of_uid": 2}], ids=["all", "one user"])
@asynchronous
async def test_connections_beyond_the_limit_are_closed_until_one_ends(limits: dict[str, int], tmp_path: Path) -> None:
    async with relayed(tmp_path, echo, **limits) as it:
        held = [await it.connect() for _ in range(2)]
        for ends in held:
            assert await ask(ends, b"here") == b"here"
        reader, writer = await it.connect()
        assert await asyncio.wait_for(reader.read(), 30.0) == b""
        writer.close()
        held[0][1].close()
        await it.until(lambda: len(it.relay) == 1)
        held.append(await it.connect())
        assert await ask(held[2], b"in after all") == b"in after all"
        for _reader, writer in held:
            writer.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynchronous
async def test_an_end_that_vanishes_takes_the_other_along_and_leaves_nothing(tmp_path: Path) -> None:
    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with relayed(tmp_path, vanish) as it:
        gc.collect()  # of other tests
        before = descriptors()
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                client.connect(it.public)
                await it.until(lambda: len(it.relay) == 1)
                with contextlib.suppress(OSError):
                    while True:  # more than fits, so that something is under way when the end comes
                        client.send(MUCH)
                await it.until(lambda: len(it.relay) == 0)
        await it.until(lambda: descriptors() <= before)


@asynchronous
async def test_hundreds_of_idle_connections_are_all_alive(tmp_path: Path) -> None:
    async with relayed(tmp_path, echo) as it:
        held = [await it.connect() for _ in range(300)]
        await it.until(lambda: len(it.relay) == 300)
        for number, ends in enumerate(held):
            text = b"number %d" % number
            assert await ask(ends, text) == text
        for _reader, writer in held:
            writer.close()
        await it.until(lambda: len(it.relay) == 0)


@asynchronous
async def test_who_comes_too_early_or_between_two_of_us_waits(tmp_path: Path) -> None:
    async with relayed(tmp_path, echo, start=False) as it:
        early = await it.connect()
        early[1].write(b"early")
        it.relay.start()
        assert await asyncio.wait_for(early[0].readexactly(5), 30.0) == b"early"
        it.relay.pause()
        between = await it.connect()
        between[1].write(b"between")
        assert await ask(early, b"still served") == b"still served"
        it.relay.close()
        assert await asyncio.wait_for(early[0].read(), 30.0) == b""
        successor = Relay([it.listener.dup()], it.private)
        successor.start()
        assert await asyncio.wait_for(between[0].readexactly(7), 30.0) == b"between"
        successor.close()


@asynchronous
async def test_nobody_is_turned_away_while_grpc_is_behind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as private, socket.socket(socket.AF_UNIX) as listener:
        private.bind(str(tmp_path / "private.sock"))
        private.listen(0)
        listener.bind(str(tmp_path / "public.sock"))
        listener.listen(16)
        it = Relay([listener.dup()], tmp_path / "private.sock")
        it.start()
        clients = [await asyncio.open_unix_connection(tmp_path / "public.sock") for _ in range(5)]
        loop = asyncio.get_running_loop()
        private.setblocking(False)
        async with asyncio.timeout(30.0):
            while len(it) == 0:
                await asyncio.sleep(0.001)
            assert len(it) < 5
            accepted = [(await loop.sock_accept(private))[0] for _ in clients]
        for end in accepted:
            end.sendall(b"x")
            end.close()
        assert [await asyncio.wait_for(reader.read(), 30.0) for reader, _ in clients] == [b"x"] * 5
        for _, writer in clients:
            writer.close()
        it.close()


@asynchronous
async def test_short_of_descriptors_it_waits_instead_of_spinning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = socket.socket
    failures = 3

    def short(*arguments: Any, **named: Any) -> socket.socket:
        nonlocal failures
        if named or not failures:
            return made(*arguments, **named)
        failures -= 1
        raise OSError(24, "Too many open files")

    async with relayed(tmp_path, echo) as it:
        monkeypatch.setattr(relay.socket, "socket", short)
        # Made before: the client's own socket shall not be the one that fails.
        monkeypatch.setattr(relay, "RETRY_S", 0.001)
        client = made(socket.AF_UNIX)
        client.connect(it.public)
        await it.until(lambda: len(it.relay) == 1)
        monkeypatch.undo()
        assert failures == 0
        ends = await asyncio.open_unix_connection(sock=client)
        assert await ask(ends, b"at last") == b"at last"
        ends[1].close()


# -- with grpc behind it ----------------------------------------------------------------------------


@asynchronous
async def test_agentd_serves_on_inherited_sockets_and_leaves_them_there(tmp_path: Path) -> None:
    with listening(tmp_path) as listeners:
        async with serving(tmp_path, listeners=listeners) as agentd:
            assert agentd.instance("research-9101").state is State.READY
            status = (await agentd.control.GetStatus(pb.GetStatusRequest())).status
            assert status.agents_address == f"unix:{tmp_path}/agents.sock"
        assert (tmp_path / "agents.sock").is_socket()
        assert (tmp_path / "control.sock").is_socket()


@asynchronous
async def test_a_call_made_between_two_agentds_is_answered_by_the_second(tmp_path: Path) -> None:
    with listening(tmp_path) as listeners:
        async with serving(tmp_path, listeners=listeners):
            pass
        async with aio.insecure_channel(f"unix:{tmp_path}/agents.sock") as channel:
            beat = agent_pb2.Heartbeat(seq=1)
            beat.instance.id, beat.instance.incarnation = "nobody-1", "x"
            call = agent_pb2_grpc.AgentServiceStub(channel).Heartbeat(
                agent_pb2.HeartbeatRequest(heartbeats=[beat]), timeout=60.0
            )
            waiting = asyncio.ensure_future(asyncio.wait_for(call, 60.0))
            while channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.CONNECTING:
                await asyncio.sleep(0.001)
            async with serving(tmp_path, listeners=listeners):
                with pytest.raises(aio.AioRpcError) as raised:
                    await waiting
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("family", ["tcp", "abstract"])
@asynchronous
async def test_a_listener_that_everybody_may_connect_to_is_refused(family: str, tmp_path: Path) -> None:
    with (
        listening(tmp_path) as (agents, _),
        socket.create_server(("127.0.0.1", 0)) if family == "tcp" else socket.socket(socket.AF_UNIX) as other,
    ):
        if family == "abstract":
            other.bind(f"\0agentd-test-{os.getpid()}")
            other.listen()
        private = tmp_path / "private"
        private.mkdir()
        with pytest.raises(ListenError, match="it is no Unix socket with a path"):
            Servers(Inherited((agents,), private / "a"), Inherited((agents, other), private / "c"))
        await make_servers(tmp_path, (agents, agents)).stop()  # of the one that was refused, nothing is held
