"""Settings of running agents, changed by a directive: how many tasks at a time, and how often to report.

What an agent should have is what a person has set for it, else what the configuration says. It is asked once for each
difference, and the directive repeated until it answers or begins to leave: a drain takes the place of a CONFIGURE, and
who is taken back is asked anew. What a person has set holds until the process ends or a reload changes that setting.

The interval needs no consent, for every answer to a heartbeat says it. Who refuses, or does not answer, goes on with
what it has; that is told, and it is not asked for the same again.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentd.core import directives
from agentd.core.health import answer_deadline, interval_s
from agentd.core.messages import Acknowledgement, Configure, ConfigureReply, EventType, Refusal, Stage
from agentd.core.model import CONCURRENCY_MAX, DirectiveKind, HealthCheck, PoolConfig, PoolName, State
from agentd.core.state import Fleet, Instance

INTERVAL_MIN_S = 0.1


def begun(fleet: Fleet, instance: Instance) -> None:
    """A new process of `instance` has begun, with the settings of the configuration."""
    instance.slots = fleet.pools[instance.pool].config.concurrency
    instance.own_slots = instance.asked_slots = 0
    instance.own_interval_s = instance.asked_interval_s = 0.0
    if instance.directive_kind is DirectiveKind.CONFIGURE:
        directives.withdraw(instance)


def reconfigured(fleet: Fleet, before: Mapping[PoolName, PoolConfig], timeout_s: float, now: float) -> None:
    """The pools were configured as `before`, with this heartbeat timeout: ask all for what has changed."""
    for instance in fleet.instances.values():
        was, pool = before[instance.pool], fleet.pools[instance.pool]
        if pool.removed:
            continue
        instance.slots = instance.slots or was.concurrency
        if was.concurrency != pool.config.concurrency:
            instance.own_slots = 0
        if timeout_s != fleet.config.heartbeat_timeout_s:
            instance.own_interval_s = 0.0
        fleet.touch(instance)
        settle(fleet, instance, now, "the configuration")


def asked_for(fleet: Fleet, event: Configure, now: float) -> ConfigureReply | Refusal:
    """A person wants other settings of running instances. Those that leave are passed over."""
    if not fleet.config.enabled:
        return Refusal("DISABLED", "multi_agent.enabled is false: no agent is told anything")
    if refusal := _out_of_bounds(fleet, event):
        return refusal
    chosen = [instance for ident in event.instances if (instance := fleet.instances.get(ident))]
    chosen = [instance for instance in chosen if instance.state in (State.STARTING, State.READY)]
    if not chosen:
        return Refusal("NOTHING_RUNS", "none of these instances takes work now or is about to")
    for instance in chosen:
        pool = fleet.pools[instance.pool]
        if pool.config.health is not HealthCheck.HEARTBEAT or pool.removed:
            text = f"agents of pool {pool.name} send no heartbeats, so they hear no directives"
            return Refusal("NO_HEARTBEATS", f"{text}; change the configuration and restart them")
    for instance in chosen:
        if event.concurrency is not None:
            instance.own_slots = event.concurrency
            if not instance.directive:
                instance.asked_slots = 0  # also for what it has refused: a person asks again
        if event.interval_s is not None:
            instance.own_interval_s = event.interval_s
        fleet.touch(instance)
        settle(fleet, instance, now, event.owner)
    return ConfigureReply(tuple(instance.id for instance in chosen))


def settle(fleet: Fleet, instance: Instance, now: float, owner: str = "") -> None:
    """Ask `instance` for the settings that it should have, unless it has them or was asked for them."""
    config = fleet.pools[instance.pool].config
    if instance.state is not State.READY or not instance.seq or config.health is not HealthCheck.HEARTBEAT:
        return
    has = instance.slots or config.concurrency
    wanted = instance.own_slots or config.concurrency
    if wanted == (instance.asked_slots or has) and instance.own_interval_s == instance.asked_interval_s:
        return
    instance.asked_slots = wanted
    directives.issue(fleet, instance, DirectiveKind.CONFIGURE, now)
    text = f"asked to work on {wanted} at a time" + (f" instead of {has}" if wanted != has else "")
    if instance.own_interval_s != instance.asked_interval_s:
        text += f" and to report every {interval_s(fleet, instance):g} s"
    instance.asked_interval_s = instance.own_interval_s
    fleet.tell(EventType.CONFIGURE, text, instance, actor=owner)


def heard(fleet: Fleet, instance: Instance, acks: tuple[Acknowledgement, ...], now: float) -> bool:
    """An instance that was asked has spoken; whether that is news."""
    ack = directives.take(fleet, instance, acks)
    if ack is None:
        if not instance.told or instance.overdue or now < answer_deadline(fleet, instance):
            return False
        instance.overdue = True
        fleet.tell(EventType.WARNING, f"does not answer a CONFIGURE; {_goes_on(fleet, instance)}", instance)
        fleet.touch(instance)
        return True
    if ack.stage is Stage.FAILED:
        text = f": {ack.text}" if ack.text else ""
        fleet.tell(EventType.WARNING, f"cannot be configured{text}; {_goes_on(fleet, instance)}", instance)
    else:
        instance.slots = instance.asked_slots
        fleet.tell(EventType.CONFIGURE, f"works on {instance.slots} at a time", instance)
    directives.withdraw(instance)
    fleet.touch(instance)
    return True


def _goes_on(fleet: Fleet, instance: Instance) -> str:
    return f"it goes on with {instance.slots or fleet.pools[instance.pool].config.concurrency} at a time"


def _out_of_bounds(fleet: Fleet, event: Configure) -> Refusal | None:
    if event.concurrency is None and event.interval_s is None:
        return Refusal("NO_SETTING", "expected a concurrency, an interval, or both", "INVALID_ARGUMENT")
    if event.concurrency is not None and not 1 <= event.concurrency <= CONCURRENCY_MAX:
        text = f"concurrency: {event.concurrency} is not between 1 and {CONCURRENCY_MAX}"
        return Refusal("OUT_OF_BOUNDS", text, "INVALID_ARGUMENT")
    most_s = fleet.config.heartbeat_timeout_s / 3.0
    if event.interval_s is not None and not INTERVAL_MIN_S <= event.interval_s <= most_s:
        text = f"interval_s: {event.interval_s:g} is not between {INTERVAL_MIN_S:g} and {most_s:g}"
        return Refusal("OUT_OF_BOUNDS", f"{text}, a third of heartbeat_timeout_sec", "INVALID_ARGUMENT")
    return None
