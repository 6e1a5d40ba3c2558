"""Whatever comes over the wire as a heartbeat, agentd answers with a status of its own and stays as it should be."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode, aio
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Serving, serving

from agentd.v1 import agent_pb2, common_pb2

EXAMPLES = settings(max_examples=2_000 if os.environ.get("AGENTD_HYPOTHESIS") == "deep" else 60)
METHOD = "/agentd.v1.AgentService/Heartbeat"
# What agentd may answer; INTERNAL or UNKNOWN would be a fault in it.
OWN = {
    StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.FAILED_PRECONDITION, StatusCode.UNAVAILABLE,
}  # fmt: skip

_uint32, _uint64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
_double = st.floats() | st.floats(0.0, 1.0)
_text = st.text(max_size=200)
_ids = st.sampled_from(["research-9101", "research-9102", "research-9002", "research-9150", ""]) | _text
_refs = st.builds(common_pb2.InstanceRef, id=_ids, incarnation=st.just("present") | _text)
_ACKS = st.builds(
    agent_pb2.Acknowledgement,
    id=_uint64,
    stage=st.integers(-1, 5),
    text=st.text(max_size=210),
    done_follows=st.booleans(),
)
_WILD: dict[str, st.SearchStrategy[Any]] = {
    "instance": st.none() | _refs,
    "seq": _uint64,
    "load": st.none() | _double,
    "queue_length": st.none() | _uint32,
    "in_flight": st.none() | _uint32,
    "tasks_completed": st.none() | _uint64,
    "response_time_p50_s": st.none() | _double,
    "response_time_p95_s": st.none() | _double,
    "labels": st.dictionaries(_text, _text, max_size=18),
    "acks": st.lists(_ACKS, max_size=40),
    "endpoint": st.none() | st.builds(common_pb2.Endpoint, node=_text, port=_uint32),
}
_heartbeats = st.builds(agent_pb2.Heartbeat, **_WILD)
# Every check has a message for itself: where all is wild, some other field refuses nearly every one.
_NUMBERS = ("load", "response_time_p50_s", "response_time_p95_s")
_ODD = (math.nan, math.inf, -math.inf, -1e-300, -0.0, 1.0, 1.0 + 1e-15, 1e300)
_one_wild = st.sampled_from(sorted(_WILD.keys() - {"instance", "seq"})).flatmap(
    lambda name: st.tuples(st.just(name), _WILD[name])
)
_requests = st.builds(agent_pb2.HeartbeatRequest, heartbeats=st.lists(_heartbeats, max_size=3))


class Fuzzed:
    """An agentd that lives on between the examples, as the real one does between messages."""

    def __init__(self, directory: Path) -> None:
        self.runner = asyncio.Runner()
        self._context = serving(directory)
        self.agentd: Serving = self.runner.run(self._context.__aenter__())
        self.seq = 1  # of the heartbeat that made it ready

    def send(self, message: bytes) -> aio.AioRpcError | bytes:
        async def call() -> aio.AioRpcError | bytes:
            raw = self.agentd.channels[0].unary_unary(METHOD, None, None)
            try:
                answer: bytes = await raw(message)
            except aio.AioRpcError as error:
                return error
            return answer

        return self.runner.run(call())

    def send_good(self, **wild: Any) -> None:
        """A heartbeat that is good but for `wild`: it is taken, or refused by the name of that."""
        (field,) = wild
        self.seq += 1
        beat = self.agentd.beat("research-9002", **{"seq": self.seq, **wild})
        answer = self.send(agent_pb2.HeartbeatRequest(heartbeats=[beat]).SerializeToString())
        if isinstance(answer, aio.AioRpcError):
            assert answer.code() is StatusCode.INVALID_ARGUMENT, answer
            assert told(answer).metadata["field"].startswith(f"heartbeats[0].{field}")
        self.check()

    def close(self) -> None:
        self.runner.run(self._context.__aexit__(None, None, None))
        self.runner.close()

    def check(self) -> None:
        """Nothing out of range has come through, and the next heartbeat is taken."""
        for view in self.agentd.runtime.view().instances:
            assert view.load is None or 0.0 <= view.load <= 1.0
            for time_s in (view.response_time_p50_s, view.response_time_p95_s):
                assert time_s is None or (math.isfinite(time_s) and time_s >= 0.0)
            assert len(view.labels) <= 16
        good = agent_pb2.HeartbeatRequest(heartbeats=[self.agentd.beat("research-9002", seq=1)])
        answer = self.send(good.SerializeToString())
        assert isinstance(answer, bytes), answer


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    made = Fuzzed(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """One whose numbers nobody else has moved on, so that every heartbeat is a new one."""
    made = Fuzzed(tmp_path_factory.mktemp("known"))
    yield made
    made.close()


def told(error: aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    rich = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert rich is not None, f"no google.rpc.Status with {error}"
    assert rich.details[0].Unpack(info)
    return info


@EXAMPLES
@given(request=_requests)
def test_any_values_get_a_status_of_our_own(fuzzed: Fuzzed, request: agent_pb2.HeartbeatRequest) -> None:
    for beat in request.heartbeats:
        if beat.instance.incarnation == "present":
            known = {view.id: view.incarnation for view in fuzzed.agentd.runtime.view().instances}
            beat.instance.incarnation = known.get(beat.instance.id, "none")  # type: ignore[call-overload]
    answer = fuzzed.send(request.SerializeToString())
    if isinstance(answer, aio.AioRpcError):
        assert answer.code() in OWN, answer
        assert told(answer).reason.isupper()
    else:
        replies = agent_pb2.HeartbeatResponse.FromString(answer).replies
        assert len(replies) == len(request.heartbeats)
    fuzzed.check()


@pytest.mark.parametrize("value", _ODD, ids=str)
@pytest.mark.parametrize("field", _NUMBERS)
def test_an_odd_number_in_a_good_heartbeat_is_taken_or_refused_by_name(known: Fuzzed, field: str, value: float) -> None:
    known.send_good(**{field: value})


@EXAMPLES
@given(wild=_one_wild)
def test_one_wild_field_in_a_good_heartbeat_is_taken_or_refused_by_name(known: Fuzzed, wild: tuple[str, Any]) -> None:
    known.send_good(**dict([wild]))


@EXAMPLES
@given(message=st.binary(max_size=200) | _requests.map(lambda r: r.SerializeToString()[:-1]))
def test_any_bytes_get_an_answer(fuzzed: Fuzzed, message: bytes) -> None:
    answer = fuzzed.send(message)
    if isinstance(answer, aio.AioRpcError):
        assert answer.code() in OWN, answer
        assert told(answer).reason in {"INVALID_MESSAGE", "INVALID_HEARTBEAT", "UNKNOWN_INSTANCE", "SUPERSEDED"}
    fuzzed.check()
