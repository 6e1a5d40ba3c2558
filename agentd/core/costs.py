"""What pools cost: what is entered in their books and when, what they cost now, and what a budget allows.

An agent's time costs from when its start is asked for until nothing of it is left; CPU and memory cost as the host's
samples show them, each for the time since the one before; tasks cost as agents count them. Entered are all of them at
every SETTLE_S, and what an agent has cost when it ends. While agentd is away agents run on: those that it finds again
have cost all that time, those that it does not, until the last time that it looked. What CPU and memory cost meanwhile
nobody has seen, beyond METER_S_MAX.

A budget holds whatever would spend more than it, at the size that is reached, until the hour, day or month ends. What
grows outlives an hour as a rule, so that a size must also be one that the budget of an hour pays hour by hour; of a day
and a month peaks may use what is left, and late in them what is left must pay for an hour (docs/costs.md says why).
Only scale-ups ask it: starts up to the minimum, of core agents, and repair do not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from agentd.core import ledger
from agentd.core.ledger import SCALINGS_KEPT, Ledger, Scaling, Spent, Window, agent_time, usage, work
from agentd.core.model import Decision, Direction, Limit, PoolConfig, PoolName, State
from agentd.core.rates import FREE, GIB, HOUR_S, Budget, money
from agentd.core.state import Fleet, Pool
from agentd.core.views import BudgetView, CostView

SETTLE_S = 60.0
# A sample of the host stands for the time since the one before it, and for no more than this.
METER_S_MAX = 60.0
# What is left of a day or a month pays for a size for at least so long, even where less of it is left.
AHEAD_H_MIN = 1.0

_WHEN = {Window.HOUR: "this hour", Window.DAY: "today", Window.MONTH: "this month"}
_Entry = tuple[Spent, float, float]  # what, from when, until when (wall time)


def settle(fleet: Fleet, now: float, *, all_of_it: bool = False) -> None:
    """Bring the books of all pools up to date, where they have not been for SETTLE_S. `all_of_it`: in any case.

    Before the host has been looked at nobody knows who is still there.
    """
    if not fleet.listed:
        return
    for pool in fleet.pools.values():
        until = pool.ledger.until
        if (until is None or all_of_it or now - until >= SETTLE_S) and pool.config.rates:
            _settle(fleet, pool, now)


def clock_set(fleet: Fleet, wall: float, now: float) -> None:
    """It is `wall` now, by the clock of the host, which people and programs set."""
    before = fleet.wall(now)
    fleet.wall_offset = wall - now
    if abs(wall - before) <= ledger.SET_S_MIN:
        return
    for name, books in _all(fleet):
        if books.since:
            books.clock_set(before, wall)
            books.forget(wall)
            fleet.touch_ledger(name)


def restored(fleet: Fleet, now: float, moved_s: float = 0.0) -> None:
    """An earlier agentd has kept the books; nobody saw whether the clock was set since.

    What was saved has been moved by `moved_s`, for the wall clock and the monotonic one do not agree on what passed: it
    was set, or the host slept. Agents have worked, and cost, as long as the monotonic one says.
    """
    wall = fleet.wall(now)
    if abs(moved_s) <= ledger.SET_S_MIN:
        moved_s = 0.0
    for instance in fleet.instances.values():
        if instance.costs_from is not None:
            instance.costs_from -= moved_s
    for name, books in _all(fleet):
        if books.until is not None:
            books.until -= moved_s
        if books.is_ahead(wall):
            books.clock_set(wall, wall)
            fleet.touch_ledger(name)


def meter(fleet: Fleet, now: float) -> None:
    """The host has been read: enter the CPU and the memory that agents have used."""
    if not fleet.listed:
        return
    settle(fleet, now)
    for pool in fleet.pools.values():
        if not pool.config.rates:
            continue
        before, pool.ledger.metered_at = pool.ledger.metered_at, now
        if before is None or now <= before:
            continue
        duration_s = min(now - before, METER_S_MAX)
        used = [instance.usage for instance in pool.instances.values() if instance.usage is not None]
        cores = math.fsum(each.cpu_cores for each in used)
        spent = usage(pool.config.rates, cores, sum(each.memory_bytes for each in used), duration_s)
        pool.ledger.enter(spent, fleet.wall(now - duration_s), fleet.wall(now))


def returned(fleet: Fleet, there: Collection[str]) -> None:
    """This agentd has looked at the host for the first time, and only `there` is there."""
    for instance in fleet.instances.values():
        if instance.id not in there:
            instance.costs_from = None
        elif instance.occupies and instance.costs_from is None:  # an agentd that saved it did not know of costs
            instance.costs_from, instance.paid_tasks = instance.born_at, -1
        else:
            continue
        fleet.touch(instance)


def reconfigured(fleet: Fleet, before: Mapping[PoolName, PoolConfig], now: float) -> None:
    """The pools were configured as in `before`. What costs something only from now on has cost nothing so far."""
    for pool in fleet.pools.values():
        known = before.get(pool.name)
        if not pool.config.rates or (known is not None and known.rates):
            continue
        pool.ledger.until = pool.ledger.metered_at = now
        for instance in pool.instances.values():
            instance.paid_tasks, instance.unpaid_tasks = instance.tasks_completed or 0, 0
        fleet.touch_ledger(pool.name)


def note(fleet: Fleet, pool: Pool, decision: Decision) -> None:
    """`decision` is being carried out: remember what that costs or saves."""
    if decision.direction is Direction.NONE or not pool.config.rates:
        return
    change = decision.granted - decision.current
    pool.ledger.scalings.append(Scaling(decision.id, decision.wall, change, change * one_more(pool)))
    del pool.ledger.scalings[:-SCALINGS_KEPT]
    fleet.touch_ledger(pool.name)


# -- what is shown ------------------------------------------------------------------------------


def per_hour(pool: Pool) -> float:
    """What the pool costs in an hour at its present size, with its present use of the host and its present work."""
    rates = math.fsum(instance.rate or 0.0 for instance in pool.instances.values())
    return sum(_standing(pool)) + pool.config.rates.per_task * rates * HOUR_S


def one_more(pool: Pool) -> float:
    """What one more agent costs in an hour: its time, and what agents of the pool use. It brings no tasks."""
    return pool.config.rates.per_hour + _footprint(pool)


def of_pool(fleet: Fleet, pool: Pool, now: float) -> CostView | None:
    """The pool's costs as people see them; None where nothing of it costs."""
    if not pool.config.rates:
        return None
    return _view(fleet, pool.config.budget, [pool], _books(fleet, pool, now), now, more=one_more(pool))


