"""An agent's side of CONFIGURE: whom it asks before it works on another number of tasks at a time.

One change at a time: what comes while the program's callbacks run waits for them, and of several only the newest
counts.
Knows nothing of gRPC. Safe to use from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from agentd.sdk.calling import Caller
from agentd.sdk.drain import Acknowledge, Stage

OnConfigure = Callable[[int], object]


class Settings:
    """What the program wants to do about other settings. `apply` makes a concurrency hold for the SDK itself."""

    def __init__(
        self, concurrency: int, apply: Callable[[int], None], acknowledge: Acknowledge, caller: Caller
    ) -> None:
        self._concurrency = concurrency
        self._apply = apply
        self._acknowledge = acknowledge
        self._caller = caller
        self._lock = threading.Lock()  # guards all below
        self._callbacks: list[OnConfigure] = []
        self._running = 0  # callbacks that have not returned
        self._failed = ""
        self._next: tuple[int, int] | None = None  # the directive and concurrency that wait for those

    def on_configure(self, callback: OnConfigure) -> None:
        with self._lock:
            self._callbacks.append(callback)

    def change(self, directive: int, concurrency: int) -> None:
        """Work on `concurrency` tasks at a time from now on, if the program can; `directive` is acknowledged then."""
        with self._lock:
            if self._running:
                self._next = directive, concurrency
                return
            same = concurrency == self._concurrency
            callbacks = () if same else tuple(self._callbacks)
            self._running, self._failed = len(callbacks), ""
        if same:
            self._acknowledge(directive, Stage.ACCEPTED, "")
        elif not callbacks:
            self._acknowledge(directive, Stage.FAILED, "the program has no on_configure")
        for callback in callbacks:
            self._caller.call(partial(callback, concurrency), partial(self._returned, directive, concurrency))

    def _returned(self, directive: int, concurrency: int, error: BaseException | None) -> None:
        with self._lock:
            if error is not None:
                self._failed = f"on_configure failed: {type(error).__name__}"
            self._running -= 1
            if self._running:
                return
            failed, ahead, self._next = self._failed, self._next, None
            if not failed:
                self._concurrency = concurrency
        if failed:
            self._acknowledge(directive, Stage.FAILED, failed)
        else:
            self._apply(concurrency)
            self._acknowledge(directive, Stage.ACCEPTED, "")
        if ahead is not None:
            self.change(*ahead)
