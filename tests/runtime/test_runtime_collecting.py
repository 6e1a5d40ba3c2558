"""Readings come in their rhythm; what fails, hangs or goes is one trouble, and holds up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from life import FLEET, POOL, asynchronous, life
from msgspec import structs

from agentd import runtime_collecting
from agentd.collecting.reading import Reader, ReadFailed
from agentd.core.messages import Collected
from agentd.core.model import FleetConfig, PoolName
from agentd.core.rules import CollectorConfig
from agentd.runtime_collecting import BACKOFF_S_MAX, Collecting, wait_s
from agentd.runtime_troubles import Troubles

Read = Callable[[], float]


class Script:
    """Readers that do what the test says, by the name of the collector, and what became of them."""

    def __init__(self, **reads: Read | None) -> None:
        self.reads = reads  # None: hangs
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.taken: list[Collected] = []
        self.open_error: Exception | None = None
        self.troubles = Troubles()

    def open(self, config: CollectorConfig) -> Reader:
        if self.open_error is not None:
            raise self.open_error
        self.opened.append(config.name)
        return Scripted(self, config.name)

    def values(self, name: str) -> list[float | None]:
        return [event.value for event in self.taken if event.name == name]

    def troubled(self, name: str) -> list[str]:
        return [event.trouble for event in self.taken if event.name == name and event.trouble]


class Scripted:
    def __init__(self, script: Script, name: str) -> None:
        self._script = script
        self._name = name

    async def read(self) -> float:
        read = self._script.reads[self._name]
        if read is None:
            await asyncio.Event().wait()
            raise AssertionError
        return read()

    async def close(self) -> None:
        self._script.closed.append(self._name)
        if self._name == "stubborn":
            raise RuntimeError("cannot close")


def failing(error: Exception) -> Read:
    def read() -> float:
        raise error

    return read


def fleet(*collectors: CollectorConfig) -> FleetConfig:
    pool = structs.replace(POOL, collectors=collectors)
    return structs.replace(FLEET, pools={pool.name: pool})


def often(name: str, timeout_s: float = 10.0, every_s: float = 0.001) -> CollectorConfig:
    return CollectorConfig(name, "scripted", every_s, timeout_s)


class Running:
    def __init__(self, script: Script, *collectors: CollectorConfig) -> None:
        self.config = fleet(*collectors)
        self.collecting = Collecting(lambda: self.config, script.troubles, script.taken.append, script.open)
        self.task = asyncio.create_task(self.collecting.run())

    def adopt(self, *collectors: CollectorConfig) -> None:
        self.config = fleet(*collectors)
        self.collecting.adopt()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30.0):
            while not true():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(script: Script, *collectors: CollectorConfig) -> AsyncIterator[Running]:
    one = Running(script, *collectors)
    try:
        yield one
    finally:
        one.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await one.task


@asynchronous
async def test_each_collector_is_read_again_and_again_by_one_reader() -> None:
    values = iter(range(1000))
    script = Script(queue=lambda: next(values), other=lambda: 7.0)
    async with running(script, often("queue"), often("other")) as one:
        await one.until(lambda: len(script.values("queue")) > 3 and len(script.values("other")) > 3)
    assert script.values("queue")[:3] == [0, 1, 2]
    assert set(script.values("other")) == {7.0}
    assert script.taken[0].pool == POOL.name
    assert sorted(script.opened) == sorted(script.closed) == ["other", "queue"]


@asynchronous
async def test_who_hangs_is_given_up_and_holds_up_nobody() -> None:
    script = Script(queue=None, other=lambda: 1.0)
    async with running(script, often("queue", timeout_s=0.02), often("other")) as one:
        await one.until(lambda: len(script.troubled("queue")) > 1 and len(script.values("other")) > 10)
    assert set(script.troubled("queue")) == {"no number within 0.02 s"}
    assert script.opened.count("queue") == 1


@asynchronous
async def test_a_failure_is_a_trouble_until_a_number_comes() -> None:
    state: list[Exception] = [ReadFailed("no such queue")]
    script = Script(queue=lambda: failing(state[0])() if state else 5.0)
    async with running(script, often("queue")) as one:
        await one.until(lambda: script.troubles.shown() != ())
        assert script.troubles.shown() == ("cannot read research.queue: no such queue",)
        state[0] = OSError(errno.ECONNREFUSED, "Connection refused")
        await one.until(lambda: script.troubles.shown() == ("cannot read research.queue: connection refused",))
        state[0] = KeyError("lag")  # a library that stumbles
        await one.until(lambda: script.troubles.shown() == ("cannot read research.queue: KeyError: 'lag'",))
        state.clear()
        await one.until(lambda: script.troubles.shown() == () and script.values("queue")[-1] == 5.0)
    assert script.troubled("queue")[0] == "no such queue"


@asynchronous
async def test_a_reader_that_cannot_be_opened_is_tried_again() -> None:
    script = Script(queue=lambda: 5.0)
    script.open_error = ReadFailed("needs redis")
    async with running(script, often("queue")) as one:
        await one.until(lambda: script.troubled("queue") == ["needs redis"])
        script.open_error = None
        await one.until(lambda: 5.0 in script.values("queue"))
    assert script.opened == ["queue"]


@pytest.mark.parametrize(
    ("name", "value", "trouble"),
    [
        ("queue", -1.0, "-1 is no length of a queue: it is below 0"),
        ("queue", math.nan, "nan is not a finite number"),
        ("other", math.inf, "inf is not a finite number"),
        ("other", -1.0, ""),
        ("queue", 0.0, ""),
    ],
)
def test_a_number_that_the_core_cannot_use_never_reaches_it(name: str, value: float, trouble: str) -> None:
    @asynchronous
    async def run() -> None:
        script = Script(**{name: lambda: value})
        async with running(script, often(name)) as one:
            await one.until(lambda: bool(script.taken))
        assert script.taken[0] == Collected(POOL.name, name, None if trouble else value, trouble)

    run()


@asynchronous
async def test_a_reload_changes_what_it_changes_and_nothing_else() -> None:
    script = Script(a=lambda: 1.0, b=lambda: 2.0, c=failing(ReadFailed("gone")), d=lambda: 4.0)
    async with running(script, often("a"), often("b"), often("c")) as one:
        await one.until(
            lambda: {"a", "b", "c"} <= {event.name for event in script.taken} and bool(script.troubles.shown())
        )
        one.adopt(often("a"), often("b", timeout_s=5.0), often("d"))
        await one.until(lambda: "d" in {event.name for event in script.taken} and script.opened.count("b") == 2)
        assert script.opened.count("a") == 1
        assert sorted(script.closed) == ["b", "c"]
        assert script.troubles.shown() == ()
        after = len(script.taken)
        await one.until(lambda: {"a", "b", "d"} <= {event.name for event in script.taken[after:]})
        assert "c" not in {event.name for event in script.taken[after:]}
        one.adopt()
        await one.until(lambda: len(script.closed) == 5)


@asynchronous
async def test_the_end_comes_even_where_a_reader_cannot_be_closed() -> None:
    script = Script(stubborn=lambda: 1.0)
    async with running(script, often("stubborn")) as one:
        await one.until(lambda: bool(script.taken))
    assert script.closed == ["stubborn"]


@pytest.mark.parametrize(("stagger_s", "names"), [(3600.0, ["a"]), (0.03, ["a", "b", "c"])])
def test_the_first_readings_are_spread(stagger_s: float, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come later wait: where that is long, nothing of them has happened when the first one is there."""
    monkeypatch.setattr(runtime_collecting, "STAGGER_S", stagger_s)

    @asynchronous
    async def run() -> None:
        script = Script(a=lambda: 1.0, b=lambda: 2.0, c=lambda: 3.0)
        slow = [CollectorConfig(name, "scripted", 3600.0, 5.0) for name in "abc"]
        async with running(script, *slow) as one:
            await one.until(lambda: len(script.taken) == len(names))
        assert script.opened == sorted(event.name for event in script.taken) == names

    run()


