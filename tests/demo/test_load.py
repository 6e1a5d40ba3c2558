"""The load generator against scripted agents: fewest under way first, in order, and none lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from agentd.demo.client import Answer, Broken, NotTaken
from agentd.demo.load import Agent, LoadGenerator
from agentd.demo.report import Tally

A, B = Agent("research-9101", 9101), Agent("research-9102", 9102)
DONE = Answer(200, json.dumps({"waited_s": 0.25}).encode())


class Agents:
    """Requests stay open until the test answers them."""

    def __init__(self) -> None:
        self.open: list[tuple[int, float, asyncio.Future[Answer]]] = []
        self.now = 0.0

    async def send(self, port: int, service_s: float) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.open.append((port, service_s, future))
        return await future

    @property
    def seen(self) -> list[tuple[int, float]]:
        return [(port, service_s) for port, service_s, _ in self.open]

    async def end(self, place: int, how: Answer | Exception) -> None:
        _, _, future = self.open.pop(place)
        if isinstance(how, Exception):
            future.set_exception(how)
        else:
            future.set_result(how)
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def make(on_refusal: Callable[[], None] = lambda: None) -> tuple[LoadGenerator, Agents, Tally]:
    agents, tally = Agents(), Tally()
    return LoadGenerator(tally, on_refusal, send=agents.send, clock=lambda: agents.now), agents, tally


def test_the_agent_with_the_fewest_gets_the_next_and_the_rest_waits_in_order() -> None:
    async def program() -> None:
        load, agents, tally = make()
        load.set_agents([A, B], concurrency=2)
        for number in range(6):
            load.submit(float(number))
        await settle()
        assert agents.seen == [(9101, 0.0), (9102, 1.0), (9101, 2.0), (9102, 3.0)]
        assert (load.in_flight, load.waiting) == (4, 2)
        await agents.end(3, DONE)
        assert agents.seen[-1] == (9102, 4.0)
        for _ in range(5):
            await agents.end(0, DONE)
        await load.wait_idle()
        assert (tally.sent, tally.answered, tally.unanswered) == (6, 6, 0)

    asyncio.run(program())


def test_a_wait_ends_where_the_service_begins() -> None:
    async def program() -> None:
        load, agents, tally = make()
        load.submit(1.0)
        agents.now = 3.0
        load.set_agents([A], concurrency=1)
        await settle()
        agents.now = 9.0  # the service itself is no wait
        await agents.end(0, DONE)
        assert tally.waits(1.0)["max_s"] == 3.25  # three here, a quarter in the agent's own queue

    asyncio.run(program())


@pytest.mark.parametrize(
    ("how", "retried", "refused"),
    [(NotTaken("refused"), 0, 0), (Broken("reset"), 1, 0), (Answer(503, b"{}"), 0, 1)],
)
def test_what_an_agent_does_not_do_goes_elsewhere_in_its_old_place(
    how: Answer | Exception, retried: int, refused: int
) -> None:
    async def program() -> None:
        asked: list[None] = []
        load, agents, tally = make(lambda: asked.append(None))
        load.set_agents([A, B], concurrency=1)
        for number in range(4):
            load.submit(float(number))
        await settle()
        await agents.end(0, how)
        # The agent rests until the next look; the request is first in line again.
        assert asked == [None]
        assert agents.seen == [(9102, 1.0)]
        await agents.end(0, DONE)
        assert agents.seen == [(9102, 0.0)]
        load.set_agents([A, B], concurrency=1)
        await settle()
        assert agents.seen == [(9102, 0.0), (9101, 2.0)]
        for _ in range(3):
            await agents.end(0, DONE)
        await load.wait_idle()
        assert (tally.answered, tally.retried, tally.refused, tally.unanswered) == (4, retried, refused, 0)

    asyncio.run(program())


def test_an_agent_that_is_no_longer_ready_keeps_what_it_has_and_gets_nothing_new() -> None:
    async def program() -> None:
        load, agents, _tally = make()
        load.set_agents([A], concurrency=2)
        load.submit(0.0)
        await settle()
        load.set_agents([], concurrency=2)
        load.submit(1.0)
        await settle()
        assert agents.seen == [(9101, 0.0)]
        # It is back under the same name while the old request is still under way: that one still counts.
        load.set_agents([A], concurrency=1)
        await settle()
        assert agents.seen == [(9101, 0.0)]
        await agents.end(0, DONE)
        assert agents.seen == [(9101, 1.0)]
        await load.close()

    asyncio.run(program())


def test_an_answer_that_is_an_error_counts_as_failed_and_is_not_repeated() -> None:
    async def program() -> None:
        load, agents, tally = make()
        load.set_agents([A], concurrency=1)
        load.submit(0.0)
        await settle()
        await agents.end(0, Answer(400, b"{}"))
        await load.wait_idle()
        assert (tally.failed, tally.answered, tally.unanswered) == (1, 0, 0)

    asyncio.run(program())


@pytest.mark.parametrize("body", [b"done", b"[]", b'{"waited_s": "x"}'])
def test_agents_that_do_not_tell_their_wait_are_fine(body: bytes) -> None:
    async def program() -> None:
        load, agents, tally = make()
        load.set_agents([A], concurrency=1)
        load.submit(0.0)
        await settle()
        await agents.end(0, Answer(200, body))
        await load.wait_idle()
        assert tally.answered == 1

    asyncio.run(program())


def test_abandoning_leaves_what_waits_unanswered_and_lets_the_rest_finish() -> None:
    async def program() -> None:
        load, agents, tally = make()
        load.set_agents([A], concurrency=1)
        load.submit(0.0)
        load.submit(1.0)
        await settle()
        load.abandon()
        await agents.end(0, DONE)
        await load.wait_idle()
        assert (tally.sent, tally.answered, tally.unanswered, agents.open) == (2, 1, 1, [])

    asyncio.run(program())
