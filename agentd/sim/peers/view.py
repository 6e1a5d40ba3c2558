"""What a comparison policy sees of a pool, and what it is asked."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class PeerView(Struct, frozen=True):
    """A pool at one moment.

    `current` is the size that counts, ready and starting agents; those that drain are in none of the three.
    `in_flight` are the tasks in service, also those on draining agents; `queue` those that wait. `concurrency` is how
    many tasks an agent takes at once. `utilisation` has one number per ready agent: the share of its slots that was
    busy, 0..1, in the mean since the last look. `arrivals_per_s` is the rate since the last look.

    Invariant: current = ready + starting, min <= max, concurrency >= 1, len(utilisation) = ready.
    """

    current: int
    ready: int
    starting: int
    in_flight: int
    queue: int
    concurrency: int
    min: int
    max: int
    utilisation: tuple[float, ...] = ()
    arrivals_per_s: float = 0.0

    @property
    def demand(self) -> int:
        """Tasks in service and waiting."""
        return self.in_flight + self.queue


class Peer(Protocol):
    """A policy of somebody else. One object steers one pool, and is asked every `interval_s`, first at the start."""

    @property
    def interval_s(self) -> float: ...

    def decide(self, view: PeerView, now: float) -> int | None:
        """The size wanted, within min..max; None: leave it. `now` never goes back."""
        ...
