"""What the demo sees of agentd: its HTTP API, as any other program could use it. It only reads, but
for one thing: autoscaling that was switched off in an earlier run, or held, is switched on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from agentd.demo.client import Answer, Broken, NotTaken, request

TIMEOUT_S = 10.0
EVENTS_MAX = 200


class Silent(Exception):
    """agentd gives no answer that can be used."""


class Instance(Struct, frozen=True):
    """One agent as GET /status shows it. `core_name` is empty for an elastic instance."""

    id: str
    pool: str
    port: int
    state: str
    pid: int
    incarnation: str
    core_name: str
    queue_length: int
    cause: str = ""


class Look(Struct, frozen=True):
    """One look at the fleet: the instances of one pool. `load` 0 where agentd has no sample.

    `switched_off_by`: who switched autoscaling off; empty where it is on, or off by the configuration. `held`: what a
    person has asked for that keeps it from scaling this pool, and who; empty: nothing.
    """

    instances: tuple[Instance, ...]
    concurrency: int
    load: float
    enabled: bool = True
    switched_off_by: str = ""
    held: str = ""

    def in_state(self, *states: str) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if instance.state in states)


class Event(Struct, frozen=True):
    """One record of GET /events. Ids count up; `wall` is seconds since the epoch."""

    id: int
    type: str
    instance: str
    reason: str
    wall: float = 0.0


class Api:
    """agentd's HTTP API on 127.0.0.1:`port`."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ready(self, state_dir: Path) -> bool:
        """Whether the agentd of `state_dir`, and no other one, answers here and is ready."""
        try:
            if (await self._request("GET", "/readyz")).status != 200:
                return False
            status = await self._object("/status")
        except Silent:
            return False
        return Path(str(status.get("state_dir", ""))).resolve() == state_dir.resolve()

    async def look(self, pool: str) -> Look:
        """The instances of `pool` now.

        Raises:
            Silent: no usable answer.
        """
        status = await self._object("/status")
        try:
            facts = next(each for each in status["pools"] if each["name"] == pool)
            instances = tuple(_instance(each) for each in status["instances"] if each["pool"] == pool)
            mode = status["autoscaling"]
            return Look(
                instances,
                int(facts["concurrency"]),
                float(facts["load"] or 0.0),
                enabled=bool(status["enabled"]),
                switched_off_by="" if mode["enabled"] else str(mode["owner"] or ""),
                held=_held(facts) if mode["enabled"] else "",
            )
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise Silent(f"GET /status has another shape than expected: {error!r}") from error

    async def events(self, after: int) -> Sequence[Event]:
        """The events since the one with id `after`, oldest first; at most the newest `EVENTS_MAX`.

        Raises:
            Silent: no usable answer.
        """
        answer = await self._object(f"/events?limit={EVENTS_MAX}")
        try:
            found = [
                Event(
                    int(each["id"]),
                    str(each["type"]),
                    str(each["instance"] or each["pool"]),
                    str(each["reason"]),
                    float(each["wall"]),
                )
                for each in answer["events"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise Silent(f"GET /events has another shape than expected: {error!r}") from error
        return sorted((event for event in found if event.id > after), key=lambda event: event.id)

    async def enable_autoscaling(self) -> None:
        """Switch autoscaling on.

        Raises:
            Silent: agentd did not do it.
        """
        answer = await self._request("POST", "/autoscaler/enable")
        if answer.status != 200:
            raise Silent(f"POST /autoscaler/enable is answered with {answer.status}")

    async def _object(self, path: str) -> dict[str, Any]:
        answer = await self._request("GET", path)
        try:
            body = answer.json()
        except ValueError as error:
            raise Silent(f"GET {path} is no JSON: {error}") from error
        if answer.status != 200 or not isinstance(body, dict):
            raise Silent(f"GET {path} is answered with {answer.status}")
        return body

    async def _request(self, method: str, path: str) -> Answer:
        try:
            return await request(self.port, method, path, timeout_s=TIMEOUT_S)
        except (NotTaken, Broken) as error:
            raise Silent(f"{method} {path}: {error}") from error


def _held(pool: dict[str, Any]) -> str:
    if target := pool.get("target"):
        return f"a target of {target['count']}, set by {target['owner']}"
    return f"a pause, by {pauses[0]['owner']}" if (pauses := pool.get("pauses")) else ""


def _instance(each: dict[str, Any]) -> Instance:
    return Instance(
        id=str(each["id"]),
        pool=str(each["pool"]),
        port=int(each["port"]),
        state=str(each["state"]),
        pid=int(each["pid"] or 0),
        incarnation=str(each["incarnation"]),
        core_name=str(each["core_name"] or ""),
        queue_length=int(each["queue_length"] or 0),
        cause=str(each["cause"] or ""),
    )
