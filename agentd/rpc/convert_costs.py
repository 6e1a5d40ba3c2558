"""What pools cost, how they are told to scale, and advice, as protobuf. A part of `rpc.convert`."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import asdict

from agentd.core.views import Advice, CostView, RuleView
from agentd.v1 import control_pb2


def cost(view: CostView) -> control_pb2.Cost:
    return control_pb2.Cost(
        currency=view.currency,
        per_hour=view.per_hour,
        one_more_per_hour=view.one_more_per_hour,
        hour=control_pb2.Spent(**asdict(view.spent_hour)),
        day=control_pb2.Spent(**asdict(view.spent_day)),
        month=control_pb2.Spent(**asdict(view.spent_month)),
        projected_month=view.projected_month,
        budgets=[control_pb2.Budget(**asdict(each)) for each in view.budgets],
        scalings=[control_pb2.ScalingCost(**asdict(each)) for each in view.scalings],
    )


def rules(views: Iterable[RuleView]) -> list[control_pb2.Rule]:
    return [
        control_pb2.Rule(
            type=view.kind,
            parameters=parameters(view.parameters),
            up_cooldown_s=view.up_cooldown_s,
            down_cooldown_s=view.down_cooldown_s,
        )
        for view in views
    ]


def parameters(given: Iterable[tuple[str, str]]) -> list[control_pb2.Parameter]:
    return [control_pb2.Parameter(name=name, value=value) for name, value in given]


def advice(given: Iterable[Advice]) -> list[control_pb2.Advice]:
    return [control_pb2.Advice(code=each.code, pool=each.pool, text=each.text) for each in given]
