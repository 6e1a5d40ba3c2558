"""One attempt at a reading: a number that the core may have, or why there is none. It never raises and never hangs."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

from agentd.collecting.reading import Reader, ReadFailed, cause, one_line
from agentd.core.rules import QUEUE, CollectorConfig

CLOSE_S_MAX = 2.0

OpenReader = Callable[[CollectorConfig], Reader]


def opened(config: CollectorConfig) -> Reader:
    """The reader of `config`; call it in a thread.

    Raises:
        ReadFailed: it cannot be opened.
    """
    from agentd.collecting.kinds import open_reader

    return open_reader(config.kind, config.settings)


class Collector:
    """A collector with its reader, which is opened, in a thread, when it is needed first."""

    def __init__(self, config: CollectorConfig, open_reader: OpenReader = opened) -> None:
        self.config = config
        self._open = open_reader
        self._reader: Reader | None = None

    async def attempt(self) -> tuple[float | None, str]:
        """The number and "", or None and the trouble, within the collector's time."""
        try:
            async with asyncio.timeout(self.config.timeout_s) as limit:
                if self._reader is None:
                    self._reader = await asyncio.to_thread(self._open, self.config)
                return checked(self.config.name, await self._reader.read()), ""
        except ReadFailed as error:
            return None, one_line(str(error))
        except OSError as error:
            return None, f"no number within {self.config.timeout_s:g} s" if limit.expired() else cause(error)
        except Exception as error:  # a library that stumbles over an answer must not take agentd with it
            return None, one_line(f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Let go of the reader. Nothing that it still holds may keep agentd from its end."""
        if self._reader is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S_MAX):
                    await self._reader.close()


def checked(name: str, value: float) -> float:
    """`value`, if the core may have it.

    Raises:
        ReadFailed: it is not finite, or a queue of less than nothing.
    """
    if not math.isfinite(value):
        raise ReadFailed(f"{value} is not a finite number")
    if name == QUEUE and value < 0:
        raise ReadFailed(f"{value:g} is no length of a queue: it is below 0")
    return value
