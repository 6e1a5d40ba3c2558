"""Where pools take work, over the wire: what is told at once, what can wait, and what a reader may go on from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from msgspec import structs
from serving import FLEET, POOL, Serving, asynchronous, refused, serving

from agentd import discovery
from agentd.core.model import InstanceId, PoolName, PortRange
from agentd.v1 import agent_pb2, common_pb2, control_pb2, discovery_pb2_grpc
from agentd.v1 import discovery_pb2 as pb

READY, DRAINING = common_pb2.INSTANCE_STATE_READY, common_pb2.INSTANCE_STATE_DRAINING
ALL = ["research-9002", "research-9101", "research-9102"]


class Reader:
    """A client of Watch: what it was told last, and what it has by now."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.has: dict[str, pb.InstanceEndpoint] = {}

    async def next(self) -> pb.WatchResponse:
        async with asyncio.timeout(10.0):
            change: pb.WatchResponse = await self._call.read()
        assert change is not aio.EOF, "the stream has ended"
        if change.snapshot:
            self.has.clear()
        self.has.update({each.id: each for each in change.endpoints})
        for ident in change.removed:
            self.has.pop(ident)
        return change

    async def ended(self) -> bool:
        async with asyncio.timeout(10.0):
            return await self._call.read() is aio.EOF


@asynccontextmanager
async def watching(agentd: Serving, pool: str = "research", revision: str = "") -> AsyncIterator[Reader]:
    call = agentd.discovery.Watch(pb.WatchRequest(pool=pool, revision=revision))
    try:
        yield Reader(call)
    finally:
        call.cancel()


async def resolve(agentd: Serving, pool: str = "research") -> pb.ResolveResponse:
    return await agentd.discovery.Resolve(pb.ResolveRequest(pool=pool))


# -- once -------------------------------------------------------------------------------------------


@asynchronous
async def test_a_pool_is_shown_with_all_that_a_client_needs(tmp_path: Path) -> None:
    pool = structs.replace(POOL, concurrency=4)
    async with serving(tmp_path, structs.replace(FLEET, pools={pool.name: pool})) as agentd:
        beat = agentd.beat(
            "research-9101", seq=2, load=0.75, queue_length=2, in_flight=3, response_time_p50_s=0.5,
            response_time_p95_s=2.0,
        )  # fmt: skip
        await agentd.heartbeat(beat)
        answer = await resolve(agentd)
        assert [each.id for each in answer.endpoints] == ALL
        seen = answer.endpoints[1]
        assert seen == pb.InstanceEndpoint(
            id="research-9101", pool="research", endpoint=common_pb2.Endpoint(port=9101), host="127.0.0.1",
            incarnation=agentd.instance("research-9101").incarnation, state=READY, weight=seen.weight, load=0.75,
            queue_length=2, in_flight=3, concurrency=4, response_time_p50_s=0.5, response_time_p95_s=2.0,
        )  # fmt: skip
        assert 0.0 < seen.weight < answer.endpoints[0].weight == 1.0
        assert not answer.endpoints[0].HasField("response_time_p50_s"), "it has not finished a task"


