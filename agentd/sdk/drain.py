"""An agent's side of a drain: whom it tells, when it is done, and how it is called off.

    open --begin--> draining --callbacks have returned, nothing in flight, nothing queued--> done (and waits for TERM)
    draining or done --resume--> open

Knows nothing of gRPC: what is to be acknowledged goes to `Acknowledge`. Safe to use from several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from agentd.sdk.calling import Callback, Caller
from agentd.sdk.latch import Latch
from agentd.sdk.workload import Workload


class Stage(Enum):
    """How far the agent has come with a directive."""

    ACCEPTED = 1
    DONE = 2
    FAILED = 3


# The directive, its stage, and a text for people.
Acknowledge = Callable[[int, Stage, str], None]


@dataclass(frozen=True, slots=True)
class Successor:
    """An instance that can take over what is queued and not begun. `weight` > 0 is its share beside the others'."""

    id: str
    host: str
    port: int
    weight: float


class Drain:
    """Whether the agent drains, and what the program wants to do about it."""

    def __init__(self, workload: Workload, acknowledge: Acknowledge, caller: Caller) -> None:
        self._workload = workload
        self._caller = caller
        self._acknowledge = acknowledge
        self.successors: tuple[Successor, ...] = ()
        self._draining = Latch()
        self._lock = threading.Lock()  # guards all below
        self._on_drain: list[Callback] = []
        self._on_resume: list[Callback] = []
        self._awaited = False  # the program waits for the drain in a coroutine, so it acts on it
        self._final = False
        self._deadline: float | None = None
        self._directive = 0  # to be acknowledged as done; 0: none, or it has been
        self._round = 0  # counts up with each beginning and each end: callbacks of an earlier one no longer count
        self._running = 0  # callbacks that have not returned

    @property
    def is_on(self) -> bool:
        return self._draining.is_set()

    @property
    def left_s(self) -> float | None:
        """Seconds left to finish, at least 0; None while not draining or without a deadline."""
        deadline = self._deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    async def wait(self) -> None:
        """Wait until a drain begins."""
        with self._lock:
            self._awaited = True
        await self._draining.wait_async()

    def on_drain(self, callback: Callback) -> None:
        """Have `callback` called when a drain begins; also now, where one has begun."""
        with self._lock:
            self._on_drain.append(callback)
            begun, this_round = self._draining.is_set(), self._round
            self._running += begun
        if begun:
            self._caller.call(callback, partial(self._returned, this_round))

    def on_resume(self, callback: Callback) -> None:
        """Have `callback` called when a drain is called off."""
        with self._lock:
            self._on_resume.append(callback)

    def begin(
        self, directive: int, deadline_s: float, successors: tuple[Successor, ...], *, final: bool = False
    ) -> None:
        """Drain, by `directive` (0: none), within `deadline_s` (0: no deadline). `final`: there is no way back."""
        with self._lock:
            callbacks = () if self._draining.is_set() else tuple(self._on_drain)
            if not self._draining.is_set():
                self._round += 1
                self._running = len(callbacks)
            self._directive = directive
            self._deadline = time.monotonic() + deadline_s if deadline_s > 0 else None
            self._final |= final
            self.successors = successors
            this_round = self._round
            self._draining.set()
        for callback in callbacks:
            self._caller.call(callback, partial(self._returned, this_round))
        self.settle()

    def resume(self, directive: int) -> None:
        """Take work again, if the program can; `directive` is acknowledged when its callbacks have returned."""
        with self._lock:
            acts = bool(self._on_drain) or self._awaited
            refusal = "this agent is no longer needed" if self._final else ""
            if self._draining.is_set() and acts and not self._on_resume:
                refusal = refusal or "the program has no on_resume"
            callbacks = tuple(self._on_resume) if self._draining.is_set() and not refusal else ()
            if not refusal:
                self._draining.clear()
                self._round += 1
                self._running = len(callbacks)
                self._directive, self._deadline, self.successors = 0, None, ()
            this_round = self._round
        if refusal:
            self._acknowledge(directive, Stage.FAILED, refusal)
        elif not callbacks:
            self._acknowledge(directive, Stage.ACCEPTED, "")
        for callback in callbacks:
            self._caller.call(callback, partial(self._resumed, this_round, directive))

    def release(self) -> None:
        """Wait for the callbacks no longer."""
        with self._lock:
            if self._draining.is_set():
                self._running = 0
        self.settle()

    def settle(self) -> None:
        """Say that the drain is done, once, when it is."""
        with self._lock:
            busy = self._running or self._workload.in_flight or self._workload.queue_length
            if busy or not self._directive:
                return
            directive, self._directive = self._directive, 0
        self._acknowledge(directive, Stage.DONE, "")

    # -- callbacks -------------------------------------------------------------------------------

    def _returned(self, of_round: int, _error: BaseException | None) -> None:
        with self._lock:
            if of_round == self._round and self._running:
                self._running -= 1
        self.settle()

    def _resumed(self, of_round: int, directive: int, error: BaseException | None) -> None:
        with self._lock:
            if of_round != self._round:
                return  # it drains again already
            self._running = -1 if error is not None else self._running - 1
            last = self._running == 0
        if error is not None:
            self._acknowledge(directive, Stage.FAILED, f"on_resume failed: {type(error).__name__}")
        elif last:
            self._acknowledge(directive, Stage.ACCEPTED, "")
