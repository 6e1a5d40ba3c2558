"""Done once per request_id, however often it is asked; and events that are missed by nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from grpc import StatusCode, aio
from serving import Serving, asynchronous, refused, serving

from agentd import publisher
from agentd.core.messages import EventType, Record
from agentd.v1 import control_pb2 as pb

UP = pb.ScaleRequest.DIRECTION_UP


@asynchronous
async def test_a_repetition_gets_the_first_answer_and_nothing_is_done_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        request = pb.ScaleRequest(request_id="r1", direction=UP, count=4, pool="research")
        first = await agentd.control.Scale(request)
        before = agentd.controller.snapshot()
        assert await agentd.control.Scale(request) == first
        assert first.grants[0].current == 3, "it would say 4 if it were done again"
        assert agentd.controller.snapshot() == before


@asynchronous
async def test_a_repetition_while_the_first_is_under_way_waits_for_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        agentd.operations.gate = asyncio.Event()
        calls = [
            asyncio.ensure_future(agentd.control.Reload(pb.ReloadRequest(request_id="r1", owner="alice")))
            for _ in range(5)
        ]
        await agentd.until(lambda: agentd.operations.reloads == ["alice"])
        agentd.operations.gate.set()
        answers = await asyncio.gather(*calls)
        assert answers == [answers[0]] * 5
        assert agentd.operations.reloads == ["alice"]


@asynchronous
async def test_what_was_begun_is_finished_when_the_caller_goes_away(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        agentd.operations.gate = asyncio.Event()
        request = pb.ReloadRequest(request_id="r1", owner="alice")
        call = agentd.control.Reload(request)
        await agentd.until(lambda: agentd.operations.reloads == ["alice"])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        agentd.operations.gate.set()
        assert (await agentd.control.Reload(request)).config_file == "/etc/agentd.yaml"
        assert agentd.operations.reloads == ["alice"]


@asynchronous
async def test_a_refusal_is_an_answer_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        agentd.operations.reload_fails = "agentd.yaml:1:1: no"
        for _ in range(2):
            call = agentd.control.Reload(pb.ReloadRequest(request_id="r1"))
            await refused(call, StatusCode.INVALID_ARGUMENT, "CONFIG_INVALID")
        assert len(agentd.operations.reloads) == 1


@asynchronous
async def test_an_id_is_for_one_request_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await agentd.control.Check(pb.CheckRequest(request_id="r1"))
        reused = agentd.control.Check(pb.CheckRequest(request_id="r1", pool="research"))
        await refused(reused, StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
        other_method = agentd.control.Shutdown(pb.ShutdownRequest(request_id="r1"))
        await refused(other_method, StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
        assert agentd.operations.shutdowns == []


@asynchronous
async def test_an_id_has_a_bound(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        longest = "r" * 64
        too_long = agentd.control.Reload(pb.ReloadRequest(request_id=longest + "r"))
        await refused(too_long, StatusCode.INVALID_ARGUMENT, "REQUEST_ID_TOO_LONG")
        assert agentd.operations.reloads == []
        await agentd.control.Reload(pb.ReloadRequest(request_id=longest))
        assert len(agentd.operations.reloads) == 1


@asynchronous
async def test_without_an_id_every_call_counts(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for _ in range(2):
            await agentd.control.Reload(pb.ReloadRequest())
        assert len(agentd.operations.reloads) == 2


# -- watching ---------------------------------------------------------------------------------------


def watch(agentd: Serving, token: str = "", pool: str = "") -> aio.UnaryStreamCall[pb.WatchEventsRequest, pb.Event]:
    return agentd.control.WatchEvents(pb.WatchEventsRequest(resume_token=token, pool=pool))  # type: ignore[return-value]


async def following(call: aio.UnaryStreamCall[pb.WatchEventsRequest, pb.Event]) -> pb.Event:
    answer = await asyncio.wait_for(call.read(), 10.0)
    assert isinstance(answer, pb.WatchEventsResponse), answer
    return answer.event


async def told(agentd: Serving, *texts: str, pool: str = "") -> None:
    """Records with these reasons, stored."""
    for text in texts:
        agentd.runtime.tell(Record(EventType.CONFIG, text, pool=pool))
    await agentd.stored()


@asynchronous
async def test_events_come_as_they_happen(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        call = watch(agentd)
        await agentd.until(lambda: bool(agentd.runtime._publisher._watchers))
        await agentd.control.SetAutoscaling(pb.SetAutoscalingRequest(enabled=False, owner="alice"))
        event = await following(call)
        assert (event.type, event.actor) == ("autoscaling", "alice")
        call.cancel()
        await agentd.until(lambda: not agentd.runtime._publisher._watchers)


@asynchronous
async def test_a_watch_is_resumed_without_a_gap_or_a_double(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await told(agentd, "one", "two", "three")
        newest = (await agentd.control.ListEvents(pb.ListEventsRequest(limit=3))).events
        call = watch(agentd, newest[2].resume_token)
        assert [(await following(call)).reason for _ in range(2)] == ["two", "three"]
        await told(agentd, "four")
        event = await following(call)
        assert event.reason == "four"
        call.cancel()
        again = watch(agentd, event.resume_token)
        await told(agentd, "five")
        assert (await following(again)).reason == "five"
        again.cancel()


@asynchronous
async def test_a_watch_of_one_pool_shows_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        token = str(agentd.runtime.store.last_id)
        await told(agentd, "theirs", pool="other")
        await told(agentd, "ours", pool="research")
        call = watch(agentd, token, pool="research")
        assert (await following(call)).reason == "ours"
        call.cancel()


@pytest.mark.parametrize(
    ("token", "status", "reason"),
    [
        ("999999", StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED"),
        ("9" * 18, StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED"),
        ("9" * 19, StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN"),
        ("-1", StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN"),
        ("yesterday", StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN"),
        ("²", StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN"),
        ("x" * 100_000, StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN"),
    ],
)
@asynchronous
async def test_a_token_that_leads_nowhere_is_refused(
    token: str, status: StatusCode, reason: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as agentd:

        async def first() -> None:
            async for _ in watch(agentd, token):
                pass

        await refused(first(), status, reason)


@asynchronous
async def test_a_watcher_that_does_not_keep_up_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "WATCHER_BACKLOG", 10)
    async with serving(tmp_path) as agentd:
        call = watch(agentd)
        await agentd.until(lambda: bool(agentd.runtime._publisher._watchers))

        async def drain() -> None:
            async for _ in call:
                pass

        await told(agentd, *(f"{number} " + "x" * 20_000 for number in range(500)))
        await refused(drain(), StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED")
