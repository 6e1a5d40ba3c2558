"""A configuration is stored once, under its fingerprint, as long as a decision is kept that was made under it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace
from store_samples import decision, open_store

from agentd import store_configurations, store_schema
from agentd.store import Batch, Bounds


def kept(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as file:
        return store_configurations.select(file)


def made(number: int, configuration: str) -> Batch:
    return Batch(decisions=(replace(decision(number), configuration=configuration, basis="{}"),))


def test_a_configuration_is_kept_as_long_as_a_decision_of_it_is(path: Path) -> None:
    async def main() -> None:
        store = open_store(path, bounds=Bounds(decisions_max=2))
        store.configured("one", '{"pools":{}}')
        await store.write(made(1, "one"))
        await store.write(made(2, "one"))
        await store.close()
        assert kept(path) == {"one": '{"pools":{}}'}
        store = open_store(path, bounds=Bounds(decisions_max=2))
        store.configured("two", "{}")
        await store.write(made(3, "two"))
        assert kept(path).keys() == {"one", "two"}
        await store.write(made(4, "two"))
        await store.close()
        store = open_store(path, bounds=Bounds(decisions_max=2))
        store.configured("two", "{}")
        await store.write(Batch())
        assert [one.configuration for one in await store.decisions("", 9)] == ["two", "two"]
        await store.close()
        assert kept(path).keys() == {"two"}

    asyncio.run(main())


def test_reloads_without_a_decision_leave_the_last_few_alone(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        for number in range(30):
            store.configured(f"c{number}", "{}")
            await store.write(Batch())
        await store.close()
        assert kept(path).keys() == {f"c{number}" for number in range(22, 30)}

    asyncio.run(main())


def test_a_fresh_file_after_damage_has_the_configurations_too(path: Path) -> None:
    async def main() -> None:
        store = open_store(path)
        store.configured("one", "{}")
        await store.write(made(1, "one"))
        path.unlink()
        await store.write(made(2, "one"))
        await store.close()
        assert kept(path) == {"one": "{}"}

    asyncio.run(main())


def test_decisions_of_an_older_agentd_have_none(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        for statements in store_schema.MIGRATIONS[:4]:
            for statement in statements:
                file.execute(statement)
        file.execute("INSERT INTO meta VALUES (1, 0, NULL, NULL, 0)")
        file.execute(f"PRAGMA application_id={store_schema.APPLICATION_ID}")
        file.execute("PRAGMA user_version=4")
        columns = "seq, id, pool, at, wall, current, wanted, granted, reasons, limits, counterfactual, victims"
        values = "1, '7-1', 'research', 1, 2, 1, 2, 2, '[]', '[]', '', '[]'"
        file.execute(f"INSERT INTO decisions ({columns}) VALUES ({values})")

    async def main() -> None:
        store = open_store(path)
        (old,) = await store.decisions("", 9)
        assert old.configuration == "" and old.id == "7-1"
        await store.close()

    asyncio.run(main())
