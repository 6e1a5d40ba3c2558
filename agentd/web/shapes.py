"""Views as JSON objects: the one place that knows the shapes of the HTTP API.

Owns names and units of every field; it never asks the runtime for anything. The `/autoscaler` shapes are the
original ones, `specialization` and `agent_id` among them; everything else uses the words of the gRPC API.
Durations are seconds, moments are seconds since the epoch (`wall`), sizes are bytes, unknown is null.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import to_builtins
from msgspec.structs import asdict

from agentd.core.messages import StoredRecord
from agentd.core.model import Decision, FleetConfig, HostSample, State
from agentd.core.views import CostView, FleetView, ForecastSummary, InstanceView, PoolPlan, PoolView, RuleView
from agentd.web.fleet import About

JsonObject = dict[str, object]


def stats(view: FleetView, config: FleetConfig) -> JsonObject:
    """GET /autoscaler/stats. A pool without samples shows a load of 0.0, as it always did here."""
    return {
        "policy": {
            "scale_up_threshold": config.scale_up_threshold,
            "scale_down_threshold": config.scale_down_threshold,
            "min_agents_per_type": config.min_agents_per_type,
            "max_agents_per_type": config.max_agents_per_type,
        },
        "specializations": {
            pool.name: {"count": pool.count, "avg_load": 0.0 if pool.load is None else pool.load} for pool in view.pools
        },
        "scaling_events": view.scaling_events,
        "unhealthy_agents": view.unhealthy,
    }


def scaling_event(stored: StoredRecord) -> JsonObject:
    """One entry of GET /autoscaler/events."""
    return {
        "timestamp": stored.wall,
        "type": stored.record.type.value,
        "specialization": stored.record.pool,
        "reason": stored.record.reason,
        "agent_id": stored.record.instance,
    }


def checked(decisions: Iterable[Decision], now: float) -> JsonObject:
    """POST /autoscaler/check: each decision also under the pool's original key."""
    return {"decisions": [{"specialization": each.pool, **decision(each, now)} for each in decisions]}


def event(stored: StoredRecord) -> JsonObject:
    record = stored.record
    return {
        "id": stored.id,
        "wall": stored.wall,
        "type": record.type.value,
        "pool": record.pool,
        "instance": record.instance,
        "reason": record.reason,
        "decision": record.decision,
        "actor": record.actor,
    }


def decision(made: Decision, now: float) -> JsonObject:
    return {
        "id": made.id,
        "pool": made.pool,
        "wall": made.wall,
        "direction": made.direction.value,
        "current": made.current,
        "wanted": made.wanted,
        "granted": made.granted,
        "held": made.held,
        "reasons": [{"code": reason.code, "text": reason.text} for reason in made.reasons],
        "limits": [
            {
                "code": limit.code,
                "text": limit.text,
                "lifts_in_s": None if limit.until is None else max(0.0, limit.until - now),
                "allows": limit.allows,
                "until_wall": made.until_wall(limit),
            }
            for limit in made.limits
        ],
        "counterfactual": made.counterfactual,
        "victims": list(made.victims),
        "effect": None if made.effect is None else to_builtins(made.effect),
        "trigger": made.trigger,
        "proposals": [to_builtins(proposal) for proposal in made.proposals],
        "binding": made.binding,
        "chain": [{"code": code, "count": count} for code, count in made.chain],
    }


def plans(made: Iterable[PoolPlan], now: float) -> JsonObject:
    """GET /autoscaler/plan."""
    return {
        "plans": [
            {
                "specialization": each.decision.pool,
                "decision": decision(each.decision, now),
                "starts": list(each.starts),
                "takes_back": list(each.takes_back),
                "stops": list(each.stops),
            }
            for each in made
        ]
    }


def explanation(pool: PoolView, history: list[Decision], now: float) -> JsonObject:
    """GET /explain/{pool}. `latest` is the first of `history`: the last decision that was kept."""
    past = [decision(made, now) for made in history]
    return {
        "pool": pool.name,
        "next": decision(pool.next, now),
        "latest": past[0] if past else None,
        "history": past,
    }


