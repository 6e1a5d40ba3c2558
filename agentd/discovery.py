"""Where pools take work, told to everybody who watches.

Owns the directory of endpoints and who waits for its next revision. The fleet is looked at only while somebody
watches: soon after it has changed (`stir`), and now and then for the numbers in heartbeats, which stir nothing.
What one look finds is worked out once, however many watch. A watcher owns no queue: it is given what has changed since
the last time it asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

from agentd.clock import Clock
from agentd.core.balancer import Endpoint
from agentd.core.directory import Change, Directory
from agentd.core.model import PoolName
from agentd.errors import Refused

# Changes that come closer together than this are told together.
LOOK_S = 0.02
# Of the event loop's time, what looking may take: with very many endpoints looks become rarer.
LOOK_SHARE_MAX = 0.1
# Changed numbers are told this often, and more rarely where that would be more messages a second.
NUMBERS_S = 0.5
NUMBERS_PER_S_MAX = 1_000
WATCHERS_MAX = 10_000


class Discovery:
    """The endpoints of one fleet. All methods belong to one event loop.

    Attributes:
        watchers: how many watch now.
    """

    def __init__(self, look: Callable[[], Mapping[PoolName, tuple[Endpoint, ...]]], clock: Clock, epoch: int) -> None:
        """`look` gives the endpoints of all pools as they are now; `epoch` counts up with every start of agentd."""
        self._endpoints = look
        self._clock = clock
        self._epoch = epoch
        self._directory = Directory()
        self.watchers = 0
        self._watched = asyncio.Event()
        self._stirred = asyncio.Event()
        self._news: dict[str, asyncio.Event] = {}  # by pool: set, and forgotten, when there is something new
        self._closed = False

    def stir(self) -> None:
        """More may have changed than numbers. Cheap: called for every such change, watched or not."""
        self._stirred.set()

    async def run(self) -> None:
        """Look at the fleet while somebody watches, until cancelled."""
        due = self._clock.now()
        while True:
            await self._watched.wait()
            began = self._clock.now()
            numbers = began >= due
            if numbers:
                due = began + max(NUMBERS_S, self.watchers / NUMBERS_PER_S_MAX)
            self._look(numbers=numbers)
            await asyncio.sleep(max(LOOK_S, (self._clock.now() - began) / LOOK_SHARE_MAX))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due - self._clock.now()):
                    await self._stirred.wait()

    def resolve(self, pool: str) -> Change:
        """All endpoints of `pool`; empty: of all pools.

        Raises:
            Refused: UNKNOWN_POOL.
        """
        if self._stirred.is_set() or not self.watchers:
            self._look(numbers=not self.watchers)
        if pool and pool not in self._directory.pools:
            known = ", ".join(self._directory.pools)
            raise Refused("UNKNOWN_POOL", f"no pool {pool[:40]!r} (there are {known})", status="NOT_FOUND")
        return self._directory.since(pool, 0)

    def revision(self, pool: str, change: Change) -> str:
        """What a reader of `pool` hands back to go on after `change`."""
        return f"{self._epoch}.{change.revision}.{pool}"

    async def watch(self, pool: str, revision: str) -> AsyncGenerator[Change, None]:
        """What has changed since `revision`, or all endpoints; then what changes. It ends when agentd does.

        Raises:
            Refused: UNKNOWN_POOL, TOO_MANY_WATCHERS.
        """
        self.resolve(pool)
        if self.watchers >= WATCHERS_MAX:
            text = f"cannot watch: {WATCHERS_MAX} readers do so already"
            raise Refused("TOO_MANY_WATCHERS", text, status="RESOURCE_EXHAUSTED")
        with self._watching():
            change = self._directory.since(pool, self._number(pool, revision))
            yield change
            while not self._closed:
                if change.revision == self._directory.revision:
                    await self._news.setdefault(pool, asyncio.Event()).wait()
                    continue
                change = self._directory.since(pool, change.revision)
                if change.snapshot or change.endpoints or change.removed:  # not only news of other pools
                    yield change

    def close(self) -> None:
        """Let all watchers go: agentd ends."""
        self._closed = True
        self._tell(list(self._news))

    def _look(self, *, numbers: bool) -> None:
        self._stirred.clear()
        touched = self._directory.take(self._endpoints(), numbers=numbers)
        if touched:
            self._tell(["", *touched])

    def _tell(self, pools: list[str]) -> None:
        for pool in pools:
            if news := self._news.pop(pool, None):
                news.set()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        self.watchers += 1
        self._watched.set()
        try:
            yield
        finally:
            self.watchers -= 1
            if not self.watchers:
                self._watched.clear()

    def _number(self, pool: str, revision: str) -> int:
        """The number in a revision that `pool` had in this run of agentd; 0 for all others."""
        epoch, _, rest = revision.partition(".")
        number, _, of = rest.partition(".")
        ours = epoch == str(self._epoch) and of == pool and number.isascii() and number.isdigit() and len(number) <= 18
        return int(number) if ours else 0
