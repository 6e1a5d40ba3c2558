"""docs/collectors.md does what it says: its YAML is taken, its kind works, its user of Redis may do what is needed."""

from __future__ import annotations

import asyncio
import re
import textwrap
import types
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError
from server_fixtures import RedisServer

from agentd.collecting import kinds
from agentd.collecting.kinds import KINDS, open_reader
from agentd.collecting.reading import Kind, ReadFailed
from agentd.config import parse
from agentd.core.model import PoolName

PAGE = (Path(__file__).parents[2] / "docs/collectors.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def read(kind: str, settings: dict[str, str]) -> float:
    async def once() -> float:
        reader = open_reader(kind, tuple(settings.items()))
        try:
            return await reader.read()
        finally:
            await reader.close()

    return asyncio.run(once())


def test_every_kind_is_shown_and_every_example_is_taken() -> None:
    shown = set()
    for block in BLOCKS:
        whole = block if block.startswith("pools:") else f"pools:\n  research:\n{textwrap.indent(block, '    ')}"
        shown |= {one.kind for one in parse(whole, "page").fleet.pools[PoolName("research")].collectors}
    assert shown == set(KINDS)


def test_the_kind_of_the_page_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = types.ModuleType("files")
    exec(compile(source, "collectors.md", "exec"), module.__dict__)
    assert isinstance(module.KIND, Kind)
    monkeypatch.setitem(kinds.KINDS, "files", module.KIND)  # type: ignore[arg-type]
    (tmp_path / "one").touch()
    text = f"pools: {{research: {{collectors: {{queue: {{type: files, directory: {tmp_path}}}}}}}}}"
    (collector,) = parse(text, "page").fleet.pools[PoolName("research")].collectors
    assert read(collector.kind, {key: str(value) for key, value in collector.settings}) == 1
    with pytest.raises(ReadFailed, match="there is no directory"):
        read("files", {"directory": str(tmp_path / "none")})


def test_the_user_of_the_page_may_read_and_nothing_else(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = re.findall(r"`(ACL SETUSER .*?)`", PAGE, re.DOTALL)
    redis: Redis = redis_server.redis
    redis.execute_command(*line.split())
    redis.rpush("page:list", "a")
    redis.xadd("page:stream", {"task": 1})
    redis.xgroup_create("page:stream", "workers", "0")
    monkeypatch.setenv("QUEUE_PASSWORD", "PASSWORD")
    who = {"url": redis_server.url, "username": "reader", "password_env": "QUEUE_PASSWORD"}
    assert read("redis-list", {**who, "key": "page:list"}) == 1
    assert read("redis-stream", {**who, "key": "page:stream"}) == 1
    assert read("redis-stream", {**who, "key": "page:stream", "group": "workers"}) == 1
    with Redis(port=redis_server.port, username="reader", password="PASSWORD") as same:
        for forbidden in ("get", "lpop", "del"):
            with pytest.raises(NoPermissionError):
                same.execute_command(forbidden, "page:list")
