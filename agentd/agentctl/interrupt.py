"""Control-C: it ends agentctl at once, with what is to be said and code 130.

It is answered where it arrives, and no exception goes through whatever was under way: grpc's threads and locks would
hang on one that comes in the midst of them, and an import would make an error of it. Nothing is left to tidy up: each
line is flushed as it is written, agentd goes on with what it was asked for, and the kernel closes the connection. What
must be done as a whole or not at all, and takes a moment, holds it off.
Never imports anything of weight: it is in force before anything else is loaded.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130

_farewells: list[str] = []
_held: list[bool] = []  # whether it came, of each block that holds it off


def end_on_interrupt() -> None:
    """From now on control-C ends this process; not where whoever started it has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


@contextmanager
def farewell(text: str) -> Iterator[None]:
    """Within the block control-C says `text`, one printable line, on standard error."""
    _farewells.append(text)
    try:
        yield
    finally:
        _farewells.pop()


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Within the block control-C does nothing but what the block makes of it: it is given whether it came.

    What came takes effect at the end, unless the block ends with an exception, which says more.
    """
    _held.append(False)
    try:
        yield lambda: _held[-1]
    except BaseException:
        _held.pop()
        raise
    if _held.pop():
        end()


def end(text: str = "") -> NoReturn:
    """End this process as control-C does, saying `text`."""
    with farewell(text) if text else nullcontext():
        _finish()


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    if _held:
        _held[-1] = True
    else:
        _finish()


def _finish() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one does not cut the line short
    try:
        # Nobody may be reading: then it is left unsaid, for a write would wait.
        for text in _farewells[-1:] if select.select([], [2], [], 0)[1] else ():
            os.write(2, f"agentctl: {text}\n".encode(errors="replace"))
    finally:
        os._exit(INTERRUPTED)
