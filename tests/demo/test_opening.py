"""The demo's beginning against a scripted agentd: what keeps agents from getting ready is told at once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from agentd.demo import opening
from agentd.demo.child import Agentd
from agentd.demo.fleet import Api, Event, Instance, Look, Silent
from agentd.demo.opening import Opening

AGENT = Instance("research-9002", "research", 9002, "ready", 7, "life", "researcher", 0)
FAILED = replace(AGENT, state="failed", cause="port_taken")


class ScriptedApi(Api):
    """Each look shows the next of `looks`, the last one for ever."""

    def __init__(self, *looks: Look | Silent, events: Sequence[Event] = ()) -> None:
        super().__init__(8766)
        self._looks = list(looks)
        self._events = events

    async def ready(self, state_dir: Path) -> bool:
        assert state_dir.is_absolute()
        return bool(self._looks)

    async def look(self, pool: str) -> Look:
        assert pool == "research"
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if isinstance(look, Silent):
            raise look
        return look

    async def events(self, after: int) -> Sequence[Event]:
        return [event for event in self._events if event.id > after]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LOOK_S", 0.001)


def wait(tmp_path: Path, api: Api) -> tuple[Look | None, list[str]]:
    told: list[str] = []

    async def program() -> Look | None:
        never: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        return await Opening(api, Agentd("", tmp_path), "research", told.append).wait(never)

    return asyncio.run(program()), told


def test_it_waits_for_the_first_ready_agent_and_passes_each_warning_on_once(tmp_path: Path) -> None:
    later = time.time() + 60.0
    events = [
        Event(1, "port_conflict", "research-9002", "of an earlier run", time.time() - 60.0),
        Event(2, "port_conflict", "research-9002", "port 9002 is in use by process 7 (nc)", later),
        Event(3, "scale_up", "research-9101", "no warning", later),
    ]
    ready = Look((AGENT,), 2, 0.0)
    looks = (Silent("GET /status: nobody there"), Look((FAILED,), 2, 0.0), Look((), 2, 0.0), ready)
    api = ScriptedApi(*looks, events=events)
    assert wait(tmp_path, api) == (ready, ["port conflict: research-9002: port 9002 is in use by process 7 (nc)"])


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ((), "agentd does not answer on port 8766 yet; see {log}"),
        ((Look((FAILED,), 2, 0.0),), "no agent of pool research is ready: research-9002 is failed (port_taken)"),
        ((Look((), 2, 0.0),), "no agent of pool research is ready: it has none yet"),
        (
            (Look((), 2, 0.0, enabled=False),),
            "multi_agent.enabled is false in the configuration: agentd starts no agent",
        ),
        ((Silent("GET /status: nobody there"),), "GET /status: nobody there"),
    ],
)
def test_what_is_missing_is_told_once_and_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: Sequence[Look | Silent], expected: str
) -> None:
    monkeypatch.setattr(opening, "MISSING_S", 0.0)
    monkeypatch.setattr(opening, "READY_S", 0.05)
    # Time goes by with each look at the clock: it is not over before it was told once that something is missing.
    clock = SimpleNamespace(time=time.time, monotonic=itertools.count(0.0, 0.02).__next__)
    monkeypatch.setattr(opening, "time", clock)
    missing = expected.format(log=tmp_path / "demo.log")
    look, told = wait(tmp_path, ScriptedApi(*looks))
    assert look is None
    assert told == [f"still waiting after 0 s: {missing}", f"giving up after 0.05 s: {missing}"]


def test_another_agentd_is_not_taken_for_one_that_has_ended(tmp_path: Path) -> None:
    async def program() -> Look | None:
        ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        class OtherApi(ScriptedApi):
            async def look(self, pool: str) -> Look:
                ended.set_result(1)
                return await super().look(pool)

        api = OtherApi(Look((AGENT,), 2, 0.0))
        return await Opening(api, Agentd("", tmp_path), "research", print).wait(ended)

    assert asyncio.run(program()) is None
