"""Which endpoint gets the next task. Pure: time and chance are arguments.

Two endpoints are drawn by the weights that agentd gives, and the one on which this client has less under way for its
weight is taken ("the power of two choices"). So an idle client follows the weights, a busy one evens out what it does
itself, and many clients that heard the same report do not all run to the same endpoint.

An endpoint that fails `FAILURES_MAX` times in a row is left out for a while, twice as long with each time that follows,
as Envoy's outlier detection does it; the last one never is. What is known of an endpoint is forgotten with its process:
another incarnation begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

FAILURES_MAX = 3
EJECTED_FIRST_S = 1.0
EJECTED_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an instance takes tasks, as agentd last told it. Numbers that the instance never sent are None.

    Attributes:
        id: of the instance, for example `research-9101`.
        incarnation: new with every start of the instance.
        weight: its share of new tasks beside the others of its pool, 0.05 to 1; 0 while it drains.
        load: the share of its capacity in use, 0 to 1.
    """

    id: str
    pool: str
    host: str
    port: int
    incarnation: str
    weight: float
    load: float | None = None
    queue_length: int | None = None
    in_flight: int | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:9101`."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:9101`."""
        return f"http://{self.address}"


@dataclass(slots=True, eq=False)
class Member:
    """An endpoint and what this client knows of it by itself: tasks under way, and how they ended."""

    endpoint: Endpoint
    in_flight: int = 0
    failures: int = 0  # in a row
    ejections: int = 0  # since it last did a task
    ejected_until: float = 0.0

    @property
    def pressure(self) -> float:
        return self.in_flight / self.endpoint.weight


class Picker:
    """The endpoints of one pool. `chance` gives numbers in [0, 1)."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._members: dict[str, Member] = {}

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(member.endpoint for member in self._members.values())

    def learn(self, endpoints: Sequence[Endpoint], removed: Collection[str] = (), *, snapshot: bool) -> None:
        """These are new or changed; with `snapshot` there are no others."""
        if snapshot:
            removed = self._members.keys() - {each.id for each in endpoints}
        for ident in removed:
            self._members.pop(ident, None)
        for each in endpoints:
            member = self._members.get(each.id)
            if member is not None and member.endpoint.incarnation == each.incarnation:
                member.endpoint = each
            else:
                self._members[each.id] = Member(each)

    def pick(self, now: float, avoid: Collection[Member] = ()) -> Member | None:
        """Take an endpoint for one task, any but those in `avoid`; None: there is none. To be followed by `release`."""
        ready = [one for one in self._members.values() if one.endpoint.weight > 0.0 and one not in avoid]
        able = [one for one in ready if one.ejected_until <= now]
        if not able:
            if not ready:
                return None
            able = [min(ready, key=lambda one: one.ejected_until)]
        chosen = self._draw(able)
        if len(able) > 1:
            other = self._draw([one for one in able if one is not chosen])
            chosen = other if other.pressure < chosen.pressure else chosen
        chosen.in_flight += 1
        return chosen

    def release(self, member: Member, now: float, *, worked: bool | None) -> None:
        """The task is over. `worked` None: how it ended says nothing about the endpoint."""
        member.in_flight -= 1
        if worked:
            member.failures = member.ejections = 0
            member.ejected_until = 0.0
        elif worked is False and member.ejected_until <= now:
            member.failures += 1
            if member.failures >= FAILURES_MAX and self._is_dispensable(member, now):
                member.ejected_until = now + min(EJECTED_MAX_S, EJECTED_FIRST_S * 2.0 ** min(member.ejections, 30))
                member.ejections += 1
                member.failures = FAILURES_MAX - 1  # the first failure after that is enough

    def _is_dispensable(self, member: Member, now: float) -> bool:
        return any(
            one is not member and one.endpoint.weight > 0.0 and one.ejected_until <= now
            for one in self._members.values()
        )

    def _draw(self, members: Sequence[Member]) -> Member:
        left = self._chance() * sum(one.endpoint.weight for one in members)
        for one in members:
            left -= one.endpoint.weight
            if left < 0.0:
                return one
        return members[-1]
