"""How a program's callbacks are called: in its event loop, or each in a thread, never in the one that hears agentd.

A callback may be a coroutine function. One that fails is told in the log, and to whoever had it called.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from agentd.sdk.latch import call_in_loop

log = logging.getLogger("agentd.sdk")

Callback = Callable[[], object]
Returned = Callable[[BaseException | None], None]


class Caller:
    """`loop` is where callbacks are called; None: each in a thread of its own."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._tasks = set[asyncio.Future[Any]]()  # asyncio itself keeps only weak references

    def call(self, callback: Callback, returned: Returned) -> None:
        """Have `callback` called, and `returned` when it, or what it gives, is done. From any thread."""
        if self.loop is not None:
            call_in_loop(self.loop, partial(self._call_here, callback, returned))
        else:
            thread = threading.Thread(
                target=_call_in_thread, args=(callback, returned), name="agentd-callback", daemon=True
            )
            thread.start()

    def _call_here(self, callback: Callback, returned: Returned) -> None:
        try:
            result = callback()
        except Exception as error:
            _complain(callback, error)
            returned(error)
            return
        if not inspect.isawaitable(result):
            returned(None)
            return
        task = asyncio.ensure_future(result)
        self._tasks.add(task)

        def done(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                _complain(callback, error)
            returned(error)

        task.add_done_callback(done)


def _call_in_thread(callback: Callback, returned: Returned) -> None:
    try:
        result = callback()
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))
    except Exception as error:
        _complain(callback, error)
        returned(error)
    else:
        returned(None)


async def _awaited(result: Awaitable[object]) -> None:
    await result


def _complain(callback: Callback, error: Exception) -> None:
    log.error("%r failed", callback, exc_info=error)