def of_fleet(fleet: Fleet, now: float) -> CostView | None:
    """The costs of all pools together; None where nothing of any costs."""
    pools = [pool for pool in fleet.pools.values() if pool.config.rates]
    if not pools:
        return None
    return _view(fleet, fleet.config.budget, pools, _all_books(fleet, now), now)


def _view(
    fleet: Fleet, budget: Budget, pools: list[Pool], books: Ledger, now: float, more: float | None = None
) -> CostView:  # fmt: skip
    wall = fleet.wall(now)
    hour, day, month = (books.spent(window, wall) for window in Window)
    present = math.fsum(per_hour(pool) for pool in pools)
    mean = books.mean_per_hour(wall)
    left_h = (ledger.end(Window.MONTH, wall) - wall) / HOUR_S
    return CostView(
        currency=fleet.config.currency,
        per_hour=present,
        one_more_per_hour=more,
        spent_hour=hour,
        spent_day=day,
        spent_month=month,
        projected_month=month.amount + (present if mean is None else mean) * left_h,
        budgets=tuple(
            BudgetView(window.value, amount, spent.amount, amount - spent.amount, ledger.end(window, wall) - wall)
            for window, spent in ((Window.HOUR, hour), (Window.DAY, day), (Window.MONTH, month))
            if (amount := _amount(budget, window)) is not None
        ),
        scalings=tuple(reversed(books.scalings)),
    )


# -- the guard ----------------------------------------------------------------------------------


def bounds(fleet: Fleet, pool: Pool, count: int, now: float, *, promised: float = 0.0) -> list[tuple[int, Limit]]:
    """How many instances each budget allows a pool of `count`, and the limit that says so.

    `promised` is what others, who are to be started at the same time, will cost in an hour.
    """
    if not pool.config.rates:
        return []
    found = []
    if pool.config.budget:
        found += _bounds(fleet, pool, pool.config.budget, [pool], count, now)
    if fleet.config.budget:
        pools = list(fleet.pools.values())
        found += _bounds(fleet, pool, fleet.config.budget, pools, count, now, promised, whose=" by all pools")
    return found


