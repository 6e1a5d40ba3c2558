"""What a heartbeat says of numbers: zero is a number, and what was left out is none."""

from __future__ import annotations

import pytest

from agentd.rpc import convert
from agentd.v1 import agent_pb2, common_pb2

NUMBERS = ("load", "queue_length", "in_flight", "tasks_completed", "response_time_p50_s", "response_time_p95_s")


def heartbeat() -> agent_pb2.Heartbeat:
    return agent_pb2.Heartbeat(instance=common_pb2.InstanceRef(id="research-9101", incarnation="1"), seq=1)


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [0, 1])
def test_a_number_that_is_there_is_taken_and_the_others_are_not_known(field: str, value: int) -> None:
    message = heartbeat()
    setattr(message, field, value)
    beat = convert.beat(message)
    assert {name: getattr(beat, name) for name in NUMBERS} == {
        name: value if name == field else None for name in NUMBERS
    }


@pytest.mark.parametrize("field", ["load", "response_time_p50_s", "response_time_p95_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
def test_what_is_no_number_in_its_range_is_refused_by_its_field(field: str, value: float) -> None:
    message = heartbeat()
    setattr(message, field, value)
    with pytest.raises(convert.Invalid) as refusal:
        convert.beat(message)
    assert refusal.value.field == field
