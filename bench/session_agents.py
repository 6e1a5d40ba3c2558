"""Agents that have nothing but a session: many in one process, each as the SDK keeps it, for `sessions.py`.

Standard input gives an order in a line of JSON: {"address", "who": [[id, incarnation], ...], "per_connection"}. From
then on every line "?" is answered with {"answered", "back"}: the heartbeats answered so far, and by the epoch of the
server that answered (as text) the sessions that were answered in it last. It ends with standard input.

`Pace` of the SDK says when to beat, how long an answer may take, and when a session that has ended is begun anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections import Counter
from typing import Any

from beater import request
from grpc import aio
from harness import raise_open_files

from agentd.sdk.pace import Pace
from agentd.v1 import agent_pb2, agent_pb2_grpc

# The first gives each channel a connection of its own; the others are the SDK's.
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 400),
)


class Ended(Exception):
    """The session, not by us."""


class Agent:
    """One session after the other. `epoch` is that of the server that answered last, `answered` counts."""

    def __init__(self, ident: str, incarnation: str) -> None:
        self._ident, self._incarnation = ident, incarnation
        self._pace = Pace()
        self._seq = 0
        self._asked = self._worked = False  # a heartbeat; the present session, so far
        self._writing: asyncio.Future[None] | None = None
        self.answered = 0
        self.epoch = 0

    async def live(self, stub: Any) -> None:
        while True:
            stream = stub.Session()
            hearing = asyncio.ensure_future(stream.read())
            try:
                while True:
                    hearing = await self._turn(stream, hearing)
            except (Ended, aio.AioRpcError, asyncio.InvalidStateError):
                stream.cancel()
                if self._writing is not None:  # a write that has not begun when its call ends waits for ever
                    self._writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, aio.AioRpcError):
                await hearing
            now = asyncio.get_running_loop().time()
            if self._worked:
                self._pace.lose(now, random.random())
            else:
                self._pace.begin(now)
                self._pace.fail(random.random())
            self._asked = self._worked = False
            await asyncio.sleep(self._pace.due_in_s(now))

    async def _turn(self, stream: Any, hearing: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Beat when it is due, and hear what comes; the next message to wait for."""
        now = asyncio.get_running_loop().time()
        if not self._asked and self._pace.due_in_s(now) <= 0.0:
            self._seq += 1
            self._pace.begin(now)
            self._asked = True
            heartbeats = request(self._ident, self._incarnation, self._seq).heartbeats
            self._writing = asyncio.ensure_future(stream.write(agent_pb2.SessionRequest(heartbeats=heartbeats)))
            self._writing.add_done_callback(_look)
        wait_s = self._pace.answer_s if self._asked else self._pace.due_in_s(now)
        await asyncio.wait((hearing,), timeout=max(0.0, wait_s))
        if not hearing.done():
            if self._asked:
                raise Ended
            return hearing
        answer = hearing.result()
        if not isinstance(answer, agent_pb2.SessionResponse):
            raise Ended
        if self._asked and not answer.replies[0].HasField("refusal"):
            self._worked = True
            self.answered += 1
            self.epoch = answer.controller_epoch
        # The first wait is a part of the interval, so that those who began together do not stay together.
        first = self.answered == 1
        self._pace.succeed(answer.replies[0].interval_s * (random.random() if first else 1.0), random.random())
        self._asked = False
        return asyncio.ensure_future(stream.read())


def _look(written: asyncio.Future[None]) -> None:
    """That a message could not be written is heard by whoever reads."""
    if not written.cancelled():
        written.exception()


async def main() -> None:
    raise_open_files()
    loop = asyncio.get_running_loop()
    order = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    agents = [Agent(*who) for who in order["who"]]
    lives, channels = [], []
    for start in range(0, len(agents), order["per_connection"]):
        channels.append(aio.insecure_channel(order["address"], options=OPTIONS))
        stub = agent_pb2_grpc.AgentServiceStub(channels[-1])
        lives += [loop.create_task(agent.live(stub)) for agent in agents[start : start + order["per_connection"]]]
    while await loop.run_in_executor(None, sys.stdin.readline):
        if failed := next((life for life in lives if life.done()), None):
            failed.result()
        back = Counter(str(agent.epoch) for agent in agents if agent.epoch)
        print(json.dumps({"answered": sum(agent.answered for agent in agents), "back": back}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