@pytest.mark.parametrize(
    ("every_s", "failures", "wait"),
    [(10, 0, 10), (10, 1, 10), (10, 2, 20), (10, 3, 40), (10, 4, 60), (10, 10_000, 60), (0.5, 3, 2), (300, 5, 300)],
)
def test_who_fails_is_asked_less_often_but_not_never(every_s: float, failures: int, wait: float) -> None:
    assert wait_s(every_s, failures) == wait
    assert wait <= max(every_s, BACKOFF_S_MAX)


@asynchronous
async def test_agentd_reads_what_its_configuration_names(tmp_path: Path) -> None:
    """The whole way: a program is run, and its number is in the core; after a reload without it, it is not."""

    def collector(argv: str) -> CollectorConfig:
        return CollectorConfig("queue", "command", 0.01, 10.0, (("argv", "/bin/sh"), ("argv", "-c"), ("argv", argv)))

    async with life(tmp_path, config=fleet(collector("echo 12"))) as agentd:
        readings = lambda: agentd.controller._fleet.pools[PoolName("research")].readings  # noqa: E731
        await agentd.until(lambda: "queue" in readings() and readings()["queue"].value == 12)
        await agentd.runtime.reconfigure(fleet(collector("echo no such queue >&2; exit 1")))
        await agentd.until(lambda: agentd.runtime.degraded() != ())
        assert agentd.runtime.degraded() == ("cannot read research.queue: /bin/sh ended with code 1: no such queue",)
        assert readings()["queue"].value == 12  # the last that is known, with its age
        await agentd.runtime.reconfigure(fleet())
        await agentd.until(lambda: agentd.runtime.degraded() == ())
        assert readings() == {}
