"""The load generator: sends requests to agents, none lost, and measures how long they waited.

All requests wait in one line here until an agent has a free slot; the ready agent with the fewest requests
under way gets the next. An agent that refuses is left alone until the next look at the fleet; a request whose
agent died under it goes back to the head of the line.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from agentd.demo.client import Answer, Broken, NotTaken, request
from agentd.demo.report import Tally

# Beyond its service time a request may take this long before its agent counts as gone. An agent that hangs is
# killed by agentd much earlier, which ends the connection.
PATIENCE_S = 300.0

Send = Callable[[int, float], Awaitable[Answer]]


class Agent(Struct, frozen=True):
    """A ready agent: where it answers."""

    id: str
    port: int


class _Seat(Struct):
    """What is known of one agent. `open`: listed as ready, and it has not refused since."""

    agent: Agent
    open: bool = True
    outstanding: int = 0


class _Request(Struct, order=True):
    """In the order of arrival; no two have one number."""

    arrived: float
    number: int
    service_s: float


async def post_task(port: int, service_s: float) -> Answer:
    """Offer one task to the sample agent on `port`."""
    body = json.dumps({"service_s": service_s}).encode()
    return await request(port, "POST", "/task", body, timeout_s=service_s + PATIENCE_S)


class LoadGenerator:
    """Sends at most `concurrency` requests at a time to each agent. `on_refusal` asks for a new look at the fleet."""

    def __init__(
        self,
        tally: Tally,
        on_refusal: Callable[[], None],
        *,
        send: Send = post_task,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally = tally
        self._on_refusal = on_refusal
        self._send = send
        self._clock = clock
        self._concurrency = 1
        self._seats: dict[str, _Seat] = {}
        self._line: list[_Request] = []  # a heap: a request that comes back takes its old place
        self._numbers = itertools.count()
        self._running: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def submit(self, service_s: float) -> None:
        """A request arrives now."""
        self._tally.sent += 1
        heapq.heappush(self._line, _Request(self._clock(), next(self._numbers), service_s))
        self._idle.clear()
        self._dispatch()

    def set_agents(self, agents: Iterable[Agent], concurrency: int) -> None:
        """What a look at the fleet showed: the agents that are ready now."""
        self._concurrency = concurrency
        ready = {agent.id: agent for agent in agents}
        for name, seat in list(self._seats.items()):
            seat.open = name in ready
            if not seat.open and seat.outstanding == 0:
                del self._seats[name]
        for name, agent in ready.items():
            self._seats.setdefault(name, _Seat(agent)).agent = agent
        self._dispatch()

    async def wait_idle(self) -> None:
        """Wait until every request has been answered."""
        await self._idle.wait()

    def abandon(self) -> None:
        """Send nothing more; what waits stays unanswered, what is under way may finish."""
        self._line.clear()
        self._seats.clear()
        self._note_idle()

    async def close(self) -> None:
        """Give up what is under way."""
        self.abandon()
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _dispatch(self) -> None:
        while self._line:
            free = [seat for seat in self._seats.values() if seat.open and seat.outstanding < self._concurrency]
            if not free:
                return
            seat = min(free, key=lambda seat: (seat.outstanding, seat.agent.id))
            seat.outstanding += 1
            task = asyncio.create_task(self._serve(heapq.heappop(self._line), seat))
            self._running.add(task)
            task.add_done_callback(self._served)

    async def _serve(self, asked: _Request, seat: _Seat) -> None:
        sent_at = self._clock()
        try:
            answer = await self._send(seat.agent.port, asked.service_s)
        except NotTaken:
            self._return(asked, seat)
        except Broken:
            self._tally.retried += 1
            self._return(asked, seat)
        else:
            if answer.status == 200:
                # Its wait ends where its service began: here until it was sent, then in the agent's own queue.
                self._tally.answer(sent_at - asked.arrived + _waited_s(answer))
            elif answer.status == 503:
                self._tally.refused += 1
                self._return(asked, seat)
            else:
                self._tally.failed += 1
        finally:
            seat.outstanding -= 1

    def _return(self, asked: _Request, seat: _Seat) -> None:
        seat.open = False
        heapq.heappush(self._line, asked)
        self._on_refusal()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.result()  # an error here is one of ours: let the loop's exception handler show it
            self._dispatch()
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._line and not self._running:
            self._idle.set()


def _waited_s(answer: Answer) -> float:
    """How long the agent says that the task waited for its turn; 0 where it is not one that says so."""
    try:
        fields = answer.json()
    except ValueError:
        return 0.0
    waited_s = fields.get("waited_s", 0.0) if isinstance(fields, dict) else 0.0
    return float(waited_s) if isinstance(waited_s, int | float) else 0.0
