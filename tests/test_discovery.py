"""Watchers without a wire between: who is told what, and that nobody who reads slowly costs anything."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, ParamSpec

from agentd.core.balancer import Endpoint
from agentd.core.directory import Change
from agentd.core.model import Incarnation, InstanceId, PoolName
from agentd.discovery import NUMBERS_PER_S_MAX, NUMBERS_S, Discovery

P = ParamSpec("P")
POOL = PoolName("research")


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Scene:
    """A fleet that is what the test says, and time that stands still until it says so."""

    def __init__(self) -> None:
        self.at = 100.0
        self.looks = 0
        self.fleet: dict[PoolName, tuple[Endpoint, ...]] = {}
        self.discovery = Discovery(self._look, self, epoch=1)

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        raise AssertionError("wall time has no part in it")

    def _look(self) -> dict[PoolName, tuple[Endpoint, ...]]:
        self.looks += 1
        return self.fleet

    def set(self, **loads: float) -> None:
        """These are the ready instances, `r9101=0.5`."""
        made = (self._endpoint(int(name[1:]), load) for name, load in loads.items())
        self.fleet = {POOL: tuple(made), PoolName("other"): ()}
        self.discovery.stir()

    def _endpoint(self, port: int, load: float) -> Endpoint:
        return Endpoint(InstanceId(f"research-{port}"), POOL, port, Incarnation("a"), load=load, weight=1.0)


@contextlib.asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.discovery.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def told(change: Change) -> dict[str, float | None]:
    return {each.id: each.load for each in change.endpoints}


async def soon(changes: AsyncIterator[Change]) -> Change:
    async with asyncio.timeout(10.0):
        return await anext(changes)


@asynchronous
async def test_a_reader_that_slept_through_everything_is_told_the_end_of_it_at_once() -> None:
    scene = Scene()
    scene.set(r9101=0.0, r9102=0.0)
    changes = scene.discovery.watch("research", "")
    assert (await soon(changes)).snapshot
    beside = scene.discovery.watch("research", "")  # somebody else, who reads it all
    await soon(beside)
    async with running(scene):
        for step in range(1, 50):
            scene.at += NUMBERS_S
            scene.set(r9101=step / 100, **({"r9103": 0.0} if step % 2 else {}))
            await soon(beside)
        change = await soon(changes)
    assert told(change) == {"research-9101": 0.49, "research-9103": 0.0}
    assert change.removed == ("research-9102",)


@asynchronous
async def test_nobody_looks_while_nobody_watches() -> None:
    scene = Scene()
    async with running(scene):
        for load in range(10):
            scene.set(r9101=load / 10)
            await asyncio.sleep(0)
        assert scene.looks == 0
        assert told(scene.discovery.resolve("research")) == {"research-9101": 0.9}
        assert scene.looks == 1


@asynchronous
async def test_one_look_serves_all_who_watch() -> None:
    scene = Scene()
    scene.set(r9101=0.1)
    readers = [scene.discovery.watch("research", "") for _ in range(100)]
    await asyncio.gather(*(soon(reader) for reader in readers))
    before = scene.looks
    assert before == 1
    async with running(scene):
        waiting = [asyncio.create_task(soon(reader)) for reader in readers]
        await asyncio.sleep(0)
        scene.set(r9101=0.1, r9102=0.2)
        changes = await asyncio.gather(*waiting)
    assert len({id(change) for change in changes}) == 1
    assert scene.looks - before <= 2, "one for the change, at most one on beginning"


@asynchronous
async def test_what_changes_for_others_wakes_nobody_with_nothing() -> None:
    scene = Scene()
    scene.set(r9101=0.1)
    changes = scene.discovery.watch("other", "")
    assert (await soon(changes)).snapshot
    async with running(scene):
        waiting = asyncio.create_task(anext(changes))
        everything = scene.discovery.watch("", "")
        await soon(everything)
        scene.set(r9101=0.1, r9102=0.2)
        assert told(await soon(everything)) == {"research-9102": 0.2}
        assert not waiting.done()
        scene.discovery.close()
        with contextlib.suppress(StopAsyncIteration):
            await waiting
            raise AssertionError("it was told something")


@asynchronous
async def test_with_many_readers_numbers_come_more_rarely() -> None:
    scene = Scene()
    scene.set(r9101=0.1)
    crowd = [scene.discovery.watch("other", "") for _ in range(NUMBERS_PER_S_MAX)]
    for reader in crowd:
        await soon(reader)
    changes = scene.discovery.watch("research", "")
    await soon(changes)
    async with running(scene):
        await asyncio.sleep(0)  # the first look tells all numbers
        scene.at += NUMBERS_S
        scene.set(r9101=0.2)
        scene.set(r9101=0.2, r9102=0.0)
        assert told(await soon(changes)) == {"research-9102": 0.0}
        scene.at += NUMBERS_S + 0.1
        scene.discovery.stir()
        assert told(await soon(changes)) == {"research-9101": 0.2}
