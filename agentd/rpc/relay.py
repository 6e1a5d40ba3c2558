"""The way from a listener that systemd holds to the private socket that grpc listens on.

grpcio can neither take over a listening descriptor nor tell who is at the other end of a Unix socket. The relay
accepts on the inherited listener, asks the kernel who connects (on the agents' socket also out of which agent's unit,
origin.py), and passes bytes in both directions between that connection and one of its own to grpc's socket, whose
address names the peer (identity.py). While agentd restarts, those who connect wait in the listener's queue, which is
systemd's.

It never looks into what it passes on, and never holds more than CHUNK_BYTES for a direction of a connection: from
a side whose bytes the other side does not take, it does not read. A connection costs three descriptors, the one of
grpc included.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from agentd import log
from agentd.rpc import identity
from agentd.rpc.identity import Peer
from agentd.rpc.origin import Origin

CHUNK_BYTES = 64 * 1024
CONNECTIONS_MAX = 16_384
# Agents under systemd have a user each; one user may be 5,000 agents all the same, and never takes it all.
CONNECTIONS_MAX_OF_UID = 6_144
# Accepted in one turn of the loop: between a thousand that reconnect, heartbeats are answered.
ACCEPTS_MAX = 64
RETRY_S = 0.1
TOLD_AGAIN_S = 60.0

_CREDENTIALS = struct.Struct("iII")
# What passes by itself: grpc's queue is full, or descriptors or memory are short.
_SHORT = frozenset((errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_log = log.get("relay")


class Limits(Struct, frozen=True):
    """Connections at a time, in all and of one user. Further ones are closed at once."""

    all: int = CONNECTIONS_MAX
    of_uid: int = CONNECTIONS_MAX_OF_UID


_USUAL = Limits()


class Relay:
    """Between listening Unix sockets and the one at `private`. All of it belongs to the event loop it is made in."""

    def __init__(
        self, listeners: Sequence[socket.socket], private: Path, limits: Limits = _USUAL, origin: Origin | None = None
    ) -> None:
        """`origin` tells of which instance those are who connect; None: of none."""
        self._listeners = tuple(listeners)
        self._private = os.fspath(private)
        self._limits = limits
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._links: set[_Link] = set()
        self._count: Counter[int] = Counter()  # connections by uid; sums up to len(_links)
        self._waiting: socket.socket | None = None  # accepted, and grpc not reached yet
        self._retry: asyncio.TimerHandle | None = None
        self._told: dict[str, float] = {}  # trouble, and the time at which it was told

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._links)

    def start(self) -> None:
        """Accept from now on. The private socket must be listened on."""
        for listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def pause(self) -> None:
        """Accept no more: those who connect wait for the next `start`, or for the next agentd."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def close(self) -> None:
        """End all connections, and let go of the listeners. Their sockets stay: they are the service manager's."""
        self.pause()
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
        for link in tuple(self._links):
            link.close()
        for listener in self._listeners:
            listener.close()
        self._listeners = ()

    def _accept(self, listener: socket.socket) -> None:
        try:
            for _ in range(ACCEPTS_MAX):
                client, _address = listener.accept()
                client.setblocking(False)
                self._connect(client)
        except BlockingIOError:
            return
        except (OSError, _NotYet) as error:
            self._wait(error)

    def _has_room(self, peer: Peer) -> bool:
        has = self._count[peer.uid]
        if len(self._links) < self._limits.all and has < self._limits.of_uid:
            return True
        self._tell("too many connections", f"uid {peer.uid} has {has}, all have {len(self._links)}")
        return False

    def _connect(self, client: socket.socket) -> None:
        """Raises _NotYet: `client` is kept, to be tried again."""
        upstream = None
        try:
            peer = self._peer(client)
            if not self._has_room(peer):
                client.close()
                return
            upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            upstream.bind(identity.address(peer))
            upstream.connect(self._private)
        except OSError as error:
            if upstream is not None:
                upstream.close()
            if error.errno in _SHORT:
                self._waiting = client
                raise _NotYet(error.strerror) from error
            client.close()
            self._tell("cannot reach grpc's own socket", _cause(error))
            return
        self._count[peer.uid] += 1
        self._links.add(_Link(self._loop, client, upstream, lambda link: self._ended(link, peer.uid)))

    def _peer(self, client: socket.socket) -> Peer:
        """Who connected. The instance is asked for once: it counts for as long as the connection lasts."""
        answer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(answer)
        return Peer(uid, pid, self._origin.instance_of(client, uid, pid) if self._origin else None)

    def _wait(self, error: Exception) -> None:
        """Leave everybody in the listeners' queues for a moment."""
        self.pause()
        self._tell("cannot take a connection yet", _cause(error))
        self._retry = self._loop.call_later(RETRY_S, self._go_on)

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, None
        try:
            if waiting is not None:
                self._connect(waiting)
        except _NotYet as error:
            self._wait(error)
        else:
            self.start()

    def _ended(self, link: _Link, uid: int) -> None:
        self._links.discard(link)
        self._count[uid] -= 1
        if not self._count[uid]:
            del self._count[uid]

    def _tell(self, trouble: str, cause: str) -> None:
        now = self._loop.time()
        if now - self._told.get(trouble, -TOLD_AGAIN_S) >= TOLD_AGAIN_S:
            self._told[trouble] = now
            _log.warning(trouble, cause=cause)


