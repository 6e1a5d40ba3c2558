"""Where to send a pool's tasks, and how not to lose one: for programs that give work to agents.

    async with Endpoints("research") as endpoints:
        answer = await endpoints.call(ask)          # ask(endpoint) does one task, perhaps by endpoint.url
        async with endpoints.pick() as endpoint:    # or pick one yourself
            ...

Plain threads use the same with `with`, and without `await`. agentd tells at once who starts, drains and dies; the
choice between those who are there is made here, by agentd's weights and by what this program sees itself
(`sdk.picking`). While agentd is away it goes on with what is known.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from agentd.sdk.checking import check_answer, check_work
from agentd.sdk.latch import call_in_loop, resolve
from agentd.sdk.picking import Endpoint, Member, Picker
from agentd.sdk.watcher import Listener, NowhereError, Watcher

if TYPE_CHECKING:
    from agentd.v1 import discovery_pb2 as pb

T = TypeVar("T")

# A task that failed on an endpoint goes back there after a pause, which grows with its failures.
_PAUSE_FIRST_S = 0.1
_PAUSE_MAX_S = 2.0
# What an error tells of earlier ones.
_TOLD_MAX = 10
_CAUSE_MAX = 200


class NoEndpointError(Exception):
    """A task found no endpoint, or none that did it. The text says why."""


class Retry(Exception):
    """Raised by work that another endpoint should do instead: this one is full, or leaving."""


class Pick:
    """An endpoint for one task, as a context manager, plain or `async`; made by `Endpoints.pick`. Use it once.

    An OSError (ConnectionError and TimeoutError are some) or `Retry` inside counts against the endpoint; any other
    exception says nothing about it.
    """

    def __init__(self, endpoints: Endpoints, tries: _Tries) -> None:
        self._endpoints = endpoints
        self._tries = tries
        self._entered = False
        self.member: Member | None = None

    def __enter__(self) -> Endpoint:
        self._enter()
        self.member = self._endpoints._wait(self._tries)
        return self.member.endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.member is not None, "it was entered"
        worked = True if error is None else False if isinstance(error, OSError | Retry) else None
        self._endpoints._release(self.member, worked)

    async def __aenter__(self) -> Endpoint:
        self._enter()
        self.member = await self._endpoints._wait_async(self._tries)
        return self.member.endpoint

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _enter(self) -> None:
        if self._entered:
            raise RuntimeError("cannot enter a pick twice: endpoints.pick() makes one for each task")
        self._entered = True


class Endpoints:
    """The endpoints of one pool. Use it once, as a context manager: `with` or `async with`.

    One thread listens to agentd. Memory is bounded by the number of the pool's instances and of tasks under way.
    All methods may be called from any thread.
    """

    def __init__(
        self,
        pool: str,
        *,
        address: str = "",
        timeout_s: float = 30.0,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Endpoints of `pool`; empty: of all pools.

        `address` is where agentd serves, in gRPC syntax; empty: $AGENTD_ENDPOINT, which agents have, else where its
        control socket is found. `timeout_s` bounds a task's waiting for an endpoint that takes it. `chance` and
        `clock` are for tests.

        Raises:
            TypeError: `pool` is no text.
            ValueError: `timeout_s` is negative, or no time that can be waited for.
        """
        if not isinstance(pool, str):
            raise TypeError(f"cannot know the endpoints of {pool!r}: the pool must be its name")
        if not 0.0 <= timeout_s <= threading.TIMEOUT_MAX:
            raise ValueError(f"cannot wait {timeout_s} s for an endpoint: timeout_s must be at least 0 and finite")
        self.pool = pool
        self.timeout_s = timeout_s
        self._address = address
        self._clock = clock
        self._changed = threading.Condition()  # guards all below
        self._chance = chance
        self._picker = Picker(chance)
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._trouble = "agentd has not answered yet"
        self._hopeless = False  # waiting is of no use
        self._asynchronous = False
        self._watcher: Watcher | None = None

    @property
    def known(self) -> tuple[Endpoint, ...]:
        """All endpoints as agentd last told them, those that drain included."""
        with self._changed:
            return self._picker.endpoints

    def pick(self) -> Pick:
        """An endpoint for one task: `with endpoints.pick() as endpoint`, or `async with`.

        Entering waits while there is none, and raises NoEndpointError after `timeout_s`, or at once where agentd says
        that there is no such pool.
        """
        return Pick(self, _Tries(1, self.timeout_s))

    @overload
    def call(self, work: Callable[[Endpoint], Awaitable[T]], *, attempts: int = 3) -> Coroutine[Any, Any, T]: ...

    @overload
    def call(self, work: Callable[[Endpoint], T], *, attempts: int = 3) -> T: ...

    def call(self, work: Callable[[Endpoint], Any], *, attempts: int = 3) -> Any:
        """Do one task: `work(endpoint)`, and where that raises an OSError or `Retry`, again with another endpoint.

        Within `async with`, `work` is a coroutine function and the call is awaited. An agent that died may have begun
        the task: `work` must be such that this does no harm. A TimeoutError is the task's own error, for the agent may
        still be at work on it. An endpoint that was tried is not tried again at once. A refused connection and `Retry`
        are no attempts: the task goes from endpoint to endpoint until one takes it.

        Raises:
            NoEndpointError: `attempts` endpoints failed, or none took it in time; its cause is the last error.
            TypeError: `work` is a coroutine function within `with`, or a plain one within `async with`.
            ValueError: `attempts` is below 1.
        """
        self._check_entered()
        check_work(work, asynchronous=self._asynchronous)
        if attempts < 1:
            raise ValueError(f"cannot try {attempts} times: attempts must be at least 1")
        tries = _Tries(attempts, self.timeout_s)
        return self._call_async(work, tries) if self._asynchronous else self._call(work, tries)

    def _call(self, work: Callable[[Endpoint], T], tries: _Tries) -> T:
        while True:
            pick = Pick(self, tries)
            try:
                with pick as endpoint:
                    return check_answer(work, work(endpoint), asynchronous=False)
            except TimeoutError:
                raise  # it may still be done there
            except (OSError, Retry) as error:
                tries.failed(pick, error, self._chance())

    async def _call_async(self, work: Callable[[Endpoint], Awaitable[T]], tries: _Tries) -> T:
        while True:
            pick = Pick(self, tries)
            try:
                async with pick as endpoint:
                    return await check_answer(work, work(endpoint), asynchronous=True)
            except TimeoutError:
                raise  # it may still be done there
            except (OSError, Retry) as error:
                tries.failed(pick, error, self._chance())

    # -- the context -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._watcher is not None:
            raise RuntimeError("cannot enter Endpoints twice: make new ones")
        self._watcher = Watcher(self.pool, self._find, Listener(self._learn, self._complain))
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watcher is not None, "it was entered"
        self._watcher.close()
        with self._changed:
            self._picker.learn((), snapshot=True)
            self._trouble, self._hopeless = "these Endpoints are closed", True
            self._tell()

    async def __aenter__(self) -> Self:
        self.__enter__()
        self._asynchronous = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    # -- waiting ---------------------------------------------------------------------------------

    def _wait(self, tries: _Tries) -> Member:
        with self._changed:
            while (member := self._take(tries)) is None:
                began = time.monotonic()
                self._changed.wait(tries.wait_s())
                tries.left_s -= time.monotonic() - began
            return member

    async def _wait_async(self, tries: _Tries) -> Member:
        loop = asyncio.get_running_loop()
        while True:
            waiter = (loop, loop.create_future())
            with self._changed:
                if (member := self._take(tries)) is not None:
                    return member
                self._waiters.add(waiter)
            began = time.monotonic()
            try:
                async with asyncio.timeout(tries.wait_s()):
                    await waiter[1]
            except TimeoutError:
                pass
            finally:
                with self._changed:
                    self._waiters.discard(waiter)
            tries.left_s -= time.monotonic() - began

    def _take(self, tries: _Tries) -> Member | None:
        """An endpoint, if there is one now.

        Raises:
            NoEndpointError: waiting is of no use, or has been long enough.
        """
        self._check_entered()
        member = self._picker.pick(self._clock(), tries.avoid())
        if member is None and self._hopeless:
            raise NoEndpointError(self._trouble + tries.story) from tries.error
        if member is None and tries.left_s <= 0.0:
            what = f"no endpoint besides {tries.tried}" if tries.tried else "no endpoint"
            where = f"of {self.pool or 'any pool'} within {self.timeout_s:g} s"
            raise NoEndpointError(f"{what} {where}: {self._trouble}{tries.story}") from tries.error
        tries.take()
        return member

    def _check_entered(self) -> None:
        if self._watcher is None:
            raise RuntimeError("cannot pick: enter Endpoints first, with `with` or `async with`")

    def _release(self, member: Member, worked: bool | None) -> None:
        with self._changed:
            self._picker.release(member, self._clock(), worked=worked)

    # -- what the watcher's thread calls ---------------------------------------------------------

    def _find(self) -> str:
        """agentd's address, as ControlClient finds it where nobody has given one.

        Raises:
            NowhereError: there is no agentd.
        """
        given = self._address or os.environ.get("AGENTD_ENDPOINT", "")
        if given:
            return given
        from agentd.sdk.control import NoDaemonError, find_address  # agents have no need of it

        try:
            return find_address(os.environ, os.getuid())
        except NoDaemonError as error:
            raise NowhereError(str(error)) from error

    def _learn(self, change: pb.WatchResponse) -> None:
        endpoints = [_endpoint(each) for each in change.endpoints]
        with self._changed:
            self._picker.learn(endpoints, change.removed, snapshot=change.snapshot)
            self._trouble, self._hopeless = "agentd knows of none that takes tasks", False
            self._tell()

    def _complain(self, text: str, hopeless: bool) -> None:
        with self._changed:
            self._trouble, self._hopeless = text, hopeless
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        for loop, future in self._waiters:
            call_in_loop(loop, partial(resolve, future))


