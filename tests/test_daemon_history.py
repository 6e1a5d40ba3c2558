"""What one agentd remembers, by its configuration: decisions always, everything else only where that is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from agentd import daemon_history, store_configurations
from agentd.clock import SystemClock
from agentd.config import default
from agentd.config.model import History
from agentd.core.controller import Controller
from agentd.core.messages import Restored
from agentd.recording import configurations
from agentd.recording.rerun import rerun
from agentd.recording.segments import DIRECTORY, listed
from agentd.runtime_troubles import Troubles
from agentd.store import Batch


@pytest.mark.parametrize("record", ["decisions", "full"])
def test_only_a_full_recording_writes_files(tmp_path: Path, record: str) -> None:
    clock, troubles = SystemClock(), Troubles()

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            history = replace(History(), record=record)
            store = daemon_history.open_store(history, tmp_path, clock)
            stack.push_async_callback(store.close)
            made = daemon_history.controller(default().fleet, history, store, tmp_path, clock, troubles, stack)
            assert isinstance(made, Controller)
            assert made.config.fingerprint == configurations.named(default().fleet)[0].fingerprint
            made.set_capacity(7)
            made.step(Restored({}, clock.now(), clock.wall(), clock.wall()), clock.now())

    asyncio.run(main())
    assert (tmp_path / DIRECTORY).exists() == (record == "full")
    if record == "full":
        (path,) = listed(tmp_path / DIRECTORY)
        found = rerun(path, version="")
        assert found is not None and (found.messages, found.first, found.torn) == (1, None, "")
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_store_has_the_configuration_that_decisions_name(tmp_path: Path) -> None:
    async def main() -> str:
        store = daemon_history.open_store(History(), tmp_path, SystemClock())
        found = daemon_history.remembered(default().fleet, store)
        await store.write(Batch())
        await store.close()
        return found.fingerprint

    fingerprint = asyncio.run(main())
    with contextlib.closing(sqlite3.connect(tmp_path / "agentd.db")) as file:
        assert configurations.read(store_configurations.select(file)[fingerprint]) == default().fleet


def test_a_recording_that_stops_is_a_trouble_until_it_goes_on(tmp_path: Path) -> None:
    clock, troubles = SystemClock(), Troubles()
    (tmp_path / DIRECTORY).write_text("in the way")

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            history = replace(History(), record="full")
            store = daemon_history.open_store(history, tmp_path, clock)
            stack.push_async_callback(store.close)
            made = daemon_history.controller(default().fleet, history, store, tmp_path, clock, troubles, stack)
            made.step(Restored({}, 0.0, 0.0, 0.0), 0.0)
            made.recorder.flush()  # type: ignore[attr-defined]
            made.step(Restored({}, 0.0, 0.0, 0.0), 1.0)
            assert [text.partition(":")[0] for text in troubles.shown()] == ["nothing is recorded for replays"]
            (tmp_path / DIRECTORY).unlink()
            made.step(Restored({}, 0.0, 0.0, 0.0), 100.0)
            made.recorder.flush()  # type: ignore[attr-defined]
            made.step(Restored({}, 0.0, 0.0, 0.0), 101.0)
            assert troubles.shown() == ()

    asyncio.run(main())