class _NotYet(Exception):
    """grpc cannot be reached for a moment: its queue is full, or we are short of descriptors."""


def _cause(error: Exception) -> str:
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()


class _Link:
    """One connection and its counterpart. It ends when both directions have, or with the first error."""

    __slots__ = ("_client", "_down", "_ended", "_up", "_upstream")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        upstream: socket.socket,
        ended: Callable[[_Link], None],
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._ended: Callable[[_Link], None] | None = ended
        self._up = _Pump(loop, client, upstream, self)
        self._down = _Pump(loop, upstream, client, self)

    def direction_ended(self) -> None:
        if self._up.ended and self._down.ended:
            self.close()

    def close(self) -> None:
        if self._ended is None:
            return
        ended, self._ended = self._ended, None
        for pump in (self._up, self._down):
            pump.stop()
        self._client.close()
        self._upstream.close()
        ended(self)


# Between a read and the write of the same bytes nothing else runs in the loop, so one buffer serves all.
_BUFFER = memoryview(bytearray(CHUNK_BYTES))


class _Pump:
    """One direction: reads when there is something, writes it at once, and reads no more until all is written."""

    __slots__ = ("_link", "_loop", "_read_into", "_sink", "_sink_fd", "_source_fd", "_unsent", "_write", "ended")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, source: socket.socket, sink: socket.socket, link: _Link
    ) -> None:
        self._loop = loop
        self._link = link
        self._source_fd, self._sink_fd = source.fileno(), sink.fileno()
        self._read_into, self._write = source.recv_into, sink.send
        self._sink = sink
        self._unsent = b""
        self.ended = False
        loop.add_reader(self._source_fd, self._forward)

    def stop(self) -> None:
        self._loop.remove_reader(self._source_fd)
        self._loop.remove_writer(self._sink_fd)

    def _forward(self) -> None:
        try:
            count = self._read_into(_BUFFER)
        except BlockingIOError:
            return
        except OSError:
            self._link.close()
            return
        if not count:
            self._loop.remove_reader(self._source_fd)
            self._end()
            return
        sent = self._send(_BUFFER[:count])
        if sent is not None and sent < count:
            self._unsent = bytes(_BUFFER[sent:count])
            self._loop.remove_reader(self._source_fd)
            self._loop.add_writer(self._sink_fd, self._flush)

    def _flush(self) -> None:
        sent = self._send(self._unsent)
        if sent is None:
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._sink_fd)
            self._loop.add_reader(self._source_fd, self._forward)

    def _send(self, data: memoryview | bytes) -> int | None:
        """How much of `data` the sink took; None: it took nothing and never will, the connection is closed."""
        try:
            return self._write(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._link.close()
            return None

    def _end(self) -> None:
        """The source has said all: so has the sink's writer. The other direction goes on."""
        self.ended = True
        try:
            self._sink.shutdown(socket.SHUT_WR)
        except OSError:  # its reader is gone altogether
            self._link.close()
            return
        self._link.direction_ended()
