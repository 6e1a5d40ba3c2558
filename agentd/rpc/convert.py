"""Between protobuf and the core: the only module that knows both.

What comes in is checked here, field by field, so that the core only ever sees values in range. What goes out
is made from the core's frozen views.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from agentd.about import About
from agentd.core.balancer import Endpoint
from agentd.core.directory import Change
from agentd.core.messages import Acknowledgement, Beat, BeatReply, Refusal, Stage, StoredRecord
from agentd.core.model import (
    Directive,
    DirectiveKind,
    FleetConfig,
    HostSample,
    Incarnation,
    InstanceId,
    State,
    parse_instance_id,
)
from agentd.core.views import FleetView, InstanceView, PoolView, RollingView
from agentd.rpc import convert_costs as costs
from agentd.rpc import convert_decisions as decisions
from agentd.rpc import convert_effects as effects
from agentd.rpc import errors
from agentd.rpc.convert_pool import conditions, pauses, readings, scaling_law, start_times
from agentd.v1 import agent_pb2, common_pb2, control_pb2, discovery_pb2

BEATS_MAX = 1_000
LABELS_MAX = 16
LABEL_BYTES_MAX = 128
ID_MAX = 64
INCARNATION_MAX = 64
ACKS_MAX = 32
ACK_TEXT_MAX = 200
# More than any agent has, and few enough that the sums over all agents fit everywhere.
COUNT_MAX = 10**9
COMPLETED_MAX = 10**15

_STATES = {state: common_pb2.InstanceState.Value(f"INSTANCE_STATE_{state.name}") for state in State}
_KINDS = {
    DirectiveKind.CONTINUE: agent_pb2.Directive.KIND_CONTINUE,
    DirectiveKind.DRAIN: agent_pb2.Directive.KIND_DRAIN,
    DirectiveKind.RESUME: agent_pb2.Directive.KIND_RESUME,
    DirectiveKind.CONFIGURE: agent_pb2.Directive.KIND_CONFIGURE,
    DirectiveKind.SHUT_DOWN: agent_pb2.Directive.KIND_SHUT_DOWN,
}
_STAGES = {
    agent_pb2.Acknowledgement.STAGE_ACCEPTED: Stage.ACCEPTED,
    agent_pb2.Acknowledgement.STAGE_DONE: Stage.DONE,
    agent_pb2.Acknowledgement.STAGE_FAILED: Stage.FAILED,
}


_Times = Literal["response_time_p50_s", "response_time_p95_s", "loop_blocked_s"]
_Counts = Literal["queue_length", "in_flight", "tasks_completed"]


class Invalid(ValueError):
    """A message that cannot be taken. `field` says where, the text what would be right."""

    def __init__(self, field: str, text: str) -> None:
        self.field = field
        super().__init__(f"{field}: {text}")


# -- what agents say ----------------------------------------------------------------------------


def beat(message: agent_pb2.Heartbeat) -> Beat:
    """A heartbeat, checked.

    Raises:
        Invalid: a field is missing or out of range.
    """
    who = message.instance
    ident, incarnation, seq = who.id, who.incarnation, message.seq
    if not ident:
        raise Invalid("instance.id", "missing; expected <pool>-<port>, for example research-9101")
    if len(ident) > ID_MAX:
        raise Invalid("instance.id", f"{len(ident)} characters; expected <pool>-<port>, for example research-9101")
    if not 0 < len(incarnation) <= INCARNATION_MAX:
        raise Invalid("instance.incarnation", "missing or too long; send AGENTD_INCARNATION as it was given")
    if seq == 0:
        raise Invalid("seq", "must count up from 1")
    if message.HasField("endpoint"):
        _check_endpoint(message)
    # By position: this is made of every heartbeat, and names take half as long again.
    return Beat(
        InstanceId(ident),
        Incarnation(incarnation),
        seq,
        _load(message),
        _count(message, "queue_length", COUNT_MAX),
        _count(message, "in_flight", COUNT_MAX),
        _count(message, "tasks_completed", COMPLETED_MAX),
        _time(message, "response_time_p50_s"),
        _time(message, "response_time_p95_s"),
        _labels(message) if message.labels else None,
        _acks(message) if message.acks else (),
        _time(message, "loop_blocked_s"),
    )


def beats(request: agent_pb2.HeartbeatRequest | agent_pb2.SessionRequest) -> list[Beat]:
    """All heartbeats of a message, checked; one bad one refuses the message.

    Raises:
        Invalid: naming the field, with its index where there are several.
    """
    messages = request.heartbeats
    count = len(messages)
    if not 1 <= count <= BEATS_MAX:
        raise Invalid("heartbeats", f"{count} heartbeats; expected 1 to {BEATS_MAX}")
    checked: list[Beat] = []
    try:
        for number in range(count):  # to iterate over them would end with an IndexError inside, which takes its time
            taken = beat(messages[number])
            if count > 1:  # alone, its id is looked at when nobody knows it
                check_id(taken.instance)
            checked.append(taken)  # its length names the bad one
    except Invalid as error:
        raise Invalid(f"heartbeats[{len(checked)}].{error.field}", str(error).partition(": ")[2]) from None
    return checked


def check_id(text: str) -> None:
    """Tell a malformed instance id from an unknown one.

    Raises:
        Invalid: `text` is no instance id.
    """
    try:
        parse_instance_id(text)
    except ValueError as error:
        raise Invalid("instance.id", str(error)) from None


# Whether an optional number is there is asked only where it reads as zero, which an absent one does.


def _load(message: agent_pb2.Heartbeat) -> float | None:
    value = message.load
    if not value:
        return value if message.HasField("load") else None
    if not 0.0 <= value <= 1.0:
        raise Invalid("load", f"{value} is not between 0 and 1")
    return value


def _time(message: agent_pb2.Heartbeat, field: _Times) -> float | None:
    value: float = getattr(message, field)
    if not value:
        return value if message.HasField(field) else None
    if not (value >= 0.0 and math.isfinite(value)):
        raise Invalid(field, f"{value} is not a time in seconds, 0 or more")
    return value


def _count(message: agent_pb2.Heartbeat, field: _Counts, most: int) -> int | None:
    value: int = getattr(message, field)
    if not value:
        return value if message.HasField(field) else None
    if value > most:
        raise Invalid(field, f"{value} is more than {most}")
    return value


def _labels(message: agent_pb2.Heartbeat) -> dict[str, str]:
    if len(message.labels) > LABELS_MAX:
        raise Invalid("labels", f"{len(message.labels)} pairs; at most {LABELS_MAX}")
    labels = dict(message.labels)
    for key, value in labels.items():
        for what, text in ((f"the name {key[:20] + '...'!r}", key), (f"the value of {key!r}", value)):
            if len(text.encode()) > LABEL_BYTES_MAX:
                raise Invalid("labels", f"{what} is longer than {LABEL_BYTES_MAX} bytes")
    return labels


def _acks(message: agent_pb2.Heartbeat) -> tuple[Acknowledgement, ...]:
    if len(message.acks) > ACKS_MAX:
        raise Invalid("acks", f"{len(message.acks)} acknowledgements; at most {ACKS_MAX}")
    for ack in message.acks:
        if ack.stage not in _STAGES:
            raise Invalid("acks.stage", f"{ack.stage} is no stage; expected ACCEPTED (1), DONE (2) or FAILED (3)")
        if len(ack.text) > ACK_TEXT_MAX or not ack.text.isprintable():
            raise Invalid("acks.text", f"must be one printable line of at most {ACK_TEXT_MAX} characters")
    return tuple(Acknowledgement(ack.id, _STAGES[ack.stage], ack.text, ack.done_follows) for ack in message.acks)


def _check_endpoint(message: agent_pb2.Heartbeat) -> None:
    """With one node, an agent can only be where its id says it is."""
    node, port = message.endpoint.node, message.endpoint.port
    if node:
        raise Invalid("endpoint.node", f"{node!r}; this agentd knows one node only, leave it empty")
    if port and not message.instance.id.endswith(f"-{port}"):
        raise Invalid("endpoint.port", f"{port} is not the port in {message.instance.id!r}")


# -- what agents hear ---------------------------------------------------------------------------


def heartbeat_reply(reply: BeatReply | Refusal, instance: str = "") -> agent_pb2.HeartbeatReply:
    """`instance` is named in sessions, where answers come unasked too."""
    if isinstance(reply, Refusal):
        refusal = agent_pb2.Refusal(code=errors.code(reply.status), reason=reply.reason, message=reply.text)
        return agent_pb2.HeartbeatReply(refusal=refusal, instance_id=instance)
    return agent_pb2.HeartbeatReply(
        directive=directive(reply.directive), interval_s=reply.interval_s, instance_id=instance
    )


def directive(given: Directive) -> agent_pb2.Directive:
    return agent_pb2.Directive(
        kind=_KINDS[given.kind],
        id=given.id,
        deadline_s=given.deadline_s,
        successors=[
            agent_pb2.Successor(instance=it.instance, endpoint=common_pb2.Endpoint(port=it.port), weight=it.weight)
            for it in given.successors
        ],
        concurrency=given.concurrency,
        interval_s=given.interval_s,
    )


# -- what people see ----------------------------------------------------------------------------


def status(
    view: FleetView, config: FleetConfig, about: About, *, now: float, degraded: Iterable[str]
) -> control_pb2.Status:
    return control_pb2.Status(
        version=about.version,
        controller_epoch=view.epoch,
        driver=about.driver,
        uptime_s=now - about.started,
        enabled=view.enabled,
        autoscaling=autoscaling(view),
        pools=[pool(item, now) for item in view.pools],
        instances=[instance(item) for item in view.instances],
        host=host(view.host, config) if view.host else None,
        recovering_s=view.recovering_s,
        next_check_s=view.next_check_s,
        scaling_events=view.scaling_events,
        unhealthy_agents=view.unhealthy,
        degraded=list(degraded),
        state_dir=str(about.state_dir),
        config_file=str(about.config_file or ""),
        http_address=about.http_address,
        agents_address=about.agents_address,
        cost=costs.cost(view.cost) if view.cost else None,
        advice=costs.advice(view.advice),
    )


def switched(view: FleetView, pool: str) -> control_pb2.SetAutoscalingResponse:
    """Whether agentd scales, and what is paused in `pool`; empty: in any."""
    held = [each for each in view.pools if each.pauses and pool in ("", each.name)]
    return control_pb2.SetAutoscalingResponse(
        autoscaling=autoscaling(view),
        pools=[control_pb2.PoolPauses(pool=each.name, pauses=pauses(each.pauses)) for each in held],
    )


def autoscaling(view: FleetView) -> control_pb2.AutoscalingMode:
    mode = view.autoscaling
    return control_pb2.AutoscalingMode(
        enabled=mode.enabled,
        owner=mode.owner,
        reason=mode.reason,
        since_wall=mode.since_wall,
        pauses=pauses(view.pauses),
    )


def pool(view: PoolView, now: float) -> control_pb2.Pool:
    target = None
    if view.target is not None:
        target = control_pb2.Target(
            count=view.target.count,
            owner=view.target.owner,
            reason=view.target.reason,
            expires_in_s=view.target_expires_in_s,
        )
    return control_pb2.Pool(
        name=view.name,
        count=view.count,
        ready=view.ready,
        starting=view.starting,
        draining=view.draining,
        unhealthy=view.unhealthy,
        failed=view.failed,
        min=view.min,
        max=view.max,
        capacity=view.capacity,
        core=view.core,
        load=view.load,
        queue_length=view.queue_length,
        in_flight=view.in_flight,
        concurrency=view.concurrency,
        policy=view.policy,
        scale_up_threshold=view.scale_up_threshold,
        scale_down_threshold=view.scale_down_threshold,
        target=target,
        headroom=control_pb2.Headroom(
            instances=view.headroom.instances, resource=view.headroom.resource, text=view.headroom.text
        ),
        footprint_bytes=view.footprint_bytes,
        footprint_learned=view.footprint_learned,
        next=decisions.decision(view.next, now),
        up_cooldown_s=view.up_cooldown_s,
        down_cooldown_s=view.down_cooldown_s,
        bundled_agent=view.bundled_agent,
        cost_per_hour=view.cost_per_hour,
        start_failure=view.start_failure,
        rolling=rolling(view.rolling) if view.rolling else None,
        start_times=start_times(view.start_times),
        effect=effects.effect(view.effect) if view.effect else None,
        measuring=view.measuring,
        readings=readings(view.readings),
        offers=decisions.offers(view.offers),
        useful_max=view.law.useful_max if view.law else None,
        scaling_law=scaling_law(view.law) if view.law else None,
        conditions=conditions(view.conditions),
        pauses=pauses(view.pauses),
        cost=costs.cost(view.cost) if view.cost else None,
        rules=costs.rules(view.rules),
        guards=costs.parameters(view.guards),
        held_s=view.held_s,
    )


def rolling(view: RollingView) -> control_pb2.RollingRestart:
    return control_pb2.RollingRestart(
        state=view.state.value,
        owner=view.owner,
        total=view.total,
        done=view.done,
        max_unavailable=view.max_unavailable,
        away=view.away,
        stand_in=view.stand_in,
        text=view.text,
        no_stand_in=view.no_stand_in,
    )


def instance(view: InstanceView) -> control_pb2.Instance:
    return control_pb2.Instance(
        id=view.id,
        pool=view.pool,
        endpoint=common_pb2.Endpoint(port=view.port),
        core_name=view.core_name or "",
        incarnation=view.incarnation,
        pid=view.pid,
        state=_STATES[view.state],
        cause=view.cause,
        age_s=view.age_s,
        state_age_s=view.state_age_s,
        load=view.load,
        queue_length=view.queue_length,
        in_flight=view.in_flight,
        tasks_completed=view.tasks_completed,
        response_time_p50_s=view.response_time_p50_s,
        response_time_p95_s=view.response_time_p95_s,
        last_beat_age_s=view.last_beat_age_s,
        missed_beats=view.missed_beats,
        restarts=view.restarts,
        oom_kills=view.oom_kills,
        memory_bytes=view.memory_bytes,
        cpu_cores=view.cpu_cores,
        labels=view.labels,
        health=view.health.value,
        loop_blocked_s=view.loop_blocked_s,
        concurrency=view.concurrency,
    )


def host(sample: HostSample, config: FleetConfig) -> control_pb2.Host:
    return control_pb2.Host(
        cores=sample.cores,
        cpu_used_cores=sample.cpu_used_cores,
        memory_total_bytes=sample.memory_total_bytes,
        memory_available_bytes=sample.memory_available_bytes,
        memory_reserve_bytes=config.reserve.memory_reserve_bytes(sample.memory_total_bytes),
        disk_free_bytes=sample.disk_free_bytes,
        memory_pressure_percent=sample.memory_pressure_percent,
        cpu_pressure_percent=sample.cpu_pressure_percent,
        io_pressure_percent=sample.io_pressure_percent,
        disk_read_bytes_per_s=sample.disk_read_bytes_per_s,
        disk_write_bytes_per_s=sample.disk_write_bytes_per_s,
        load_average=sample.load_average,
        watched=[
            control_pb2.WatchedProcess(
                name=item.name,
                running=item.running,
                pids=item.pids,
                memory_bytes=item.memory_bytes,
                cpu_cores=item.cpu_cores,
            )
            for item in sample.watched
        ],
    )


def event(stored: StoredRecord) -> control_pb2.Event:
    record = stored.record
    return control_pb2.Event(
        resume_token=str(stored.id),
        wall=stored.wall,
        type=record.type.value,
        pool=record.pool,
        instance=record.instance,
        reason=record.reason,
        decision=record.decision,
        actor=record.actor,
    )


def change(made: Change, revision: str) -> discovery_pb2.WatchResponse:
    """`revision`: what the reader has after it, in the form in which it may hand it back."""
    return discovery_pb2.WatchResponse(
        revision=revision,
        snapshot=made.snapshot,
        endpoints=[endpoint(each) for each in made.endpoints],
        removed=made.removed,
    )


def endpoint(shown: Endpoint) -> discovery_pb2.InstanceEndpoint:
    return discovery_pb2.InstanceEndpoint(
        id=shown.id,
        pool=shown.pool,
        endpoint=common_pb2.Endpoint(node=shown.node, port=shown.port),
        host=shown.host,
        incarnation=shown.incarnation,
        state=_STATES[shown.state],
        weight=shown.weight,
        load=shown.load,
        queue_length=shown.queue_length,
        in_flight=shown.in_flight,
        concurrency=shown.concurrency,
        response_time_p50_s=shown.response_time_p50_s,
        response_time_p95_s=shown.response_time_p95_s,
    )
