"""Endpoints as programs use them: with coroutines and with threads, with agentd there and away."""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import random
import threading
import urllib.error
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ParamSpec

import pytest

from agentd.sdk.endpoints import Endpoints, NoEndpointError, Retry
from agentd.sdk.picking import FAILURES_MAX, Endpoint

P = ParamSpec("P")
NOT_FOUND = 5


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def make(discovery: Any, make_endpoint: Any) -> Callable[..., Endpoints]:
    """Endpoints on the fake, which tells of these ports at first."""

    def made(*ports: int, **options: Any) -> Endpoints:
        if ports:
            discovery.tell(*(make_endpoint(port) for port in ports))
        options = {"chance": random.Random(1).random, "clock": lambda: 0.0, "address": discovery.address} | options
        return Endpoints("research", **options)

    return made


class Work:
    """Tasks that succeed on some ports and fail on others, and who was asked."""

    def __init__(self, failing: dict[int, Exception] | None = None) -> None:
        self.failing = failing or {}
        self.asked: list[int] = []

    def __call__(self, endpoint: Endpoint) -> str:
        self.asked.append(endpoint.port)
        if endpoint.port in self.failing:
            raise self.failing[endpoint.port]
        return endpoint.url

    async def later(self, endpoint: Endpoint) -> str:
        await asyncio.sleep(0)
        return self(endpoint)


def until_known(endpoints: Endpoints, *ports: int) -> None:
    """Wait until exactly these ports take tasks."""
    with endpoints._changed:
        there = lambda: {each.port for each in endpoints._picker.endpoints if each.weight} == set(ports)  # noqa: E731
        assert endpoints._changed.wait_for(there, 30.0), endpoints._picker.endpoints


# -- a task -----------------------------------------------------------------------------------------


def test_a_thread_picks_an_endpoint_with_all_that_is_known_of_it(make: Any, discovery: Any, make_endpoint: Any) -> None:
    discovery.tell(make_endpoint(9101, weight=0.5, load=0.25, queue_length=2, in_flight=1))
    with make() as endpoints, endpoints.pick() as endpoint:
        assert endpoint == Endpoint("research-9101", "research", "127.0.0.1", 9101, "a", 0.5, 0.25, 2, 1)
        assert (endpoint.url, endpoint.address) == ("http://127.0.0.1:9101", "127.0.0.1:9101")
    assert discovery.requests.get(timeout=30).pool == "research"


@asynchronous
async def test_a_coroutine_picks_likewise(make: Any) -> None:
    async with make(9101) as endpoints:
        async with endpoints.pick() as endpoint:
            assert endpoint.url == "http://127.0.0.1:9101"
            assert [one.in_flight for one in endpoints._picker._members.values()] == [1]
        assert [one.in_flight for one in endpoints._picker._members.values()] == [0]


def test_work_that_finds_nobody_at_home_goes_elsewhere(make: Any) -> None:
    work = Work({9101: ConnectionRefusedError("nobody"), 9102: Retry("full")})
    with make(9101, 9102, 9103) as endpoints:
        for _ in range(20):
            assert endpoints.call(work) == "http://127.0.0.1:9103"
    assert {9101, 9102, 9103} == set(work.asked)
    assert all(one != other for one, other in zip(work.asked, work.asked[1:], strict=False) if one != 9103)


@asynchronous
async def test_coroutines_go_elsewhere_likewise(make: Any) -> None:
    work = Work({9101: ConnectionResetError("gone")})
    async with make(9101, 9102) as endpoints:
        answers = await asyncio.gather(*(endpoints.call(work.later) for _ in range(50)))
    assert set(answers) == {"http://127.0.0.1:9102"}
    assert 9101 in work.asked


def test_after_the_last_attempt_it_is_told_what_went_wrong_each_time(make: Any) -> None:
    work = Work({9101: BrokenPipeError("closed"), 9102: ConnectionResetError("gone")})
    with make(9101, 9102) as endpoints, pytest.raises(NoEndpointError) as raised:
        endpoints.call(work, attempts=3)
    text = str(raised.value)
    assert text.startswith("3 attempts failed: research-910")
    assert "research-9101: BrokenPipeError('closed')" in text
    assert "research-9102: ConnectionResetError('gone')" in text
    assert isinstance(raised.value.__cause__, OSError)
    assert len(work.asked) == 3
    assert work.asked[0] == work.asked[2] != work.asked[1]


