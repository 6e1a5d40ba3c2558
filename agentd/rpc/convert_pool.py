"""Parts of a pool, as protobuf. A part of `rpc.convert`, which alone is used by others."""

from __future__ import annotations

from collections.abc import Iterable

from agentd.core.scalability import ScalingLaw
from agentd.core.views import Condition, PauseView, ReadingView, StartTimes
from agentd.v1 import control_pb2


def readings(views: Iterable[ReadingView]) -> list[control_pb2.Reading]:
    return [
        control_pb2.Reading(
            name=view.name,
            type=view.kind,
            value=view.value,
            age_s=view.age_s,
            every_s=view.every_s,
            stale=view.stale,
            trouble=view.trouble,
        )
        for view in views
    ]


def pauses(views: Iterable[PauseView]) -> list[control_pb2.Pause]:
    return [
        control_pb2.Pause(
            direction=view.direction,
            owner=view.owner,
            reason=view.reason,
            since_wall=view.since_wall,
            expires_in_s=view.expires_in_s,
            everywhere=view.everywhere,
        )
        for view in views
    ]


def scaling_law(law: ScalingLaw) -> control_pb2.ScalingLaw:
    return control_pb2.ScalingLaw(
        per_agent=law.per_agent,
        sigma=law.sigma,
        kappa=law.kappa,
        confidence=law.confidence,
        counts=law.counts,
        text=law.text,
    )


def conditions(views: Iterable[Condition]) -> list[control_pb2.Condition]:
    return [
        control_pb2.Condition(
            type=view.type, status=view.status, reason=view.reason, text=view.text, since_wall=view.since
        )
        for view in views
    ]


def start_times(times: StartTimes) -> control_pb2.StartTimes:
    return control_pb2.StartTimes(p50_s=times.p50_s, p95_s=times.p95_s, counted=times.counted, failed=times.failed)
