"""The readers of Redis against a real one: what is counted, who is let in, and what is said when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis import Redis
from server_fixtures import RedisServer, free_port

from agentd.collecting.kinds import open_reader
from agentd.collecting.reading import Reader, ReadFailed


def read(kind: str, **settings: str) -> float:
    return asyncio.run(once(kind, settings))


async def once(
    kind: str, settings: dict[str, str], before: Callable[[Reader], Awaitable[object]] | None = None
) -> float:
    reader = open_reader(kind, tuple(settings.items()))
    try:
        if before is not None:
            await before(reader)
        return await reader.read()
    finally:
        await reader.close()


def refused(kind: str, **settings: str) -> str:
    with pytest.raises(ReadFailed) as failed:
        read(kind, **settings)
    return str(failed.value)


def test_a_list_has_its_entries_and_one_that_is_not_there_none(redis_server: RedisServer) -> None:
    redis_server.redis.rpush("list:3", "a", "b", "c")
    assert read("redis-list", url=redis_server.url, key="list:3") == 3
    assert read("redis-list", url=redis_server.url, key="list:none") == 0


def test_a_list_is_read_through_a_unix_socket(redis_server: RedisServer) -> None:
    redis_server.redis.rpush("list:unix", "a", "b")
    assert read("redis-list", url=f"unix://{redis_server.socket}", key="list:unix") == 2


def test_another_database_is_another_list(redis_server: RedisServer) -> None:
    redis_server.redis.rpush("list:zero", "a")
    assert read("redis-list", url=f"redis://127.0.0.1:{redis_server.port}/1", key="list:zero") == 0


def test_a_key_of_another_type_is_said_in_the_words_of_redis(redis_server: RedisServer) -> None:
    redis_server.redis.set("text", "a")
    assert "answers LLEN text with an error" in refused("redis-list", url=redis_server.url, key="text")
    assert "wrong kind of value" in refused("redis-stream", url=redis_server.url, key="text")


def test_a_redis_that_is_not_there_is_said() -> None:
    text = refused("redis-list", url=f"redis://127.0.0.1:{free_port()}/0", key="list")
    assert text.startswith("cannot reach Redis: ") and "refused" in text.lower()


def test_an_option_that_the_library_cannot_use_is_said(redis_server: RedisServer) -> None:
    assert "cannot use the address" in refused("redis-list", url=f"{redis_server.url}?socket_timeout=soon", key="list")


def test_a_reader_goes_on_after_its_connection_was_ended(redis_server: RedisServer) -> None:
    redis_server.redis.rpush("list:again", "a")

    async def lose_connection(reader: Reader) -> None:
        assert await reader.read() == 1
        await asyncio.to_thread(redis_server.redis.client_kill_filter, _type="normal", skipme=True)

    settings = {"url": redis_server.url, "key": "list:again"}
    assert asyncio.run(once("redis-list", settings, lose_connection)) == 1


# -- streams -------------------------------------------------------------------------------------


def stream(redis: Redis, name: str, entries: int) -> None:
    for number in range(entries):
        redis.xadd(name, {"task": number})


def test_a_stream_has_its_length(redis_server: RedisServer) -> None:
    stream(redis_server.redis, "stream:length", 5)
    assert read("redis-stream", url=redis_server.url, key="stream:length") == 5
    assert read("redis-stream", url=redis_server.url, key="stream:none") == 0


def test_a_group_has_what_it_has_not_acknowledged(redis_server: RedisServer) -> None:
    redis, name = redis_server.redis, "stream:group"
    stream(redis, name, 10)
    redis.xgroup_create(name, "workers", "0")
    redis.xgroup_create(name, "others", "0")

    def left() -> float:
        return read("redis-stream", url=redis_server.url, key=name, group="workers")

    assert left() == 10  # nobody has read
    got = redis.xreadgroup("workers", "one", {name: ">"}, count=4)
    ids = [ident for ident, _ in got[0][1]]
    assert left() == 10  # 4 pending, 6 waiting
    redis.xack(name, "workers", *ids[:3])
    assert left() == 7
    redis.xdel(name, *ids[:3])  # as workers do that keep a stream short
    assert left() == 7


def test_what_was_trimmed_unread_is_nobodys_work(redis_server: RedisServer) -> None:
    redis, name = redis_server.redis, "stream:trimmed"
    stream(redis, name, 10)
    redis.xgroup_create(name, "workers", "0")
    redis.xreadgroup("workers", "one", {name: ">"}, count=1)
    redis.xtrim(name, maxlen=3, approximate=False)
    assert read("redis-stream", url=redis_server.url, key=name, group="workers") == 1 + 3


def test_a_group_whose_place_redis_does_not_know_is_said(redis_server: RedisServer) -> None:
    redis, name = redis_server.redis, "stream:unknown"
    stream(redis, name, 5)
    ids = [ident for ident, _ in redis.xrange(name)]
    redis.xgroup_create(name, "workers", "0")
    redis.xreadgroup("workers", "one", {name: ">"}, count=1)
    redis.xdel(name, ids[3])  # ahead of the group
    text = refused("redis-stream", url=redis_server.url, key=name, group="workers")
    assert "does not know how far the group workers has come" in text
    redis.xreadgroup("workers", "one", {name: ">"})
    assert read("redis-stream", url=redis_server.url, key=name, group="workers") == 4


@pytest.mark.parametrize("exists", [True, False])
def test_a_group_that_is_not_there_is_said_with_what_makes_it(redis_server: RedisServer, exists: bool) -> None:
    name = f"stream:{exists}"
    if exists:
        stream(redis_server.redis, name, 1)
    text = refused("redis-stream", url=redis_server.url, key=name, group="nobody")
    assert text == f"the stream {name} has no group nobody: XGROUP CREATE {name} nobody 0 MKSTREAM makes it"


# -- who is let in -------------------------------------------------------------------------------

SECRET = "open-sesame-7"


@pytest.fixture
def user(redis_server: RedisServer) -> str:
    """May ask for the length of lists, and nothing else."""
    redis_server.redis.acl_setuser(
        "reader", enabled=True, reset=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+llen"]
    )
    redis_server.redis.rpush("list:user", "a") if not redis_server.redis.exists("list:user") else None
    return "reader"


def test_a_password_comes_from_the_environment(
    redis_server: RedisServer, user: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"url": redis_server.url, "key": "list:user", "username": user, "password_env": "QUEUE_PASSWORD"}
    monkeypatch.setenv("QUEUE_PASSWORD", SECRET)
    assert read("redis-list", **given) == 1
    assert caplog.records == [], "the library warns of something with each connection"
    monkeypatch.setenv("QUEUE_PASSWORD", "wrong")
    text = refused("redis-list", **given)
    assert text.startswith("Redis does not let us in: ") and 'wrong"' not in text
    monkeypatch.delenv("QUEUE_PASSWORD")
    assert refused("redis-list", **given).endswith("the environment variable QUEUE_PASSWORD is not set")


def test_a_password_comes_from_a_file_and_may_change(redis_server: RedisServer, user: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    given = {"url": redis_server.url, "key": "list:user", "username": user, "password_file": str(file)}
    assert refused("redis-list", **given).endswith(f"cannot read the password in {file}: no such file or directory")
    file.write_text("\n")
    assert refused("redis-list", **given).endswith(f"there is no password in {file}: it is empty")
    file.write_text("wrong\n")

    async def learn(reader: Reader) -> None:
        with pytest.raises(ReadFailed, match="does not let us in"):
            await reader.read()
        file.write_text(f"{SECRET}\n")

    assert asyncio.run(once("redis-list", given, learn)) == 1


def test_a_user_without_the_right_is_told_so(
    redis_server: RedisServer, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUEUE_PASSWORD", SECRET)
    given = {"url": redis_server.url, "key": "any", "username": user, "password_env": "QUEUE_PASSWORD"}
    assert "no permissions" in refused("redis-stream", **given).lower()


def test_a_reading_that_was_cut_short_leaves_no_answer_for_the_next() -> None:
    """A Redis that answers the first question late: on the same connection the second would be given that."""
    asked = asyncio.Event()
    late: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2)).strip())
                if words[0] != b"LLEN":
                    writer.write(b"+OK\r\n")
                elif not late:
                    late.append(writer)
                    asked.set()
                else:
                    writer.write(b":3\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def cut(reader: Reader) -> None:
        task = asyncio.create_task(reader.read())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        late[0].write(b":99\r\n")

    async def run() -> float:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with asyncio.timeout(30):
                return await once("redis-list", {"url": f"redis://127.0.0.1:{port}/0", "key": "tasks"}, cut)
        finally:
            server.close()

    assert asyncio.run(run()) == 3
