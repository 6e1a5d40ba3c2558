"""A sample agent that drains: what waits goes to its successors, and comes back where nobody takes it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from agentd.sample.handover import HandOver
from agentd.sample.work import Answer, Job, TaskQueue
from agentd.sdk import Agent
from agentd.sdk.drain import Successor

LONG, SHORT = Job(3600.0), Job(0.0)
DONE = b'{"instance": "research-9102"}'


def answer(body: bytes = DONE, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds go by at once, for agents and event loops: nothing here ends before the test says so."""

    def go_by(seconds: float) -> None:
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)

    return go_by


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Neighbour:
    """A stand-in for another agent: keeps what it is asked, and answers `reply`."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.asked: list[dict[str, float | str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /task HTTP/1.1\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.asked.append(json.loads(await reader.readexactly(length)))
        writer.write(self.reply)
        writer.close()


async def started(neighbour: Neighbour, weight: float = 1.0) -> tuple[asyncio.Server, Successor]:
    server = await asyncio.start_server(neighbour.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    return server, Successor(f"research-{port}", "127.0.0.1", port, weight)


# -- the request ------------------------------------------------------------------------------------


def test_a_successor_does_the_task_and_its_answer_is_passed_on() -> None:
    async def program() -> None:
        neighbour = Neighbour(answer())
        server, successor = await started(neighbour)
        async with server:
            agent = Agent()
            agent._drain.begin(1, 30.0, (successor,))
            assert await HandOver(agent)(Job(1.5, 0.25)) == Answer(DONE)
            assert await HandOver(agent)(Job(1.5, id="seven")) == Answer(DONE)
        assert neighbour.asked == [{"service_s": 1.5, "cpu_s": 0.25}, {"service_s": 1.5, "cpu_s": 0.0, "id": "seven"}]

    asyncio.run(program())


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (answer(status="503 Service Unavailable"), "it answered 503"),
        (b"", "0 bytes read"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "1 bytes read"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "an answer of -1 bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", "an answer of 1000000 bytes"),
        (b"hello\r\ncontent-length: 0\r\n\r\n", "no answer of HTTP"),
        (b"x" * 200_000, "limit"),
    ],
)
def test_whatever_else_comes_back_the_task_is_ours(
    reply: bytes, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def program() -> None:
        server, successor = await started(Neighbour(reply))
        async with server:
            agent = Agent()
            agent._drain.begin(1, 30.0, (successor,))
            assert await HandOver(agent)(LONG) is None

    asyncio.run(program())
    assert complaint in caplog.text


def test_without_a_successor_or_with_one_that_is_gone_the_task_is_ours() -> None:
    async def program() -> None:
        agent = Agent()
        assert await HandOver(agent)(LONG) is None
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))  # it does not listen, and nobody else can
            agent._drain.begin(1, 0.0, (Successor("research-9102", "127.0.0.1", held.getsockname()[1], 1.0),))
            assert await HandOver(agent)(LONG) is None

    asyncio.run(program())


def test_a_task_that_a_successor_has_is_not_ours_again_when_the_deadline_passes(
    pass_time: Callable[[float], None],
) -> None:
    async def program() -> None:
        slow, asked = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await slow.wait()
            writer.write(answer())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            agent = Agent()
            port = server.sockets[0].getsockname()[1]
            agent._drain.begin(1, 60.0, (Successor("research-9102", "127.0.0.1", port, 1.0),))
            handing = asyncio.create_task(HandOver(agent)(LONG))
            await asked.wait()
            pass_time(60.0)
            given_up, _ = await asyncio.wait((handing,), timeout=0.5)
            assert agent.drain_left_s == 0.0
            assert not given_up, "it is being done there"
            slow.set()
            assert await handing == Answer(DONE)

    asyncio.run(program())


def test_each_successor_gets_its_share() -> None:
    async def program() -> None:
        large, small = Neighbour(answer()), Neighbour(answer())
        (one, first), (two, second) = await started(large, 3.0), await started(small, 1.0)
        async with one, two:
            agent = Agent()
            agent._drain.begin(1, 30.0, (first, second))
            hand_over = HandOver(agent)
            for _ in range(8):
                await hand_over(SHORT)
        assert (len(large.asked), len(small.asked)) == (6, 2)

    asyncio.run(program())


# -- the queue --------------------------------------------------------------------------------------


def draining(hand_over: Callable[[Job], Awaitable[Answer | None]]) -> tuple[Agent, TaskQueue, list[str]]:
    """An agent that works on one task at a time; what it says of its drain."""
    said: list[str] = []
    agent = Agent(concurrency=1)
    agent._drain._acknowledge = lambda _directive, stage, _text: said.append(stage.name)
    return agent, TaskQueue(agent, 8, hand_over=hand_over), said


def test_what_waits_is_handed_over_and_what_has_begun_is_finished_first(pass_time: Callable[[float], None]) -> None:
    async def program() -> None:
        taken: list[Job] = []

        async def hand_over(job: Job) -> Answer | None:
            taken.append(job)
            return Answer(DONE)

        agent, queue, said = draining(hand_over)
        begun = asyncio.create_task(queue.run(LONG))
        waiting = [asyncio.create_task(queue.run(LONG)) for _ in range(2)]
        await settle()
        agent._drain.begin(1, 30.0, ())
        queue.offer()
        assert await asyncio.gather(*waiting) == [Answer(DONE), Answer(DONE)]
        assert taken == [LONG, LONG]
        assert (agent.in_flight, agent.queue_length, said) == (1, 0, [])
        pass_time(LONG.service_s)
        await begun
        assert said == ["DONE"]

    asyncio.run(program())


def test_a_task_on_its_way_counts_until_it_is_answered_and_comes_back_when_nobody_takes_it(
    pass_time: Callable[[float], None],
) -> None:
    async def program() -> None:
        refused = asyncio.Event()

        async def hand_over(_job: Job) -> Answer | None:
            await refused.wait()
            return None

        agent, queue, said = draining(hand_over)
        begun = asyncio.create_task(queue.run(LONG))
        waiting = asyncio.create_task(queue.run(Job(0.001)))
        await settle()
        agent._drain.begin(1, 30.0, ())
        queue.offer()
        pass_time(LONG.service_s)
        await begun
        await settle()
        assert (agent.queue_length, said) == (1, []), "done would be a lie"
        refused.set()
        assert isinstance(await waiting, float)
        assert said == ["DONE"]
        assert (agent.in_flight, agent.queue_length) == (0, 0)

    asyncio.run(program())


def test_a_task_that_is_given_up_on_its_way_is_counted_no_more() -> None:
    async def program() -> None:
        async def hand_over(_job: Job) -> Answer | None:
            await asyncio.Event().wait()
            raise AssertionError

        agent, queue, _said = draining(hand_over)
        begun, waiting = asyncio.create_task(queue.run(LONG)), asyncio.create_task(queue.run(LONG))
        await settle()
        queue.offer()
        await settle()
        waiting.cancel()
        await settle()
        assert agent.queue_length == 0
        begun.cancel()
        await settle()
        assert isinstance(await queue.run(SHORT), float), "the slot is free again"

    asyncio.run(program())


def test_no_task_is_between_waiting_and_begun() -> None:
    """The last task in the queue begins when the one before it ends: a drain must not be done between the two."""

    async def program() -> None:
        agent, queue, said = draining(HandOver(Agent()))
        tasks = [asyncio.create_task(queue.run(Job(0.001))) for _ in range(4)]
        await settle()
        agent._drain.begin(1, 30.0, ())
        await asyncio.gather(*tasks)
        assert said == ["DONE"]
        assert agent.in_flight == agent.queue_length == 0

    asyncio.run(program())
