"""How an instance comes: started by the driver, ready by its own word, or found running; and how it fails."""

from __future__ import annotations

from agentd.core import configuring, costs, departure, planner, rate, starts, validation
from agentd.core.health import set_alarm
from agentd.core.lifecycle import LEAVING, RUNNING
from agentd.core.messages import (
    EventType,
    InstanceExited,
    InstanceGaveUp,
    InstanceHeld,
    InstancesListed,
    InstanceStarted,
    StartFailed,
    Stop,
)
from agentd.core.model import (
    DRAIN_TIMEOUT_S_DEFAULT,
    ExitKind,
    InstanceId,
    Observed,
    Phase,
    PoolConfig,
    RestartPolicy,
    StartFailure,
    State,
    parse_instance_id,
)
from agentd.core.state import NO_INCARNATION, Fleet, Instance, Pool, Purpose, hears

# Delays before a pool's next start after failed ones.
START_BACKOFF = RestartPolicy(initial_s=5.0, max_s=300.0)
# A taken port is tried again after this: the range has others, a core agent has only its own.
PORT_RETRY_S = 300.0
CORE_PORT_RETRY_S = 10.0


def start_new(
    fleet: Fleet, pool: Pool, purpose: Purpose, now: float, *, port: int | None = None, decision: str = "",
) -> Instance | None:  # fmt: skip
    """A new pending instance of `pool`, on `port` or the lowest free one; None where no port is free."""
    if port is None:
        ports = planner.free_ports(fleet, pool, now)
        if not ports:
            return None
        port = ports[0]
    instance = fleet.add(pool, port, State.PENDING, purpose, now, decision)
    instance.launched = False
    fleet.waiting[instance.id] = None
    fleet.coming.pop(instance.id, None)
    return instance


def started(fleet: Fleet, event: InstanceStarted, now: float) -> None:
    """A process of the instance has begun."""
    instance = fleet.instances.get(event.instance)
    if instance is None:
        _stop_unknown(fleet, event.instance)
        return
    if instance.incarnation == event.incarnation and instance.state in RUNNING:
        _take_word(fleet, instance, now, ready_now=event.ready)
        return
    instance.incarnation = event.incarnation
    instance.pid = event.pid
    resumed = instance.operator_hold
    if resumed:
        instance.operator_hold = False
        fleet.tell(EventType.RESUMED, "started again by an operator", instance)
    elif instance.state in LEAVING or instance.state is State.HELD:
        fleet.touch(instance)
        if instance.state is State.DRAINING:
            departure.stop(fleet, instance, now)
        return
    again = instance.state is not State.PENDING
    if again:
        instance.requested_at = None  # the driver's doing: that is no start of ours
    instance.restarts += again
    instance.forget_reports()
    configuring.begun(fleet, instance)
    instance.started_at = instance.heard_at = instance.born_at = now
    instance.launched = True
    fleet.move(instance, State.STARTING, now)
    if resumed:
        departure.relieve_stand_in(fleet, instance)
    if instance.reason:
        fleet.tell(EventType.SCALE_UP, instance.reason, instance, decision=instance.decision)
        instance.reason = ""
    kind = EventType.RESTART if again or instance.restarts else EventType.START
    why = "" if kind is EventType.RESTART else f"{instance.purpose}, "
    fleet.tell(kind, f"{why}pid {event.pid}", instance, decision=instance.decision)
    _take_word(fleet, instance, now, ready_now=event.ready)


def ready(fleet: Fleet, instance: Instance, now: float) -> None:
    """The instance takes work: its scale-up is charged, what it replaces may go."""
    pool = fleet.pools[instance.pool]
    took_s = now - instance.started_at
    fleet.move(instance, State.READY, now)
    fleet.tell(EventType.READY, f"ready after {took_s:.1f} s", instance, decision=instance.decision)
    if not instance.ever_ready and instance.purpose is Purpose.SCALE_UP:
        # The cooldown counts from the decision, and only a scale-up that came about is charged.
        pool.last_up_at = max(pool.last_up_at or instance.created_at, instance.created_at)
        rate.note(pool, instance.created_at, up=True)
    instance.ever_ready = True
    starts.ended(pool, instance, now)
    pool.start_failures = 0
    pool.start_failure = ""
    pool.backoff_until = 0.0
    if pool.recheck_at or pool.target:
        pool.recheck_at = now
    pool.conflicts.pop(instance.port, None)
    fleet.touch_pool(pool.name)
    set_alarm(fleet, instance)
    configuring.settle(fleet, instance, now, "the configuration")
    old = fleet.instances.get(instance.replaces) if instance.replaces else None
    if old is not None:
        departure.begin(fleet, old, Purpose.REPLACE, now, reason=f"replaced by {instance.id}")


