"""Restarts that people ask for: of single instances, and of a whole pool without loss and without a dip.

An instance is restarted in place: it drains, is stopped, and is started again with its id and its port. When a pool
is restarted, one more instance is started first and stands in; while one is away, as many take work as before. It is
no part of its pool's count, may be one above the maximum, and drains when all are back. Where there is no port or no
memory for it, or where people allow that some are away, nobody stands in.

Level-triggered, as repair is: each pass looks at what has become of the instances, whoever brought it about. One that
has died by itself has its new process already. A start that fails ends it: nobody else is taken down, and the pool
says so until all are ready again and a start has succeeded, it is restarted anew, or a person dismisses that. It
decides no counts, and never gives an instance another port.
"""

from __future__ import annotations

from agentd.core import arrival, capacity, departure, planner, showing
from agentd.core.capacity import NOTHING_PROMISED
from agentd.core.lifecycle import LEAVING
from agentd.core.messages import CancelRestart, Done, EventType, Refusal, Restart, RollingRestart
from agentd.core.model import InstanceId, RollingState, State
from agentd.core.state import Fleet, Instance, Pool, Purpose, Rolling

DISABLED = Refusal("DISABLED", "multi_agent.enabled is false: nothing is started or stopped")


def of_instances(fleet: Fleet, event: Restart) -> Done | Refusal:
    """A person has these restarted, one after the other in each pool, and nobody stands in for them."""
    if not fleet.config.enabled:
        return DISABLED
    for ident in event.instances:
        instance = fleet.instances.get(ident)
        if instance is None:
            return Refusal("UNKNOWN_INSTANCE", f"no instance {ident!r}", "NOT_FOUND")
        if fleet.pools[instance.pool].removed:
            return Refusal("NOT_CONFIGURED", f"the pool of {ident} is not configured; agentd leaves it alone")
    for ident in event.instances:
        pool = fleet.pools[fleet.instances[ident].pool]
        if ident not in pool.restart_queue and pool.restarting != ident:
            pool.restart_queue.append(ident)
            fleet.touch_pool(pool.name)
            fleet.tell(EventType.RESTART, "asked for", fleet.instances[ident], actor=event.owner)
    return Done()


def of_pool(fleet: Fleet, event: RollingRestart, now: float) -> Done | Refusal:
    """A person has all instances of a pool restarted. Refused while that is under way already."""
    pool = fleet.pools.get(event.pool)
    if not fleet.config.enabled:
        return DISABLED
    if pool is None or pool.removed:
        return _unknown(fleet, event.pool)
    if pool.rolling is not None and pool.rolling.on:
        text = f"{pool.name} is being restarted for {pool.rolling.owner}: {showing.rolling_text(pool)}"
        return Refusal("RESTART_UNDER_WAY", text)
    # One that stands in still, for a restart that stopped, does so for this one.
    members = [instance for instance in pool.instances.values() if instance.purpose is not Purpose.STAND_IN]
    if not members:
        return Done()
    ready, away_max, why, capped = _at_work(pool), min(event.max_unavailable or 0, len(members)), "", ""
    share = planner.drain_share(pool)[1]
    if ready and away_max > share:
        away_max, capped = share, ", for drain_share_max allows no more"
    if not away_max:
        why = _why_nobody_stands_in(fleet, pool, now) if ready else "none of them is ready"
        if why and ready and event.max_unavailable == 0:
            return Refusal("NO_STAND_IN", f"nobody can stand in: {why}; with max_unavailable 1 one is away at a time")
        away_max = 1 if why else 0
    left = {instance.id: instance.incarnation for instance in members}
    pool.rolling = Rolling(event.owner, len(left), ready, away_max, why, left)
    how = f"{'one' if away_max == 1 else away_max} at a time{capped}" + (f", nobody stands in: {why}" if why else "")
    if not away_max:
        stand_in = _stand_in(pool) or arrival.start_new(fleet, pool, Purpose.STAND_IN, now)
        assert stand_in is not None, "broken invariant: there was a free port"
        how = f"one at a time, {stand_in.id} stands in"
    fleet.touch_pool(pool.name)
    text = f"{len(left)} instance{'s' * (len(left) != 1)}, {how}"
    fleet.tell(EventType.ROLLING_BEGUN, text, pool=pool.name, actor=event.owner)
    return Done()