def targets(view: FleetView, pool: str) -> list[JsonObject]:
    """GET /discovery: one group for each instance of `pool` (empty: of all) that works or finishes its work.

    A silent one stays among them until it is replaced: that it cannot be scraped is what one wants to see.
    """
    return [
        {
            "targets": [f"127.0.0.1:{each.port}"],
            "labels": {
                "__meta_agentd_pool": each.pool,
                "__meta_agentd_instance": each.id,
                "__meta_agentd_incarnation": each.incarnation,
                "__meta_agentd_core_name": each.core_name or "",
                "__meta_agentd_state": each.state.value,
            },
        }
        for each in view.instances
        if pool in ("", each.pool) and each.state in (State.READY, State.DRAINING)
    ]


def status(
    view: FleetView, config: FleetConfig, about: About, degraded: tuple[str, ...], *, now: float, wall: float
) -> JsonObject:
    """GET /status: the whole fleet and the facts of this daemon."""
    return {
        "version": about.version,
        "controller_epoch": view.epoch,
        "driver": about.driver,
        "wall": wall,
        "uptime_s": max(0.0, now - about.started),
        "enabled": view.enabled,
        "autoscaling": {
            "enabled": view.autoscaling.enabled,
            "owner": view.autoscaling.owner,
            "reason": view.autoscaling.reason,
            "since_wall": view.autoscaling.since_wall,
            "pauses": [asdict(pause) for pause in view.pauses],
        },
        "pools": [_pool(pool, now) for pool in view.pools],
        "instances": [_instance(instance) for instance in view.instances],
        "host": None if view.host is None else _host(view.host, config),
        "recovering_s": view.recovering_s,
        "next_check_s": view.next_check_s,
        "scaling_events": view.scaling_events,
        "unhealthy_agents": view.unhealthy,
        "degraded": list(degraded),
        "state_dir": str(about.state_dir),
        "config_file": "" if about.config_file is None else str(about.config_file),
        "http_address": about.http_address,
        "agents_address": about.agents_address,
        "cost": None if view.cost is None else _cost(view.cost),
        "advice": [asdict(each) for each in view.advice],
    }


def _pool(pool: PoolView, now: float) -> JsonObject:
    target: JsonObject | None = None
    if pool.target is not None:
        target = {
            "count": pool.target.count,
            "owner": pool.target.owner,
            "reason": pool.target.reason,
            "expires_in_s": pool.target_expires_in_s,
        }
    return {
        "name": pool.name,
        "count": pool.count,
        "ready": pool.ready,
        "starting": pool.starting,
        "draining": pool.draining,
        "unhealthy": pool.unhealthy,
        "failed": pool.failed,
        "min": pool.min,
        "max": pool.max,
        "capacity": pool.capacity,
        "core": pool.core,
        "load": pool.load,
        "queue_length": pool.queue_length,
        "in_flight": pool.in_flight,
        "concurrency": pool.concurrency,
        "policy": pool.policy,
        "scale_up_threshold": pool.scale_up_threshold,
        "scale_down_threshold": pool.scale_down_threshold,
        "target": target,
        "headroom": asdict(pool.headroom),
        "footprint_bytes": pool.footprint_bytes,
        "footprint_learned": pool.footprint_learned,
        "next": decision(pool.next, now),
        "up_cooldown_s": pool.up_cooldown_s,
        "down_cooldown_s": pool.down_cooldown_s,
        "bundled_agent": pool.bundled_agent,
        "cost_per_hour": pool.cost_per_hour,
        "start_failure": pool.start_failure,
        "rolling": None if pool.rolling is None else asdict(pool.rolling),
        "start_times": asdict(pool.start_times),
        "effect": None if pool.effect is None else to_builtins(pool.effect),
        "measuring": pool.measuring,
        "pauses": [asdict(pause) for pause in pool.pauses],
        "useful_max": None if pool.law is None else pool.law.useful_max,
        "scaling_law": None if pool.law is None else asdict(pool.law) | {"text": pool.law.text},
        "readings": [asdict(reading) for reading in pool.readings],
        "offers": [asdict(offer) for offer in pool.offers],
        "conditions": [asdict(condition) for condition in pool.conditions],
        "cost": None if pool.cost is None else _cost(pool.cost),
        "rules": [_rule(rule) for rule in pool.rules],
        "guards": [{"name": name, "value": value} for name, value in pool.guards],
        "held_s": pool.held_s,
        "forecast": None if pool.forecast is None else _forecast(pool.forecast),
    }


