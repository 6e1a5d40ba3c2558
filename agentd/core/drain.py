"""How a drain goes on: what the agent says of it, what ends it, and how it is called off.

draining --DONE, or accepted and nothing left, or FAILED, or no answer, or silence--> stopping, with the time left
draining --drain timeout--> stopping, with a short grace
draining --RESUME, accepted--> ready
draining --RESUME, failed or not answered--> draining, by a new directive; a new instance is started instead
"""

from __future__ import annotations

from agentd.core import configuring, departure, directives, planner
from agentd.core.health import answer_deadline, drain_end, missed_beats, set_alarm
from agentd.core.lifecycle import LEAVING
from agentd.core.messages import Acknowledgement, Done, Drain, EventType, Refusal, Stage
from agentd.core.model import DirectiveKind, HealthCheck, State
from agentd.core.state import Fleet, Instance, Pool, Purpose


def asked_for(fleet: Fleet, event: Drain, now: float) -> Done | Refusal:
    """A person has one instance finish its work and stop. Again: nothing more."""
    instance = fleet.instances.get(event.instance)
    if not fleet.config.enabled:
        return Refusal("DISABLED", "multi_agent.enabled is false: nothing is started or stopped")
    if instance is None:
        return Refusal("UNKNOWN_INSTANCE", f"no instance {event.instance!r}", "NOT_FOUND")
    if fleet.pools[instance.pool].removed:
        return Refusal("NOT_CONFIGURED", f"the pool of {instance.id} is not configured; agentd leaves it alone")
    if instance.is_core and not event.force:
        text = f"{instance.id} is the core agent {instance.core_name}, which is always there"
        return Refusal("CORE_AGENT", f"{text}; with force it is drained and started again in place")
    purpose = Purpose.RESTART if instance.is_core else Purpose.ASKED_FOR
    if instance.state in LEAVING and not instance.is_resuming:
        if instance.stop_purpose is Purpose.SCALE_DOWN:
            instance.stop_purpose = purpose  # now it is a person who wants it gone: it is not taken back
            fleet.touch(instance)
        return Done()
    reason = f"{event.owner} asked for it"
    departure.begin(fleet, instance, purpose, now, reason=reason, again=instance.is_core)
    return Done()


def heard(fleet: Fleet, instance: Instance, acks: tuple[Acknowledgement, ...], now: float) -> bool:
    """An instance that leaves has spoken; whether that is news."""
    ack = directives.take(fleet, instance, acks)
    if instance.state is not State.DRAINING:
        return ack is not None
    if instance.is_resuming:
        if instance.stage is Stage.FAILED:
            _not_taken_back(fleet, instance, ack.text if ack and ack.text else "it cannot", now)
        elif instance.stage is not None:
            _taken_back(fleet, instance, now)
    elif instance.stage is Stage.FAILED:
        text = f": {ack.text}" if ack and ack.text else ""
        departure.stop(fleet, instance, now, f"{instance.cause}; it cannot drain{text}")
    elif instance.stage is Stage.DONE or (instance.stage and not instance.done_follows and not instance.work):
        departure.stop(fleet, instance, now)
    return ack is not None or instance.state is not State.DRAINING


def look(fleet: Fleet, instance: Instance, now: float) -> None:
    """Its alarm has rung: end what has lasted too long."""
    if missed_beats(fleet, instance, now):
        silence_s = now - instance.heard_at
        departure.stop(fleet, instance, now, f"{instance.cause}; no heartbeat for {silence_s:.1f} s")
    elif instance.is_resuming:
        if now >= answer_deadline(fleet, instance):
            _not_taken_back(fleet, instance, "no answer", now)
    elif now >= drain_end(fleet, instance):
        departure.stop(fleet, instance, now, cut=True)
    elif instance.stage is None and now >= answer_deadline(fleet, instance):
        # It does not know directives, or stands still. TERM it knows; what that may have cut is told.
        departure.stop(fleet, instance, now, f"{instance.cause}; it did not answer the drain")


def reclaimable(fleet: Fleet, pool: Pool, now: float) -> list[Instance]:
    """Who leaves for want of work alone and could be taken back, the last one to leave first."""
    if pool.removed or pool.config.health is not HealthCheck.HEARTBEAT:
        return []
    found = [
        instance
        for instance in pool.instances.values()
        if instance.state is State.DRAINING and instance.stop_purpose is Purpose.SCALE_DOWN
        if instance.directive_kind is DirectiveKind.DRAIN and instance.stage in (None, Stage.ACCEPTED)
        if not instance.again and not instance.resume_tried and not instance.missed
        if planner.fits(pool, instance) and now < drain_end(fleet, instance)
    ]
    return sorted(found, key=lambda instance: (-instance.leaving_at, instance.port))


def take_back(fleet: Fleet, instance: Instance, now: float, *, reason: str, decision: str = "") -> None:
    """Ask a draining instance to take work again. It counts from now on, and is ready when it has accepted."""
    assert instance.state is State.DRAINING, f"broken invariant: {instance.id} is {instance.state}, not draining"
    directives.issue(fleet, instance, DirectiveKind.RESUME, now)
    fleet.tell(EventType.RESUME, reason, instance, decision=decision)
    set_alarm(fleet, instance)


def _taken_back(fleet: Fleet, instance: Instance, now: float) -> None:
    pool = fleet.pools[instance.pool]
    # No scale-up is charged, for none was made; but what has just swung back must not swing down again at once.
    pool.last_resume_at = now
    if pool.target:
        pool.recheck_at = now
    fleet.touch_pool(pool.name)
    directives.withdraw(instance)
    instance.stop_purpose, instance.stop_decision = None, ""
    instance.leaving_at = 0.0
    fleet.move(instance, State.READY, now)
    fleet.tell(EventType.READY, "takes work again", instance)
    set_alarm(fleet, instance)
    configuring.settle(fleet, instance, now, "the configuration")


def _not_taken_back(fleet: Fleet, instance: Instance, why: str, now: float) -> None:
    """The drain goes on, by a new directive: the agent may have resumed and its answer been lost."""
    fleet.tell(EventType.DRAIN, f"not taken back ({why}); {instance.cause}", instance, decision=instance.stop_decision)
    if now >= drain_end(fleet, instance):
        departure.stop(fleet, instance, now, cut=True)
    else:
        departure.go_on(fleet, instance, now)
