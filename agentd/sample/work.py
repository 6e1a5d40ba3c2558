"""The task queue of the sample agent: bounded concurrency, bounded waiting, first come first served.

Knows nothing of HTTP. What is accepted is finished: refusals happen at the door only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from agentd.sdk import Agent


class Turned(Exception):
    """A task was turned away at the door; it can be offered to another agent at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a task does: sleep `service_s` seconds, then burn `cpu_s` seconds of processor time."""

    service_s: float
    cpu_s: float = 0.0


class TaskQueue:
    """Runs up to `agent.concurrency` jobs at a time and lets up to `queue_max` more wait."""

    def __init__(self, agent: Agent, queue_max: int, speed: float = 1.0) -> None:
        self._agent = agent
        self._queue_max = queue_max
        self._speed = speed
        self._free = agent.concurrency
        # Jobs that wait, in order; a result hands the slot of a finished job to the next.
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._threads = ThreadPoolExecutor(agent.concurrency, thread_name_prefix="task")
        self.closed = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self, job: Job) -> float:
        """Do `job`; the seconds it waited for its turn.

        Raises:
            Turned: the queue is full, or the agent takes no new tasks.
        """
        if self.closed or self._agent.draining:
            raise Turned("this agent takes no new tasks")
        if self._free == 0 and len(self._waiting) >= self._queue_max:
            raise Turned(f"{self._queue_max} tasks wait already")
        accepted_at = time.monotonic()
        await self._acquire()
        try:
            waited_s = time.monotonic() - accepted_at
            async with self._agent.task(queued_at=accepted_at):
                await self._work(job)
            return waited_s
        finally:
            self._release()

    async def _work(self, job: Job) -> None:
        if job.service_s > 0:
            await asyncio.sleep(job.service_s / self._speed)
        if job.cpu_s > 0:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, burn, job.cpu_s / self._speed)

    async def _acquire(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._agent.queue(len(self._waiting))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # the turn came together with the cancellation: it goes to the next
            else:
                self._waiting.remove(turn)
                self._agent.queue(len(self._waiting))
            raise

    def _release(self) -> None:
        if not self._waiting:
            self._free += 1
            return
        self._waiting.popleft().set_result(None)
        self._agent.queue(len(self._waiting))


def burn(cpu_s: float) -> None:
    """Use `cpu_s` seconds of processor time of this thread, however many others want it."""
    end = time.thread_time() + cpu_s
    number = 1
    while time.thread_time() < end:
        for _ in range(1000):
            number = (number * 1103515245 + 12345) % 2147483648
