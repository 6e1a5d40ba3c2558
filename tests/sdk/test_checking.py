"""Mistakes of programs are told where they are made: unusable callbacks, contexts used twice, the wrong work."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from agentd.sdk import Agent
from agentd.sdk.checking import check_callback
from agentd.sdk.endpoints import Endpoints
from agentd.sdk.picking import Endpoint

# -- callbacks --------------------------------------------------------------------------------------


async def later() -> None: ...


def needs_one(_value: object) -> None: ...


@pytest.mark.parametrize("register", ["on_drain", "on_resume"])
@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (None, "needs a function or a coroutine function to call, not None"),
        (3, "needs a function or a coroutine function to call, not 3"),
        (needs_one, "calls its callback without arguments, and <function needs_one.* missing a required argument"),
    ],
    ids=["nothing", "a number", "one that needs an argument"],
)
def test_what_cannot_be_called_is_refused_at_once(register: str, callback: Any, text: str) -> None:
    with pytest.raises(TypeError, match=f"{register} {text}"):
        getattr(Agent(), register)(callback)


def test_a_coroutine_in_place_of_its_function_is_refused() -> None:
    coroutine = later()
    with pytest.raises(TypeError, match=r"on_drain needs a function, not .* pass it without \(\)"):
        Agent().on_drain(coroutine)  # type: ignore[arg-type]
    coroutine.close()


def test_on_configure_needs_room_for_the_number() -> None:
    with pytest.raises(TypeError, match=r"on_configure calls its callback with 1 argument, and .* too many positional"):
        Agent().on_configure(later)  # type: ignore[arg-type]
    Agent().on_configure(needs_one)


@pytest.mark.parametrize(
    "callback",
    [later, lambda: None, lambda *_: None, functools.partial(needs_one, 1), threading.Event().set, Mock(), int, dir],
    ids=["coroutine function", "lambda", "any arguments", "partial", "bound method", "mock", "type", "builtin"],
)
def test_what_can_be_called_or_does_not_say_is_accepted(callback: Callable[[], object]) -> None:
    check_callback("on_drain", callback)


# -- labels -----------------------------------------------------------------------------------------


def test_labels_are_text_that_can_be_sent() -> None:
    agent = Agent()
    for name, value in ((3, "x"), ("x", 3), ("x", None), (b"x", "x")):
        with pytest.raises(TypeError, match=r"cannot set label .*: name and value must be text"):
            agent.label(name, value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cannot set label 'm' to '\\udcff': it is no valid Unicode"):
        agent.label("m", "\udcff")


# -- contexts ---------------------------------------------------------------------------------------


def test_a_task_is_entered_once() -> None:
    with Agent() as agent:
        task = agent.task()
        with task, pytest.raises(RuntimeError, match="cannot enter a task twice"), task:
            pass
        assert agent.in_flight == 0

        async def again() -> None:
            async with task:
                pass

        with pytest.raises(RuntimeError, match="cannot enter a task twice"):
            asyncio.run(again())
        assert agent.in_flight == 0


def test_after_the_context_no_task_is_taken_and_those_under_way_may_end() -> None:
    agent = Agent()
    with agent.task():  # before it counts too: the port listens already
        pass
    with agent:
        assert agent.accepting
        task = agent.task()
        task.__enter__()
    assert not agent.accepting
    task.__exit__(None, None, None)
    assert agent.in_flight == 0
    with pytest.raises(RuntimeError, match="cannot begin a task after the agent's context"):
        agent.task()


@pytest.fixture
def endpoints(discovery: Any, make_endpoint: Any) -> Endpoints:
    discovery.tell(make_endpoint(9101))
    return Endpoints("research", address=discovery.address)


def under_way(endpoints: Endpoints) -> list[int]:
    return [member.in_flight for member in endpoints._picker._members.values()]


def test_a_pick_is_entered_once(endpoints: Endpoints) -> None:
    with endpoints:
        pick = endpoints.pick()
        with pick, pytest.raises(RuntimeError, match="cannot enter a pick twice"), pick:
            pass
        assert under_way(endpoints) == [0]

    async def again() -> None:
        async with pick:
            pass

    with pytest.raises(RuntimeError, match="cannot enter a pick twice"):
        asyncio.run(again())


# -- work -------------------------------------------------------------------------------------------


class Asked:
    """Who was asked, as the kinds of work there are."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.by_lambda = lambda endpoint: self.later(endpoint)  # noqa: PLW0108 - a lambda is what this is about

    def plain(self, endpoint: Endpoint) -> int:
        self.ports.append(endpoint.port)
        return endpoint.port

    async def later(self, endpoint: Endpoint) -> int:
        return self.plain(endpoint)

    def decorated(self) -> Callable[[Endpoint], Any]:
        @functools.wraps(self.later)
        def inner(endpoint: Endpoint) -> Any:
            return self.later(endpoint)

        return inner

    class Callable:
        def __init__(self, asked: Asked) -> None:
            self._asked = asked

        async def __call__(self, endpoint: Endpoint) -> int:
            return self._asked.plain(endpoint)


def test_coroutine_functions_within_with_are_refused_before_anything_runs(endpoints: Endpoints) -> None:
    asked = Asked()
    kinds = (
        asked.later,
        functools.partial(asked.later),
        asked.decorated(),
        Asked.Callable(asked),
        asked.by_lambda,
        AsyncMock(),
    )
    with endpoints:
        for work in kinds:
            with pytest.raises(TypeError, match="within `with` pass a plain function, or use `async with`"):
                endpoints.call(work)
        assert endpoints.call(asked.plain) == 9101
        assert under_way(endpoints) == [0]
    assert asked.ports == [9101]


def test_plain_functions_within_async_with_are_refused_before_anything_runs(endpoints: Endpoints) -> None:
    asked = Asked()

    async def program() -> None:
        async with endpoints:
            for work in (asked.plain, functools.partial(asked.plain), print):
                with pytest.raises(TypeError, match="within `async with` pass an `async def`, or use `with`"):
                    endpoints.call(work)
            assert asked.ports == []
            with pytest.raises(TypeError, match="gave nothing to await"):
                await endpoints.call(lambda _endpoint: 3)  # type: ignore[arg-type, return-value]
            for fine in (asked.later, asked.decorated(), Asked.Callable(asked), asked.by_lambda):
                assert await endpoints.call(fine) == 9101
            assert under_way(endpoints) == [0]

    asyncio.run(program())


def test_endpoints_say_what_they_cannot_use(endpoints: Endpoints) -> None:
    for timeout_s in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout_s must be at least 0 and finite"):
            Endpoints("research", timeout_s=timeout_s)
    with pytest.raises(TypeError, match="the pool must be its name"):
        Endpoints(None)  # type: ignore[arg-type]
    with endpoints, pytest.raises(TypeError, match="call needs a function that takes an endpoint, not 3"):
        endpoints.call(3)  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="enter Endpoints first"):
        Endpoints("research").call(later)  # type: ignore[call-overload]
