"""What a program makes of a drain: whom it tells, when it is done, and how it is called off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from agentd.sdk import Agent
from agentd.sdk.calling import Caller
from agentd.sdk.drain import Drain, Stage, Successor
from agentd.sdk.workload import Workload
from agentd.v1 import agent_pb2, common_pb2

NEIGHBOUR = Successor("research-9102", "127.0.0.1", 9102, 1.0)
LIMIT_S = 30.0
Ack = tuple[int, Stage, str]


class Program:
    """A drain without agentd: what it would acknowledge is kept, and can be waited for."""

    def __init__(self) -> None:
        self.said: list[Ack] = []
        self._changed = threading.Condition()
        self.workload = Workload(1, self._settle)
        self.caller = Caller()
        self.drain = Drain(self.workload, self._acknowledge, self.caller)

    def _settle(self) -> None:
        self.drain.settle()

    def _acknowledge(self, directive: int, stage: Stage, text: str) -> None:
        with self._changed:
            self.said.append((directive, stage, text))
            self._changed.notify_all()

    def until(self, *said: Ack) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.said == list(said), LIMIT_S), self.said


@pytest.fixture
def program() -> Program:
    return Program()


# -- done -------------------------------------------------------------------------------------------


def test_an_idle_agent_is_done_at_once(program: Program) -> None:
    program.drain.begin(7, 60.0, (NEIGHBOUR,))
    assert program.said == [(7, Stage.DONE, "")]
    assert program.drain.successors == (NEIGHBOUR,)
    assert 0 < (program.drain.left_s or 0) <= 60


def test_tasks_in_flight_and_queued_are_waited_for_and_done_is_said_once(program: Program) -> None:
    program.workload.begin()
    program.workload.set_queue_length(1)
    program.drain.begin(7, 0.0, ())
    program.workload.end(0.0)
    assert program.said == []
    program.workload.set_queue_length(0)
    program.workload.begin()
    program.workload.end(0.0)
    assert program.said == [(7, Stage.DONE, "")]


def test_a_callback_that_still_runs_holds_it_back(program: Program) -> None:
    handed_over = threading.Event()
    program.drain.on_drain(lambda: handed_over.wait(LIMIT_S))
    program.drain.begin(7, 0.0, ())
    assert program.said == []
    handed_over.set()
    program.until((7, Stage.DONE, ""))


def test_a_coroutine_holds_it_back_in_a_loop_and_without_one(program: Program) -> None:
    async def hand_over() -> None:
        await asyncio.sleep(0)

    program.drain.on_drain(hand_over)
    program.drain.begin(7, 0.0, ())
    program.until((7, Stage.DONE, ""))
    program.drain.on_resume(lambda: None)
    program.drain.resume(8)
    program.until((7, Stage.DONE, ""), (8, Stage.ACCEPTED, ""))

    async def within_a_loop() -> None:
        program.caller.loop = asyncio.get_running_loop()
        program.drain.begin(9, 0.0, ())
        async with asyncio.timeout(LIMIT_S):
            while program.said[-1] != (9, Stage.DONE, ""):
                await asyncio.sleep(0)

    asyncio.run(within_a_loop())


def test_drain_done_waits_for_the_callbacks_no_longer(program: Program) -> None:
    handed_over = threading.Event()
    program.drain.on_drain(lambda: handed_over.wait(LIMIT_S))
    program.workload.begin()
    program.drain.begin(7, 0.0, ())
    program.drain.release()
    assert program.said == [], "a task is still in flight"
    program.workload.end(0.0)
    assert program.said == [(7, Stage.DONE, "")]
    handed_over.set()


def test_a_callback_that_fails_holds_nothing_back_and_is_told(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down() -> None:
        raise RuntimeError("no such door")

    program.drain.on_drain(break_down)
    program.drain.begin(7, 0.0, ())
    program.until((7, Stage.DONE, ""))
    assert "no such door" in caplog.text


def test_a_drain_without_an_id_is_not_acknowledged(program: Program) -> None:
    program.drain.begin(0, 0.0, ())
    assert program.drain.is_on
    assert program.said == []


def test_a_second_directive_for_the_same_drain_is_acknowledged_and_calls_nobody_again(program: Program) -> None:
    calls: list[int] = []
    program.drain.on_drain(lambda: calls.append(1))
    program.drain.begin(7, 0.0, ())
    program.until((7, Stage.DONE, ""))
    program.drain.begin(9, 0.0, ())
    assert program.said[1:] == [(9, Stage.DONE, "")]
    assert calls == [1]


# -- called off -------------------------------------------------------------------------------------


def test_a_program_that_only_looks_at_draining_takes_work_again(program: Program) -> None:
    program.workload.begin()
    program.drain.begin(7, 60.0, (NEIGHBOUR,))
    program.drain.resume(8)
    assert program.said == [(8, Stage.ACCEPTED, "")]
    assert not program.drain.is_on
    assert (program.drain.left_s, program.drain.successors) == (None, ())
    program.workload.end(0.0)
    assert program.said == [(8, Stage.ACCEPTED, "")], "the drain is over: nothing is done"


def test_it_is_accepted_when_the_door_is_open_again(program: Program) -> None:
    opened = threading.Event()
    program.drain.on_drain(lambda: None)
    program.drain.on_resume(lambda: opened.wait(LIMIT_S))
    program.workload.begin()
    program.drain.begin(7, 0.0, ())
    program.drain.resume(8)
    assert program.said == []
    opened.set()
    program.until((8, Stage.ACCEPTED, ""))


def test_a_door_that_does_not_open_is_a_failure(program: Program) -> None:
    program.drain.on_resume(lambda: 1 / 0)
    program.workload.begin()
    program.drain.begin(7, 0.0, ())
    program.drain.resume(8)
    program.until((8, Stage.FAILED, "on_resume failed: ZeroDivisionError"))


def test_who_acts_on_a_drain_and_has_no_way_back_says_so(program: Program) -> None:
    program.drain.on_drain(lambda: None)
    program.workload.begin()
    program.drain.begin(7, 0.0, ())
    program.drain.resume(8)
    assert program.said == [(8, Stage.FAILED, "the program has no on_resume")]
    assert program.drain.is_on


def test_so_does_who_waits_for_a_drain(program: Program) -> None:
    async def wait() -> None:
        waiting = asyncio.create_task(program.drain.wait())
        await asyncio.sleep(0)
        program.workload.begin()
        program.drain.begin(7, 0.0, ())
        await waiting
        program.drain.resume(8)

    asyncio.run(wait())
    assert program.said == [(8, Stage.FAILED, "the program has no on_resume")]


def test_a_superseded_agent_does_not_resume(program: Program) -> None:
    program.drain.begin(0, 0.0, (), final=True)
    program.drain.resume(8)
    assert program.said == [(8, Stage.FAILED, "this agent is no longer needed")]


def test_a_resume_of_who_does_not_drain_changes_nothing(program: Program) -> None:
    calls: list[int] = []
    program.drain.on_drain(lambda: calls.append(1))
    program.drain.resume(8)
    assert program.said == [(8, Stage.ACCEPTED, "")]
    assert not calls


def test_it_can_drain_again(program: Program) -> None:
    calls: list[str] = []
    program.drain.on_drain(lambda: calls.append("drain"))
    program.drain.on_resume(lambda: calls.append("resume"))
    first, second, third = (1, Stage.DONE, ""), (2, Stage.ACCEPTED, ""), (3, Stage.DONE, "")
    program.drain.begin(1, 0.0, ())
    program.until(first)
    program.drain.resume(2)
    program.until(first, second)
    program.drain.begin(3, 0.0, ())
    program.until(first, second, third)
    assert calls == ["drain", "resume", "drain"]


# -- over the wire ----------------------------------------------------------------------------------

DRAIN, RESUME = agent_pb2.Directive.KIND_DRAIN, agent_pb2.Directive.KIND_RESUME
ACCEPTED, DONE, FAILED = (
    agent_pb2.Acknowledgement.STAGE_ACCEPTED,
    agent_pb2.Acknowledgement.STAGE_DONE,
    agent_pb2.Acknowledgement.STAGE_FAILED,
)


def acks(beats: list[agent_pb2.Heartbeat]) -> list[tuple[int, int]]:
    """All that was acknowledged, in order, repetitions left out."""
    return list(dict.fromkeys((ack.id, ack.stage) for beat in beats for ack in beat.acks))


def test_a_busy_agent_accepts_resumes_and_drains_again(fake: Any, make_reply: Callable[..., Any]) -> None:
    now = [make_reply(DRAIN, 7, deadline_s=60.0)]
    successor = now[0].directive.successors.add(instance="research-9102", weight=2.0)
    successor.endpoint.CopyFrom(common_pb2.Endpoint(port=9102))
    with Agent.from_env(fake.env()) as agent:
        assert agent.accepting
        with agent.task():
            fake.answer = lambda _beat: now[0]
            fake.until(lambda beats: acks(beats) == [(7, ACCEPTED)])
            assert not agent.accepting
            assert agent.successors == [Successor("research-9102", "127.0.0.1", 9102, 2.0)]
            assert all(ack.done_follows for beat in fake.beats for ack in beat.acks)
            now[0] = make_reply(RESUME, 8)
            fake.until(lambda beats: (8, ACCEPTED) in acks(beats))
            assert agent.accepting
            assert agent.successors == []
            now[0] = make_reply(DRAIN, 9)
            fake.until(lambda beats: (9, ACCEPTED) in acks(beats))
        fake.until(lambda beats: (9, DONE) in acks(beats))
    assert (7, DONE) not in acks(fake.beats)


def test_who_began_a_task_meanwhile_is_not_done(fake: Any, make_reply: Callable[..., Any]) -> None:
    with Agent.from_env(fake.env()) as agent:
        with agent.task():
            fake.answer = lambda _beat: make_reply(DRAIN, 7)
            fake.until(lambda beats: acks(beats) == [(7, ACCEPTED)])
            # As if the last task had ended a moment before this one began.
            agent._acknowledge(7, Stage.DONE, "")
            seen = len(fake.beats)
            fake.until(lambda beats: len(beats) > seen + 2)
            assert acks(fake.beats) == [(7, ACCEPTED)]
            assert fake.beats[-1].acks[0].done_follows
        fake.until(lambda beats: acks(beats) == [(7, ACCEPTED), (7, DONE)])


def test_a_directive_of_a_later_agentd_is_answered(fake: Any, make_reply: Callable[..., Any]) -> None:
    fake.answer = lambda _beat: make_reply(99, 7)
    with Agent.from_env(fake.env()):
        fake.until(lambda beats: acks(beats) == [(7, FAILED)])
    text = next(ack.text for beat in fake.beats for ack in beat.acks)
    assert text == "this agent does not know directives of kind 99"