def elsewhere(fleet: Fleet, pools: Collection[Pool], now: float) -> list[float]:
    """What a decision on `pools` must know of all others: what these have spent in each window, and cost in an hour."""
    wall, names = fleet.wall(now), {pool.name for pool in pools}
    others = [(pool, _standing(pool)) for pool in fleet.pools.values() if pool.name not in names]
    spent = [
        fleet.past.spent(window, wall).amount
        + math.fsum(_spent(fleet, pool, it[0], window, now) for pool, it in others)
        for window in Window
    ]
    return [*spent, fleet.standing_elsewhere + math.fsum(sum(it) for _, it in others)]


def take_elsewhere(fleet: Fleet, pools: Collection[PoolName], value: Sequence[float], now: float) -> None:
    """Let `fleet`, which has of others than `pools` only who stands in their way, know what `elsewhere` told of them.

    Those who stand there cost nothing by themselves: the sum has them.
    """
    wall = fleet.wall(now)
    for pool in fleet.pools.values():
        if pool.name not in pools:
            pool.config = replace(pool.config, rates=FREE)
    for window, book in (
        (Window.HOUR, fleet.past.hours), (Window.DAY, fleet.past.days), (Window.MONTH, fleet.past.months),
    ):  # fmt: skip
        book[ledger.number(window, wall)] = Spent(value[list(Window).index(window)])
    fleet.standing_elsewhere = value[-1]


def _bounds(
    fleet: Fleet, pool: Pool, budget: Budget, pools: list[Pool], count: int, now: float, promised: float = 0.0, *,
    whose: str = "",
) -> list[tuple[int, Limit]]:  # fmt: skip
    """`pools` are those that the budget is of; `whose`: it is that of all, also of those that are there no more."""
    wall, each, currency = fleet.wall(now), one_more(pool), fleet.config.currency
    standing = {one.name: _standing(one) for one in pools}
    found = []
    for window in Window:
        most = _amount(budget, window)
        if most is None:
            continue
        spent = math.fsum(_spent(fleet, one, standing[one.name][0], window, now) for one in pools)
        if whose:
            spent += fleet.past.spent(window, wall).amount
        end = ledger.end(window, wall)
        left_h = (end - wall) / HOUR_S
        ahead_h = left_h if window is Window.HOUR else max(left_h, AHEAD_H_MIN)
        present = promised + math.fsum(sum(costs) for costs in standing.values())
        present += fleet.standing_elsewhere if whose else 0.0
        free = most - spent - present * ahead_h
        more = _MANY if spent < most else 0  # where only tasks cost: whether it brings any nobody knows
        if each > 0.0:
            more = _affords(free, each * ahead_h)
        when = f"until {_moment(window, end)}" if ahead_h == left_h else "for an hour"
        text = (
            f"{money(spent)} of {money(most, currency)} spent {_WHEN[window]}{whose}, what runs takes "
            f"{money(present * ahead_h)} more; one more {when} costs {money(each * ahead_h)}"
        )
        if window is Window.HOUR and each > 0.0 and (paid := _affords(most - present, each)) <= more:
            more = paid
            of = f"{money(present)} of {money(most, currency)} per hour"
            text = f"{of} spent now{whose}; one more costs {money(each)}"
        lifts = _lifts(window, end, most, present, free, each, more)
        until = None if lifts is None else lifts - fleet.wall_offset
        found.append((max(count + more, min(pool.min, pool.max)), Limit(f"budget_{window}", text, until)))
    return found


def _lifts(
    window: Window, end: float, most: float, present: float, free: float, each: float, more: int
) -> float | None:  # fmt: skip
    """When a budget of `most` pays for one more than `more`, wall time, if nothing changes; None: nor does the next.

    What runs until `end` is paid for, and `free` is left; a further one costs the less the later it is.
    """
    if each <= 0.0:
        return end
    following_h = (ledger.end(window, end) - end) / HOUR_S
    pays_next = _affords(most - present * following_h, each * following_h) > more
    pays_h = free / (each * (more + 1))
    shortest_h = 0.0 if window is Window.HOUR else AHEAD_H_MIN
    # Of an hour the next one has to pay for the same size.
    if pays_h > shortest_h and (pays_next or window is not Window.HOUR):
        return end - pays_h * HOUR_S + _LATER_S
    return end if pays_next else None


def _affords(left: float, each: float) -> int:
    """How many `left` pays for."""
    return max(0, math.floor(left / each + 1e-9))


