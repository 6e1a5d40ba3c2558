"""The fleet as people see it: views made from the state, on demand."""

from __future__ import annotations

from collections.abc import Mapping

from agentd.core import (
    advisor,
    balancer,
    capacity,
    conditions,
    costs,
    forecasting,
    guards_time,
    planner,
    ruling,
    sharing,
    signals,
    starts,
)
from agentd.core.balancer import Endpoint
from agentd.core.metrics import totals
from agentd.core.model import Decision, PoolName, RollingState, State, Target
from agentd.core.rules import DIRECTIONS, CollectorConfig, Pause, ThresholdTrigger
from agentd.core.state import Fleet, Instance, Pool, Purpose
from agentd.core.views import FleetView, InstanceView, OfferView, PauseView, PoolView, ReadingView, RollingView

# In these states an instance is expected to beat.
_BEATING = (State.READY, State.DRAINING)


def fleet_view(fleet: Fleet, now: float) -> FleetView:
    """Everything, at `now`."""
    shown = [pool for pool in fleet.pools.values() if _shown(pool)]
    decisions = sharing.decide(fleet, shown, now)
    pools = tuple(_pool_view(fleet, pool, decisions[pool.name], now) for pool in shown)
    instances = tuple(
        instance_view(fleet, fleet.instances[ident], now) for ident in sorted(fleet.instances, key=_order)
    )
    return FleetView(
        enabled=fleet.config.enabled,
        autoscaling=fleet.mode,
        pools=pools,
        instances=instances,
        host=fleet.host,
        recovering_s=max(0.0, fleet.recovering_until - now),
        next_check_s=None if fleet.next_check is None else max(0.0, fleet.next_check - now),
        scaling_events=fleet.scaling_events,
        unhealthy=sum(1 for i in fleet.instances.values() if i.state is State.READY and i.missed > 0),
        epoch=fleet.epoch,
        pauses=_pauses(fleet.pauses, now, everywhere=True),
        cost=costs.of_fleet(fleet, now),
        advice=advisor.advise(fleet, now),
    )


def _pool_view(fleet: Fleet, pool: Pool, decision: Decision, now: float) -> PoolView:
    """One pool, with what an evaluation now would do: `decision`."""
    config = pool.config
    sums = totals(fleet, pool, now)
    room = capacity.headroom(fleet, pool, now)
    carry = sums.count + room.instances if room.instances is not None else pool.max
    target = pool.target
    rule = config.threshold or ThresholdTrigger()
    return PoolView(
        name=pool.name,
        count=sums.count,
        ready=sums.ready,
        starting=sums.starting,
        draining=sums.draining,
        unhealthy=sums.unhealthy,
        failed=sums.failed,
        min=pool.min,
        max=pool.max,
        capacity=min(planner.count_max(fleet, pool, now), carry),
        core=len(config.core),
        load=sums.load,
        queue_length=sums.queue_length,
        in_flight=sums.in_flight,
        concurrency=config.concurrency,
        policy=config.policy,
        scale_up_threshold=rule.scale_up_threshold,
        scale_down_threshold=rule.scale_down_threshold,
        target=target,
        target_expires_in_s=_expires_in_s(fleet, target, now),
        headroom=room,
        footprint_bytes=pool.footprint_bytes,
        footprint_learned=pool.footprint_learned,
        next=decision,
        up_cooldown_s=max(0.0, guards_time.cooldown_until(pool, up=True, trigger=decision.trigger) - now),
        down_cooldown_s=max(0.0, guards_time.cooldown_until(pool, up=False, trigger=decision.trigger) - now),
        bundled_agent=not config.command,
        cost_per_hour=costs.per_hour(pool),
        start_failure=pool.start_failure,
        rolling=rolling_view(pool),
        start_times=starts.learned(pool),
        effect=pool.history.last,
        measuring=pool.history.trial.decision if pool.history.trial else "",
        readings=tuple(_reading(pool, collector, now) for collector in config.collectors),
        offers=tuple(
            OfferView(offer.source, offer.count, offer.owner, offer.reason, max(0.0, offer.expires - now))
            for _, offer in sorted(pool.offers.items())
        ),
        law=pool.law,
        pauses=(*_pauses(pool.pauses, now), *_pauses(fleet.pauses, now, everywhere=True)),
        conditions=conditions.of(fleet, pool, decision),
        cost=costs.of_pool(fleet, pool, now),
        completed=sums.completed,
        forecast=forecasting.summary(fleet, pool, now),
        rules=ruling.rules(config),
        guards=ruling.guards(config),
        held_s=None if pool.held_from is None else max(0.0, now - pool.held_from),
    )


def _pauses(pauses: Mapping[str, Pause], now: float, *, everywhere: bool = False) -> tuple[PauseView, ...]:
    return tuple(
        PauseView(
            direction=direction,
            owner=pause.owner,
            reason=pause.reason,
            since_wall=pause.since_wall,
            expires_in_s=None if pause.expires is None else max(0.0, pause.expires - now),
            everywhere=everywhere,
        )
        for direction in DIRECTIONS
        if (pause := pauses.get(direction))
    )


