"""What the host can still carry, divided between pools that together want more.

In this order: what pools are short of their minimum; then by priority, the higher first; of equal priority one instance
at a time to the pool where it relieves most waiting tasks per unit of the resource that is scarcest; of equal ones to
the one that got fewer, then by name. Whoever does not fit any more is passed over, and others may still fit.
Arithmetic on plain numbers; it knows no fleet.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from msgspec import Struct

_EPSILON = 1e-9


class Room(Struct, frozen=True):
    """What is there to divide, of each resource; None: no bound known."""

    memory_bytes: int | None = None
    cpu_cores: float | None = None
    instances: int | None = None


class Want(Struct, frozen=True):
    """What a pool wants: `more` instances of that size, of which the first `short` are below its minimum.

    `waiting`: tasks that nobody has begun; each instance relieves `relieves` of them.
    """

    name: str
    more: int
    short: int = 0
    priority: int = 0
    waiting: float = 0.0
    relieves: float = 1.0
    memory_bytes: int = 0
    cpu_cores: float = 0.0


def divide(wants: Sequence[Want], room: Room) -> dict[str, int]:
    """How many of its wish each gets: all of it where all fits."""
    if fits({want.name: want.more for want in wants}, wants, room):
        return {want.name: want.more for want in wants}
    scarce = scarcest(wants, room)
    given = dict.fromkeys((want.name for want in wants), 0)
    by_name = {want.name: want for want in wants}
    left: list[float | None] = [room.memory_bytes, room.cpu_cores, room.instances]
    # Of each that may get one more its rank, which changes with what it gets alone.
    ranks = [_rank(want, 0, scarce) for want in wants if want.more]
    heapq.heapify(ranks)
    while ranks:
        want = by_name[ranks[0][-1]]
        if not _fits_one(want, left):
            heapq.heappop(ranks)  # nor will it later: what is left gets less
            continue
        given[want.name] += 1
        left = [None if has is None else has - takes for has, takes in zip(left, _takes(want), strict=True)]
        if given[want.name] < want.more:
            heapq.heapreplace(ranks, _rank(want, given[want.name], scarce))
        else:
            heapq.heappop(ranks)
    return given


def fits(given: Mapping[str, int], wants: Sequence[Want], room: Room) -> bool:
    """Whether the host carries `given`."""
    return all(total <= has + _EPSILON for total, has in _used(given, wants, room) if has is not None)


def scarcest(wants: Sequence[Want], room: Room) -> int:
    """The resource that all wishes together exceed most: 0 memory, 1 cores, 2 instances."""
    used = _used({want.name: want.more for want in wants}, wants, room)
    over = [0.0 if has is None else total / max(has, _EPSILON) for total, has in used]
    return over.index(max(over))


def benefit(want: Want, given: int, scarce: int) -> float:
    """How many waiting tasks one more instance relieves, per unit of the resource, after `given`."""
    relieved = max(0.0, min(want.relieves, want.waiting - given * want.relieves))
    return relieved / max(_takes(want)[scarce], _EPSILON)


def _used(given: Mapping[str, int], wants: Sequence[Want], room: Room) -> list[tuple[float, float | None]]:
    bounds = (room.memory_bytes, room.cpu_cores, room.instances)
    return [(sum(given[w.name] * _takes(w)[place] for w in wants), bounds[place]) for place in range(len(bounds))]


def _takes(want: Want) -> tuple[int, float, int]:
    return want.memory_bytes, want.cpu_cores, 1


def _fits_one(want: Want, left: Sequence[float | None]) -> bool:
    return all(has is None or takes <= has + _EPSILON for has, takes in zip(left, _takes(want), strict=True))


def _rank(want: Want, given: int, scarce: int) -> tuple[bool, int, float, int, str]:
    """The least goes first."""
    return given >= want.short, -want.priority, -benefit(want, given, scarce), given, want.name
