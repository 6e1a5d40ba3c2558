"""The course of the demo: start agentd, send the load, tell what happens, end everything.

Owns the order of things. What agentd does is agentd's own decision; this only looks, sends requests and, in the
default demo, breaks two agents.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agentd.demo import faults
from agentd.demo.child import Agentd
from agentd.demo.fleet import Api, Event, Instance, Look, Silent
from agentd.demo.load import Agent, LoadGenerator, Send, post_task
from agentd.demo.opening import Opening, port_is_busy, shown_log
from agentd.demo.options import Options
from agentd.demo.report import Sample, Summary, Tally, Timeline, minutes
from agentd.demo.synthetic import LENGTH_S
from agentd.sdk.address import find_control
from agentd.traces import Arrival

LOOK_S = 0.7
LOOK_S_MIN = 0.2  # between two looks, though refusals ask for more
PROGRESS_S = 10.0
CYCLE_S = LENGTH_S + 10.0  # one round of the bundled trace
END_S = 240.0  # more than agents get to finish
HURRY_S = 30.0

# Events worth a line; the first three are agentd's scaling events.
TOLD = frozenset(
    (
        *("scale_up", "scale_down", "replace", "ready", "exit", "restart", "late", "recovered", "crash_loop"),
        *("start_failed", "port_conflict", "stop_forced", "vanished", "target", "autoscaling", "config", "store"),
    )
)
COUNTED = ("scale_up", "scale_down", "replace", "restart", "exit", "crash_loop", "start_failed", "port_conflict")


class Show:
    """One run of the demo. `run` returns the exit status.

    `control` is the address of agentd's control socket, for the commands that a person is shown.
    """

    def __init__(
        self,
        options: Options,
        arrivals: Sequence[Arrival],
        agentd: Agentd,
        api: Api,
        control: str,
        send: Send = post_task,
    ) -> None:
        self._options = options
        self._arrivals = arrivals
        self._agentd = agentd
        self._api = api
        self._control = control
        self._tally = Tally()
        self._timeline = Timeline()
        self._events: Counter[str] = Counter()
        self._look_now = asyncio.Event()
        self._stop = asyncio.Event()
        self._load = LoadGenerator(self._tally, self._look_now.set, send=send)
        self._look = Look((), 1, 0.0)
        self._started = 0.0
        self._last_event = 0
        self._faults: tuple[faults.Fault, ...] = ()
        self._round = 0
        self._hung: list[Instance] = []
        self._gave_up = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupt)
        await self._agentd.start()
        exited = asyncio.create_task(self._agentd.wait())
        try:
            if not await self._until_ready(exited):
                return self._tell_end(exited)
            self._introduce()
            await self._enable_autoscaling()
            played = await self._perform(exited)
            if exited.done():
                return self._tell_end(exited)
            return await self._end(exited, played)
        except BaseException:
            # A fault of the demo is no reason to leave agentd and its agents behind.
            if self._agentd.running:
                self._agentd.interrupt()
                await exited
            raise

    def _interrupt(self) -> None:
        if self._stop.is_set():
            self._say("hurrying: agents that still work are ended now")
            self._agentd.interrupt()
        self._stop.set()

    # -- the beginning ---------------------------------------------------------------------------

    async def _until_ready(self, exited: asyncio.Task[int]) -> bool:
        """Whether agentd and an agent of the pool got ready; otherwise agentd has ended, helped or by itself."""
        stopped = asyncio.create_task(self._stop.wait())
        opening = Opening(self._api, self._agentd, self._options.pool, self._say)
        try:
            look = await opening.wait(exited, stopped)
        finally:
            stopped.cancel()
        if look is not None:
            # An agent that still started would count as a wait: this look is the first one that counts.
            self._look, self._last_event = look, opening.last_event
            return True
        self._gave_up = not exited.done() and not self._stop.is_set()
        self._agentd.interrupt()
        await exited
        return False

    async def _enable_autoscaling(self) -> None:
        """A demo without scaling shows nothing: undo what somebody switched in an earlier run."""
        owner, held = self._look.switched_off_by, self._look.held
        if not owner and not held:
            return
        state = f"off, by {owner}" if owner else f"held by {held}"
        try:
            await self._api.enable_autoscaling()
        except Silent as error:
            self._say(f"autoscaling is {state} in an earlier run, and stays so: {error}")
        else:
            self._say(f"autoscaling was {state} in an earlier run: the demo has switched it on")

    def _tell_end(self, exited: asyncio.Task[int]) -> int:
        if self._stop.is_set() and exited.result() == 0:
            self._say("agentd has ended")
            return 0
        if self._started and exited.result() == 0:
            self._say("agentd has ended: somebody has asked it to")
            return self._tell_rest(0)
        lines = self._agentd.last_lines()
        if not self._gave_up:
            what = "has ended by itself" if self._started else "ended before it was ready"
            self._say(f"agentd {what} (exit status {exited.result()})")
        if not self._started and port_is_busy(lines):
            self._say(f"port {self._api.port} is in use: choose another one with --http 127.0.0.1:PORT")
        for line in shown_log(self._agentd.log_file, lines):
            self._say(line)
        return self._tell_rest(1)

    def _tell_rest(self, status: int) -> int:
        if self._tally.sent:
            self._summarize()
            self._say("agents that still run go on without agentd; the next start takes them over")
        return status

    def _introduce(self) -> None:
        options, agentctl = self._options, _shown(Path(sys.executable).parent / "agentctl")
        # agentctl asks the same two in the same order.
        if (os.environ.get("AGENTD_ADDRESS") or find_control(os.environ, os.getuid())) != self._control:
            agentctl += f" --address {shlex.quote(self._control)}"
        self._say(f"agentd is running: process {self._agentd.pid}, configuration {_shown(self._agentd.config_file)}")
        self._say("")
        self._say(f"  dashboard   http://127.0.0.1:{self._api.port}/")
        self._say(f"  look        {agentctl} status")
        self._say(f"              {agentctl} explain {options.pool}")
        self._say(f"              {agentctl} events -f")
        self._say(f"  log         tail -f {_shown(self._agentd.log_file)}")
        self._say("  stop        Ctrl-C: ends agentd and the agents it started, nothing else")
        self._say("")
        self._say(f"A load generator now sends the {len(self._arrivals)} requests of {_shown(options.trace_file)}")
        self._say(f"to the agents of pool {options.pool} on their own ports, at speed {options.speed:g}.")
        if self._breaks:
            self._say(
                f"It kills one agent at {minutes(faults.KILL_AT_S)} and makes one hang at "
                f"{minutes(faults.HANG_AT_S)}; every {CYCLE_S / 60:g} minutes the trace begins again."
            )
        self._say("")

    @property
    def _breaks(self) -> bool:
        return self._options.trace is None and self._options.hang

    # -- the play --------------------------------------------------------------------------------

    async def _perform(self, exited: asyncio.Task[int]) -> bool:
        """Play until the trace ends, time is up, a person stops it or agentd ends; whether the trace ended."""
        self._started = time.monotonic()
        self._see(self._look)
        play = asyncio.create_task(self._replay())
        stop = asyncio.create_task(self._stop.wait())
        side = [asyncio.create_task(work) for work in (self._watch(), self._progress())]
        seconds = None if self._options.seconds == float("inf") else self._options.seconds
        try:
            done, _ = await asyncio.wait(
                (play, stop, exited, *side), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {exited}:
                task.result()  # what failed here is a fault of the demo: show it
            return play in done
        finally:
            await _cancel((play, stop, *side))

    async def _replay(self) -> None:
        while True:
            start = time.monotonic()
            self._faults = faults.faults() if self._breaks else ()
            self._round += 1
            for arrival in self._arrivals:
                await asyncio.sleep(start + arrival.offset_s - time.monotonic())
                self._load.submit(arrival.service_s)
            if self._options.trace is not None:
                await self._load.wait_idle()
                return
            await asyncio.sleep(start + CYCLE_S / self._options.speed - time.monotonic())
            self._tell(f"the trace begins again, round {self._round + 1}")

    async def _watch(self) -> None:
        """Look at the fleet again and again. An agentd that is silent for a moment is looked at again."""
        while True:
            self._look_now.clear()
            try:
                self._see(await self._api.look(self._options.pool))
                for event in await self._api.events(self._last_event):
                    self._last_event = event.id
                    if event.type in COUNTED:
                        self._events[event.type] += 1
                    if event.type in TOLD or _is_lasting_hold(event):
                        self._tell(f"{event.type.replace('_', ' '):14} {event.instance:16} {event.reason}")
            except Silent as error:
                if self._agentd.running:
                    self._tell(f"agentd gives no answer: {error}")
            await asyncio.sleep(LOOK_S_MIN)
            try:
                async with asyncio.timeout(LOOK_S - LOOK_S_MIN):
                    await self._look_now.wait()
            except TimeoutError:
                pass  # nobody asked: time for the next look

    def _see(self, look: Look) -> None:
        self._look = look
        ready = look.in_state("ready")
        self._load.set_agents([Agent(each.id, each.port) for each in ready], look.concurrency)
        self._timeline.add(
            Sample(
                at_s=self._elapsed,
                ready=len(ready),
                starting=len(look.in_state("pending", "starting", "backoff")),
                waiting=self._waiting,
                in_flight=self._load.in_flight,
                load=look.load,
            )
        )
        for fault in self._faults:
            at_s = self._elapsed - (self._round - 1) * CYCLE_S / self._options.speed
            if victim := fault.choose(look, at_s * self._options.speed):
                fault.done = True
                self._break(victim, fault.number)

    def _break(self, victim: Instance, number: signal.Signals) -> None:
        if not faults.send(victim, number):
            return
        if number is signal.SIGSTOP:
            self._hung.append(victim)
            self._tell(f">>> the demo makes {victim.id} hang (SIGSTOP to {victim.pid}): agentd has to notice")
        else:
            self._tell(f">>> the demo kills {victim.id} ({number.name} to {victim.pid}): agentd has to restart it")

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            tally, look = self._tally, self._look
            trace_time = self._options.from_s + self._elapsed * self._options.speed
            at = f"trace {minutes(trace_time)}  " if self._options.trace is not None else ""
            ready, starting = len(look.in_state("ready")), len(look.in_state("pending", "starting", "backoff"))
            self._tell(
                f"{at}{tally.sent} sent, {tally.answered} answered, {self._load.in_flight} under way, "
                f"{self._waiting} waiting; {ready} agent{'s' if ready != 1 else ''} ready"
                f"{f', {starting} starting' if starting else ''}, load {look.load:.2f}"
            )

    @property
    def _waiting(self) -> int:
        return self._load.waiting + sum(instance.queue_length for instance in self._look.instances)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _tell(self, text: str) -> None:
        self._say(f"{minutes(self._elapsed):>7}  {text}")

    # -- the end ---------------------------------------------------------------------------------

    async def _end(self, exited: asyncio.Task[int], played: bool) -> int:
        lasted_s = self._elapsed
        if not played:
            self._load.abandon()
        self._say("ending: agentd lets its agents finish what they have and stops them (Ctrl-C: at once)")
        for instance in self._hung:
            faults.send(instance, signal.SIGCONT)  # so that it can finish instead of being waited for
        self._stop.set()
        self._agentd.interrupt()
        ended, _ = await asyncio.wait((exited,), timeout=END_S)
        if not ended:
            self._say(f"agentd has not ended after {END_S:g} s: telling it to hurry")
            self._agentd.interrupt()
            ended, _ = await asyncio.wait((exited,), timeout=HURRY_S)
        if not ended:
            self._say(f"agentd, process {self._agentd.pid}, does not end; it is left as it is")
            return 1
        status = exited.result()
        await self._load.close()
        self._summarize(lasted_s)
        if status != 0:
            self._say(f"agentd ended with exit status {status}")
            for line in shown_log(self._agentd.log_file, self._agentd.last_lines()):
                self._say(line)
        return 0 if status == 0 and not self._tally.failed and not (played and self._tally.unanswered) else 1

    def _summarize(self, lasted_s: float | None = None) -> None:
        lasted_s = self._elapsed if lasted_s is None else lasted_s
        summary = Summary(self._tally, self._timeline, self._options.speed, lasted_s, dict(self._events))
        self._say("")
        self._say(f"In {minutes(lasted_s)} at speed {self._options.speed:g}:")
        for line in summary.lines(unicode=(sys.stdout.encoding or "").lower().startswith("utf")):
            self._say(f"  {line}")
        if self._options.report is not None:
            self._write(self._options.report, summary)

    def _write(self, path: Path, summary: Summary) -> None:
        options = self._options
        about = {"trace": options.trace_file.name, "from_s": options.from_s, "pool": options.pool}
        try:
            path.write_text(json.dumps({**about, **summary.as_json()}, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            self._say(f"cannot write {path}: {error.strerror}")
        else:
            self._say(f"  the same as JSON: {path}")

    def _say(self, text: str) -> None:
        """One line for the person. With nobody left to read (`| head`) the demo ends as with Ctrl-C, in silence."""
        try:
            print(text, flush=True)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())  # also for what Python itself writes at its end
            os.close(nowhere)
            self._stop.set()


def _is_lasting_hold(event: Event) -> bool:
    """Whether it tells why the pool does not change, other than for a moment: a full host, its maximum."""
    return event.type == "hold" and "cooldown" not in event.reason


def _shown(path: Path) -> str:
    """`path` as a person would type it in a shell."""
    for base, short in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return short + shlex.quote(str(path.relative_to(base)))
    return shlex.quote(str(path))


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = tuple(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
