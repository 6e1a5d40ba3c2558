"""How an instance leaves: asked to drain, stopped by the driver, gone, and perhaps started again.

A ready agent that sends heartbeats is told to drain first, and has the pool's drain timeout for that (`core.drain`).
Everything else goes to the driver at once, whose stop is TERM, a grace, KILL. The grace is what is left of the drain
timeout; where that has passed, the pool's stop grace.
"""

from __future__ import annotations

from agentd.core import directives, planner, rate
from agentd.core.health import drain_end, set_alarm
from agentd.core.lifecycle import LEAVING
from agentd.core.messages import EventType, Shutdown, Stage, Stop
from agentd.core.model import DirectiveKind, HealthCheck, State
from agentd.core.state import NO_INCARNATION, SHRINKING, Fleet, Instance, Purpose

# A program that has finished still wants a moment to exit in, unless its pool's whole drain timeout is shorter.
EXIT_GRACE_S = 5.0


def begin(
    fleet: Fleet,
    instance: Instance,
    purpose: Purpose,
    now: float,
    *,
    reason: str,
    decision: str = "",
    again: bool = False,
) -> None:
    """Let `instance` go; with `again`, start it in place once it is gone."""
    if again and instance.state is State.PENDING and not instance.launched:
        return  # it has not begun yet
    instance.again = again
    if not again:
        forget_replacement(fleet, instance)
    if instance.state in LEAVING:
        fleet.touch(instance)
        if instance.is_resuming:
            instance.stop_purpose, instance.stop_decision = purpose, decision
            go_on(fleet, instance, now)
        return
    instance.stop_purpose = purpose
    instance.stop_decision = decision
    instance.leaving_at = now
    if instance.state is State.PENDING and not instance.launched:
        gone(fleet, instance, now)  # nobody was ever asked to start it
    elif again and (instance.state is State.FAILED or instance.operator_hold):
        start_again(fleet, instance, now)  # nothing runs
    elif instance.operator_hold:
        gone(fleet, instance, now)
    elif _hears_us(fleet, instance):
        directives.issue(fleet, instance, DirectiveKind.DRAIN, now)
        fleet.move(instance, State.DRAINING, now, reason)
        fleet.tell(EventType.DRAIN, reason, instance, decision=decision)
        set_alarm(fleet, instance)
    else:
        stop(fleet, instance, now, reason)


def go_on(fleet: Fleet, instance: Instance, now: float) -> None:
    """Call off that `instance` resumes: it drains, by a new directive, until the deadline it had."""
    directives.issue(fleet, instance, DirectiveKind.DRAIN, now)
    instance.resume_tried = True
    set_alarm(fleet, instance)
    _make_up(fleet, instance, now)


def stop(fleet: Fleet, instance: Instance, now: float, reason: str = "", *, cut: bool = False) -> None:
    """Tell the driver to stop `instance`; with `cut`, although it has not finished."""
    if instance.is_resuming:
        _make_up(fleet, instance, now)
    instance.cut = cut
    fleet.move(instance, State.STOPPING, now, reason or instance.cause)
    stop_again(fleet, instance, now)


def stop_again(fleet: Fleet, instance: Instance, now: float) -> None:
    """Tell the driver to stop an instance that is `stopping`, perhaps once more after agentd itself was restarted."""
    config = fleet.pools[instance.pool].config
    left_s = max(drain_end(fleet, instance) - now, min(EXIT_GRACE_S, config.drain_timeout_s))
    instance.grace_s = config.stop_grace_s if instance.cut else left_s
    fleet.touch(instance)
    fleet.actions.append(Stop(instance.id, instance.grace_s, instance.stop_decision))


