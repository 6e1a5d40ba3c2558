"""An event loop that stands still is told of, by the thread beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentd.sdk import Agent, pulse
from agentd.sdk.pulse import BLOCKED_S, Pulse


class FakeLoop:
    """Keeps the calls that are to run in it; `run` runs them."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.closed = False

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.calls.append(call)

    def is_closed(self) -> bool:
        return self.closed

    def run(self) -> None:
        while self.calls:
            self.calls.pop(0)()


def watched() -> tuple[Pulse, FakeLoop, list[str]]:
    loop, recovered = FakeLoop(), list[str]()
    return Pulse(loop, lambda: recovered.append("recovered")), loop, recovered  # type: ignore[arg-type]


def test_a_loop_that_runs_is_never_blocked() -> None:
    seen, loop, recovered = watched()
    for now in range(0, 60, int(BLOCKED_S)):
        assert not seen.look(float(now))
        assert len(loop.calls) == 1
        loop.run()
        assert seen.blocked_s(float(now)) is None
        assert seen.due_in_s(float(now)) == BLOCKED_S
    assert not recovered


def test_a_loop_that_does_not_answer_is_blocked_since_it_was_asked_until_it_answers() -> None:
    seen, loop, recovered = watched()
    seen.look(100.0)
    assert seen.blocked_s(104.0) is None
    assert seen.look(105.0), "news"
    assert seen.blocked_s(106.5) == 6.5
    assert not seen.look(110.0), "no news"
    assert seen.blocked_s(110.0) == 10.0
    assert len(loop.calls) == 1, "a loop that stands still is not asked again and again"
    loop.run()
    assert recovered == ["recovered"]
    assert seen.blocked_s(111.0) is None
    assert not seen.look(115.0)


def test_who_overslept_himself_does_not_blame_the_loop() -> None:
    seen, loop, _recovered = watched()
    seen.look(100.0)
    assert not seen.look(200.0), "the whole process was stopped"
    assert seen.look(205.0), "but now it runs, and the loop does not"
    assert seen.blocked_s(205.0) == 5.0
    loop.run()


def test_a_loop_that_has_ended_does_not_stand_still() -> None:
    seen, loop, _recovered = watched()
    seen.look(100.0)
    loop.closed = True
    assert not seen.look(105.0)
    assert not seen.look(110.0)
    assert seen.blocked_s(110.0) is None


def test_a_blocked_loop_is_in_the_heartbeats_and_that_it_runs_again(
    fake: Any, make_reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "BLOCKED_S", 0.1)
    fake.answer = lambda _beat: make_reply(interval_s=1800.0)  # so each beat after the first is news

    async def program() -> None:
        async with Agent.from_env(fake.env()):
            # It blocks its own loop until the thread has told so.
            fake.until(lambda beats: beats and beats[-1].HasField("loop_blocked_s"))
            assert 0.1 <= fake.beats[-1].loop_blocked_s < 60
            await asyncio.to_thread(fake.until, lambda beats: not beats[-1].HasField("loop_blocked_s"))

    asyncio.run(program())


def test_a_program_of_threads_has_no_loop_to_stand_still(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BLOCKED_S", 0.01)
    with Agent.from_env(fake.env()):
        fake.until(lambda beats: len(beats) > 5)
    assert not any(beat.HasField("loop_blocked_s") for beat in fake.beats)
