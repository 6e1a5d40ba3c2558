"""Repair: make the fleet what the configuration says it must at least be. Not scaling; spends no cooldown.

Level-triggered: each pass compares what is with what must be and needs no memory of what happened. Core
agents exist; the unhealthy are replaced; every pool has its minimum; what no longer fits the configuration
drains; what a person asked to restart is restarted (`core.rolling`).
"""

from __future__ import annotations

import heapq

from agentd.core import arrival, capacity, departure, drain, planner, rolling
from agentd.core.capacity import NOTHING_PROMISED
from agentd.core.health import missed_beats, set_alarm, start_deadline, wake_at
from agentd.core.lifecycle import LEAVING
from agentd.core.messages import EventType
from agentd.core.model import HealthCheck, State
from agentd.core.state import Fleet, Instance, Pool, Purpose, hears


def pass_alarms(fleet: Fleet, now: float) -> bool:
    """Look at every instance whose alarm has rung; whether any of them calls for repair.

    Where agentd may not act, silence is counted and no more.
    """
    news = False
    for ident in fleet.alarms.pop_due(now, wake_at(fleet)):
        instance = fleet.instances[ident]
        instance.wake_at = 0.0
        config = fleet.pools[instance.pool].config
        match instance.state:
            case State.FAILED:
                news = True
                continue  # `reconcile` tries again as soon as it may
            case State.STARTING if now >= start_deadline(fleet, instance):
                if not fleet.acts:
                    continue
                news = True
                arrival.not_ready_in_time(fleet, instance, now)
            case State.READY if hears(config):
                news |= _listen(fleet, instance, now)
            case State.DRAINING:
                drain.look(fleet, instance, now)
        if ident in fleet.instances:
            set_alarm(fleet, instance)
    return news


def reconcile_all(fleet: Fleet, now: float) -> None:
    for pool in list(fleet.pools.values()):
        reconcile(fleet, pool, now)


def reconcile(fleet: Fleet, pool: Pool, now: float) -> None:
    """Start, replace and drain what repair calls for in `pool`."""
    if not fleet.acts:
        return
    for instance in list(pool.instances.values()):
        if instance.operator_hold:
            if pool.removed or not planner.fits(pool, instance):
                departure.gone(fleet, instance, now)
        elif instance.state is State.HELD:
            _release(fleet, pool, instance, now)
        elif instance.state not in LEAVING and (pool.removed or not planner.fits(pool, instance)):
            why = "pool is no longer configured" if pool.removed else "port is no longer in the pool's range"
            departure.begin(fleet, instance, Purpose.CONFIGURATION, now, reason=why)
        elif instance.state is State.FAILED and instance.retry_at and now >= instance.retry_at:
            departure.start_again(fleet, instance, now)
    if pool.removed:
        rolling.abandon(fleet, pool)
        return
    used = fleet.used_ports()
    for agent in pool.config.core:
        if agent.port not in used:
            arrival.start_new(fleet, pool, Purpose.CORE, now, port=agent.port)
    if now >= fleet.recovering_until:
        for instance in list(pool.instances.values()):
            silent = instance.state is State.READY and instance.missed >= fleet.config.unhealthy_threshold
            if silent and not instance.replaced_by:
                _replace(fleet, pool, instance, now)
    _fill_to_minimum(fleet, pool, now)
    rolling.go_on(fleet, pool, now)


def launch_waiting(fleet: Fleet, now: float) -> None:
    """Hand pending instances to the driver, as many as may be on their way at once; core agents first.

    Those that wait longest are next; of those that came together the ones of the pool with the highest priority.
    """
    if not fleet.waiting or not fleet.acts:
        return
    waiting = [fleet.instances[ident] for ident in fleet.waiting]

    def turn(instance: Instance) -> tuple[float, int, str, int]:
        return instance.since, -fleet.pools[instance.pool].config.priority, instance.pool, instance.port

    core = sorted((instance for instance in waiting if instance.is_core), key=turn)
    room = max(0, fleet.config.starting_max - len(fleet.coming) - len(core))
    elastic = heapq.nsmallest(room, (instance for instance in waiting if not instance.is_core), key=turn)
    for instance in (*core, *elastic):
        fleet.launch(instance, instance.decision, now)


