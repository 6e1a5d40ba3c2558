"""Decisions, and what people and programs get of their wishes, as protobuf. A part of `rpc.convert`."""

from __future__ import annotations

from collections.abc import Iterable

from agentd.core.messages import Grant
from agentd.core.model import Decision, InstanceId, parse_instance_id
from agentd.core.views import ForecastView, OfferView, PoolPlan
from agentd.rpc import convert_effects as effects
from agentd.v1 import control_pb2


def decision(made: Decision, now: float) -> control_pb2.Decision:
    return control_pb2.Decision(
        id=made.id,
        pool=made.pool,
        wall=made.wall,
        current=made.current,
        wanted=made.wanted,
        granted=made.granted,
        reasons=[control_pb2.Reason(code=reason.code, text=reason.text) for reason in made.reasons],
        limits=[
            control_pb2.Limit(
                code=limit.code,
                text=limit.text,
                lifts_in_s=limit.until - now if limit.until is not None and limit.until > now else None,
                allows=None if limit.allows is None else max(0, limit.allows),
                until_wall=made.until_wall(limit),
            )
            for limit in made.limits
        ],
        counterfactual=made.counterfactual,
        victims=list(made.victims),
        effect=effects.effect(made.effect) if made.effect else None,
        trigger=made.trigger,
        proposals=[
            control_pb2.Proposal(
                trigger=each.trigger,
                count=each.count,
                reason=control_pb2.Reason(code=each.reason.code, text=each.reason.text),
            )
            for each in made.proposals
        ],
        binding=made.binding,
        chain=[control_pb2.Link(code=code, count=max(0, count)) for code, count in made.chain],
    )


def plans(made: Iterable[PoolPlan], now: float) -> list[control_pb2.PoolPlan]:
    return [
        control_pb2.PoolPlan(
            decision=decision(each.decision, now),
            starts=_planned(each.starts),
            takes_back=_planned(each.takes_back),
            stops=_planned(each.stops),
        )
        for each in made
    ]


def forecast(found: ForecastView) -> control_pb2.GetForecastResponse:
    return control_pb2.GetForecastResponse(
        pool=found.pool,
        label=found.label,
        labels=list(found.labels),
        heeded=found.heeded,
        reason=control_pb2.Reason(code=found.code, text=found.text),
        seen_s=found.seen_s,
        needed_s=found.needed_s,
        slots=[
            control_pb2.ForecastSlot(
                wall=slot.at,
                came=slot.came,
                low=slot.expected.low if slot.expected else None,
                middle=slot.expected.middle if slot.expected else None,
                high=slot.expected.high if slot.expected else None,
            )
            for slot in found.slots
        ],
        skills=[
            control_pb2.ForecastSkill(
                ahead_s=skill.ahead_s,
                off_by=skill.off_by,
                naive_off_by=skill.naive_off_by,
                at_or_below=list(skill.at_or_below),
                scored=skill.scored,
            )
            for skill in found.skills
        ],
        wall=found.wall,
    )


def _planned(instances: Iterable[InstanceId]) -> list[control_pb2.PlannedInstance]:
    return [control_pb2.PlannedInstance(id=ident, port=parse_instance_id(ident)[1]) for ident in instances]


def grants(given: Iterable[Grant]) -> list[control_pb2.Grant]:
    return [
        control_pb2.Grant(
            pool=item.pool, current=item.current, wanted=item.wanted, granted=item.granted, limits=list(item.limits)
        )
        for item in given
    ]


def offers(given: Iterable[OfferView]) -> list[control_pb2.Offer]:
    return [
        control_pb2.Offer(
            source=item.source,
            count=item.count,
            owner=item.owner,
            reason=item.reason,
            expires_in_s=item.expires_in_s,
        )
        for item in given
    ]
