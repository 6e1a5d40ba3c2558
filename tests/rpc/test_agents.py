"""Heartbeats over the wire: what is taken, what is refused, and that refusals leave no trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec import structs
from serving import EPOCH, FLEET, FLEET_OF_LONG_WAITS, POOL, Serving, asynchronous, refused, serving

from agentd.core.model import State
from agentd.v1 import agent_pb2, common_pb2, control_pb2, control_pb2_grpc

Directive = agent_pb2.Directive
ACCEPTED = agent_pb2.Acknowledgement.STAGE_ACCEPTED
INVALID = StatusCode.INVALID_ARGUMENT


def accepted(directive: int) -> agent_pb2.Acknowledgement:
    return agent_pb2.Acknowledgement(id=directive, stage=ACCEPTED)


@asynchronous
async def test_a_heartbeat_is_seen_and_answered_with_the_interval_to_the_next(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        beat = agentd.beat(
            seq=7, load=0.25, queue_length=3, in_flight=1, tasks_completed=99, response_time_p50_s=0.5,
            response_time_p95_s=1.5, labels={"model": "qwen"}, endpoint=common_pb2.Endpoint(port=9101),
        )  # fmt: skip
        response = await agentd.heartbeat(beat)
        (reply,) = response.replies
        assert response.controller_epoch == EPOCH
        assert reply.directive.kind == Directive.KIND_CONTINUE
        assert reply.interval_s == 10.0
        assert not reply.HasField("refusal")
        view = agentd.instance("research-9101")
        assert (view.load, view.queue_length, view.in_flight, view.tasks_completed) == (0.25, 3, 1, 99)
        assert (view.response_time_p50_s, view.response_time_p95_s) == (0.5, 1.5)
        assert view.labels == {"model": "qwen"}


@asynchronous
async def test_numbers_an_agent_does_not_know_stay_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await agentd.heartbeat(agentd.beat(seq=2))
        view = agentd.instance("research-9101")
        assert (view.load, view.queue_length, view.in_flight, view.tasks_completed) == (None, None, None, None)


@asynchronous
async def test_zero_is_a_number(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await agentd.heartbeat(agentd.beat(seq=2, load=0.0, queue_length=0, in_flight=0))
        view = agentd.instance("research-9101")
        assert (view.load, view.queue_length, view.in_flight) == (0.0, 0, 0)


@asynchronous
async def test_a_beat_that_was_overtaken_says_nothing_new(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await agentd.heartbeat(agentd.beat(seq=5, load=0.9))
        response = await agentd.heartbeat(agentd.beat(seq=4, load=0.1))
        assert response.replies[0].directive.kind == Directive.KIND_CONTINUE
        assert agentd.instance("research-9101").load == 0.9


@asynchronous
async def test_a_directive_comes_with_every_answer_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await agentd.control.Restart(control_pb2.RestartRequest(name="research-9101"))
        ids = set()
        for seq in (2, 3, 4):
            (reply,) = (await agentd.heartbeat(agentd.beat(seq=seq, load=0.5))).replies
            assert reply.directive.kind == Directive.KIND_DRAIN
            assert reply.directive.deadline_s == 120.0
            ids.add(reply.directive.id)
        (directive,) = ids
        assert directive > 0
        agentd.host.slow_stop(agentd.instance("research-9101").id, 1000.0)
        (reply,) = (await agentd.heartbeat(agentd.beat(seq=5, acks=[accepted(directive + 1)]))).replies
        assert reply.directive.kind == Directive.KIND_DRAIN, "another id acknowledges nothing"
        (reply,) = (await agentd.heartbeat(agentd.beat(seq=6, acks=[accepted(directive)]))).replies
        assert reply.directive.kind == Directive.KIND_CONTINUE
        assert agentd.instance("research-9101").state is State.STOPPING


# -- what is refused --------------------------------------------------------------------------------

Break = Callable[[agent_pb2.Heartbeat], None]


def _set(**values: Any) -> Break:
    def spoil(beat: agent_pb2.Heartbeat) -> None:
        for name, value in values.items():
            setattr(beat, name, value)

    return spoil


def _ref(**values: Any) -> Break:
    def spoil(beat: agent_pb2.Heartbeat) -> None:
        for name, value in values.items():
            setattr(beat.instance, name, value)

    return spoil


def _endpoint(**values: Any) -> Break:
    return lambda beat: beat.endpoint.CopyFrom(common_pb2.Endpoint(**values))


def _labels(labels: dict[str, str]) -> Break:
    return lambda beat: beat.labels.update(labels)


BAD_FIELDS: dict[str, tuple[Break, str]] = {
    **{f"load {load}": (_set(load=load), "load") for load in (math.nan, math.inf, -math.inf, -0.1, 1.0000001, 7.0)},
    **{
        f"{name} {value}": (_set(**{name: value}), name)
        for name in ("response_time_p50_s", "response_time_p95_s")
        for value in (math.nan, math.inf, -math.inf, -1e-9)
    },
    "no sequence": (_set(seq=0), "seq"),
    "no instance": (lambda beat: beat.ClearField("instance"), "instance.id"),
    "no id": (_ref(id=""), "instance.id"),
    "no incarnation": (_ref(incarnation=""), "instance.incarnation"),
    "long incarnation": (_ref(incarnation="x" * 65), "instance.incarnation"),
    "too many labels": (_labels({f"label{n}": "x" for n in range(17)}), "labels"),
    "long label": (_labels({"model": "x" * 129}), "labels"),
    "long label name": (_labels({"x" * 129: "model"}), "labels"),
    "long label in bytes": (_labels({"model": "é" * 65}), "labels"),
    "another node": (_endpoint(node="elsewhere", port=9101), "endpoint.node"),
    "another port": (_endpoint(port=9102), "endpoint.port"),
    "the end of the port": (_endpoint(port=101), "endpoint.port"),
    "too many acknowledgements": (lambda beat: beat.acks.extend([accepted(1)] * 33), "acks"),
    "an acknowledgement without a stage": (lambda beat: beat.acks.add(id=1), "acks.stage"),
    "an acknowledgement of two lines": (lambda beat: beat.acks.add(id=1, stage=3, text="no\nno"), "acks.text"),
}
BAD_IDS = [
    "research", "research-", "-9101", "research-0", "research-65536", "Research-9101", "research-9101 ", "r\n-1",
    "../../etc-1", "research-09101", "x" * 200, "x" * 100_000, "é-1", "research-9101\x00",
]  # fmt: skip


async def leaves_no_trace(agentd: Serving, call: Callable[[], Any]) -> None:
    before = agentd.controller.snapshot(), agentd.runtime.view()
    await call()
    assert (agentd.controller.snapshot(), agentd.runtime.view()) == before


@asynchronous
async def test_every_field_out_of_range_is_refused_by_name_and_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for name, (spoil, field) in BAD_FIELDS.items():
            beat = agentd.beat(seq=50, load=0.9)
            spoil(beat)

            async def call(beat: agent_pb2.Heartbeat = beat, name: str = name, field: str = field) -> None:
                info = await refused(agentd.heartbeat(beat), INVALID, "INVALID_HEARTBEAT")
                assert info.metadata["field"] == f"heartbeats[0].{field}", name

            await leaves_no_trace(agentd, call)


@asynchronous
async def test_of_a_label_that_is_too_long_the_part_that_is_so_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for labels, part in (
            ({"model": "x" * 129}, "the value of 'model'"),
            ({"x" * 129: "y"}, f"the name '{'x' * 20}...'"),
        ):
            told = await refused(agentd.heartbeat(agentd.beat(labels=labels)), INVALID, "INVALID_HEARTBEAT")
            assert told.text == f"heartbeats[0].labels: {part} is longer than 128 bytes"


@pytest.mark.parametrize("beside", [0, 1], ids=["alone", "beside a good one"])
@asynchronous
async def test_a_malformed_id_is_told_from_an_unknown_one(beside: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for ident in BAD_IDS:
            bad = agentd.beat(seq=50, load=0.9)
            bad.instance.id = ident

            async def call(bad: agent_pb2.Heartbeat = bad) -> None:
                beats = [bad] + [agentd.beat("research-9102", seq=1, load=0.5)] * beside
                await refused(agentd.heartbeat(*beats), INVALID, "INVALID_HEARTBEAT")

            await leaves_no_trace(agentd, call)


@asynchronous
async def test_an_unknown_instance_is_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for ident in ("research-9150", "nowhere-9101", "a-1"):
            beat = agentd.beat(seq=50)
            beat.instance.id = ident

            async def call(beat: agent_pb2.Heartbeat = beat, ident: str = ident) -> None:
                info = await refused(agentd.heartbeat(beat), StatusCode.NOT_FOUND, "UNKNOWN_INSTANCE")
                assert info.metadata["instance"] == ident

            await leaves_no_trace(agentd, call)


@asynchronous
async def test_a_stale_incarnation_is_superseded(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        beat = agentd.beat(seq=1000, load=1.0, acks=[accepted(1)])
        beat.instance.incarnation = "of yesterday"

        async def call() -> None:
            await refused(agentd.heartbeat(beat), StatusCode.FAILED_PRECONDITION, "SUPERSEDED")

        await leaves_no_trace(agentd, call)


@asynchronous
async def test_a_beat_before_the_start_is_recorded_may_be_tried_again(tmp_path: Path) -> None:
    async with serving(tmp_path, FLEET_OF_LONG_WAITS) as agentd:
        beat = agentd.beat("research-9101", seq=9)
        agentd.host.exit(agentd.instance("research-9101").id)
        await agentd.until(lambda: agentd.instance("research-9101").state is State.BACKOFF)
        beat.instance.incarnation = "the next one"
        await refused(agentd.heartbeat(beat), StatusCode.UNAVAILABLE, "NOT_STARTED")


# -- many at once -----------------------------------------------------------------------------------


@asynchronous
async def test_with_several_beats_each_gets_its_own_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        good, stale, unknown = (agentd.beat(seq=9, load=0.9) for _ in range(3))
        stale.instance.incarnation = "of yesterday"
        unknown.instance.id = "research-9150"
        other = agentd.beat("research-9102", seq=9, load=0.8)
        response = await agentd.heartbeat(good, stale, unknown, other)
        kinds = [(reply.refusal.code, reply.refusal.reason) for reply in response.replies]
        assert kinds == [
            (0, ""),
            (grpc.StatusCode.FAILED_PRECONDITION.value[0], "SUPERSEDED"),
            (grpc.StatusCode.NOT_FOUND.value[0], "UNKNOWN_INSTANCE"),
            (0, ""),
        ]
        assert [bool(reply.refusal.message) for reply in response.replies] == [False, True, True, False]
        assert (agentd.instance("research-9101").load, agentd.instance("research-9102").load) == (0.9, 0.8)


@asynchronous
async def test_one_bad_field_refuses_the_message_whole_and_names_its_place(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        beats = agentd.beat(seq=9, load=0.9), agentd.beat("research-9102", seq=9, load=1.1)

        async def call() -> None:
            info = await refused(agentd.heartbeat(*beats), INVALID, "INVALID_HEARTBEAT")
            assert info.metadata["field"] == "heartbeats[1].load"

        await leaves_no_trace(agentd, call)


@asynchronous
async def test_a_message_holds_one_to_a_thousand_beats(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        response = await agentd.heartbeat(*[agentd.beat(seq=seq + 2, load=0.5) for seq in range(1000)])
        assert len(response.replies) == 1000
        for count in (0, 1001):

            async def call(count: int = count) -> None:
                await refused(agentd.heartbeat(*[agentd.beat(seq=9999)] * count), INVALID, "INVALID_HEARTBEAT")

            await leaves_no_trace(agentd, call)


@asynchronous
async def test_an_oversized_message_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        big = agentd.beat(seq=9, load=0.9, labels={"model": "x" * 300_000})

        async def call() -> None:
            with pytest.raises(aio.AioRpcError) as raised:
                await agentd.heartbeat(big)
            assert raised.value.code() is StatusCode.RESOURCE_EXHAUSTED

        await leaves_no_trace(agentd, call)


# -- sockets ----------------------------------------------------------------------------------------


@asynchronous
async def test_each_socket_serves_its_own_services_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        agents, control = agentd.channels
        wrong = control_pb2_grpc.ControlServiceStub(agents)
        told = await refused(
            wrong.GetStatus(control_pb2.GetStatusRequest()), StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD"
        )
        assert told.text == (
            "there is no /agentd.v1.ControlService/GetStatus here; this address serves "
            "agentd.v1.AgentService, agentd.v1.DiscoveryService"
        )
        health = health_pb2_grpc.HealthStub(control)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="agentd.v1.ControlService"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@asynchronous
async def test_the_sockets_are_their_owners_alone(tmp_path: Path) -> None:
    async with serving(tmp_path):
        for name in ("agents.sock", "control.sock"):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("field", "most"), [("queue_length", 10**9), ("in_flight", 10**9), ("tasks_completed", 10**15)]
)
@asynchronous
async def test_counts_have_a_bound(field: str, most: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await agentd.heartbeat(agentd.beat(seq=50, **{field: most}))
        assert getattr(agentd.instance("research-9101"), field) == most
        call = agentd.heartbeat(agentd.beat(seq=51, **{field: most + 1}))
        told = await refused(call, INVALID, "INVALID_HEARTBEAT")
        assert told.metadata["field"] == f"heartbeats[0].{field}"
        assert told.text == f"heartbeats[0].{field}: {most + 1} is more than {most}"


@asynchronous
async def test_the_sum_of_a_pool_may_be_more_than_one_agent_can_say(tmp_path: Path) -> None:
    pool = structs.replace(POOL, min=6, max=6)
    async with serving(tmp_path, structs.replace(FLEET, pools={pool.name: pool})) as agentd:
        for view in agentd.runtime.view().instances:
            await agentd.heartbeat(agentd.beat(view.id, seq=50, queue_length=10**9, in_flight=10**9))
        status = (await agentd.control.GetStatus(control_pb2.GetStatusRequest())).status
        assert (status.pools[0].queue_length, status.pools[0].in_flight) == (6 * 10**9, 6 * 10**9)
