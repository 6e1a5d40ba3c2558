"""Damage and disks that take no writes: agentd goes on, and loses nothing that it can keep."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest
from store_samples import RESEARCH, damage, decision, effect, files_end_at, fill, open_store, record

from agentd.core.model import InstanceId
from agentd.store import Batch, Bounds, Intent, Metric, Store
from agentd.store_schema import DAMAGED_FILES_MAX

# -- damage --------------------------------------------------------------------------------------


async def _filled(path: Path) -> Store:
    store = open_store(path)
    await store.write(Batch(tuple(record(n) for n in range(2_000)), rows={"key": "value"}))
    return store


@pytest.mark.parametrize("offset", [0, 8 * 4096], ids=["header", "middle page"])
def test_a_damaged_file_is_moved_aside_and_a_fresh_one_begun(path: Path, offset: int) -> None:
    async def main() -> None:
        await (await _filled(path)).close()
        damage(path, offset)
        store = open_store(path, wall=3_000_000.0)
        saved = store.load()
        assert saved.moved_aside == path.with_name("agentd.db.corrupt-3000000")
        assert saved.moved_aside.stat().st_size == os.path.getsize(saved.moved_aside) > 0
        assert (saved.rows, saved.intents, store.degraded) == ({}, (), None)
        stored = await store.write(Batch((record(1),), rows={"new": "1"}))
        assert stored[0].id > 2_000, "ids never go back, or watchers that resume would miss records"
        await store.close()
        again = open_store(path)
        assert again.load().rows == {"new": "1"}
        assert again.load().last_record_id == stored[0].id
        await again.close()

    asyncio.run(main())


def test_the_file_of_another_program_is_moved_aside_untouched(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE songs (title TEXT)")
    file.close()
    before = path.read_bytes()
    store = open_store(path)
    moved = store.load().moved_aside
    assert moved is not None
    assert moved.read_bytes() == before
    asyncio.run(store.close())


def test_only_the_newest_damaged_files_are_kept(path: Path) -> None:
    for number in range(DAMAGED_FILES_MAX + 2):
        path.write_bytes(b"no database at all" * 100)
        store = open_store(path, wall=1_000_000.0 + number // 2)
        asyncio.run(store.close())
    assert len(list(path.parent.glob("agentd.db.corrupt-*"))) == DAMAGED_FILES_MAX


def test_damage_while_running_loses_no_state_and_no_recent_record(path: Path) -> None:
    intent = Intent("i-1", "start", InstanceId("research-9101"), "d-1", 6.0)

    async def main() -> None:
        store = await _filled(path)
        await store.write(Batch(intents=(intent,)))
        await store.close()
        store = open_store(path)
        await store.write(Batch(tuple(record(n) for n in range(5)), rows={"late": "1"}))
        with sqlite3.connect(path) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file.close()
        for page in range(1, path.stat().st_size // 4096):
            damage(path, page * 4096)
        with sqlite3.connect(path) as file:  # makes the store read its pages anew
            file.execute("PRAGMA user_version=1")
        file.close()
        stored = await store.write(Batch((record(7),), rows={"later": "2"}))
        assert stored[0].id == 2_006
        assert store.degraded is None
        assert [one.id for one in await store.events(limit=10)] == [2_006, 2_005, 2_004, 2_003, 2_002, 2_001]
        await store.close()
        again = open_store(path)
        assert again.load().rows == {"key": "value", "late": "1", "later": "2"}
        assert again.load().intents == (intent,)
        await again.close()
        assert len(list(path.parent.glob("agentd.db.corrupt-*[0-9]"))) == 1

    asyncio.run(main())


def test_a_state_file_that_somebody_removes_is_written_again(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        await store.write(Batch((record(1),), rows={"key": "value"}))
        path.unlink()
        await store.write(Batch((record(2),)))
        await store.close()
        again = open_store(path)
        assert again.load().rows == {"key": "value"}
        assert [one.id for one in await again.events(limit=10)] == [2, 1]
        await again.close()

    asyncio.run(main())


# -- a disk that takes no writes -----------------------------------------------------------------


def test_an_io_error_degrades_and_the_recovery_loses_nothing(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        await store.write(Batch((record(1),), (decision(1),), {"a": "1", "b": "1"}))
        with files_end_at(4096):
            stored = await store.write(Batch((record(2), record(3)), (decision(2),), {"a": "2", "b": None, "c": "1"}))
            assert [one.id for one in stored] == [2, 3], "ids exist even when the disk takes nothing"
            assert store.degraded is not None
            assert os.fspath(path) in store.degraded
            await store.retry()
            assert store.degraded is not None
            assert [one.id for one in await store.events(limit=2)] == [3, 2]
            assert [one.id for one in await store.events_after(1, 10)] == [2, 3]
            assert [made.id for made in await store.decisions("", 1)] == ["d-2"]
            assert [made.id for made in await store.decisions("", 9, 2.5)][:1] == ["d-2"]
            await store.write(Batch(effects=(effect("d-1"), effect("d-2"))))
            assert [made.effect for made in await store.decisions("", 1)] == [effect("d-2")]
            await store.add_metrics((Metric(1.0, RESEARCH, 1, 1, 0.5, 0, 0),))
        await store.retry()
        assert store.degraded is None
        assert [one.id for one in await store.events(limit=10)] == [3, 2, 1]
        assert [made.id for made in await store.decisions("", 10)] == ["d-2", "d-1"]
        assert [made.effect for made in await store.decisions("", 10)] == [effect("d-2"), effect("d-1")]
        await store.close()
        again = open_store(path)
        assert again.load().rows == {"a": "2", "c": "1"}
        assert again.load().last_record_id == 3
        await again.close()

    asyncio.run(main())


def test_the_next_write_recovers_too(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        with files_end_at(4096):
            await store.write(Batch((record(1),), rows={"a": "1"}))
            assert store.degraded is not None
        await store.write(Batch((record(2),), rows={"b": "2"}))
        assert store.degraded is None
        assert [one.id for one in await store.events(limit=10)] == [2, 1]
        await store.close()

    asyncio.run(main())


def test_pending_records_are_bounded_and_the_newest_are_kept(path: Path) -> None:
    async def main() -> None:
        store = open_store(path, bounds=Bounds(pending_max=100))
        with files_end_at(4096):
            for start in range(0, 250, 50):
                await store.write(Batch(tuple(record(n) for n in range(start, start + 50)), rows={"at": str(start)}))
        await store.retry()
        events = await store.events(limit=1_000)
        assert [one.id for one in events] == list(range(250, 150, -1))
        assert (store.oldest_id, store.last_id) == (151, 250)
        await store.close()
        again = open_store(path)
        assert again.load().rows == {"at": "200"}
        await again.close()

    asyncio.run(main())


@pytest.mark.host
def test_a_full_disk_while_running_is_survived_and_loses_nothing(small_disk: Path) -> None:
    async def main() -> None:
        store = open_store(small_disk / "agentd.db")
        await store.write(Batch((record(0),), rows={"a": "1"}))
        ballast = fill(small_disk)
        for number in range(1, 300):
            await store.write(Batch((record(number),), rows={"a": str(number)}))
        assert store.degraded is not None
        assert "full" in store.degraded
        assert [one.id for one in await store.events(limit=300)] == list(range(300, 0, -1))
        ballast.unlink()
        await store.retry()
        assert store.degraded is None
        await store.close()
        again = open_store(small_disk / "agentd.db")
        assert again.load().rows == {"a": "299"}
        assert [one.id for one in await again.events(limit=300)] == list(range(300, 0, -1))
        await again.close()

    asyncio.run(main())


@pytest.mark.host
def test_a_disk_full_at_start_still_gives_the_saved_state(small_disk: Path) -> None:
    path = small_disk / "agentd.db"

    async def main() -> None:
        store = open_store(path)
        await store.write(Batch((record(1),), rows={"a": "1", "gone": "1"}))
        await store.close()
        ballast = fill(small_disk)
        store = open_store(path)
        assert store.degraded is not None
        assert store.load().rows == {"a": "1", "gone": "1"}
        assert [one.id for one in await store.write(Batch((record(2),), rows={"gone": None}))] == [2]
        ballast.unlink()
        await store.retry()
        assert store.degraded is None
        assert [one.id for one in await store.events(limit=10)] == [2, 1]
        await store.close()
        again = open_store(path)
        assert again.load().rows == {"a": "1"}
        await again.close()

    asyncio.run(main())


@pytest.mark.host
def test_a_first_start_on_a_full_disk_manages_from_memory_until_there_is_room(small_disk: Path) -> None:
    async def main() -> None:
        ballast = fill(small_disk)
        store = open_store(small_disk / "agentd.db")
        assert store.degraded is not None
        (stored,) = await store.write(Batch((record(1),), (decision(1),), {"a": "1"}))
        assert [one.id for one in await store.events(limit=10)] == [stored.id]
        assert await store.decisions("research", 10) == [decision(1)]
        ballast.unlink()
        await store.retry()
        assert store.degraded is None
        await store.close()
        again = open_store(small_disk / "agentd.db")
        assert again.load().rows == {"a": "1"}
        assert again.load().last_record_id == stored.id
        await again.close()

    asyncio.run(main())