def _spent(fleet: Fleet, pool: Pool, time_per_hour: float, window: Window, now: float) -> float:
    """What the books say, and the time of those who are there now since they were brought up to date."""
    wall, until = fleet.wall(now), pool.ledger.until
    if until is None:
        return 0.0
    since_s = min(now - until, wall - ledger.begin(window, wall))
    return pool.ledger.spent(window, wall).amount + time_per_hour * max(0.0, since_s) / HOUR_S


def _standing(pool: Pool) -> tuple[float, float]:
    """What an hour of the time of those who are there costs, and of what they use.

    Tasks are no part of it: fewer agents would not mean fewer of them, and how many will come nobody knows.
    """
    rates = pool.config.rates
    if not rates:
        return 0.0, 0.0
    there = unmeasured = memory = 0
    cores = 0.0
    for instance in pool.instances.values():
        if instance.costs_from is None and instance.state is not State.PENDING:
            continue
        there += 1
        used = instance.usage
        if used is None:
            unmeasured += 1
        else:
            memory += used.memory_bytes
            cores += used.cpu_cores
    uses = rates.per_cpu_hour * cores + rates.per_gib_hour * memory / GIB + _footprint(pool) * unmeasured
    return rates.per_hour * there, uses


def _amount(budget: Budget, window: Window) -> float | None:
    match window:
        case Window.HOUR:
            return budget.per_hour
        case Window.DAY:
            return budget.per_day
        case Window.MONTH:
            return budget.per_month


def _moment(window: Window, wall: float) -> str:
    at = datetime.fromtimestamp(wall, UTC)
    if window is Window.HOUR:
        return f"{at:%H:%M} UTC"
    return "midnight UTC" if window is Window.DAY else f"{at:%Y-%m-%d} UTC"


# -- books --------------------------------------------------------------------------------------


def _all(fleet: Fleet) -> Iterator[tuple[str, Ledger]]:
    """With the names of the pools; empty: of those that are there no more."""
    yield "", fleet.past
    for pool in fleet.pools.values():
        yield pool.name, pool.ledger


def _settle(fleet: Fleet, pool: Pool, now: float) -> None:
    _enter(pool.ledger, _due(fleet, pool, now))
    for instance in pool.instances.values():
        instance.unpaid_tasks = 0
        if instance.tasks_completed is not None:
            instance.paid_tasks = instance.tasks_completed
    pool.ledger.until = now
    pool.ledger.forget(fleet.wall(now))
    fleet.touch_ledger(pool.name)


def _books(fleet: Fleet, pool: Pool, now: float) -> Ledger:
    """The pool's books as they would be if they were brought up to date now."""
    books = pool.ledger.copy()
    _enter(books, _due(fleet, pool, now))
    return books


def _all_books(fleet: Fleet, now: float) -> Ledger:
    books = fleet.past.copy()
    scalings: list[Scaling] = []
    for pool in fleet.pools.values():
        if pool.config.rates or pool.ledger.since:
            books.merge(_books(fleet, pool, now))
            scalings += pool.ledger.scalings
    books.scalings = sorted(scalings, key=lambda scaling: scaling.wall)[-SCALINGS_KEPT:]
    return books


def _enter(books: Ledger, entries: Iterable[_Entry]) -> None:
    for spent, start, end in entries:
        books.enter(spent, start, end)


def _due(fleet: Fleet, pool: Pool, now: float) -> Iterable[_Entry]:
    """What is not in the books: the time of all who were there before as one entry, and the tasks of all as one."""
    rates, wall, together, tasks = pool.config.rates, fleet.wall(now), 0, 0
    if not rates:
        return
    for instance in pool.instances.values():
        tasks += instance.tasks_due
        if instance.costs_from is None:
            continue
        start = min(now, pool.ledger.due_from(instance.costs_from, now, wall))
        if start == pool.ledger.until:
            together += 1
        else:
            yield agent_time(rates, now - start), fleet.wall(start), wall
    if together and pool.ledger.until is not None:
        passed_s = now - pool.ledger.until
        yield agent_time(rates, passed_s).times(together), fleet.wall(pool.ledger.until), wall
    if tasks:
        yield work(rates, tasks), wall, wall


def _footprint(pool: Pool) -> float:
    """What an agent of the pool costs in an hour beside its time, by what such agents have used so far."""
    rates = pool.config.rates
    memory = pool.footprint_bytes if pool.footprint_learned else 0
    return rates.per_cpu_hour * pool.footprint_cores + rates.per_gib_hour * memory / GIB


_MANY = 1_000_000
# So much later than to the last digit, that a look at that moment finds it so.
_LATER_S = 1.0