def not_ready_in_time(fleet: Fleet, instance: Instance, now: float) -> None:
    """The start timeout has passed."""
    pool = fleet.pools[instance.pool]
    text = f"not ready within {pool.config.start_timeout_s:g} s"
    failed_start(fleet, pool, instance, text, now)
    keep = instance.is_core or instance.ever_ready or instance.purpose is Purpose.ADOPTED
    departure.begin(fleet, instance, Purpose.NOT_READY, now, reason=text, again=keep)


def start_failed(fleet: Fleet, event: StartFailed, now: float) -> None:
    """The driver could not start the instance; nothing of it runs."""
    instance = fleet.instances.get(event.instance)
    if instance is None or instance.state is not State.PENDING:
        return  # it is being stopped already
    pool = fleet.pools[instance.pool]
    if event.cause is StartFailure.PORT_TAKEN:
        _port_taken(fleet, pool, instance, event.text, now)
        return
    failed_start(fleet, pool, instance, f"{event.cause}: {event.text}", now)
    if instance.is_core:
        _fail(fleet, instance, f"{event.cause}: {event.text}", now, retry_at=pool.backoff_until)
    else:
        instance.launched = False  # nothing ran, so nothing stops
        departure.gone(fleet, instance, now)


def exited(fleet: Fleet, event: InstanceExited, now: float) -> None:
    """The process has ended unasked."""
    instance = fleet.instances.get(event.instance)
    if instance is None or instance.incarnation != event.incarnation or instance.state not in RUNNING:
        return
    if instance.state in LEAVING:
        if instance.state is State.DRAINING:
            departure.stop(fleet, instance, now)  # the driver must not restart it
        return
    soon = f"restart in {event.restart_in_s:.1f} s" if event.restart_in_s >= 0 else "restarting"
    if not fleet.config.enabled or fleet.shutting_down or instance.state is State.HELD:
        soon = "left alone"
    kind = EventType.EXIT
    if event.cause.kind is ExitKind.OOM:
        kind = EventType.OOM_KILL
        instance.oom_kills += 1
    fleet.tell(kind, f"{event.cause}; {soon}", instance, decision=instance.decision)
    instance.forget_reports()
    instance.pid = 0
    if soon == "left alone":
        departure.gone(fleet, instance, now)
    elif event.restart_in_s < 0:
        departure.start_again(fleet, instance, now)
    else:
        fleet.move(instance, State.BACKOFF, now, str(event.cause))


def gave_up(fleet: Fleet, event: InstanceGaveUp, now: float) -> None:
    """The driver will not restart the instance by itself."""
    instance = fleet.instances.get(event.instance)
    if instance is None or instance.state in LEAVING or instance.state is State.FAILED or instance.operator_hold:
        return
    if instance.state is State.HELD:
        departure.gone(fleet, instance, now)
        return
    pool = fleet.pools[instance.pool]
    if event.cause is StartFailure.PORT_TAKEN:
        _port_taken(fleet, pool, instance, event.text, now)
        return
    looped = event.cause is StartFailure.CRASH_LOOP
    if looped:
        fleet.tell(EventType.CRASH_LOOP, event.text, instance, decision=instance.decision)
    if not looped or not instance.ever_ready:
        failed_start(fleet, pool, instance, "" if looped else f"{event.cause}: {event.text}", now)
    if instance.replaces and not instance.is_core:
        # It never took over: let it go, so that the replacement is tried anew after the backoff.
        departure.begin(fleet, instance, Purpose.NOT_READY, now, reason=event.text)
    else:
        # A program that ends again and again needs a person; a host that could not start it may recover.
        _fail(fleet, instance, f"{event.cause}: {event.text}", now, retry_at=0.0 if looped else pool.backoff_until)


