"""All endpoints with their revisions: what has changed since any of them, for any number of readers.

Owns no reader and no queue. A reader remembers one number, the revision that it has, and is told the newest state of
whatever changed after it; one that reads seldom is told less often, and misses nothing.

  _known    id -> endpoint, and the revision at which it last changed
  _removed  id -> pool, and the revision at which it was removed, in that order; the oldest of more than `REMOVED_MAX`
            are forgotten, and readers from before that are told everything

Invariant: no id is in both, and every revision in them is at most `revision`. The first revision, 1, is that of nothing
at all; 0 is a reader's who knows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from msgspec import Struct

from agentd.core.balancer import Endpoint
from agentd.core.model import InstanceId, PoolName

REMOVED_MAX = 1_000
# How many different changes are kept for the next reader that asks for the same.
CHANGES_MAX = 256


class Change(Struct, frozen=True, eq=False, weakref=True):
    """What a reader has to take over to be at `revision`. `snapshot`: there is nothing but these endpoints."""

    revision: int
    snapshot: bool
    endpoints: tuple[Endpoint, ...]
    removed: tuple[InstanceId, ...] = ()


class Directory:
    """Give it all endpoints whenever they may have changed (`take`); ask it what is new (`since`)."""

    def __init__(self) -> None:
        self.revision = 1
        self.pools: tuple[PoolName, ...] = ()
        self._known: dict[InstanceId, tuple[Endpoint, int]] = {}
        self._removed: dict[InstanceId, tuple[PoolName, int]] = {}
        self._forgotten = 1  # removals up to this revision may be missing from `_removed`
        self._made: dict[tuple[str, int], Change] = {}  # of the present revision, by what `since` was asked

    def __len__(self) -> int:
        return len(self._known)

    def take(self, endpoints: Mapping[PoolName, tuple[Endpoint, ...]], *, numbers: bool) -> Set[PoolName]:
        """These are all endpoints now. Return the pools in which something has changed.

        Without `numbers`, an endpoint of which only numbers have changed stays as it was: they can wait.
        """
        self.pools = tuple(endpoints)
        revision, touched = self.revision + 1, set[PoolName]()
        present = {each.id: each for pool in endpoints.values() for each in pool}
        for ident in self._known.keys() - present.keys():
            pool = self._known.pop(ident)[0].pool
            self._removed[ident] = pool, revision
            touched.add(pool)
        for ident, endpoint in present.items():
            known = self._known.get(ident)
            if known is not None and (known[0] == endpoint or (not numbers and known[0].is_alike(endpoint))):
                continue
            self._known[ident] = endpoint, revision
            self._removed.pop(ident, None)
            touched.add(endpoint.pool)
        if touched:
            self.revision = revision
            self._made.clear()
            self._forget()
        return touched

    def since(self, pool: str, revision: int) -> Change:
        """What has changed in `pool` (empty: in all) after `revision`; everything where that is too long ago, or 0."""
        key = pool, revision
        change = self._made.get(key)
        if change is None:
            if len(self._made) >= CHANGES_MAX:
                self._made.clear()
            change = self._made[key] = self._since(pool, revision)
        return change

    def _since(self, pool: str, revision: int) -> Change:
        snapshot = not self._forgotten <= revision <= self.revision
        after = 0 if snapshot else revision
        endpoints = [each for each, at in self._known.values() if at > after and pool in ("", each.pool)]
        endpoints.sort(key=lambda each: (each.pool, each.port))
        removed = () if snapshot else self._removed.items()
        gone = sorted(ident for ident, (of, at) in removed if at > after and pool in ("", of))
        return Change(self.revision, snapshot, tuple(endpoints), tuple(gone))

    def _forget(self) -> None:
        while len(self._removed) > REMOVED_MAX:
            self._forgotten = self._removed.pop(next(iter(self._removed)))[1]