class Busy(Work):
    """Work that every agent turns away, or that none is there for, until it has been offered so often."""

    def __init__(self, times: int, error: Exception) -> None:
        super().__init__()
        self.times = times
        self.error = error

    def __call__(self, endpoint: Endpoint) -> str:
        answer = super().__call__(endpoint)
        if len(self.asked) <= self.times:
            raise self.error
        return answer


NOT_BEGUN = [
    Retry("full"),
    ConnectionRefusedError("nobody"),
    OSError(errno.ECONNREFUSED, "nobody"),
    urllib.error.URLError(ConnectionRefusedError("nobody")),
]


@pytest.mark.parametrize("error", NOT_BEGUN, ids=repr)
def test_a_task_that_nobody_takes_now_waits_until_somebody_does(make: Any, error: Exception) -> None:
    work = Busy(4, error)
    with make(9101, 9102) as endpoints:
        assert endpoints.call(work, attempts=1).startswith("http://127.0.0.1:910")
    assert len(work.asked) == 5
    assert set(work.asked[:2]) == {9101, 9102}, "first it is offered to all"


@asynchronous
async def test_that_of_a_coroutine_likewise(make: Any) -> None:
    work = Busy(4, Retry("full"))
    async with make(9101, 9102) as endpoints:
        await endpoints.call(work.later, attempts=1)
        assert not endpoints._waiters
    assert len(work.asked) == 5