def gone(fleet: Fleet, instance: Instance, now: float, *, forced: bool = False) -> None:
    """Nothing of `instance` is left on the host."""
    kind = EventType.STOP_FORCED if forced else EventType.STOP
    pool = fleet.pools[instance.pool]
    text = f"killed after {round(instance.grace_s, 1):g} s of grace" if forced else (instance.cause or "stopped")
    if instance.cut:
        text += f"; deadline of {pool.config.drain_timeout_s:g} s passed; {_cut_off(instance)}"
    elif _unfinished(instance):
        why = f"; {instance.cause}" if forced and instance.cause else ""
        text += f"{why}; {_cut_off(instance)}"
    if instance.launched:
        fleet.tell(kind, text, instance, decision=instance.stop_decision)
    if instance.stop_purpose in SHRINKING:
        # The cooldown counts from the decision, and only a scale-down that came about is charged.
        if not (pool.target and pool.down_in_steps):
            pool.last_down_at = max(pool.last_down_at or instance.leaving_at, instance.leaving_at)
        rate.note(pool, instance.leaving_at, up=False)
        if pool.target:
            pool.recheck_at = now
        fleet.touch_pool(pool.name)
    if instance.again and not fleet.shutting_down and not pool.removed:
        start_again(fleet, instance, now)
        return
    forget_replacement(fleet, instance)
    if instance.state is State.PENDING or instance.state in LEAVING or instance.state is State.HELD:
        fleet.move(instance, State.STOPPED, now)
    else:
        fleet.remove(instance, now)
        fleet.touch(instance)


def start_again(fleet: Fleet, instance: Instance, now: float) -> None:
    """Start `instance` in place: same id and port, a new process."""
    resumed = instance.operator_hold
    instance.again = instance.operator_hold = False
    instance.restarts += bool(instance.incarnation)
    # The old process has no say any more: what it still reports, or is reported of it, is stale.
    instance.incarnation = NO_INCARNATION
    instance.pid = 0
    instance.stop_purpose = None
    instance.cut = False
    directives.withdraw(instance)
    instance.retry_at = 0.0
    instance.launched = False
    if instance.ever_ready and instance.purpose not in (Purpose.CORE, Purpose.STAND_IN):
        instance.purpose = Purpose.RESTART
    instance.forget_reports()
    fleet.move(instance, State.PENDING, now)
    if resumed:
        relieve_stand_in(fleet, instance)


def relieve_stand_in(fleet: Fleet, instance: Instance) -> None:
    """`instance`, which an operator held, comes back: where it is one too many now, it replaces another one."""
    pool = fleet.pools[instance.pool]
    if not fleet.acts or len(pool.committed()) <= pool.max:
        return
    stand_in = next((other for other in planner.victims(pool) if other is not instance), None)
    if stand_in is not None:
        instance.replaces, stand_in.replaced_by = stand_in.id, instance.id
        fleet.touch(instance)
        fleet.touch(stand_in)


def shut_down(fleet: Fleet, event: Shutdown, now: float) -> None:
    """agentd is ending; unless the agents are to run on, let all of them go."""
    fleet.shutting_down = True
    fleet.touch_self()
    if event.keep_agents or not fleet.config.enabled:
        return
    for ident in sorted(fleet.instances):
        instance = fleet.instances.get(ident)
        if instance is not None and instance.state is not State.HELD:
            begin(fleet, instance, Purpose.SHUTDOWN, now, reason=f"shutdown by {event.owner}")
            if event.hurry and instance.state is State.DRAINING:
                stop(fleet, instance, now)


def _hears_us(fleet: Fleet, instance: Instance) -> bool:
    beats = fleet.pools[instance.pool].config.health is HealthCheck.HEARTBEAT
    return instance.state is State.READY and beats and instance.missed == 0 and instance.seq > 0


def _make_up(fleet: Fleet, instance: Instance, now: float) -> None:
    """`instance` was counted on, and does not come back: look at once whether another one has to."""
    fleet.pools[instance.pool].recheck_at = now
    fleet.touch_pool(instance.pool)


def _unfinished(instance: Instance) -> bool:
    """Whether, by the agent's last word, it had work when it was stopped; who has said DONE has none."""
    done = instance.directive_kind is DirectiveKind.DRAIN and instance.stage is Stage.DONE
    return instance.state is State.STOPPING and bool(instance.work) and not done


def _cut_off(instance: Instance) -> str:
    """What the end has cost, by the agent's last word."""
    if instance.work is None:
        return "what it was doing was cut"
    begun, queued = instance.in_flight or 0, instance.queue_length or 0
    return f"{begun} task{'s' * (begun != 1)} in flight and {queued} queued were cut"


def forget_replacement(fleet: Fleet, instance: Instance) -> None:
    """Undo the links of a replacement that `instance` was part of."""
    for other in (instance.replaces, instance.replaced_by):
        partner = fleet.instances.get(other) if other else None
        if partner is None:
            continue
        if partner.replaced_by == instance.id:
            partner.replaced_by = None
        if partner.replaces == instance.id:
            partner.replaces = None
        fleet.touch(partner)