def deadline(fleet: Fleet) -> float | None:
    """When a pool needs a pass that no instance's alarm announces: what has come since the last tick is due."""
    since = fleet.ticked_at
    times = [pool.backoff_until for pool in fleet.pools.values() if pool.backoff_until > since]
    if fleet.recovering_until > since:
        times.append(fleet.recovering_until)
    return min(times) if times else None


def lapsed(fleet: Fleet, now: float) -> bool:
    """Whether a backoff or the recovery has ended since the last tick."""
    at = deadline(fleet)
    return at is not None and at <= now


def _listen(fleet: Fleet, instance: Instance, now: float) -> bool:
    """Count the heartbeats that `instance` has missed; whether there are more than before."""
    missed = missed_beats(fleet, instance, now)
    if missed <= instance.missed:
        return False
    if instance.missed == 0:
        silence_s = now - instance.heard_at
        beats = fleet.pools[instance.pool].config.health is HealthCheck.HEARTBEAT
        missing = "heartbeat" if beats else "good answer to its health check"
        fleet.tell(EventType.LATE, f"no {missing} for {silence_s:.1f} s", instance)
    instance.missed = missed
    fleet.touch(instance)
    return True


def _replace(fleet: Fleet, pool: Pool, instance: Instance, now: float) -> None:
    """An unhealthy instance: a core agent in place; an elastic one by a new one that starts first."""
    reason = f"Missed heartbeats: {instance.missed} >= {fleet.config.unhealthy_threshold}"
    if instance.is_core:
        fleet.tell(EventType.REPLACE, f"{reason}; restarting in place", instance)
        departure.begin(fleet, instance, Purpose.REPLACE, now, reason=reason, again=True)
        return
    if now < pool.backoff_until:
        return
    roomy = all(more > 0 for more, _ in capacity.room(fleet, pool, NOTHING_PROMISED, now, memory_only=True))
    purpose = instance.purpose if instance.purpose is Purpose.STAND_IN else Purpose.REPLACE
    successor = arrival.start_new(fleet, pool, purpose, now) if roomy else None
    if successor is None:
        why = "no free port" if roomy else "no memory"
        fleet.tell(EventType.REPLACE, f"{reason}; {why} for both, stopping it first", instance)
        departure.begin(fleet, instance, Purpose.REPLACE, now, reason=reason, again=True)
        return
    successor.replaces = instance.id
    instance.replaced_by = successor.id
    fleet.touch(instance)
    fleet.tell(EventType.REPLACE, f"{reason}; {successor.id} takes over", instance)


def _fill_to_minimum(fleet: Fleet, pool: Pool, now: float) -> None:
    missing = pool.min - len(pool.committed())
    for instance in drain.reclaimable(fleet, pool, now)[: max(0, missing)]:
        drain.take_back(fleet, instance, now, reason=f"its minimum is {pool.min}")
        missing -= 1
    if missing <= 0 or now < pool.backoff_until:
        return
    for more, _ in capacity.room(fleet, pool, NOTHING_PROMISED, now, memory_only=True):
        missing = min(missing, more)
    for _ in range(missing):
        if arrival.start_new(fleet, pool, Purpose.MINIMUM, now) is None:
            return


def _release(fleet: Fleet, pool: Pool, instance: Instance, now: float) -> None:
    """A held instance whose pool is configured again takes part again."""
    if pool.removed:
        return
    instance.started_at = instance.heard_at = now
    fleet.move(instance, State.STARTING, now)
    if pool.config.health is HealthCheck.NONE:
        arrival.ready(fleet, instance, now)
    else:
        set_alarm(fleet, instance)
