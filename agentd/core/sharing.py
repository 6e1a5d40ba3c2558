"""The decisions of several pools at a time: each for itself, and where the host cannot carry all of them, shared out.

`core.division` says who gets how many; who gets less is evaluated again with what the others take of the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from agentd.core import capacity, costs, division, drain, guards
from agentd.core.capacity import Promised
from agentd.core.division import Want
from agentd.core.metrics import Totals, totals
from agentd.core.model import Decision, PoolName
from agentd.core.state import Fleet, Pool

_UNITS = ("MiB", "core", "instance")
_NO_TARGETS: Mapping[PoolName, int] = {}


def decide(
    fleet: Fleet, pools: Iterable[Pool], now: float, *, targets: Mapping[PoolName, int] = _NO_TARGETS,
    in_the_end: bool = False, between: bool = False, sums: Mapping[PoolName, Totals] | None = None,
) -> dict[PoolName, Decision]:  # fmt: skip
    """What to do with `pools` now, by name, so that the host carries all of it. As `guards.evaluate`, of several."""
    return shared(fleet, pools, now, targets=targets, in_the_end=in_the_end, between=between, sums=sums)[0]


def shared(
    fleet: Fleet, pools: Iterable[Pool], now: float, *, targets: Mapping[PoolName, int] = _NO_TARGETS,
    in_the_end: bool = False, between: bool = False, sums: Mapping[PoolName, Totals] | None = None,
) -> tuple[dict[PoolName, Decision], dict[PoolName, Promised]]:  # fmt: skip
    """As `decide`, and for each what the others take of the host, and of the budget of all."""
    known = sums or {pool.name: totals(fleet, pool, now) for pool in pools}

    def evaluate(pool: Pool, extra: Promised) -> Decision:
        return guards.evaluate(
            fleet, pool, now, extra=extra, target=targets.get(pool.name), in_the_end=in_the_end, between=between,
            sums=known[pool.name],
        )  # fmt: skip

    taken = dict.fromkeys(known, capacity.NOTHING_PROMISED)
    decisions = {name: evaluate(fleet.pools[name], capacity.NOTHING_PROMISED) for name in known}
    for name, extra in _share_host(fleet, decisions, known, now).items():
        taken[name] = extra
        decisions[name] = evaluate(fleet.pools[name], extra)
    if fleet.config.budget:
        for name, extra in _share_money(fleet, decisions, taken):
            taken[name] = extra
            decisions[name] = evaluate(fleet.pools[name], extra)
    return decisions, taken


def _share_host(
    fleet: Fleet, decisions: Mapping[PoolName, Decision], known: Mapping[PoolName, Totals], now: float
) -> dict[PoolName, Promised]:
    """Whom the host cannot carry in full beside the others, and what those take."""
    growing = {
        name: more
        for name, it in decisions.items()
        if it.granted > it.current and (more := _starts(fleet, it, now)) > 0
    }
    if not growing:
        return {}
    wants = _wants(fleet, growing, known, now)
    room = capacity.shared_room(fleet)
    if len(wants) < 2 or division.fits({want.name: want.more for want in wants}, wants, room):
        return {}
    given, scarce = division.divide(wants, room), division.scarcest(wants, room)
    return {
        PoolName(want.name): _taken(want, wants, given, scarce)
        for want in wants
        if want.name in growing and given[want.name] < want.more
    }


def _share_money(
    fleet: Fleet, decisions: Mapping[PoolName, Decision], taken: Mapping[PoolName, Promised]
) -> Iterator[tuple[PoolName, Promised]]:
    """Who asks for more than others who come first, and what that costs: the budget of all is there once.

    Whoever takes them from here has evaluated one before he asks for the next.
    """
    promised = 0.0
    for name in sorted(decisions, key=lambda name: (-fleet.pools[name].config.priority, name)):
        if decisions[name].granted > decisions[name].current and fleet.pools[name].config.rates:
            if promised:
                yield name, replace(taken[name], cost_per_hour=promised)
            more = max(0, decisions[name].granted - decisions[name].current)
            promised += more * costs.one_more(fleet.pools[name])


def _starts(fleet: Fleet, decision: Decision, now: float) -> int:
    """How many new instances `decision`, to grow, needs; those that drain are taken back first."""
    more = decision.granted - decision.current
    return more - len(drain.reclaimable(fleet, fleet.pools[decision.pool], now))


def _wants(fleet: Fleet, growing: Mapping[PoolName, int], sums: Mapping[PoolName, Totals], now: float) -> list[Want]:
    """What is wanted of the host: by the pools that grow, and by those that repair will bring to their minimum."""
    wants = []
    for pool in fleet.pools.values():
        if pool.removed:
            continue
        short = max(0, pool.min - (sums[pool.name].count if pool.name in sums else len(pool.committed())))
        more = max(short, growing.get(pool.name, 0))
        if more:
            waiting = _waiting(pool, sums.get(pool.name) or totals(fleet, pool, now), more)
            wants.append(
                Want(
                    name=pool.name,
                    more=more,
                    short=short,
                    priority=pool.config.priority,
                    waiting=waiting,
                    relieves=float(pool.config.concurrency),
                    memory_bytes=max(1, pool.footprint_bytes),
                    cpu_cores=pool.footprint_cores,
                )
            )
    return wants


def _waiting(pool: Pool, sums: Totals, more: int) -> float:
    """Tasks that nobody can begin yet. Where nobody tells, what the wish itself says, the busier the more."""
    slots = float(pool.config.concurrency)
    if sums.demand is None:
        return more * slots * (1.0 if sums.load is None else sums.load)
    return max(0.0, sums.demand - sums.count * slots)


def _taken(want: Want, wants: Sequence[Want], given: Mapping[str, int], scarce: int) -> Promised:
    """What all others take, and who of them went first, and why."""
    others = [other for other in wants if other is not want and given[other.name]]
    ahead = [f"{other.name} went first: {why}" for other in others if (why := _why(want, other, scarce))]
    return Promised(
        memory_bytes=sum(given[other.name] * other.memory_bytes for other in others),
        cpu_cores=sum(given[other.name] * other.cpu_cores for other in others),
        instances=sum(given[other.name] for other in others),
        ahead=", ".join(ahead),
    )


def _why(want: Want, other: Want, scarce: int) -> str:
    if other.short and not want.short:
        return "it is below its minimum"
    if other.priority != want.priority:
        return f"priority {other.priority}" if other.priority > want.priority else ""
    mine, theirs = division.benefit(want, 0, scarce), division.benefit(other, 0, scarce)
    if mine == theirs:
        return "of equal priority, by name" if other.name < want.name else ""
    return f"it relieves more tasks per {_UNITS[scarce]}" if theirs > mine else ""
