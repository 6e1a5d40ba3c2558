"""Records to everybody who watches: those of the past from the store, then those that come, none twice.

Owns the watchers' queues, each with a bound: a watcher that falls behind is sent away, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from msgspec import Struct, field

from agentd.core.messages import StoredRecord
from agentd.errors import Refused
from agentd.store import Store

# A watcher that falls this many records behind is sent away.
WATCHER_BACKLOG = 1_000
PAGE = 500


class _Watcher(Struct, eq=False):
    queue: asyncio.Queue[StoredRecord] = field(default_factory=lambda: asyncio.Queue(WATCHER_BACKLOG))
    lost: bool = False


class Publisher:
    """Hands stored records on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: set[_Watcher] = set()

    def publish(self, stored: StoredRecord) -> None:
        """Give `stored` to everybody who watches now."""
        for watcher in self._watchers:
            try:
                watcher.queue.put_nowait(stored)
            except asyncio.QueueFull:
                watcher.lost = True

    async def watch(self, after: int | None) -> AsyncIterator[StoredRecord]:
        """Records from the one after id `after` on; None: from now on.

        Raises:
            Refused: TOKEN_EXPIRED, where records after `after` are gone or the consumer is too slow.
        """
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            last = self._store.last_id if after is None else after
            if after is not None:
                if not self._store.oldest_id - 1 <= after <= self._store.last_id:
                    raise _expired(f"events after {after} are not kept; the oldest is {self._store.oldest_id}")
                while page := await self._store.events_after(last, PAGE):
                    for stored in page:
                        last = stored.id
                        yield stored
            while not watcher.lost:
                stored = await watcher.queue.get()
                if stored.id > last:
                    last = stored.id
                    yield stored
            raise _expired("too slow: events were dropped; list again")
        finally:
            self._watchers.discard(watcher)


def _expired(text: str) -> Refused:
    return Refused("TOKEN_EXPIRED", text, status="OUT_OF_RANGE")