def held(fleet: Fleet, event: InstanceHeld, now: float) -> None:
    """An operator has stopped the instance past agentd: it keeps its place, and stays stopped until it is resumed."""
    instance = fleet.instances.get(event.instance)
    if instance is None or instance.state in LEAVING or instance.state in (State.PENDING, State.HELD):
        return  # a start or stop of ours is under way, and its result decides
    if not fleet.acts or fleet.pools[instance.pool].removed:
        departure.gone(fleet, instance, now)
        return
    departure.forget_replacement(fleet, instance)
    instance.operator_hold = True
    instance.incarnation, instance.pid = NO_INCARNATION, 0
    instance.forget_reports()
    fleet.move(instance, State.HELD, now, event.text)
    fleet.tell(EventType.HELD, event.text, instance)
    pool = fleet.pools[instance.pool]
    if pool.target:
        pool.recheck_at = now
        fleet.touch_pool(pool.name)


def listed(fleet: Fleet, event: InstancesListed, now: float) -> None:
    """Compare what runs with what is known: adopt, notice what has vanished. The first listing opens the house."""
    first = not fleet.listed
    if first:
        validation.restarted(fleet)
    fleet.listed = True
    fleet.touch_self()
    found = {observed.id: observed for observed in event.observed}
    if first:
        costs.returned(fleet, found.keys() | event.busy)
    for ident in sorted(found):
        if ident not in event.busy:
            _found(fleet, found[ident], now, first=first)
    for ident in sorted(fleet.instances):
        if ident not in found and ident not in event.busy:
            _missing(fleet, fleet.instances[ident], now, first=first)


def failed_start(fleet: Fleet, pool: Pool, instance: Instance, text: str, now: float) -> None:
    """Put the pool's next start off. Costs no cooldown."""
    pool.start_failures += 1
    pool.starts_failed += 1
    pool.backoff_until = now + START_BACKOFF.delay_s(pool.start_failures, 0.0)
    pool.start_failure = text or pool.start_failure
    if pool.rolling is not None and (instance.purpose is Purpose.STAND_IN or instance.id in pool.rolling.away):
        pool.rolling.trouble = f"{instance.id}: {text or 'it ends again and again'}"
    fleet.touch_pool(pool.name)
    if text:
        fleet.tell(EventType.START_FAILED, text, instance, decision=instance.decision)


def _fail(fleet: Fleet, instance: Instance, cause: str, now: float, *, retry_at: float = 0.0) -> None:
    instance.retry_at = retry_at
    instance.pid = 0
    fleet.move(instance, State.FAILED, now, cause)
    set_alarm(fleet, instance)


def _port_taken(fleet: Fleet, pool: Pool, instance: Instance, text: str, now: float) -> None:
    """Somebody else listens on the instance's port: an elastic instance goes to the next, a core one waits."""
    if instance.port not in pool.conflicts:
        fleet.tell(EventType.PORT_CONFLICT, text, instance, decision=instance.decision)
    pool.conflicts[instance.port] = now + (CORE_PORT_RETRY_S if instance.is_core else PORT_RETRY_S)
    fleet.touch_pool(pool.name)
    if instance.is_core:
        _fail(fleet, instance, f"{StartFailure.PORT_TAKEN}: {text}", now, retry_at=pool.conflicts[instance.port])
        return
    if not instance.replaced_by:  # otherwise its successor is on its way already
        _go_elsewhere(fleet, pool, instance, text, now)
    if instance.state is State.PENDING:
        instance.launched = False
        departure.gone(fleet, instance, now)
    else:
        departure.begin(fleet, instance, Purpose.STRAY, now, reason=text)  # the driver still remembers it


def _go_elsewhere(fleet: Fleet, pool: Pool, instance: Instance, text: str, now: float) -> None:
    """Let another instance, on a free port, do what `instance` was to do."""
    successor = start_new(fleet, pool, instance.purpose, now, decision=instance.decision)
    if successor is None:
        failed_start(fleet, pool, instance, f"{text}; no other port is free", now)
        return
    successor.reason, instance.reason = instance.reason, ""
    if instance.replaces:
        old = fleet.instances[instance.replaces]
        old.replaced_by, successor.replaces = successor.id, old.id
        instance.replaces = None
        fleet.touch(old)


