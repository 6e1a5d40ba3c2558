"""The seam of collectors: what a reader is, how it fails, and what a kind says of itself."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from agentd.collecting.settings import Given, Setting
from agentd.errors import AgentdError


class ReadFailed(AgentdError):
    """There is no number. The text says why, for people: lower case, without secrets, one line."""


class Reader(Protocol):
    """Reads the number of one collector. Opened in a thread, used in the loop, one call at a time."""

    async def read(self) -> float:
        """The number now. It may take any time, and is cancelled where that is too long; the next call follows.

        Raises:
            ReadFailed, OSError: there is none.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. Nothing follows, and nothing is raised for what is broken already."""
        ...


class Kind(Struct, frozen=True):
    """A kind of collector.

    `name` is what `type:` says, `settings` what may stand beside it. `clash` is told settings that are each right and
    returns one of them and what is wrong with it there; None where all fit. `module` is the library that its reader
    needs, and `extra` the extra of agentd that brings it; "" for none.
    """

    name: str
    settings: tuple[Setting, ...]
    open: Callable[[Given], Reader]
    clash: Callable[[Given], tuple[str, str] | None] = lambda _: None
    module: str = ""
    extra: str = ""


def one_line(text: str, length_max: int = 300) -> str:
    """`text` as a trouble may tell it: its first line that is not empty, printable, not too long."""
    line = next((found for line in text.splitlines() if (found := line.strip())), "")
    shown = "".join(char if char.isprintable() else "?" for char in line)
    return shown if len(shown) <= length_max else shown[:length_max] + "..."


def cause(error: BaseException) -> str:
    """What is behind an error of a library: the system's own words where there are any."""
    deepest: BaseException | None = error
    while deepest is not None:
        if isinstance(deepest, ssl.SSLCertVerificationError):
            return f"its certificate is not good: {one_line(deepest.verify_message)}"
        if isinstance(deepest, socket.gaierror):
            return one_line(str(deepest.strerror).lower())
        if isinstance(deepest, OSError) and deepest.errno:  # asyncio writes texts of its own into strerror
            return os.strerror(deepest.errno).lower()
        deepest = deepest.__cause__ or deepest.__context__
    return one_line(str(error)) or type(error).__name__
