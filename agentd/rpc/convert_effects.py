"""What a scaling brought, as protobuf. A part of `rpc.convert`, which alone is used by others."""

from __future__ import annotations

from msgspec.structs import asdict

from agentd.core.effects import Comparison, Effect, Measured
from agentd.v1 import control_pb2


def effect(made: Effect) -> control_pb2.Effect:
    return control_pb2.Effect(
        decision=made.decision,
        wall=made.wall,
        verdict=made.verdict.value,
        reason=made.reason,
        before=_measured(made.before) if made.before else None,
        after=_measured(made.after) if made.after else None,
        per_agent=_comparison(made.per_agent) if made.per_agent else None,
        whole=_comparison(made.whole) if made.whole else None,
    )


def _measured(window: Measured) -> control_pb2.Measured:
    return control_pb2.Measured(**asdict(window))


def _comparison(made: Comparison) -> control_pb2.Comparison:
    return control_pb2.Comparison(**asdict(made))
