"""Directives: what an agent was told, in which answers it stands, and what the agent said of it.

An instance has at most one directive at a time, the newest. It is repeated in every answer until the agent has
acknowledged it, and each agentd says it at least once: an acknowledgement that the last one was killed over has been
answered, so that the agent would not repeat it by itself. What a drain or its end means for the instance is
`core.drain`.
"""

from __future__ import annotations

from agentd.core import balancer, health, showing
from agentd.core.health import drain_end
from agentd.core.lifecycle import LEAVING
from agentd.core.messages import Acknowledgement, BeatReply, Stage
from agentd.core.model import Directive, DirectiveKind, State
from agentd.core.state import Fleet, Instance


def issue(fleet: Fleet, instance: Instance, kind: DirectiveKind, now: float) -> None:
    """Give `instance` a new directive, in place of the one it has."""
    if instance.directive_kind is DirectiveKind.CONFIGURE and kind is not DirectiveKind.CONFIGURE:
        instance.asked_slots, instance.asked_interval_s = 0, 0.0  # it may never have heard of it
    instance.directive = fleet.direct(instance)
    instance.directive_kind = kind
    instance.stage = None
    instance.done_follows = False
    instance.asked_at = now
    instance.told = instance.overdue = False
    fleet.touch(instance)


def withdraw(instance: Instance) -> None:
    """`instance` goes on without a directive."""
    instance.directive = 0
    instance.directive_kind = DirectiveKind.CONTINUE
    instance.stage = None
    instance.done_follows = instance.told = instance.resume_tried = False


def pending(fleet: Fleet, instance: Instance, now: float) -> Directive | None:
    """What the next answer has to tell `instance`; None: nothing."""
    if not instance.directive or (instance.stage and instance.told):
        return None
    if instance.directive_kind is DirectiveKind.CONFIGURE:
        if instance.state is not State.READY:
            return None
        return Directive(
            DirectiveKind.CONFIGURE,
            instance.directive,
            concurrency=instance.asked_slots,
            interval_s=health.interval_s(fleet, instance),
        )
    if instance.state not in LEAVING:
        return None
    if instance.directive_kind is DirectiveKind.RESUME:
        return Directive(DirectiveKind.RESUME, instance.directive)
    left_s = max(0.0, drain_end(fleet, instance) - now)
    endpoints = showing.endpoints_of(fleet, fleet.pools[instance.pool])
    return Directive(DirectiveKind.DRAIN, instance.directive, left_s, balancer.successors(endpoints, instance.id))


def answer(fleet: Fleet, instance: Instance, now: float) -> tuple[BeatReply, bool]:
    """The answer to a heartbeat of `instance`, and whether it is the first that carries the directive."""
    directive = pending(fleet, instance, now)
    interval_s = health.interval_s(fleet, instance)
    if directive is None:
        return BeatReply(Directive(DirectiveKind.CONTINUE), interval_s), False
    first = not instance.told
    if first:
        instance.told = True
        instance.asked_at = now  # the time that it has for its own answer counts from now
        fleet.touch(instance)
    return BeatReply(directive, interval_s), first


def take(fleet: Fleet, instance: Instance, acks: tuple[Acknowledgement, ...]) -> Acknowledgement | None:
    """The news in `acks`: how far the agent has come with its directive. Nobody goes back from an end."""
    news = None
    for ack in acks:
        ended = instance.stage in (Stage.DONE, Stage.FAILED)
        if ack.id == instance.directive and ack.stage is not instance.stage and not ended:
            instance.stage, instance.done_follows = ack.stage, ack.done_follows
            fleet.touch(instance)
            news = ack
    return news