def _found(fleet: Fleet, observed: Observed, now: float, *, first: bool) -> None:
    instance = fleet.instances.get(observed.id)
    if instance is None:
        _adopt(fleet, observed, now, first=first)
        return
    if observed.phase is Phase.FAILED or observed.phase is Phase.BACKOFF:
        return  # the driver has it in hand, and says so itself
    if observed.incarnation != instance.incarnation or instance.state not in RUNNING:
        started(fleet, InstanceStarted(observed.id, observed.incarnation, observed.pid, observed.ready), now)
        return
    instance.pid = observed.pid
    if first:
        fleet.tell(EventType.ADOPT, f"{instance.state}, pid {observed.pid}", instance)
    _take_word(fleet, instance, now, ready_now=observed.ready)
    if not first:
        return
    if instance.state is State.STOPPING:
        departure.stop_again(fleet, instance, now)


def _stop_unknown(fleet: Fleet, ident: InstanceId) -> None:
    """Nobody wants this process any more, but it may have begun a task."""
    pool = fleet.pools.get(parse_instance_id(ident)[0])
    grace_s = pool.config.drain_timeout_s if pool else DRAIN_TIMEOUT_S_DEFAULT
    fleet.actions.append(Stop(ident, grace_s, ""))


def _adopt(fleet: Fleet, observed: Observed, now: float, *, first: bool) -> None:
    """Take over an instance that runs and that nothing is remembered of."""
    if observed.phase is not Phase.RUNNING:
        return
    name, port = parse_instance_id(observed.id)
    if name not in fleet.pools:
        fleet.pools[name] = Pool(config=PoolConfig(name=name, min=0, max=0), removed=True)
        fleet.pools = {pool: fleet.pools[pool] for pool in sorted(fleet.pools)}
        fleet.touch_pool(name)
        fleet.touch_history(name)
    pool = fleet.pools[name]
    held = pool.removed
    instance = fleet.add(pool, port, State.HELD if held else State.STARTING, Purpose.ADOPTED, now)
    instance.incarnation = observed.incarnation
    instance.pid = observed.pid
    if observed.started_wall:
        instance.born_at = min(now, observed.started_wall - fleet.wall_offset)
    instance.costs_from, instance.paid_tasks = instance.born_at, -1
    instance.cause = "its pool is not configured" if held else ""
    # It may have been at work for days; only its next report tells.
    instance.ever_ready = True
    text = f"pid {observed.pid}" + (", left alone: its pool is not configured" if held else "")
    fleet.tell(EventType.ADOPT, text if first else f"{text}, found running", instance)
    if not held:
        _take_word(fleet, instance, now, ready_now=observed.ready)


def _take_word(fleet: Fleet, instance: Instance, now: float, *, ready_now: bool) -> None:
    """Where nobody checks an instance's health, the driver's word is what makes it ready."""
    if ready_now and instance.state is State.STARTING and not hears(fleet.pools[instance.pool].config):
        ready(fleet, instance, now)
    else:
        set_alarm(fleet, instance)


def _missing(fleet: Fleet, instance: Instance, now: float, *, first: bool) -> None:
    """The host does not have it (any more)."""
    match instance.state:
        case State.STARTING | State.READY | State.BACKOFF:
            if not fleet.config.enabled or fleet.shutting_down:
                departure.gone(fleet, instance, now)
                return
            fleet.tell(EventType.VANISHED, "no longer on the host; starting it again", instance)
            departure.start_again(fleet, instance, now)
        case State.PENDING if first and instance.launched:
            instance.launched = False  # agentd ended between the intent and the start
            fleet.waiting[instance.id] = None
            fleet.coming.pop(instance.id, None)
            fleet.touch(instance)
        case State.HELD if instance.operator_hold and not fleet.pools[instance.pool].removed:
            pass
        case State.DRAINING | State.STOPPING | State.HELD:
            departure.gone(fleet, instance, now)
        case _:
            pass
