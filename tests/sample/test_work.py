"""The sample agent's queue: bounded, in order, and what is accepted is finished."""

from __future__ import annotations

import asyncio
import time

import pytest

from agentd.sample.work import Job, TaskQueue, Turned, burn
from agentd.sdk import Agent

LONG = Job(3600.0)
SHORT = Job(0.0)


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_tasks_run_in_order_and_at_most_so_many_at_a_time() -> None:
    async def program() -> None:
        agent = Agent(concurrency=2)
        queue = TaskQueue(agent, queue_max=10)
        running = [asyncio.create_task(queue.run(LONG)) for _ in range(2)]
        await settle()
        order: list[int] = []

        async def numbered(number: int) -> None:
            await queue.run(SHORT)
            order.append(number)

        waiting = [asyncio.create_task(numbered(number)) for number in range(3)]
        await settle()
        assert (agent.in_flight, agent.queue_length, queue.waiting) == (2, 3, 3)
        running[0].cancel()
        await asyncio.gather(*waiting)
        assert order == [0, 1, 2]
        assert (agent.in_flight, agent.queue_length) == (1, 0)
        running[1].cancel()

    asyncio.run(program())


def test_a_full_queue_turns_tasks_away() -> None:
    async def program() -> None:
        queue = TaskQueue(Agent(concurrency=1), queue_max=1)
        tasks = [asyncio.create_task(queue.run(LONG)) for _ in range(2)]
        await settle()
        with pytest.raises(Turned, match="1 tasks wait already"):
            await queue.run(SHORT)
        for task in tasks:
            task.cancel()

    asyncio.run(program())


def test_a_closed_queue_turns_tasks_away_and_finishes_the_accepted() -> None:
    async def program() -> None:
        queue = TaskQueue(Agent(concurrency=1), queue_max=8)
        accepted = [asyncio.create_task(queue.run(Job(0.01))) for _ in range(3)]
        await settle()
        queue.closed = True
        with pytest.raises(Turned, match="no new tasks"):
            await queue.run(SHORT)
        waited = await asyncio.gather(*accepted)
        assert waited == sorted(waited)

    asyncio.run(program())


def test_a_task_that_is_given_up_while_it_waits_leaves_its_place() -> None:
    async def program() -> None:
        agent = Agent(concurrency=1)
        queue = TaskQueue(agent, queue_max=8)
        first, second = asyncio.create_task(queue.run(LONG)), asyncio.create_task(queue.run(LONG))
        await settle()
        second.cancel()
        await settle()
        assert agent.queue_length == 0
        third = asyncio.create_task(queue.run(SHORT))
        await settle()
        # The turn comes in the same instant as the cancellation: it must not be lost.
        first.cancel()
        await settle()
        await third
        fourth, fifth = asyncio.create_task(queue.run(LONG)), asyncio.create_task(queue.run(LONG))
        sixth = asyncio.create_task(queue.run(SHORT))
        await settle()
        queue._release()  # hands the slot of the fourth to the fifth
        fifth.cancel()
        await sixth
        fourth.cancel()

    asyncio.run(program())


def test_processor_time_is_really_used() -> None:
    async def program() -> None:
        queue = TaskQueue(Agent(concurrency=1), queue_max=1, speed=2.0)
        before = time.process_time()
        await queue.run(Job(0.0, cpu_s=0.1))
        assert time.process_time() - before >= 0.05

    asyncio.run(program())
    before = time.thread_time()
    burn(0.02)
    assert time.thread_time() - before >= 0.02


def test_more_slots_begin_what_waits_at_once_and_fewer_are_for_the_tasks_to_come() -> None:
    async def program() -> None:
        agent = Agent(concurrency=1)
        queue = TaskQueue(agent, queue_max=10)
        tasks = [asyncio.create_task(queue.run(LONG)) for _ in range(5)]
        await settle()
        assert (agent.in_flight, queue.waiting) == (1, 4)
        queue.resize(4)
        await settle()
        assert (agent.in_flight, queue.waiting) == (4, 1)
        queue.resize(2)
        await settle()
        assert (agent.in_flight, queue.waiting) == (4, 1), "nothing that runs is cut"
        for running, left in ((4, 3), (3, 2)):
            assert agent.in_flight == running
            tasks.pop(0).cancel()
            await settle()
            assert (agent.in_flight, queue.waiting) == (left, 1)
        tasks.pop(0).cancel()
        await settle()
        assert (agent.in_flight, queue.waiting) == (2, 0), "two at a time from here"
        for task in tasks:
            task.cancel()

    asyncio.run(program())


def test_work_on_processors_goes_on_through_a_change() -> None:
    async def program() -> None:
        queue = TaskQueue(Agent(concurrency=1), queue_max=10)
        tasks = [asyncio.create_task(queue.run(Job(0.0, cpu_s=0.01))) for _ in range(3)]
        await settle()
        queue.resize(3)
        await asyncio.gather(*tasks)

    asyncio.run(program())