def cancelled(fleet: Fleet, event: CancelRestart, now: float) -> Done | Refusal:
    """A person ends a pool's restart: whoever is away comes back, nobody else goes. One that has stopped is over."""
    pool = fleet.pools.get(event.pool)
    if pool is None or pool.removed:
        return _unknown(fleet, event.pool)
    rolling = pool.rolling
    if rolling is None:
        return Refusal("NO_RESTART", f"{pool.name} is not being restarted")
    if rolling.state is RollingState.CANCELLED:
        return Done()
    if rolling.state is RollingState.STOPPED:
        _dismiss(fleet, pool, event.owner, now)
        return Done()
    rolling.state, rolling.why = RollingState.CANCELLED, f"cancelled by {event.owner}"
    fleet.touch_pool(pool.name)
    fleet.tell(EventType.ROLLING_CANCELLED, showing.rolling_text(pool), pool=pool.name, actor=event.owner)
    go_on(fleet, pool, now)
    return Done()


def go_on(fleet: Fleet, pool: Pool, now: float) -> None:
    """Go on with what people asked to have restarted, as far as that is possible now."""
    if pool.removed or not fleet.acts:
        return
    _next_named(fleet, pool, now)
    rolling = pool.rolling
    if rolling is None:
        return
    _take_stock(fleet, pool, rolling)
    why = _trouble(pool, rolling) if rolling.on else ""
    if why:
        _stop(fleet, pool, rolling, why)
    if rolling.trouble:
        rolling.trouble = ""
        fleet.touch_pool(pool.name)
    while (instance := _next(fleet, pool, rolling, now)) is not None:
        del rolling.left[instance.id]
        rolling.away.append(instance.id)
        fleet.touch_pool(pool.name)
        reason = f"restart of {pool.name}, {rolling.total - len(rolling.left)} of {rolling.total}"
        departure.begin(fleet, instance, Purpose.RESTART, now, reason=reason, again=True)
    if not rolling.away and not (rolling.left and rolling.state is RollingState.ROLLING):
        _end(fleet, pool, rolling, now)


def _dismiss(fleet: Fleet, pool: Pool, owner: str, now: float) -> None:
    """What is left of a restart that has stopped is over: who is not back is repair's business, nobody stands in."""
    fleet.tell(
        EventType.ROLLING_CANCELLED, f"{showing.rolling_text(pool)}; dismissed by {owner}", pool=pool.name, actor=owner
    )
    for ident in _standing_in(pool):
        departure.begin(fleet, fleet.instances[ident], Purpose.STAND_IN, now, reason=f"dismissed by {owner}")
    _forget(fleet, pool, now)


def abandon(fleet: Fleet, pool: Pool) -> None:
    """`pool` is no longer configured: all of it leaves."""
    if pool.rolling is not None:
        _stop(fleet, pool, pool.rolling, "the pool is no longer configured")
        pool.rolling = None


def _unknown(fleet: Fleet, name: str) -> Refusal:
    return Refusal("UNKNOWN_POOL", f"no pool {name!r} (there are {', '.join(fleet.config.pools)})", "NOT_FOUND")


def _next_named(fleet: Fleet, pool: Pool, now: float) -> None:
    """The single ones: the next one when the last is ready or has failed."""
    if not (pool.restarting or pool.restart_queue):
        return
    current = fleet.instances.get(pool.restarting) if pool.restarting else None
    if current is not None and (current.again or current.state not in (State.READY, State.FAILED)):
        return
    pool.restarting = None
    while pool.restart_queue and pool.restarting is None:
        ident = pool.restart_queue.pop(0)
        instance = fleet.instances.get(ident)
        if instance is not None and instance.state not in LEAVING:
            pool.restarting = ident
            departure.begin(fleet, instance, Purpose.RESTART, now, reason="restart asked for", again=True)
        fleet.touch_pool(pool.name)