def _reading(pool: Pool, collector: CollectorConfig, now: float) -> ReadingView:
    found = pool.readings.get(collector.name)
    known = found is not None and found.value is not None
    return ReadingView(
        name=collector.name,
        kind=collector.kind,
        value=found.value if found else None,
        age_s=max(0.0, now - found.at) if found and known else None,
        every_s=collector.every_s,
        stale=signals.reading(pool, collector.name, now)[0] is None,
        trouble=found.trouble if found else "",
    )


def instance_view(fleet: Fleet, instance: Instance, now: float) -> InstanceView:
    """One instance. Its age counts from its present process's start."""
    health = fleet.pools[instance.pool].config.health
    return InstanceView(
        id=instance.id,
        pool=instance.pool,
        port=instance.port,
        core_name=instance.core_name,
        incarnation=instance.incarnation,
        pid=instance.pid,
        state=instance.state,
        cause=instance.cause,
        age_s=max(0.0, now - instance.born_at),
        state_age_s=max(0.0, now - instance.since),
        load=instance.load,
        queue_length=instance.queue_length,
        in_flight=instance.in_flight,
        tasks_completed=instance.tasks_completed,
        response_time_p50_s=instance.response_time_p50_s,
        response_time_p95_s=instance.response_time_p95_s,
        last_beat_age_s=max(0.0, now - instance.heard_at) if instance.state in _BEATING else None,
        missed_beats=instance.missed,
        restarts=instance.restarts,
        oom_kills=instance.oom_kills,
        memory_bytes=instance.usage.memory_bytes if instance.usage else None,
        cpu_cores=instance.usage.cpu_cores if instance.usage else None,
        labels=instance.labels,
        health=health,
        concurrency=instance.slots or fleet.pools[instance.pool].config.concurrency,
        loop_blocked_s=now - instance.still_at if instance.still_at else None,
    )


def rolling_view(pool: Pool) -> RollingView | None:
    """The restart of `pool`, if one is under way or has stopped."""
    rolling = pool.rolling
    if rolling is None:
        return None
    stand_in = next((i.id for i in pool.instances.values() if i.purpose is Purpose.STAND_IN), "")
    return RollingView(
        state=rolling.state,
        owner=rolling.owner,
        total=rolling.total,
        done=rolling.done,
        max_unavailable=rolling.max_unavailable,
        away=tuple(rolling.away),
        stand_in=stand_in,
        text=rolling_text(pool),
        no_stand_in=rolling.no_stand_in,
    )


def rolling_text(pool: Pool) -> str:
    """How far the restart of `pool` has come, and whom or what it waits for."""
    rolling = pool.rolling
    assert rolling is not None, f"broken invariant: {pool.name} is not being restarted"
    if rolling.state is RollingState.STOPPED:
        return f"restart stopped at {rolling.done} of {rolling.total}: {rolling.why}"
    begun = rolling.total - len(rolling.left)
    text = f"restarting {begun} of {rolling.total}"
    if rolling.state is RollingState.CANCELLED:
        text = f"restart {rolling.why} at {begun} of {rolling.total}"
    waits = [i for i in pool.instances.values() if i.id in rolling.away]
    if not waits:  # whoever stands in, or is missing for another reason
        waits = [i for i in pool.instances.values() if i.state is not State.READY or i.missed]
    return f"{text}, waiting for {', '.join(f'{i.id} to {_next_step(i)}' for i in waits)}" if waits else text


def _next_step(instance: Instance) -> str:
    if instance.state is State.DRAINING:
        return "finish its work"
    return "stop" if instance.state is State.STOPPING else "be ready"


def endpoints(fleet: Fleet) -> dict[PoolName, tuple[Endpoint, ...]]:
    """Where every pool takes work; a pool that takes none is there, too."""
    return {pool.name: endpoints_of(fleet, pool) for pool in fleet.pools.values() if _shown(pool)}


def endpoints_of(fleet: Fleet, pool: Pool) -> tuple[Endpoint, ...]:
    """Where `pool` takes work, by port and with weights, and who finishes what he has.

    One that is silent for so long that it is to be replaced is gone already.
    """
    takers = [
        Endpoint(
            id=instance.id,
            pool=instance.pool,
            port=instance.port,
            incarnation=instance.incarnation,
            state=instance.state,
            late=instance.missed > 0 or bool(instance.still_at),
            load=instance.load,
            queue_length=instance.queue_length,
            in_flight=instance.in_flight,
            concurrency=instance.slots or pool.config.concurrency,
            response_time_p50_s=instance.response_time_p50_s,
            response_time_p95_s=instance.response_time_p95_s,
        )
        for instance in sorted(pool.instances.values(), key=lambda each: each.port)
        if instance.state is State.DRAINING or (instance.state is State.READY and not _given_up(fleet, instance))
    ]
    return balancer.weigh(takers)


def _given_up(fleet: Fleet, instance: Instance) -> bool:
    return instance.missed >= fleet.config.unhealthy_threshold or instance.replaced_by is not None


def _expires_in_s(fleet: Fleet, target: Target | None, now: float) -> float | None:
    """How long a target still holds; while scaling is off it does not expire."""
    if target is None or target.expires is None or not fleet.mode.enabled:
        return None
    return max(0.0, target.expires - now)


def _shown(pool: Pool) -> bool:
    return not pool.removed or bool(pool.instances)


def _order(ident: str) -> tuple[str, int]:
    pool, _, port = ident.rpartition("-")
    return pool, int(port)
