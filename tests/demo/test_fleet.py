"""What the demo reads of agentd's HTTP API, against scripted answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agentd.demo import fleet
from agentd.demo.client import Answer, NotTaken
from agentd.demo.fleet import Api, Event, Silent

INSTANCE = {
    "id": "research-9101",
    "pool": "research",
    "port": 9101,
    "state": "ready",
    "pid": 7,
    "incarnation": "i",
    "core_name": "",
    "queue_length": None,
    "cause": None,
}
STATUS: dict[str, Any] = {
    "state_dir": "/tmp/state",
    "enabled": True,
    "autoscaling": {"enabled": True, "owner": "ada"},
    "pools": [
        {"name": "primary", "concurrency": 1, "load": None},
        {"name": "research", "concurrency": 2, "load": None},
    ],
    "instances": [INSTANCE, {**INSTANCE, "id": "primary-9001", "pool": "primary"}, {**INSTANCE, "state": "starting"}],
}


def answers(monkeypatch: pytest.MonkeyPatch, **bodies: Any) -> Api:
    """An API that answers `/status` and so on with these bodies; with nothing else."""

    async def request(_port: int, _method: str, path: str, *, timeout_s: float) -> Answer:
        assert timeout_s > 0
        name = path.partition("?")[0].strip("/")
        if name not in bodies:
            raise NotTaken("nobody there")
        body = bodies[name]
        return body if isinstance(body, Answer) else Answer(200, json.dumps(body).encode())

    monkeypatch.setattr(fleet, "request", request)
    return Api(8766)


def test_a_look_at_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    look = asyncio.run(answers(monkeypatch, status=STATUS).look("research"))
    assert (look.concurrency, look.load, len(look.instances)) == (2, 0.0, 2)
    assert [instance.id for instance in look.in_state("ready")] == ["research-9101"]


@pytest.mark.parametrize(
    ("enabled", "owner", "expected"), [(True, "ada", ""), (False, "ada", "ada"), (False, "", ""), (False, None, "")]
)
def test_autoscaling_that_the_configuration_has_off_was_switched_off_by_nobody(
    monkeypatch: pytest.MonkeyPatch, enabled: bool, owner: str | None, expected: str
) -> None:
    status = {**STATUS, "autoscaling": {"enabled": enabled, "owner": owner}}
    assert asyncio.run(answers(monkeypatch, status=status).look("research")).switched_off_by == expected


@pytest.mark.parametrize(
    ("enabled", "pool", "expected"),
    [
        (True, {"target": None, "pauses": []}, ""),
        (True, {"target": {"count": 5, "owner": "ada"}, "pauses": []}, "a target of 5, set by ada"),
        (True, {"target": None, "pauses": [{"owner": "ada"}]}, "a pause, by ada"),
        (False, {"target": {"count": 5, "owner": "ada"}, "pauses": []}, ""),
    ],
)
def test_what_a_person_has_asked_for_holds_a_pool_that_scales(
    monkeypatch: pytest.MonkeyPatch, enabled: bool, pool: dict[str, Any], expected: str
) -> None:
    facts = {"name": "research", "concurrency": 2, "load": None, **pool}
    status = {**STATUS, "autoscaling": {"enabled": enabled, "owner": None}, "pools": [facts]}
    assert asyncio.run(answers(monkeypatch, status=status).look("research")).held == expected


def test_a_refused_change_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(answers(monkeypatch, **{"autoscaler/enable": {"enabled": True}}).enable_autoscaling())
    with pytest.raises(Silent, match="answered with 403"):
        asyncio.run(answers(monkeypatch, **{"autoscaler/enable": Answer(403, b"{}")}).enable_autoscaling())


@pytest.mark.parametrize(
    "body", [{}, {**STATUS, "pools": []}, {**STATUS, "instances": [{}]}, [], Answer(500, b"{}"), Answer(200, b"<html>")]
)
def test_an_answer_of_another_shape_is_silence(monkeypatch: pytest.MonkeyPatch, body: object) -> None:
    with pytest.raises(Silent):
        asyncio.run(answers(monkeypatch, status=body).look("research"))


def test_nobody_there_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Silent, match="nobody there"):
        asyncio.run(answers(monkeypatch).look("research"))


def test_only_the_agentd_of_the_state_directory_counts_as_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(answers(monkeypatch, readyz={}, status=STATUS).ready(Path("/tmp/state")))
    assert not asyncio.run(answers(monkeypatch, readyz={}, status=STATUS).ready(Path("/tmp/other")))
    assert not asyncio.run(answers(monkeypatch, readyz=Answer(503, b"{}"), status=STATUS).ready(Path("/tmp/state")))
    assert not asyncio.run(answers(monkeypatch).ready(Path("/tmp/state")))


def test_new_events_come_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(number: int, instance: str = "research-9101") -> dict[str, object]:
        return {"id": number, "type": "ready", "instance": instance, "pool": "research", "reason": "r", "wall": 5.0}

    api = answers(monkeypatch, events={"events": [event(9, ""), event(8), event(7)]})
    assert asyncio.run(api.events(7)) == [
        Event(8, "ready", "research-9101", "r", 5.0),
        Event(9, "ready", "research", "r", 5.0),
    ]
