"""A thing that happens, and that threads and coroutines can wait for alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial


class Latch:
    """Unset at first; once set it stays set until it is cleared."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until set, at most `timeout` seconds; whether it is set. Not for coroutines."""
        return self._event.wait(timeout)

    async def wait_async(self) -> None:
        """Wait in a coroutine until set. Any number may wait, in any number of event loops."""
        loop = asyncio.get_running_loop()
        waiter = (loop, loop.create_future())
        with self._lock:
            if self._event.is_set():
                return
            self._waiters.add(waiter)
        try:
            await waiter[1]
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def set(self) -> bool:
        """Set it, from any thread. True for the one call that changed it."""
        with self._lock:
            if self._event.is_set():
                return False
            self._event.set()
            waiters = tuple(self._waiters)
        for loop, future in waiters:
            call_in_loop(loop, partial(resolve, future))
        return True

    def clear(self) -> None:
        """Unset it: who waits from now on waits for the next time."""
        with self._lock:
            self._event.clear()


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Have `loop` call `callback` soon, from any thread. A loop that has ended needs no call."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise


def resolve(future: asyncio.Future[None]) -> None:
    """Let its coroutine go on. For the event loop of `future`."""
    if not future.done():  # its coroutine may have been cancelled meanwhile
        future.set_result(None)
