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
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from agentd.sdk.latch import call_in_loop, resolve
from agentd.sdk.picking import Endpoint, Member, Picker
from agentd.sdk.watcher import Listener, NowhereError, Watcher

if TYPE_CHECKING:
    from agentd.v1 import discovery_pb2 as pb

T = TypeVar("T")

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
        self.member: Member | None = None

    def __enter__(self) -> Endpoint:
        self.member = self._endpoints._wait(self._tries)
        return self.member.endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.member is not None, "it was entered"
        worked = True if error is None else False if isinstance(error, OSError | Retry) else None
        self._endpoints._release(self.member, worked)

    async def __aenter__(self) -> Endpoint:
        self.member = await self._endpoints._wait_async(self._tries)
        return self.member.endpoint

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


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
        control socket is found. `timeout_s` bounds the wait for an endpoint while there is none. `chance` and `clock`
        are for tests.
        """
        self.pool = pool
        self.timeout_s = timeout_s
        self._address = address
        self._clock = clock
        self._changed = threading.Condition()  # guards all below
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
        return Pick(self, _Tries(1))

    @overload
    def call(self, work: Callable[[Endpoint], Awaitable[T]], *, attempts: int = 3) -> Coroutine[Any, Any, T]: ...

    @overload
    def call(self, work: Callable[[Endpoint], T], *, attempts: int = 3) -> T: ...

    def call(self, work: Callable[[Endpoint], Any], *, attempts: int = 3) -> Any:
        """Do one task: `work(endpoint)`, and where that raises an OSError or `Retry`, again with another endpoint.

        Within `async with`, `work` is a coroutine function and the call is awaited. The same endpoint is never tried
        twice in a row. An agent that died may have begun the task: `work` must be such that this does no harm. A
        TimeoutError is the task's own error, for the agent may still be at work on it.

        Raises:
            NoEndpointError: `attempts` endpoints failed, or there was none to try; its cause is the last error.
            ValueError: `attempts` is below 1.
        """
        if attempts < 1:
            raise ValueError(f"cannot try {attempts} times: attempts must be at least 1")
        tries = _Tries(attempts)
        return self._call_async(work, tries) if self._asynchronous else self._call(work, tries)

    def _call(self, work: Callable[[Endpoint], T], tries: _Tries) -> T:
        while True:
            pick = Pick(self, tries)
            try:
                with pick as endpoint:
                    return work(endpoint)
            except TimeoutError:
                raise  # it may still be done there
            except (OSError, Retry) as error:
                tries.failed(pick, error)

    async def _call_async(self, work: Callable[[Endpoint], Awaitable[T]], tries: _Tries) -> T:
        while True:
            pick = Pick(self, tries)
            try:
                async with pick as endpoint:
                    return await work(endpoint)
            except TimeoutError:
                raise  # it may still be done there
            except (OSError, Retry) as error:
                tries.failed(pick, error)

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
        self._asynchronous = True
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    # -- waiting ---------------------------------------------------------------------------------

    def _wait(self, tries: _Tries) -> Member:
        until = time.monotonic() + self.timeout_s
        with self._changed:
            while (member := self._take(tries)) is None:
                left_s = until - time.monotonic()
                if left_s <= 0.0:
                    raise self._too_late(tries) from tries.error
                self._changed.wait(left_s)
            return member

    async def _wait_async(self, tries: _Tries) -> Member:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    waiter = (loop, loop.create_future())
                    with self._changed:
                        if (member := self._take(tries)) is not None:
                            return member
                        self._waiters.add(waiter)
                    try:
                        await waiter[1]
                    finally:
                        with self._changed:
                            self._waiters.discard(waiter)
        except TimeoutError:
            with self._changed:
                raise self._too_late(tries) from tries.error

    def _take(self, tries: _Tries) -> Member | None:
        """An endpoint, if there is one now.

        Raises:
            NoEndpointError: waiting is of no use.
        """
        if self._watcher is None:
            raise RuntimeError("cannot pick: enter Endpoints first, with `with` or `async with`")
        member = self._picker.pick(self._clock(), tries.last)
        if member is None and self._hopeless:
            raise NoEndpointError(self._trouble + tries.story) from tries.error
        return member

    def _too_late(self, tries: _Tries) -> NoEndpointError:
        what = f"no endpoint besides {tries.last.endpoint.id}" if tries.last else "no endpoint"
        where = self.pool or "any pool"
        return NoEndpointError(f"{what} of {where} within {self.timeout_s:g} s: {self._trouble}{tries.story}")

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
    """One task on its way from endpoint to endpoint: where it failed last, and why each time."""

    def __init__(self, attempts: int) -> None:
        self.last: Member | None = None
        self.error: Exception | None = None
        self._attempts = attempts
        self._failures: list[str] = []

    @property
    def story(self) -> str:
        return f"; before that: {'; '.join(self._failures)}" if self._failures else ""

    def failed(self, pick: Pick, error: Exception) -> None:
        """The endpoint of `pick` did not do it.

        Raises:
            NoEndpointError: it was the last attempt.
        """
        assert pick.member is not None, "work began on it"
        self.last, self.error = pick.member, error
        self._failures.append(f"{pick.member.endpoint.id}: {error!r}"[:_CAUSE_MAX])
        if len(self._failures) >= self._attempts:
            raise NoEndpointError(f"{self._attempts} attempts failed: {'; '.join(self._failures)}") from error


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