class _Tries:
    """One task on its way from endpoint to endpoint: where it may not go yet, why, and how long it may still wait."""

    def __init__(self, attempts: int, wait_s: float) -> None:
        self.left_s = wait_s
        self.error: Exception | None = None
        self._attempts = attempts
        self._failures = 0
        self._counted = 0  # of these, the attempts
        self._taken_at = 0.0
        self._story: deque[str] = deque(maxlen=_TOLD_MAX)
        self._not_before: dict[Member, float] = {}  # monotonic

    @property
    def story(self) -> str:
        return f"; before that: {'; '.join(self._story)}" if self._story else ""

    @property
    def tried(self) -> str:
        """The endpoints that it waits to try again."""
        return ", ".join(member.endpoint.id for member in self._not_before)

    def avoid(self) -> Collection[Member]:
        """Where it failed a moment ago."""
        now = time.monotonic()
        self._not_before = {member: at for member, at in self._not_before.items() if at > now}
        return self._not_before.keys()

    def take(self) -> None:
        """Another try begins."""
        self._taken_at = time.monotonic()

    def wait_s(self) -> float:
        """How long to wait for news at the most."""
        return max(0.0, min([self.left_s, *(at - time.monotonic() for at in self._not_before.values())]))

    def failed(self, pick: Pick, error: Exception, chance: float) -> None:
        """The endpoint of `pick` did not do it, and is not asked again for a while that is spread by `chance`.

        Raises:
            NoEndpointError: it was the last attempt.
        """
        assert pick.member is not None, "work began on it"
        self.error = error
        now = time.monotonic()
        begun = _may_have_begun(error)
        if not begun:
            self.left_s -= now - self._taken_at
        # Refusals may take their time; when the wait is over, they count too.
        self._counted += begun or self.left_s <= 0.0
        self._failures += 1
        pause_s = min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2.0 ** min(self._failures - 1, 10))
        self._not_before[pick.member] = now + pause_s * (0.5 + 0.5 * chance)
        self._story.append(f"{pick.member.endpoint.id}: {error!r}"[:_CAUSE_MAX])
        if self._counted >= self._attempts:
            raise NoEndpointError(f"{self._attempts} attempts failed: {'; '.join(self._story)}") from error


def _may_have_begun(error: Exception) -> bool:
    """Whether the agent may have begun the task: it had the connection, and did not say no."""
    reason = getattr(error, "reason", error)  # where urllib has it
    refused = isinstance(reason, ConnectionRefusedError) or getattr(reason, "errno", None) == errno.ECONNREFUSED
    return not (refused or isinstance(error, Retry))


def _endpoint(message: pb.InstanceEndpoint) -> Endpoint:
    has = message.HasField
    return Endpoint(
        id=message.id,
        pool=message.pool,
        host=message.host,
        port=message.endpoint.port,
        incarnation=message.incarnation,
        weight=message.weight,
        load=message.load if has("load") else None,
        queue_length=message.queue_length if has("queue_length") else None,
        in_flight=message.in_flight if has("in_flight") else None,
    )
