"""The store keeps what it is given across restarts and within its bounds, and finds it again."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from store_samples import decision, effect, open_store, record

from agentd.core.messages import SCALING_EVENTS, EventType, Record
from agentd.core.model import InstanceId, Limit, PoolName
from agentd.errors import StateDirError
from agentd.store import Batch, Bounds, Intent, Saved
from agentd.store_schema import APPLICATION_ID, MIGRATIONS, PRUNE_ROWS_MAX, SCHEMA_VERSION

NOBODY = 65534


# -- restart -------------------------------------------------------------------------------------


def test_everything_written_is_there_after_a_restart(path: Path) -> None:
    intent = Intent("i-2", "stop", InstanceId("research-9102"), "d-1", 7.0)

    async def first() -> None:
        store = open_store(path)
        assert store.load() == Saved(epoch=1_000_000)
        done = Intent("i-1", "start", InstanceId("research-9101"), "d-1", 6.0)
        stored = await store.write(
            Batch((record(1), record(2)), (decision(1),), {"a": '{"x":1}', "b": "2"}, (done, intent))
        )
        assert [one.id for one in stored] == [1, 2]
        await store.write(Batch(rows={"b": None, "c": "3"}, done=("i-1",)))
        await store.close()

    async def second() -> None:
        store = open_store(path, wall=900_000.0)
        saved = store.load()
        assert saved.rows == {"a": '{"x":1}', "c": "3"}
        assert saved.saved_at == (50.0, 1_000_000.0)
        assert saved.epoch == 1_000_001, "an epoch is never used twice, not even after the clock went back"
        assert saved.intents == (intent,)
        assert (saved.last_record_id, saved.moved_aside) == (2, None)
        assert [one.id for one in await store.write(Batch((record(3),)))] == [3]
        events = await store.events(limit=10)
        assert [(one.id, one.wall, one.record) for one in events] == [
            (3, *record(3)),
            (2, *record(2)),
            (1, *record(1)),
        ]
        assert await store.decisions("research", 10) == [decision(1)]
        await store.close()

    asyncio.run(first())
    asyncio.run(second())


def test_a_killed_agentd_finds_what_was_only_in_the_log(path: Path, tmp_path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        await store.write(Batch((record(1),), rows={"key": "value"}))
        left = tmp_path / "left"
        left.mkdir()
        for name in ("agentd.db", "agentd.db-wal"):  # as a kill leaves them: nobody moved the log into the file
            shutil.copy(path.with_name(name), left / name)
        await store.close()
        found = open_store(left / "agentd.db")
        assert found.load().rows == {"key": "value"}
        assert [one.id for one in await found.events(limit=10)] == [1]
        await found.close()

    asyncio.run(main())


def test_a_cancelled_write_is_stored_all_the_same(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        writes = [asyncio.create_task(store.write(Batch((record(n),)))) for n in range(5)]
        await asyncio.sleep(0)
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
        assert [one.id for one in await store.events(limit=10)] == [5, 4, 3, 2, 1]
        await store.close()

    asyncio.run(main())


def test_text_that_is_no_utf8_is_stored_in_escaped_form(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        await store.write(Batch(((1.0, Record(EventType.EXIT, "cannot run /opt/\udcff")),)))
        assert [one.record.reason for one in await store.events(limit=1)] == ["cannot run /opt/\\udcff"]
        assert store.degraded is None
        await store.close()

    asyncio.run(main())


# -- refusals ------------------------------------------------------------------------------------


def test_a_file_of_a_newer_agentd_is_refused_naming_both_versions_and_left_alone(path: Path) -> None:
    asyncio.run(open_store(path).close())
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version={SCHEMA_VERSION + 7}")
    file.close()
    before = path.read_bytes()
    with pytest.raises(StateDirError, match=rf"version {SCHEMA_VERSION + 7}, this one knows {SCHEMA_VERSION}\b"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateDirError, match="does not exist"):
        open_store(tmp_path / "missing" / "agentd.db")


def test_a_directory_that_cannot_be_written_is_refused_with_its_mode_and_a_way_out() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o555)
        was = os.geteuid()
        if was == 0:
            os.seteuid(NOBODY)  # root may write everywhere
        try:
            with pytest.raises(StateDirError, match=rf"{name}: mode 0555, uid \d+; .*state_dir"):
                open_store(Path(name) / "agentd.db")
        finally:
            os.seteuid(was)
            os.chmod(name, 0o755)


# -- bounds and queries --------------------------------------------------------------------------


def test_events_and_decisions_stay_within_their_bounds(path: Path) -> None:
    async def main() -> None:
        store = open_store(path, bounds=Bounds(events_max=100, decisions_max=40))
        for start in range(0, 500, 20):
            numbers = range(start, start + 20)
            await store.write(Batch(tuple(record(n) for n in numbers), tuple(decision(n) for n in numbers)))
        assert [one.id for one in await store.events(limit=1_000)] == list(range(500, 400, -1))
        assert [made.id for made in await store.decisions("", 1_000)] == [f"d-{n}" for n in range(499, 459, -1)]
        assert store.oldest_id == 401
        await store.close()

    asyncio.run(main())


def test_a_lowered_bound_is_reached_in_steps(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        await store.write(Batch(tuple(record(n) for n in range(PRUNE_ROWS_MAX * 2))))
        await store.close()
        store = open_store(path, bounds=Bounds(events_max=10))
        assert store.oldest_id == PRUNE_ROWS_MAX + 1, "opening writes the epoch, and each write prunes one step"
        await store.write(Batch())
        assert store.last_id - store.oldest_id + 1 == 10
        await store.close()

    asyncio.run(main())


def test_events_are_found_by_pool_instance_and_type_newest_first(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        kinds = (EventType.SCALE_UP, EventType.START, EventType.SCALE_DOWN)
        await store.write(
            Batch(tuple(record(n, kinds[n % 3], "research" if n % 2 else "testing") for n in range(1, 13)))
        )
        assert [one.id for one in await store.events(limit=3, types=SCALING_EVENTS)] == [12, 11, 9]
        assert [one.id for one in await store.events(limit=9, pool="research")] == [11, 9, 7, 5, 3, 1]
        assert [one.id for one in await store.events(limit=9, instance="testing-9104")] == [4]
        found = await store.events(limit=9, pool="testing", types=(EventType.SCALE_DOWN,))
        assert [one.id for one in found] == [8, 2]
        assert await store.events(limit=0) == []
        assert [one.id for one in await store.events_after(9, 2)] == [10, 11]
        assert (store.oldest_id, store.last_id) == (1, 12)
        await store.close()

    asyncio.run(main())


def test_what_a_decision_was_made_from_is_there_for_who_asks_for_it(path: Path) -> None:
    basis = '{"rows":{"pool/research":"\udce9"}}'

    async def scenario() -> None:
        store = open_store(path)
        made = replace(decision(1), basis=basis, limits=(Limit("max_agents", "its maximum is 3", allows=3),))
        await store.write(Batch(decisions=(made,)))
        assert [one.basis for one in await store.decisions("", 10)] == [""]
        (found,) = await store.decisions("", 10, bases=True)
        assert found.basis == basis.encode("utf-8", "backslashreplace").decode()
        assert found.chain == (("wanted", 4), ("max_agents", 3), ("granted", 3)) and found.binding == "max_agents"
        await store.close()

    asyncio.run(scenario())


def test_decisions_are_found_by_time(path: Path) -> None:
    async def scenario() -> None:
        store = open_store(path)
        await store.write(Batch(decisions=tuple(replace(decision(n), wall=100.0 * n) for n in (1, 2, 3))))
        assert [one.id for one in await store.decisions("research", 10, 200.0)] == ["d-2", "d-1"]
        assert await store.decisions("research", 10, 99.0) == []
        following = await store.decision_after("research", 200.0)
        assert following is not None and following.id == "d-3"
        assert await store.decision_after("research", 300.0) is None
        assert await store.decision_after("testing", 0.0) is None
        await store.close()

    asyncio.run(scenario())


def test_decisions_are_found_by_pool(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        testing = PoolName("testing")
        await store.write(Batch(decisions=(decision(1), decision(2, testing), decision(3))))
        assert await store.decisions("research", 10) == [decision(3), decision(1)]
        assert await store.decisions("", 2) == [decision(3), decision(2, testing)]
        await store.close()

    asyncio.run(main())


def test_an_empty_store_says_that_nothing_can_be_read(path: Path) -> None:
    store = open_store(path)
    assert (store.oldest_id, store.last_id) == (1, 0)
    asyncio.run(store.close())


def test_an_event_takes_less_than_a_kibibyte_on_disk(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        made = decision(1)
        for start in range(0, 5_000, 500):
            await store.write(Batch(tuple(record(n) for n in range(start, start + 500)), (made,) * 500))
        await store.close()

    asyncio.run(main())
    assert path.stat().st_size / 5_000 < 1_024, "with a decision for each event"


def test_what_a_decision_brought_is_put_down_later_and_outlives_a_restart(path: Path) -> None:
    made = effect("d-1")

    async def main() -> None:
        store = open_store(path)
        await store.write(Batch(decisions=(decision(1), decision(2))))
        await store.write(Batch(effects=(made,)))
        assert [one.effect for one in await store.decisions("", 10)] == [None, made]
        await store.write(Batch(decisions=(decision(3),), effects=(effect("d-3"), effect("d-99"))))
        await store.close()
        again = open_store(path)
        assert [one.effect for one in await again.decisions("", 10)] == [effect("d-3"), None, made]
        await again.close()

    asyncio.run(main())


def test_a_file_of_the_first_version_is_brought_up_to_date(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        for statement in MIGRATIONS[0]:
            file.execute(statement)
        file.execute(f"PRAGMA application_id={APPLICATION_ID}")
        file.execute("PRAGMA user_version=1")
        values = (1, "d-1", "research", 1.5, 2.5, 2, 4, 3, "[]", "[]", "", "[]")
        file.execute(f"INSERT INTO decisions VALUES ({', '.join('?' * 12)})", values)
        file.commit()

    async def main() -> None:
        store = open_store(path)
        await store.write(Batch(effects=(effect("d-1"),)))
        (kept,) = await store.decisions("", 10)
        assert (kept.id, kept.effect) == ("d-1", effect("d-1"))
        await store.close()

    asyncio.run(main())