def _forecast(summary: ForecastSummary) -> JsonObject:
    """Tasks at work and waiting, the most of five minutes that lie so far ahead: quantiles at 10, 50 and 90 %."""
    shape: JsonObject = to_builtins(summary)
    return shape


def _cost(cost: CostView) -> JsonObject:
    """Hours, days and months are those of the calendar in UTC; amounts are in `currency`."""
    return {
        "currency": cost.currency,
        "per_hour": cost.per_hour,
        "one_more_per_hour": cost.one_more_per_hour,
        "hour": asdict(cost.spent_hour),
        "day": asdict(cost.spent_day),
        "month": asdict(cost.spent_month),
        "projected_month": cost.projected_month,
        "budgets": [asdict(each) for each in cost.budgets],
        "scalings": [asdict(each) for each in cost.scalings],
    }


def _rule(rule: RuleView) -> JsonObject:
    return {
        "type": rule.kind,
        "parameters": [{"name": name, "value": value} for name, value in rule.parameters],
        "up_cooldown_s": rule.up_cooldown_s,
        "down_cooldown_s": rule.down_cooldown_s,
    }


def _instance(instance: InstanceView) -> JsonObject:
    return {
        "id": instance.id,
        "pool": instance.pool,
        "port": instance.port,
        "core_name": instance.core_name or "",
        "incarnation": instance.incarnation,
        "pid": instance.pid,
        "state": instance.state.value,
        "cause": instance.cause,
        "age_s": instance.age_s,
        "state_age_s": instance.state_age_s,
        "load": instance.load,
        "queue_length": instance.queue_length,
        "in_flight": instance.in_flight,
        "tasks_completed": instance.tasks_completed,
        "response_time_p50_s": instance.response_time_p50_s,
        "response_time_p95_s": instance.response_time_p95_s,
        "last_beat_age_s": instance.last_beat_age_s,
        "missed_beats": instance.missed_beats,
        "restarts": instance.restarts,
        "oom_kills": instance.oom_kills,
        "memory_bytes": instance.memory_bytes,
        "cpu_cores": instance.cpu_cores,
        "labels": dict(instance.labels),
        "health": instance.health.value,
    }


def _host(sample: HostSample, config: FleetConfig) -> JsonObject:
    return {
        "cores": sample.cores,
        "cpu_used_cores": sample.cpu_used_cores,
        "memory_total_bytes": sample.memory_total_bytes,
        "memory_available_bytes": sample.memory_available_bytes,
        "memory_reserve_bytes": config.reserve.memory_reserve_bytes(sample.memory_total_bytes),
        "disk_free_bytes": sample.disk_free_bytes,
        "disk_reserve_bytes": config.reserve.disk_bytes,
        "memory_pressure_percent": sample.memory_pressure_percent,
        "cpu_pressure_percent": sample.cpu_pressure_percent,
        "io_pressure_percent": sample.io_pressure_percent,
        "disk_read_bytes_per_s": sample.disk_read_bytes_per_s,
        "disk_write_bytes_per_s": sample.disk_write_bytes_per_s,
        "load_average": sample.load_average,
        "watched": [asdict(each) for each in sample.watched],
    }
