"""CONFIGURE at the agent: the program's callbacks decide, and the measured load follows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from agentd.sdk import Agent
from agentd.sdk.calling import Caller
from agentd.sdk.drain import Stage
from agentd.sdk.settings import Settings
from agentd.v1 import agent_pb2

CONFIGURE = agent_pb2.Directive.KIND_CONFIGURE
ACCEPTED, FAILED = agent_pb2.Acknowledgement.STAGE_ACCEPTED, agent_pb2.Acknowledgement.STAGE_FAILED


def asks(concurrency: int | None, interval_s: float | None = None, ident: int = 7) -> agent_pb2.HeartbeatReply:
    directive = agent_pb2.Directive(kind=CONFIGURE, id=ident, concurrency=concurrency, interval_s=interval_s)
    return agent_pb2.HeartbeatReply(directive=directive, interval_s=0.05)


def stages(beat: agent_pb2.Heartbeat) -> dict[int, tuple[int, str]]:
    return {ack.id: (ack.stage, ack.text) for ack in beat.acks}


def test_a_program_that_agrees_works_with_the_new_number_and_its_load_is_measured_by_it(either: Any) -> None:
    either.answer = lambda _beat: asks(4)  # again and again: followed once
    called: list[int] = []
    with Agent.from_env(either.env()) as agent:
        agent.on_configure(called.append)
        either.until(lambda beats: stages(beats[-1]) == {7: (ACCEPTED, "")})
        assert agent.concurrency == 4
        with agent.task():
            either.until(lambda beats: beats[-1].in_flight == 1 and beats[-1].load == 0.25)
    assert called == [4]


def test_a_coroutine_in_the_programs_loop_may_take_its_time(fake: Any) -> None:
    fake.answer = lambda beat: asks(4) if beat.seq == 1 else asks(None, ident=0)
    go = threading.Event()
    threads: list[str] = []

    async def program() -> None:
        async with Agent.from_env(fake.env()) as agent:

            async def resize(_concurrency: int) -> None:
                threads.append(threading.current_thread().name)
                await asyncio.to_thread(go.wait, 30)

            agent.on_configure(resize)
            await asyncio.to_thread(fake.until, lambda beats: len(beats) > 5)
            assert not any(stages(beat).get(7) for beat in fake.beats), "not before it has agreed"
            assert agent.concurrency == 2
            go.set()
            await asyncio.to_thread(fake.until, lambda beats: any(7 in stages(beat) for beat in beats))
            assert agent.concurrency == 4

    asyncio.run(program())
    assert threads == ["MainThread"]


def test_a_program_that_cannot_says_so(fake: Any) -> None:
    fake.answer = lambda _beat: asks(4)
    with Agent.from_env(fake.env()) as agent:
        fake.until(lambda beats: stages(beats[-1]) == {7: (FAILED, "the program has no on_configure")})
        assert agent.concurrency == 2


def test_a_callback_that_fails_changes_nothing(fake: Any) -> None:
    def refuse(_concurrency: int) -> None:
        raise OSError("no more workers")

    fake.answer = lambda beat: asks(4) if beat.seq > 3 else asks(None, ident=0)
    with Agent.from_env(fake.env()) as agent:
        agent.on_configure(refuse)
        fake.until(lambda beats: stages(beats[-1]) == {7: (FAILED, "on_configure failed: OSError")})
        assert agent.concurrency == 2


def test_what_it_has_already_and_an_interval_need_no_program(fake: Any) -> None:
    fake.answer = lambda beat: asks(2, 0.05) if beat.seq == 1 else asks(None, 0.05, ident=8)
    with Agent.from_env(fake.env()):
        fake.until(lambda beats: any(7 in stages(beat) for beat in beats) and 8 in stages(beats[-1]))
    assert {ident: stage for beat in fake.beats for ident, stage in stages(beat).items()} == {
        7: (ACCEPTED, ""),
        8: (ACCEPTED, ""),
    }


class Later(Caller):
    """Callbacks that run when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Callable[[], object], Callable[[BaseException | None], None]]] = []

    def call(self, callback: Callable[[], object], returned: Callable[[BaseException | None], None]) -> None:
        self.waiting.append((callback, returned))

    def run(self) -> None:
        callback, returned = self.waiting.pop(0)
        callback()
        returned(None)


def test_one_change_at_a_time_and_of_those_that_wait_the_newest() -> None:
    caller, called, applied = Later(), list[int](), list[int]()
    said: list[tuple[int, Stage]] = []
    settings = Settings(2, applied.append, lambda ident, stage, _text: said.append((ident, stage)), caller)
    settings.on_configure(called.append)
    settings.change(1, 4)
    settings.change(2, 6)
    settings.change(3, 8)
    assert len(caller.waiting) == 1
    caller.run()
    caller.run()
    assert not caller.waiting
    assert called == applied == [4, 8]
    assert said == [(1, Stage.ACCEPTED), (3, Stage.ACCEPTED)]