@asynchronous
async def test_both_sockets_answer_and_the_tools_know_the_service(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        control = agentd.channels[1]
        answer = await discovery_pb2_grpc.DiscoveryServiceStub(control).Resolve(pb.ResolveRequest(pool=""))
        assert [each.id for each in answer.endpoints] == ALL
        health = health_pb2_grpc.HealthStub(control)
        served = await health.Check(health_pb2.HealthCheckRequest(service="agentd.v1.DiscoveryService"))
        assert served.status == health_pb2.HealthCheckResponse.SERVING
        ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        reflected = reflection_pb2_grpc.ServerReflectionStub(control).ServerReflectionInfo(ask)
        (listed,) = [item async for item in reflected]
        assert "agentd.v1.DiscoveryService" in {item.name for item in listed.list_services_response.service}


@asynchronous
async def test_an_unknown_pool_is_told_which_there_are(tmp_path: Path) -> None:
    other = structs.replace(POOL, name=PoolName("testing"), core=(), min=0, ports=PortRange(9501, 9550))
    async with serving(tmp_path, structs.replace(FLEET, pools={POOL.name: POOL, other.name: other})) as agentd:
        told = await refused(resolve(agentd, "reserch"), StatusCode.NOT_FOUND, "UNKNOWN_POOL")
        assert told.text == "no pool 'reserch' (there are research, testing)"
        call = agentd.discovery.Watch(pb.WatchRequest(pool="reserch"))
        assert (await refused(call.read(), StatusCode.NOT_FOUND, "UNKNOWN_POOL")).text == told.text
        assert list((await resolve(agentd, "testing")).endpoints) == [], "a pool without instances is a pool"


# -- as it changes ----------------------------------------------------------------------------------


@asynchronous
async def test_who_drains_gets_nothing_more_and_is_gone_when_it_stops(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, watching(agentd) as reader:
        assert (await reader.next()).snapshot
        assert sorted(reader.has) == ALL
        agentd.host.slow_stop(InstanceId("research-9101"), 1000.0)
        await agentd.control.Restart(control_pb2.RestartRequest(name="research-9101"))
        change = await reader.next()
        assert [(each.id, each.state, each.weight) for each in change.endpoints] == [("research-9101", DRAINING, 0.0)]
        (reply,) = (await agentd.heartbeat(agentd.beat(seq=2))).replies
        done = agent_pb2.Acknowledgement(id=reply.directive.id, stage=agent_pb2.Acknowledgement.STAGE_DONE)
        await agentd.heartbeat(agentd.beat(seq=3, acks=[done]))
        change = await reader.next()
        assert (change.snapshot, list(change.removed)) == (False, ["research-9101"])


@asynchronous
async def test_who_dies_is_gone_and_comes_back_as_another(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, watching(agentd) as reader:
        await reader.next()
        before = reader.has["research-9101"].incarnation
        agentd.host.exit(InstanceId("research-9101"))
        assert list((await reader.next()).removed) == ["research-9101"]
        await agentd.until(lambda: agentd.instance("research-9101").incarnation != before)
        await agentd.heartbeat(agentd.beat("research-9101", seq=1, load=0.1))
        change = await reader.next()
        assert [each.id for each in change.endpoints] == ["research-9101"]
        assert reader.has["research-9101"].incarnation != before


@asynchronous
async def test_numbers_wait_for_their_time_and_then_come_together(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, watching(agentd) as reader:
        await reader.next()
        for ident in ("research-9101", "research-9102"):
            await agentd.heartbeat(agentd.beat(ident, seq=2, load=0.9))
        agentd.host.exit(InstanceId("research-9002"))
        change = await reader.next()
        assert (list(change.endpoints), list(change.removed)) == ([], ["research-9002"]), "time stands still"
        agentd.clock.at += discovery.NUMBERS_S
        change = await reader.next()
        assert [(each.id, each.load) for each in change.endpoints] == [("research-9101", 0.9), ("research-9102", 0.9)]


@asynchronous
async def test_a_reader_of_one_pool_hears_nothing_of_the_others(tmp_path: Path) -> None:
    other = structs.replace(POOL, name=PoolName("testing"), core=(), min=1, ports=PortRange(9501, 9550))
    pools = {POOL.name: POOL, other.name: other}
    async with (
        serving(tmp_path, structs.replace(FLEET, pools=pools)) as agentd,
        watching(agentd, "testing") as reader,
        watching(agentd, "") as everything,
    ):
        await reader.next()
        await everything.next()
        assert (list(reader.has), len(everything.has)) == (["testing-9501"], 4)
        agentd.host.exit(InstanceId("research-9101"))
        assert list((await everything.next()).removed) == ["research-9101"]
        agentd.host.exit(InstanceId("testing-9501"))
        assert list((await reader.next()).removed) == ["testing-9501"]
        assert list((await everything.next()).removed) == ["testing-9501"]


@asynchronous
async def test_a_heartbeat_that_changes_numbers_alone_stirs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as agentd:
        stirred: list[str] = []
        monkeypatch.setattr(agentd.runtime, "_on_change", lambda: stirred.append("stirred"))
        for seq in range(2, 50):
            await agentd.heartbeat(agentd.beat("research-9101", seq=seq, load=seq / 50, queue_length=seq))
        assert stirred == []
        agentd.host.exit(InstanceId("research-9101"))
        await agentd.until(lambda: bool(stirred))


# -- going on ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_reader_goes_on_from_the_revision_it_has(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        revision = (await resolve(agentd)).revision
        async with watching(agentd, revision=revision) as reader:
            change = await reader.next()
            assert (change.snapshot, len(change.endpoints), change.revision) == (False, 0, revision)
        agentd.host.exit(InstanceId("research-9101"))
        await agentd.until(lambda: agentd.instance("research-9101").state.value == "backoff")
        async with watching(agentd, revision=revision) as reader:
            reader.has["research-9101"] = pb.InstanceEndpoint()
            change = await reader.next()
            assert (change.snapshot, list(change.removed)) == (False, ["research-9101"])


@asynchronous
async def test_a_revision_of_another_run_or_pool_or_of_nobody_begins_anew(tmp_path: Path) -> None:
    stale = ["0.1.research", "2.1.research", "1.99.research", "1.1.testing", "1.1.", "1.-1.research", "1.²."]
    async with serving(tmp_path) as agentd:
        for revision in (*stale, "rubbish", "..", "1." + "9" * 30 + ".research"):
            async with watching(agentd, revision=revision) as reader:
                assert (await reader.next()).snapshot, revision
                assert sorted(reader.has) == ALL


@asynchronous
async def test_readers_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "WATCHERS_MAX", 1)
    async with serving(tmp_path) as agentd:
        async with watching(agentd) as first:
            await first.next()
            call = agentd.discovery.Watch(pb.WatchRequest(pool="research"))
            await refused(call.read(), StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS")
        await agentd.until(lambda: not agentd.directory.watchers)
        async with watching(agentd) as second:
            await second.next()


@asynchronous
async def test_five_hundred_readers_are_told_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        calls = [agentd.discovery.Watch(pb.WatchRequest(pool="research")) for _ in range(500)]
        readers = [Reader(call) for call in calls]
        await asyncio.gather(*(reader.next() for reader in readers))
        agentd.host.exit(InstanceId("research-9101"))
        changes = await asyncio.gather(*(reader.next() for reader in readers))
        assert all(list(change.removed) == ["research-9101"] for change in changes)
        for call in calls:
            call.cancel()
        await agentd.until(lambda: not agentd.directory.watchers)


@asynchronous
async def test_streams_end_in_good_order_when_agentd_does(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, watching(agentd) as reader:
        await reader.next()
        agentd.directory.close()
        assert await reader.ended()


@asynchronous
async def test_bytes_that_are_no_request_are_refused_on_both_sockets_and_harm_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for channel in agentd.channels:
            for method in ("Resolve", "Watch"):
                call = channel.stream_stream(f"/agentd.v1.DiscoveryService/{method}")(iter([b"\xff"]))
                await refused(call.read(), StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
        assert [each.id for each in (await resolve(agentd)).endpoints] == ALL