def test_it_does_not_wait_for_ever(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Time goes by with each look at the clock, not while this process stands still: there is some for a second try.
    clock = SimpleNamespace(monotonic=itertools.count(0.0, 0.01).__next__)
    monkeypatch.setattr("agentd.sdk.endpoints.time", clock)
    work = Busy(1000, Retry("full"))
    with make(9101, timeout_s=0.3) as endpoints:
        until_known(endpoints, 9101)
        with pytest.raises(NoEndpointError) as raised:
            endpoints.call(work)
    assert len(work.asked) >= 2
    assert "no endpoint besides research-9101 of research within 0.3 s" in str(raised.value)
    assert "before that: research-9101: Retry('full')" in str(raised.value)


def test_agents_that_take_their_time_to_refuse_are_no_way_round_that(make: Any) -> None:
    asked: list[int] = []

    def refused(endpoint: Endpoint) -> str:
        asked.append(endpoint.port)
        threading.Event().wait(0.2)  # longer than the pause before it is asked again
        raise Retry("full")

    with make(9101, 9102, 9103, timeout_s=0.3) as endpoints:
        until_known(endpoints, 9101, 9102, 9103)
        with pytest.raises(NoEndpointError, match="2 attempts failed"):
            endpoints.call(refused, attempts=2)
    assert len(asked) >= 2


def test_the_only_endpoint_is_not_asked_again_at_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentd.sdk.endpoints._PAUSE_FIRST_S", 3600.0)
    monkeypatch.setattr("agentd.sdk.endpoints._PAUSE_MAX_S", 3600.0)
    work = Work({9101: ConnectionResetError("gone")})
    with make(9101, timeout_s=0.01) as endpoints:
        until_known(endpoints, 9101)
        with pytest.raises(NoEndpointError) as raised:
            endpoints.call(work)
    assert work.asked == [9101]
    assert "no endpoint besides research-9101 of research within 0.01 s" in str(raised.value)
    assert "before that: research-9101: ConnectionResetError('gone')" in str(raised.value)


def test_but_after_a_pause_it_is(make: Any) -> None:
    """A connection that was kept, and closed meanwhile, is reset: the next one is not."""
    work = Busy(2, ConnectionResetError("gone"))
    with make(9101) as endpoints:
        assert endpoints.call(work) == "http://127.0.0.1:9101"
    assert work.asked == [9101] * 3


def test_a_new_process_of_the_same_instance_is_another_endpoint(make: Any, discovery: Any, make_endpoint: Any) -> None:
    def work(endpoint: Endpoint) -> str:
        if endpoint.incarnation == "a":
            discovery.tell(make_endpoint(9101, incarnation="b"))
            raise ConnectionResetError("it died")
        return endpoint.incarnation

    with make(9101) as endpoints:
        assert endpoints.call(work) == "b"


def test_other_errors_are_the_tasks_own(make: Any) -> None:
    work = Work({9101: ValueError("a bad question")})
    with make(9101) as endpoints:
        for _ in range(FAILURES_MAX + 1):
            with pytest.raises(ValueError, match="a bad question"):
                endpoints.call(work)
        (member,) = endpoints._picker._members.values()
        assert (member.in_flight, member.failures) == (0, 0)


def test_a_task_that_takes_too_long_is_not_given_to_another_agent_too(make: Any) -> None:
    work = Work({9101: TimeoutError("timed out"), 9102: TimeoutError("timed out")})
    with make(9101, 9102) as endpoints:
        with pytest.raises(TimeoutError, match="timed out"):
            endpoints.call(work)
        assert len(work.asked) == 1, "it may still be at work there"
        (failed,) = (one for one in endpoints._picker._members.values() if one.endpoint.port == work.asked[0])
        assert (failed.in_flight, failed.failures) == (0, 1), "and yet that counts against the agent"


@asynchronous
async def test_nor_by_a_coroutine(make: Any) -> None:
    work = Work({9101: TimeoutError("timed out"), 9102: TimeoutError("timed out")})
    async with make(9101, 9102) as endpoints:
        with pytest.raises(TimeoutError, match="timed out"):
            await endpoints.call(work.later)
    assert len(work.asked) == 1


def test_a_picked_endpoint_that_fails_is_left_out(make: Any) -> None:
    with make(9101, 9102) as endpoints:
        for _ in range(50):
            try:
                with endpoints.pick() as endpoint:
                    if endpoint.port == 9101:
                        raise ConnectionRefusedError("nobody")
            except ConnectionRefusedError:
                continue
        for _ in range(50):
            with endpoints.pick() as endpoint:
                assert endpoint.port == 9102


@pytest.mark.parametrize("attempts", [0, -1])
def test_no_attempt_is_a_mistake(make: Any, attempts: int) -> None:
    with make(9101) as endpoints, pytest.raises(ValueError, match="attempts must be at least 1"):
        endpoints.call(Work(), attempts=attempts)


# -- waiting ----------------------------------------------------------------------------------------


@asynchronous
async def test_tasks_wait_for_the_first_endpoint(make: Any, discovery: Any, make_endpoint: Any) -> None:
    async with make() as endpoints:
        tasks = [asyncio.create_task(endpoints.call(Work().later)) for _ in range(10)]
        while len(endpoints._waiters) < 10:
            await asyncio.sleep(0)
        discovery.tell(make_endpoint(9101))
        assert set(await asyncio.gather(*tasks)) == {"http://127.0.0.1:9101"}
        assert not endpoints._waiters


def test_threads_wait_likewise(make: Any, discovery: Any, make_endpoint: Any) -> None:
    found: list[str] = []
    with make() as endpoints:
        threads = [threading.Thread(target=lambda: found.append(endpoints.call(Work()))) for _ in range(4)]
        for thread in threads:
            thread.start()
        discovery.tell(make_endpoint(9101))
        for thread in threads:
            thread.join(30)
    assert found == ["http://127.0.0.1:9101"] * 4


@asynchronous
async def test_a_wait_has_an_end_and_leaves_nothing_behind(make: Any, discovery: Any) -> None:
    discovery.tell()
    async with make(timeout_s=0.01) as endpoints:
        await asyncio.to_thread(discovery.requests.get, timeout=30)
        with pytest.raises(NoEndpointError, match=r"no endpoint of research within 0.01 s"):
            await endpoints.call(Work().later)
        assert not endpoints._waiters
        task = asyncio.create_task(endpoints.call(Work().later))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not endpoints._waiters


def test_an_unknown_pool_is_told_at_once(make: Any, discovery: Any, make_refusal: Any) -> None:
    discovery.refusal = make_refusal(NOT_FOUND, "UNKNOWN_POOL")
    with make(timeout_s=3600.0) as endpoints, pytest.raises(NoEndpointError, match="refused: UNKNOWN_POOL"):
        endpoints.call(Work())


def test_who_waits_at_the_end_is_let_go(make: Any) -> None:
    raised: list[Exception] = []

    def wait() -> None:
        try:
            endpoints.call(Work())
        except NoEndpointError as error:
            raised.append(error)

    with make(timeout_s=3600.0) as endpoints:
        thread = threading.Thread(target=wait)
        thread.start()
    thread.join(30)
    assert [str(error) for error in raised] == ["these Endpoints are closed"]


def test_it_is_entered_once_and_before_it_is_used(make: Any) -> None:
    endpoints = make(9101)
    with pytest.raises(RuntimeError, match="enter Endpoints first"):
        endpoints.call(Work())
    with endpoints, pytest.raises(RuntimeError, match="twice"):
        endpoints.__enter__()


# -- changes ----------------------------------------------------------------------------------------


def test_who_drains_or_is_gone_gets_no_more_tasks(make: Any, discovery: Any, make_endpoint: Any) -> None:
    with make(9101, 9102, 9103) as endpoints:
        until_known(endpoints, 9101, 9102, 9103)
        discovery.tell(make_endpoint(9101, weight=0.0), removed=("research-9102",))
        until_known(endpoints, 9103)
        work = Work()
        for _ in range(30):
            endpoints.call(work)
        assert set(work.asked) == {9103}
        assert {each.port for each in endpoints.known} == {9101, 9103}


def test_while_agentd_is_away_it_goes_on_with_what_is_known(make: Any, discovery: Any, make_endpoint: Any) -> None:
    work = Work({9101: ConnectionRefusedError("nobody")})
    with make(9101, 9102) as endpoints:
        for _ in range(20):
            assert endpoints.call(work) == "http://127.0.0.1:9102"
        discovery.stop()
        work.asked.clear()
        assert endpoints.call(work) == "http://127.0.0.1:9102"
        discovery.start()
        discovery.tell(make_endpoint(9101), make_endpoint(9102), make_endpoint(9103), revision="2.1.research")
        until_known(endpoints, 9101, 9102, 9103)
        for _ in range(30):
            endpoints.call(work)
        assert set(work.asked) == {9102, 9103}, "what it knows of 9101 is not forgotten"


def test_a_new_stream_begins_where_the_last_one_ended(make: Any, discovery: Any, make_endpoint: Any) -> None:
    with make(9101) as endpoints:
        until_known(endpoints, 9101)
        discovery.tell(make_endpoint(9102), revision="1.7.research")
        until_known(endpoints, 9101, 9102)
        discovery.end_streams()
        asked = [discovery.requests.get(timeout=30).revision for _ in range(2)]
    assert asked == ["", "1.7.research"]


def test_a_program_may_be_there_before_agentd(make: Any, discovery: Any, make_endpoint: Any) -> None:
    discovery.stop()
    with make(timeout_s=0.01) as endpoints:
        with pytest.raises(NoEndpointError, match=r"no endpoint of research within 0.01 s"):
            endpoints.call(Work())
        discovery.start()
        discovery.tell(make_endpoint(9101))
        until_known(endpoints, 9101)
        assert endpoints.call(Work()) == "http://127.0.0.1:9101"


# -- where agentd is --------------------------------------------------------------------------------


def test_an_agent_asks_where_it_sends_its_heartbeats(
    make: Any, discovery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTD_ENDPOINT", discovery.address)
    monkeypatch.setenv("AGENTD_ADDRESS", "unix:/nowhere")
    with make(9101, address="") as endpoints:
        assert endpoints.call(Work()) == "http://127.0.0.1:9101"


def test_other_programs_find_agentd_as_a_control_client_does(
    make: Any, discovery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENTD_ENDPOINT", raising=False)
    monkeypatch.setenv("AGENTD_ADDRESS", discovery.address)
    with make(9101, address="") as endpoints:
        assert endpoints.call(Work()) == "http://127.0.0.1:9101"


def test_where_there_is_no_agentd_it_is_told_where_it_was_looked_for(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AGENTD_ENDPOINT", "AGENTD_ADDRESS", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("agentd.sdk.control.find_control", lambda _env, _uid: None)
    with make(address="", timeout_s=0.01) as endpoints:
        with endpoints._changed:
            assert endpoints._changed.wait_for(lambda: "no agentd is running" in endpoints._trouble, 30.0)
        with pytest.raises(NoEndpointError, match=rf"no agentd is running \(looked for {tmp_path}/control.sock"):
            endpoints.call(Work())
