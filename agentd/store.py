"""What agentd remembers across restarts: state, open intents, events, decisions, metric history.

Owns the state file and the one thread that touches it. Never decides anything about the fleet, and never fails
a caller because of the disk: with a full disk, a lost mount or a damaged file the store is `degraded`, keeps the
state in full and the newest records in memory, answers from there, and writes all of it when the file takes
writes again.

Theory: `Kept` holds what the file has to hold and what of it is not there yet. A write first changes `Kept`,
then tries to bring the file up to it, in one transaction. Every recovery is the same step once more.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from agentd import log, store_configurations, store_metrics, store_schema
from agentd.clock import Clock
from agentd.core.messages import EventType, StoredRecord
from agentd.core.model import Decision
from agentd.errors import StateDirError
from agentd.store_kept import Batch, Kept, matches
from agentd.store_metrics import Metric
from agentd.store_schema import Intent, Saved

__all__ = ["Batch", "Bounds", "Intent", "Metric", "Saved", "Store"]

_log = log.get("store")
_T = TypeVar("_T")


class Bounds(Struct, frozen=True):
    """How much is kept. `pending_max`: records in memory while the file cannot be written."""

    events_max: int = 100_000
    decisions_max: int = 20_000
    metrics_days: float = 14.0
    metrics_raw_max: int = 200_000
    pending_max: int = 10_000


class Store:
    """See the module. Methods may be called from one event loop; each waits for the writer thread."""

    def __init__(self, path: Path, bounds: Bounds, clock: Clock) -> None:
        """For `open` alone."""
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._in_step = False  # the file's state and intents are those of `_kept`, changes aside
        self._kept = Kept(bounds.pending_max)
        self._saved = Saved()
        self._metrics_raw = 0
        self._last_id = 0
        self._oldest_stored: int | None = None
        self._degraded: str | None = None

    @classmethod
    def open(cls, path: Path, bounds: Bounds, clock: Clock) -> Store:
        """Open the state file, or begin one where there is none or it is damaged. Blocks; call it before the loop.

        Raises:
            StateDirError: the directory cannot be written, or a newer agentd wrote the file.
        """
        store = cls(path, bounds, clock)
        try:
            store._executor.submit(store._open).result()
        except BaseException:
            store._executor.shutdown()
            raise
        return store

    def load(self) -> Saved:
        """What the file held when it was opened, with this agentd's epoch."""
        return self._saved

    @property
    def degraded(self) -> str | None:
        """Why the file cannot be written now; None while all is well."""
        return self._degraded

    @property
    def last_id(self) -> int:
        """The id of the newest record, 0 before the first."""
        return self._last_id

    @property
    def oldest_id(self) -> int:
        """The id of the oldest record that can still be read; `last_id + 1` when there is none."""
        kept = self._kept.records
        if self._oldest_stored is not None:
            return self._oldest_stored  # what is not in the file yet is newer than all that is
        return kept[0].id if kept else self._last_id + 1

    async def write(self, batch: Batch) -> tuple[StoredRecord, ...]:
        """Store `batch` in one transaction; it outlives this process when this returns (unless `degraded`).

        Returns the records with their ids, which exist even when the disk does not take them. A cancelled call is
        carried out all the same.
        """
        first = self._last_id + 1
        stored = tuple(StoredRecord(first + n, wall, record) for n, (wall, record) in enumerate(batch.records))
        self._last_id += len(stored)
        await self._run(self._write, batch, stored, self._now())
        return stored

    def configured(self, fingerprint: str, text: str) -> None:
        """Decisions that are written from now on may be of this configuration; it is kept as long as one of them."""
        self._executor.submit(self._kept.configured, fingerprint, text)

    async def retry(self) -> None:
        """Try again to write what a degraded store has kept. Does nothing while all is well."""
        if self._degraded is not None:
            await self._run(self._bring_up, self._now())

    async def events(
        self, *, limit: int, pool: str = "", instance: str = "", types: Collection[EventType] = ()
    ) -> list[StoredRecord]:
        """The newest `limit` records that match, newest first; empty filters match everything."""
        return await self._run(self._events, limit, pool, instance, frozenset(types))

    async def events_after(self, after: int, limit: int) -> list[StoredRecord]:
        """Up to `limit` records with an id above `after`, oldest first. See `oldest_id` for what may be missing."""
        return await self._run(self._events_after, after, limit)

    async def decisions(
        self, pool: str, limit: int, until: float | None = None, *, bases: bool = False
    ) -> list[Decision]:
        """The newest `limit` decisions of `pool` ("" = all pools), newest first; `until`: a wall time.

        The monotonic times in decisions from before a reboot mean nothing; `wall` does. `bases`: with what each was
        made from, which can be large.
        """
        return await self._run(self._decisions, pool, limit, until, bases)

    async def decision_after(self, pool: str, after: float) -> Decision | None:
        """The first decision of `pool` after the wall time `after`; None: there is none yet."""
        return await self._run(self._decision_after, pool, after)

    async def add_metrics(self, metrics: Sequence[Metric]) -> None:
        """Add one sample per pool. A degraded store drops them: history may have gaps, state may not."""
        await self._run(self._add_metrics, tuple(metrics), self._now())

    async def metrics(self, pool: str, since: float) -> tuple[Metric, ...]:
        """The history of `pool` from the wall time `since` on, oldest first: five-minute means, then raw samples."""
        return await self._run(self._read, lambda file: store_metrics.select(file, pool, since), ())

    async def close(self) -> None:
        """Write what is left and close the file. The store takes no calls afterwards."""
        await self._run(self._close, self._now())
        self._executor.shutdown()

    def _now(self) -> tuple[float, float]:
        return self._clock.now(), self._clock.wall()

    async def _run(self, work: Callable[..., _T], *values: object) -> _T:
        # Shielded, because a cancelled waiter would otherwise take the work with it while it still queues.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, work, *values))

    # -- on the writer thread from here on -------------------------------------------------------

    def _open(self) -> None:
        now = self._now()
        store_schema.check_writable(self._path)
        moved = saved = None
        try:
            try:
                saved = self._connect_and_load()
            except sqlite3.DatabaseError as error:
                if not store_schema.is_damage(error):
                    raise
                moved = self._move_aside(now, error)
                saved = self._connect_and_load()
        except (sqlite3.OperationalError, OSError) as error:
            self._degrade(error)
            self._disconnect()
            saved = self._load_without_log_index()
        self._begin(saved, moved, now)
        self._bring_up(now)

    def _connect_and_load(self) -> Saved:
        file = self._connect()
        saved = store_schema.load(file)
        self._kept.decision_seq = store_schema.last_decision(file)
        self._in_step = True
        return saved

    def _begin(self, saved: Saved | None, moved: Path | None, now: tuple[float, float]) -> None:
        if saved is None or moved is not None:
            # Nobody knows how far ids and epochs had come; the seconds since 1970 are ahead of any of them.
            self._kept.decision_seq = int(now[1])
            saved = replace(saved or Saved(), last_record_id=int(now[1]), moved_aside=moved)
        self._saved = replace(saved, epoch=max(saved.epoch + 1, int(now[1])))
        self._last_id = self._kept.stored_id = saved.last_record_id
        self._kept.rows.update(saved.rows)
        self._kept.intents.update((intent.id, intent) for intent in saved.intents)

    def _load_without_log_index(self) -> Saved | None:
        """Read the state from a disk too full for even the index of the write-ahead log; None if that fails too."""
        try:
            connection = store_schema.connect(self._path, exclusive=True)
        except (sqlite3.DatabaseError, OSError):  # the caller has just reported why
            return None
        try:
            self._kept.decision_seq = store_schema.last_decision(connection)
            return store_schema.load(connection)
        except sqlite3.DatabaseError:  # as above: an empty file, or one that is damaged besides
            return None
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        file = store_schema.connect(self._path)
        try:
            found = os.stat(self._path)
            self._metrics_raw = store_metrics.raw_count(file)
            self._oldest_stored = store_schema.oldest_event(file)
        except BaseException:
            file.close()
            raise
        self._connection, self._in_step = file, False
        self._identity = (found.st_dev, found.st_ino)
        return file

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):  # it is given up because of an error that was told already
                self._connection.close()
        self._connection = self._oldest_stored = None

    def _write(self, batch: Batch, records: Sequence[StoredRecord], now: tuple[float, float]) -> None:
        self._kept.take(batch, records)
        self._bring_up(now)

    def _bring_up(self, now: tuple[float, float]) -> None:
        """Bring the file up to what is kept; after damage on a fresh file, after any other failure later."""
        try:
            self._flush(now)
        except sqlite3.DatabaseError as error:
            if store_schema.is_damage(error):
                self._begin_anew(now, error)
            elif isinstance(error, sqlite3.OperationalError):
                self._degrade(error)
            else:
                raise  # a broken constraint is a broken invariant of ours
        except (OSError, StateDirError) as error:
            self._degrade(error)

    def _begin_anew(self, now: tuple[float, float], cause: sqlite3.DatabaseError) -> None:
        try:
            self._move_aside(now, cause)
            self._connect()
            self._flush(now)
        except (sqlite3.DatabaseError, OSError, StateDirError) as error:
            self._degrade(error)

    def _flush(self, now: tuple[float, float]) -> None:
        if self._connection is not None and not self._is_in_place():
            raise store_schema.Damaged(f"{self._path} was removed or replaced while agentd ran")
        file, kept = self._connection or self._connect(), self._kept
        whole = not self._in_step
        rows = kept.changed_rows | kept.rows.keys() if whole else kept.changed_rows
        intents = kept.changed_intents | kept.intents.keys() if whole else kept.changed_intents
        with store_schema.transaction(file):
            if whole:
                store_schema.clear_state(file)
            store_schema.put_rows(file, {key: kept.rows.get(key) for key in rows})
            store_schema.put_intents(file, {key: kept.intents.get(key) for key in intents})
            store_schema.put_events(file, kept.unwritten())
            store_schema.put_decisions(file, kept.decisions)
            store_schema.put_effects(file, kept.effects)
            if not kept.knows_configurations:
                store_configurations.put(file, kept.configurations)
            store_schema.put_meta(file, epoch=self._saved.epoch, saved_at=now, last_id=self._last_id)
            store_schema.prune(file, "events", self._bounds.events_max)
            store_schema.prune(file, "decisions", self._bounds.decisions_max)
        kept.written()
        self._in_step = True
        self._oldest_stored = store_schema.oldest_event(file)
        if self._degraded is not None:
            _log.warning("store recovered", path=self._path, records_lost=kept.lost)
            self._degraded, kept.lost = None, 0

    def _is_in_place(self) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        return self._identity == (found.st_dev, found.st_ino)

    def _degrade(self, error: sqlite3.Error | OSError | StateDirError) -> None:
        if self._degraded is None:
            _log.error("store degraded", path=self._path, cause=error)
        self._degraded = f"cannot write {self._path}: {error}"

    def _move_aside(self, now: tuple[float, float], cause: sqlite3.DatabaseError) -> Path | None:
        self._disconnect()
        self._kept.forget_file()
        moved = store_schema.move_aside(self._path, now[1])
        _log.error("state file replaced by a fresh one", path=self._path, moved_to=moved or "nothing left", cause=cause)
        return moved

    def _read(self, query: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """What `query` finds in the file, or `otherwise` where the file cannot be read."""
        if self._connection is None:
            return otherwise
        try:
            return query(self._connection)
        except sqlite3.DatabaseError as error:
            if store_schema.is_damage(error):
                self._begin_anew(self._now(), error)
            elif isinstance(error, sqlite3.OperationalError):
                self._degrade(error)
            else:
                raise
            return otherwise

    def _events(self, limit: int, pool: str, instance: str, types: frozenset[EventType]) -> list[StoredRecord]:
        wanted = partial(matches, pool=pool, instance=instance, types=types)
        unwritten = list(filter(wanted, self._kept.unwritten()))
        otherwise = list(filter(wanted, reversed(self._kept.records)))
        found = self._read(
            lambda file: (
                unwritten + store_schema.select_events(file, limit=limit, pool=pool, instance=instance, types=types)
            ),
            otherwise,
        )
        return found[: max(0, limit)]

    def _events_after(self, after: int, limit: int) -> list[StoredRecord]:
        unwritten = [stored for stored in self._kept.unwritten() if stored.id > after]
        found = self._read(
            lambda file: store_schema.select_events_after(file, after, limit) + unwritten[::-1],
            [stored for stored in self._kept.records if stored.id > after],
        )
        return found[: max(0, limit)]

    def _decisions(self, pool: str, limit: int, until: float | None, bases: bool) -> list[Decision]:
        unwritten = self._kept.unwritten_decisions(pool)[::-1]
        if until is not None:
            unwritten = [made for made in unwritten if made.wall <= until]
        found = self._read(
            lambda file: unwritten + store_schema.select_decisions(file, pool, limit, until, bases=bases),
            unwritten,
        )
        return [self._kept.told(made) for made in found[: max(0, limit)]]

    def _decision_after(self, pool: str, after: float) -> Decision | None:
        unwritten = next((made for made in self._kept.unwritten_decisions(pool) if made.wall > after), None)
        found = self._read(lambda file: store_schema.first_decision_after(file, pool, after), None) or unwritten
        return None if found is None else self._kept.told(found)

    def _add_metrics(self, metrics: Sequence[Metric], now: tuple[float, float]) -> None:
        def add(file: sqlite3.Connection) -> int:
            with store_schema.transaction(file):
                store_metrics.put(file, metrics)
                return store_metrics.compact(
                    file,
                    wall=now[1],
                    keep_s=self._bounds.metrics_days * 86_400.0,
                    raw_max=self._bounds.metrics_raw_max,
                    raw=self._metrics_raw + len(metrics),
                )

        if self._degraded is None:
            gone = self._read(add, None)
            if gone is not None:
                self._metrics_raw += len(metrics) - gone

    def _close(self, now: tuple[float, float]) -> None:
        if self._degraded is not None:
            self._bring_up(now)
        self._disconnect()