def _take_stock(fleet: Fleet, pool: Pool, rolling: Rolling) -> None:
    """See who has another process than when it began, and who of those is back."""
    for ident, incarnation in list(rolling.left.items()):
        instance = fleet.instances.get(ident)
        if instance is None or instance.incarnation != incarnation:
            del rolling.left[ident]
            rolling.away.append(ident)
            fleet.touch_pool(pool.name)
    for ident in list(rolling.away):
        instance = fleet.instances.get(ident)
        # What an operator has stopped meanwhile stays stopped.
        gone = instance is None or instance.operator_hold
        if not gone and instance is not None and (instance.again or instance.state is not State.READY):
            continue
        rolling.away.remove(ident)
        fleet.touch_pool(pool.name)
        if instance is None and rolling.trouble:
            _take_place(fleet, pool)
            continue
        rolling.done += 1
        if rolling.on:
            text = f"{f'{ident} is gone' if gone else 'restarted'}, {rolling.done} of {rolling.total}"
            fleet.tell(EventType.ROLLING_STEP, text, instance, pool=pool.name)


def _take_place(fleet: Fleet, pool: Pool) -> None:
    """An instance could not be started again, and is gone: whoever stands in stays in its place."""
    stand_in = _stand_in(pool)
    if stand_in is not None:
        stand_in.purpose = Purpose.RESTART
        fleet.touch(stand_in)


def _trouble(pool: Pool, rolling: Rolling) -> str:
    """Why nobody else may be taken down; empty where nothing is wrong, or nobody is left to go or to come."""
    rolls = rolling.state is RollingState.ROLLING and bool(rolling.left)
    if not rolls and not rolling.away:
        return ""
    if rolling.trouble:
        return rolling.trouble
    for instance in pool.instances.values():
        theirs = instance.id in rolling.away or (rolls and instance.id not in rolling.left)
        if instance.state is State.FAILED and theirs:
            return f"{instance.id}: {instance.cause}"
    if rolls and not rolling.max_unavailable and _stand_in(pool) is None:
        return "the instance that stood in is gone"
    return ""


def _stop(fleet: Fleet, pool: Pool, rolling: Rolling, why: str) -> None:
    rolling.state, rolling.why = RollingState.STOPPED, why
    fleet.touch_pool(pool.name)
    fleet.tell(EventType.ROLLING_STOPPED, f"{why}; {rolling.done} of {rolling.total} restarted", pool=pool.name)


def _next(fleet: Fleet, pool: Pool, rolling: Rolling, now: float) -> Instance | None:
    """Whose turn it is; None: nobody's now. First those that do no work, core agents last."""
    if rolling.state is not RollingState.ROLLING or now < fleet.recovering_until:
        return None
    if len(rolling.away) >= max(1, rolling.max_unavailable):
        return None
    stand_in = _stand_in(pool)
    if not rolling.max_unavailable and (stand_in is None or stand_in.state is not State.READY):
        return None
    members = [fleet.instances[ident] for ident in rolling.left]
    able = [instance for instance in members if _may_go(instance)]
    first = min(able, key=lambda each: (each.state is State.READY, each.is_core, each.port), default=None)
    if first is not None and first.state is State.READY:
        draining, most, _ = planner.drain_share(pool)
        if draining >= most or not _can_spare_one(pool, rolling):
            return None
    return first


def _may_go(instance: Instance) -> bool:
    """Whether it can be restarted now: not who is leaving, on its way anyway, or too late to be asked."""
    if instance.state is State.READY:
        return not instance.missed and not instance.replaced_by
    return instance.state in (State.STARTING, State.FAILED) or instance.operator_hold


