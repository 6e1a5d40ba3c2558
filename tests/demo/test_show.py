"""The course of the demo against a scripted agentd: it ends what it started, and says what happened."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import pytest

from agentd.demo import opening, options, show
from agentd.demo.child import Agentd
from agentd.demo.client import Answer
from agentd.demo.fleet import Api, Event, Instance, Look
from agentd.traces import Arrival

RESEARCHER = Instance("research-9002", "research", 9002, "ready", 0, "life", "researcher", 0)
ELASTIC = Instance("research-9101", "research", 9101, "ready", 0, "life", "", 0)
CONTROL = "unix:/a place/control.sock"
REQUESTS = [Arrival(0.01 * number, 0.0) for number in range(20)]


class ScriptedAgentd(Agentd):
    """Runs until it is interrupted `patience` times, or until `die` is set."""

    def __init__(self, state_dir: Path, patience: int = 1) -> None:
        super().__init__("", state_dir)
        self.prepare()
        self.interrupts = 0
        self.status = 0
        self._patience = patience
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int:
        return 1

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    async def start(self) -> None:
        self.log_file.write_text("agentd started\n")

    async def wait(self) -> int:
        await self._ended.wait()
        return self.status

    def interrupt(self) -> None:
        if not self.running:
            return
        self.interrupts += 1
        if self.interrupts >= self._patience:
            self._ended.set()

    def die(self, text: str, status: int = 1) -> None:
        self.log_file.write_text(text)
        self.status = status
        self._ended.set()


class ScriptedApi(Api):
    """Two ready agents, and two events: the opening hears of one, the run of the other, however often it looks."""

    def __init__(self, is_ready: bool = True) -> None:
        super().__init__(8766)
        self.is_ready = is_ready
        self.looks = 0
        self.switched_off_by = self.held = ""
        self.enabled = 0
        self.event = ("scale_up", "research-9101", "High load: 0.88 > 0.75")

    async def ready(self, state_dir: Path) -> bool:
        assert state_dir.is_dir()
        return self.is_ready

    async def look(self, pool: str) -> Look:
        assert pool == "research"
        self.looks += 1
        return Look((RESEARCHER, ELASTIC), 2, 0.5, switched_off_by=self.switched_off_by, held=self.held)

    async def enable_autoscaling(self) -> None:
        self.enabled += 1

    async def events(self, after: int) -> Sequence[Event]:
        return [Event(after + 1, *self.event)] if after < 2 else []


async def send(_port: int, _service_s: float) -> Answer:
    return Answer(200, b'{"waited_s": 0.0}')


Play = Callable[[ScriptedAgentd, ScriptedApi], Coroutine[None, None, None]]


def run(
    tmp_path: Path, *argv: str, api: ScriptedApi, patience: int = 1, meanwhile: Play | None = None
) -> tuple[int, int]:
    """The exit status, and how often agentd was interrupted."""

    async def program() -> tuple[int, int]:
        given = options.parse(["--state-dir", str(tmp_path / "state"), *argv])
        agentd = ScriptedAgentd(given.state_dir, patience)
        demo = show.Show(given, REQUESTS, agentd, api, CONTROL, send)
        beside = asyncio.create_task(meanwhile(agentd, api)) if meanwhile else None
        status = await demo.run()
        if beside is not None:
            await beside
        return status, agentd.interrupts

    return asyncio.run(program())


async def looked_at(api: ScriptedApi, times: int) -> None:
    async with asyncio.timeout(30):
        while api.looks < times:
            await asyncio.sleep(0.01)


def test_with_a_trace_it_ends_after_the_last_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    assert run(tmp_path, "--trace", "t.csv.gz", "--report", str(report), api=ScriptedApi()) == (0, 1)
    written = json.loads(report.read_text())
    assert (written["sent"], written["answered"], written["unanswered"]) == (20, 20, 0)
    assert (written["trace"], written["events"]["scale_up"]) == ("t.csv.gz", 1)
    told = capsys.readouterr().out
    assert "http://127.0.0.1:8766/" in told
    assert "High load: 0.88 > 0.75" in told
    assert "requests: 20 sent, 20 answered, 0 unanswered" in told


def test_ctrl_c_passes_on_one_signal_and_sums_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupt(_agentd: ScriptedAgentd, api: ScriptedApi) -> None:
        await looked_at(api, 2)
        os.kill(os.getpid(), signal.SIGINT)

    assert run(tmp_path, "--no-hang", api=ScriptedApi(), meanwhile=interrupt) == (0, 1)
    assert "  requests: " in capsys.readouterr().out


def test_a_second_ctrl_c_hurries(tmp_path: Path) -> None:
    async def interrupt(agentd: ScriptedAgentd, api: ScriptedApi) -> None:
        await looked_at(api, 1)
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(30):
            while agentd.interrupts == 0:
                await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    assert run(tmp_path, api=ScriptedApi(), patience=2, meanwhile=interrupt) == (0, 2)


def test_an_agentd_that_ends_by_itself_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def die(agentd: ScriptedAgentd, api: ScriptedApi) -> None:
        await looked_at(api, 1)
        agentd.die("first\nAssertionError: a broken invariant\n")

    assert run(tmp_path, api=ScriptedApi(), meanwhile=die) == (1, 0)
    told = capsys.readouterr().out
    assert "agentd has ended by itself (exit status 1)" in told
    assert "    AssertionError: a broken invariant\n" in told


def test_an_agentd_that_somebody_else_ends_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def end(agentd: ScriptedAgentd, api: ScriptedApi) -> None:
        await looked_at(api, 1)
        agentd.die("its last words\n", status=0)

    assert run(tmp_path, api=ScriptedApi(), meanwhile=end) == (0, 0)
    told = capsys.readouterr().out
    assert "agentd has ended: somebody has asked it to" in told
    assert "its last words" not in told


def test_an_agentd_that_does_not_start_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def die(agentd: ScriptedAgentd, _api: ScriptedApi) -> None:
        agentd.die("cannot listen on 127.0.0.1:8766: address already in use; ... or set listen.http to another\n")

    assert run(tmp_path, api=ScriptedApi(is_ready=False), meanwhile=die) == (1, 0)
    told = capsys.readouterr().out
    assert "agentd ended before it was ready (exit status 1)" in told
    assert "port 8766 is in use: choose another one with --http 127.0.0.1:PORT" in told
    assert "address already in use" in told


def test_an_agentd_that_is_given_up_is_no_failed_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "READY_S", 0.0)
    assert run(tmp_path, api=ScriptedApi(is_ready=False)) == (1, 1)
    told = capsys.readouterr().out
    assert "giving up after 0 s: agentd does not answer on port 8766 yet" in told
    assert "exit status" not in told


def test_autoscaling_that_was_switched_off_before_is_switched_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = ScriptedApi()
    assert run(tmp_path, "--trace", "t.csv.gz", api=api) == (0, 1)
    assert api.enabled == 0
    assert "switched it on" not in capsys.readouterr().out
    api.switched_off_by = "ada"
    assert run(tmp_path, "--trace", "t.csv.gz", api=api) == (0, 1)
    assert api.enabled == 1
    assert "autoscaling was off, by ada in an earlier run: the demo has switched it on" in capsys.readouterr().out
    api.switched_off_by, api.held = "", "a target of 5, set by ada"
    assert run(tmp_path, "--trace", "t.csv.gz", api=api) == (0, 1)
    assert api.enabled == 2
    told = "autoscaling was held by a target of 5, set by ada in an earlier run: the demo has switched it on"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("found", [None, "unix:/other", CONTROL])
def test_the_commands_that_it_shows_reach_its_own_agentd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    monkeypatch.delenv("AGENTD_ADDRESS", raising=False)
    monkeypatch.setattr(show, "find_control", lambda *_: found)
    run(tmp_path, "--trace", "t.csv.gz", api=ScriptedApi())
    told = capsys.readouterr().out
    assert ("agentctl status\n" in told) == (found == CONTROL)
    assert ("agentctl --address 'unix:/a place/control.sock' status\n" in told) == (found != CONTROL)


def test_it_ends_quietly_when_nobody_reads_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        assert run(tmp_path, api=ScriptedApi()) == (0, 1)


def test_time_can_be_limited(tmp_path: Path) -> None:
    assert run(tmp_path, "--seconds", "0.5", api=ScriptedApi()) == (0, 1)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("High load: 0.88 > 0.75; wanted 3, stays at 2: disk: 1024 MiB more needed", True),
        ("High load: 0.88 > 0.75; wanted 3, stays at 2: scale-up cooldown: 5 s left", False),
    ],
)
def test_why_a_pool_does_not_grow_is_told_unless_a_cooldown_ends_in_a_moment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str, told: bool
) -> None:
    api = ScriptedApi()
    api.event = ("hold", "", reason)

    async def interrupt(_agentd: ScriptedAgentd, api: ScriptedApi) -> None:
        await looked_at(api, 3)
        os.kill(os.getpid(), signal.SIGINT)

    run(tmp_path, api=api, meanwhile=interrupt)
    assert (reason in capsys.readouterr().out) == told


def test_a_mean_time_of_a_task_is_written_as_for_simulate() -> None:
    assert options.parse(["--service", "20s"]).service_s == options.parse(["--service-s", "20"]).service_s == 20.0


ARGVS = [
    *(["--speed", text] for text in ("0", "0.009", "1001", "inf", "nan", "x")),
    *(["--max", "0"], ["--max", "x"], ["--seconds", "x"], ["--from", "x"], ["--service", "0"], ["extra"]),
]


@pytest.mark.parametrize("argv", ARGVS)
def test_wrong_options_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options.parse(argv)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "scripts/run: error:" in told
    assert "_" not in told.rpartition("error:")[2]
