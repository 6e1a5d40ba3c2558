"""The task queue of the sample agent: bounded concurrency, bounded waiting, first come first served.

Knows nothing of HTTP. What is accepted is finished: refusals happen at the door only. When the agent drains, who waits
is offered to others, and done here where nobody takes it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from agentd.sdk import Agent


class Turned(Exception):
    """A task was turned away at the door; it can be offered to another agent at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a task does: sleep `service_s` seconds, then burn `cpu_s` seconds of processor time. `id` is its name."""

    service_s: float
    cpu_s: float = 0.0
    id: str = ""


class Step(StrEnum):
    """How far a job has come here."""

    ACCEPTED = "accepted"
    BEGUN = "begun"
    DONE = "done"
    HANDED_OVER = "handed_over"  # another agent has done it


@dataclass(frozen=True, slots=True)
class Answer:
    """What another agent answered, for whoever waits here."""

    body: bytes


class TaskQueue:
    """Runs up to `agent.concurrency` jobs at a time and lets up to `queue_max` more wait."""

    def __init__(
        self,
        agent: Agent,
        queue_max: int,
        speed: float = 1.0,
        hand_over: Callable[[Job], Awaitable[Answer | None]] | None = None,
        note: Callable[[Job, Step], None] = lambda _job, _step: None,
    ) -> None:
        """`hand_over` has another agent do a job, and gives its answer, or None; `note` hears each step."""
        self._agent = agent
        self._queue_max = queue_max
        self._speed = speed
        self._concurrency = agent.concurrency
        self._free = agent.concurrency  # below 0 while more run than there are slots left
        self._hand_over = hand_over
        self._note = note
        self._accepted = 0  # and not begun
        # Jobs that wait for a slot, in order. True hands that of a finished job to the next, False: offer it to others.
        self._turns: deque[asyncio.Future[bool]] = deque()
        self._threads = ThreadPoolExecutor(agent.concurrency, thread_name_prefix="task")
        self.closed = False

    @property
    def waiting(self) -> int:
        """Jobs accepted and not begun, also those that somebody else is asked to do."""
        return self._accepted

    def resize(self, concurrency: int) -> None:
        """Run up to `concurrency` jobs at a time from now on; those that run are finished."""
        self._free += concurrency - self._concurrency
        self._concurrency = concurrency
        while self._turns and self._free > 0:
            self._free -= 1
            self._turns.popleft().set_result(True)
        self._threads.shutdown(wait=False)  # what it runs, and what waits in it, is finished
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="task")

    def offer(self) -> None:
        """Offer all that waits to others: the agent drains."""
        if self._hand_over is not None:
            while self._turns:
                self._turns.popleft().set_result(False)

    async def run(self, job: Job) -> float | Answer:
        """Do `job`: the seconds it waited for its turn, or the answer of the agent that did it instead.

        Raises:
            Turned: the queue is full, or the agent takes no new tasks.
        """
        if self.closed or self._agent.draining:
            raise Turned("this agent takes no new tasks")
        if self._free <= 0 and self._accepted >= self._queue_max:
            raise Turned(f"{self._queue_max} tasks wait already")
        accepted_at = time.monotonic()
        begun = False
        self._count(1)
        try:
            self._note(job, Step.ACCEPTED)
            answer = await self._wait(job)
            if answer is not None:
                self._note(job, Step.HANDED_OVER)
                return answer
            try:
                waited_s = time.monotonic() - accepted_at
                async with self._agent.task(queued_at=accepted_at):
                    begun = True
                    self._count(-1)  # only now: a job between the two would be nobody's
                    self._note(job, Step.BEGUN)
                    await self._work(job)
                    self._note(job, Step.DONE)
                return waited_s
            finally:
                self._release()
        finally:
            if not begun:
                self._count(-1)

    def _count(self, more: int) -> None:
        self._accepted += more
        self._agent.queue(self._accepted)

    async def _wait(self, job: Job) -> Answer | None:
        """Wait for a slot; where the job is offered meanwhile, the answer of whoever has done it."""
        first = False
        while not await self._acquire(first=first):
            assert self._hand_over is not None
            answer = await self._hand_over(job)
            if answer is not None:
                return answer
            first = True  # it has waited before
        return None

    async def _work(self, job: Job) -> None:
        if job.service_s > 0:
            await asyncio.sleep(job.service_s / self._speed)
        if job.cpu_s > 0:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, burn, job.cpu_s / self._speed)

    async def _acquire(self, *, first: bool) -> bool:
        """Wait for a slot. False: the job is to be offered to others."""
        if self._free > 0:
            self._free -= 1
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if first:
            self._turns.appendleft(turn)
        else:
            self._turns.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.done() or turn.cancelled():
                self._turns.remove(turn)
            elif turn.result():
                self._release()  # the turn came together with the cancellation: it goes to the next
            raise

    def _release(self) -> None:
        if self._turns and self._free >= 0:
            self._turns.popleft().set_result(True)
        else:
            self._free += 1


def burn(cpu_s: float) -> None:
    """Use `cpu_s` seconds of processor time of this thread, however many others want it."""
    end = time.thread_time() + cpu_s
    number = 1
    while time.thread_time() < end:
        for _ in range(1000):
            number = (number * 1103515245 + 12345) % 2147483648
