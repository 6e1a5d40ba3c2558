"""What agentd-limits.service takes and refuses, with a function in systemd's place."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentd import limits, limits_service
from agentd.limits import LimitsError, read_request

UNIT = "agent@research-9101.service"
Sets = list[tuple[str, dict[str, int]]]
Talk = Callable[[Path, Sets], Coroutine[Any, Any, None]]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(tmp_path / "limits.sock"))
        made.listen()
        yield made


def served(listener: socket.socket, talk: Talk) -> Sets:
    """What the service set while `talk` ran; it ends by itself when that is over."""
    done: Sets = []

    async def set_properties(unit: str, values: Mapping[str, int]) -> None:
        if values == {"TasksMax": 13}:
            raise LimitsError("org.example.Unlucky", "not that one")
        done.append((unit, dict(values)))

    async def both() -> None:
        serving = asyncio.create_task(limits_service.serve(listener, set_properties, idle_s=0.1))
        await talk(Path(listener.getsockname()), done)
        await serving

    asyncio.run(asyncio.wait_for(both(), 20))
    return done


def request(**changes: Any) -> bytes:
    return json.dumps({"unit": UNIT, "values": {"MemoryMax": 1 << 30}} | changes).encode() + b"\n"


@pytest.mark.parametrize("unit", [UNIT, "agent@a-1.service", "agentd-agents-research.slice"])
def test_instances_and_pools_slices_are_taken(unit: str) -> None:
    values = dict.fromkeys(limits.PROPERTIES, limits.VALUE_MAX)
    assert read_request(request(unit=unit, values=values)) == (unit, values)


@pytest.mark.parametrize(
    "unit",
    [
        "agentd.service",
        "agentd-limits.service",
        "agentd.slice",
        "agentd-agents.slice",
        "agentd-agents-research-9101.slice",
        "agentd-agents-Research.slice",
        "agentd-agents-research.slice\n",
        "agent@.service",
        "agent@research.service",
        "agent@research-9101.service\n",
        "agent@research-9101.scope",
        "xagent@research-9101.service",
        "ssh.service",
        "",
        None,
        ["agent@research-9101.service"],
    ],
)
def test_other_units_are_refused(unit: object) -> None:
    with pytest.raises(ValueError, match="no unit of an instance"):
        read_request(request(unit=unit))


@pytest.mark.parametrize(
    "values",
    [
        {"Description": "x\n[Service]\nUser=root"},
        {"Description": 1},
        {"User": "root"},
        {"DeviceAllow": 1},
        {"memorymax": 1},
        {"MemoryMax": "1"},
        {"MemoryMax": "1\nDevicePolicy=auto"},
        {"MemoryMax": -1},
        {"MemoryMax": 1 << 64},
        {"MemoryMax": 1.0},
        {"MemoryMax": True},
        {"MemoryMax": None},
        {"MemoryMax": 1, "ExecStart": 1},
        {},
        [],
        "MemoryMax",
    ],
)
def test_anything_but_limits_in_numbers_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"limit|64 bits|no values"):
        read_request(request(values=values))


@pytest.mark.parametrize(
    "line", [b"\n", b"{", b"[]\n", b"1\n", b"{}\n", request(more=1), b"\xff\n", request().replace(b"{", b"[", 1)]
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|a request has|no unit|codec"):
        read_request(line)


def test_limits_are_set_and_systemds_refusal_comes_back(listener: socket.socket) -> None:
    async def talk(path: Path, done: Sets) -> None:
        await limits.ask(path, UNIT, {"MemoryMax": 1 << 20, "CPUWeight": 50})
        assert done == [(UNIT, {"MemoryMax": 1 << 20, "CPUWeight": 50})]
        with pytest.raises(LimitsError, match="not that one") as refused:
            await limits.ask(path, UNIT, {"TasksMax": 13})
        assert refused.value.name == "org.example.Unlucky"

    served(listener, talk)


def test_what_is_refused_reaches_nobody(listener: socket.socket) -> None:
    async def talk(path: Path, done: Sets) -> None:
        del done
        with pytest.raises(LimitsError, match=r"refused: 'ssh\.service' is no unit"):
            await limits.ask(path, "ssh.service", {"MemoryMax": 1})

    assert served(listener, talk) == []


def test_a_connection_carries_requests_in_turn_and_junk_ends_it(listener: socket.socket) -> None:
    async def talk(path: Path, done: Sets) -> None:
        del done
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request() + b"[" * 2000 + b"\n" + request() + b"x" * (limits.LINE_BYTES_MAX * 2))
        answers = [json.loads(line) for line in (await reader.read()).splitlines()]
        assert [answer.get("error") for answer in answers] == [None, "", None]
        writer.close()

    assert served(listener, talk) == [(UNIT, {"MemoryMax": 1 << 30})] * 2


@pytest.mark.parametrize("left_behind", [False, True])
def test_a_closed_socket_is_told_with_what_opens_it(tmp_path: Path, left_behind: bool) -> None:
    path = tmp_path / "limits.sock"
    if left_behind:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    with pytest.raises(LimitsError) as trouble:
        asyncio.run(limits.ask(path, UNIT, {"MemoryMax": 1}))
    assert trouble.value.name == ""
    why = "Connection refused" if left_behind else "No such file or directory"
    assert str(trouble.value) == f"{path} is closed ({why}); `systemctl start agentd-limits.socket` opens it"


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("endings", [1, 2])
def test_a_service_that_just_ends_is_asked_once_more(tmp_path: Path, reads: bool, endings: int) -> None:
    """systemd starts the next one: the socket is its own."""
    connections = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections <= endings:
            if reads:
                await reader.readline()
        else:
            await reader.readline()
            writer.write(b"{}\n")
        writer.close()

    async def talk() -> None:
        async with await asyncio.start_unix_server(connected, tmp_path / "limits.sock"):
            await limits.ask(tmp_path / "limits.sock", UNIT, {"MemoryMax": 1})

    if endings == 1:
        asyncio.run(talk())
    else:
        with pytest.raises(LimitsError, match=r"agentd-limits\.service ended without an answer; see journalctl"):
            asyncio.run(talk())
    assert connections == 2


def test_a_service_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_S", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "limits.sock"))
        silent.listen()
        with pytest.raises(LimitsError, match=r"agentd-limits\.service does not answer: TimeoutError"):
            asyncio.run(limits.ask(tmp_path / "limits.sock", UNIT, {"MemoryMax": 1}))


def test_it_is_not_started_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    assert limits_service.main() == 1
    assert "agentd-limits.socket" in capsys.readouterr().err
