"""A pool's endpoints as agentd tells them: a thread with one stream, which it opens again whenever it ends.

It keeps nothing but the revision that it has, so that a new stream begins where the last one ended. While agentd is
away it says so once and tries again, spread by chance; what was learned before stays true for whoever keeps it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from agentd.sdk.status import error_reason
from agentd.v1 import discovery_pb2 as pb
from agentd.v1 import discovery_pb2_grpc

log = logging.getLogger("agentd.sdk")

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
CLOSE_S = 5.0
# gRPC's own reconnection stays faster than ours, so that ours alone spaces the attempts.
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


@dataclass(frozen=True, slots=True)
class Listener:
    """What the watcher calls, from its thread; the calls must return at once."""

    learn: Callable[[pb.WatchResponse], None]
    trouble: Callable[[str, bool], None]  # what is wrong; whether waiting is of no use


class NowhereError(Exception):
    """There is no agentd to connect to; the text says where one was looked for."""


class Watcher:
    """One thread, at most one channel. `start` once, `close` once."""

    def __init__(self, pool: str, find: Callable[[], str], listener: Listener) -> None:
        """`find` gives agentd's address in gRPC syntax, or raises NowhereError; it is asked until it has given one."""
        self._pool = pool
        self._find = find
        self._listener = listener
        self._lock = threading.Lock()  # guards the channel against a close that comes meanwhile
        self._closed = threading.Event()
        self._channel: grpc.Channel | None = None
        self._thread = threading.Thread(target=self._run, name="agentd-endpoints", daemon=True)
        # Below: only touched by the thread.
        self._revision = ""
        self._failures = 0
        self._complaint = ""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread and its stream."""
        with self._lock:
            self._closed.set()
            if self._channel is not None:
                self._channel.close()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._closed.wait(wait_s):
            try:
                channel = self._connected()
                if channel is not None:
                    self._read(channel)
                self._away("agentd has ended the stream")
            except NowhereError as error:
                self._away(str(error))
            except grpc.RpcError as error:
                self._refused(error)
            except Exception:
                # Without this thread the program would go on with what was true long ago, and nobody would know.
                if self._closed.is_set():
                    return
                log.exception("cannot read endpoints")
            self._failures += 1
            base_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 10))
            wait_s = base_s * (0.5 + 0.5 * random.random())

    def _connected(self) -> grpc.Channel | None:
        """The channel, made on the first call; None when it is too late for that."""
        address = "" if self._channel is not None else self._find()
        with self._lock:
            if self._channel is None and not self._closed.is_set():
                self._channel = grpc.insecure_channel(address, options=_OPTIONS)
            return self._channel

    def _read(self, channel: grpc.Channel) -> None:
        stub = discovery_pb2_grpc.DiscoveryServiceStub(channel)
        for change in stub.Watch(pb.WatchRequest(pool=self._pool, revision=self._revision)):
            self._listener.learn(change)
            self._revision = change.revision
            self._failures = 0
            if self._complaint:
                self._complaint = ""
                log.info("agentd is back", extra={"pool": self._pool})

    def _refused(self, error: grpc.RpcError) -> None:
        assert isinstance(error, grpc.Call), f"an RpcError of a call is a grpc.Call: {error!r}"
        details = error.details() or error.code().name
        self._away(details, hopeless=error_reason(error) == "UNKNOWN_POOL")

    def _away(self, text: str, *, hopeless: bool = False) -> None:
        if self._closed.is_set():
            return
        self._listener.trouble(text, hopeless)
        if self._complaint != text:
            if not self._complaint or hopeless:
                log.warning("no news of endpoints, going on with what is known: %s", text, extra={"pool": self._pool})
            self._complaint = text