def _can_spare_one(pool: Pool, rolling: Rolling) -> bool:
    """Whether enough are at work without one of them: as many as when it began, less those that may be away.

    A pool that has become smaller meanwhile, for whatever reason, has no more than it has.
    """
    needed = min(rolling.ready, len(pool.committed())) - rolling.max_unavailable
    return _at_work(pool, all_of_them=True) - 1 >= needed


def _at_work(pool: Pool, *, all_of_them: bool = False) -> int:
    """How many take work; with `all_of_them` whoever stands in, too."""
    return sum(
        1
        for i in pool.instances.values()
        if i.state is State.READY and not i.missed and not i.replaced_by
        if all_of_them or i.purpose is not Purpose.STAND_IN
    )


def _stand_in(pool: Pool) -> Instance | None:
    """Who stands in, or will: not one that leaves, or that an operator has stopped."""
    for instance in pool.instances.values():
        away = instance.state in LEAVING and not instance.again
        if instance.purpose is Purpose.STAND_IN and not (away or instance.operator_hold or instance.replaced_by):
            return instance
    return None


def _why_nobody_stands_in(fleet: Fleet, pool: Pool, now: float) -> str:
    """What keeps an instance from standing in; empty: nothing. As for a replacement, only memory counts of the host."""
    if _stand_in(pool) is not None:
        return ""
    ports = pool.config.ports
    if not planner.free_ports(fleet, pool, now):
        return f"no free port ({f'{ports.first}-{ports.last}' if ports else 'no elastic range'})"
    if fleet.capacity_max is not None and len(fleet.instances) >= fleet.capacity_max:
        return f"the driver can run {fleet.capacity_max} instances"
    rooms = capacity.room(fleet, pool, NOTHING_PROMISED, now, memory_only=True)
    return next((limit.text for more, limit in rooms if more <= 0), "")


def _end(fleet: Fleet, pool: Pool, rolling: Rolling, now: float) -> None:
    """Nobody is away, and nobody goes any more: who stands in leaves as soon as it can be spared; then it is over."""
    for ident in _standing_in(pool):
        instance = fleet.instances[ident]
        if instance.state in LEAVING and not instance.again:
            continue
        spared = rolling.state is RollingState.CANCELLED or _can_spare_one(pool, rolling)
        if instance.state is State.READY and not spared:
            return
        reason = f"the restart of {pool.name} {'has ended' if rolling.on else 'has stopped'}"
        departure.begin(fleet, instance, Purpose.STAND_IN, now, reason=reason)
    if _standing_in(pool):
        return
    done = f"{rolling.done} of {rolling.total} restarted"
    if rolling.state is RollingState.ROLLING:
        fleet.tell(EventType.ROLLING_DONE, done, pool=pool.name)
    elif rolling.state is RollingState.CANCELLED:
        fleet.tell(EventType.ROLLING_STOPPED, f"{rolling.why}; {done}", pool=pool.name)
    elif not _all_back(pool):
        return
    else:
        fleet.tell(EventType.ROLLING_STEP, f"all are ready again; {done}", pool=pool.name)
    _forget(fleet, pool, now)


def _all_back(pool: Pool) -> bool:
    """Whether nothing is wrong any more after one that has stopped: all are ready, and the last start has succeeded."""
    members = pool.committed()
    ready = all(each.state is State.READY and not each.missed for each in members)
    return ready and len(members) >= pool.min and not pool.start_failures


def _forget(fleet: Fleet, pool: Pool, now: float) -> None:
    pool.rolling = None
    fleet.touch_pool(pool.name)
    if pool.target:
        pool.recheck_at = now  # fewer, if fewer are wanted, may go now


def _standing_in(pool: Pool) -> list[InstanceId]:
    return [instance.id for instance in pool.instances.values() if instance.purpose is Purpose.STAND_IN]
