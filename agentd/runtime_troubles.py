"""What is wrong around agentd just now, for `status` and the log. Each trouble is told once, and that it is over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from agentd import log

_log = log.get("runtime")


class Troubles:
    """The troubles there are, at most one of each name."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def shown(self) -> tuple[str, ...]:
        """A sentence for each, in the order of their names."""
        return tuple(self._texts[name] for name in sorted(self._texts))

    def began(self, name: str, text: str) -> None:
        """There is a trouble, or it is another one now."""
        if self._texts.get(name) != text:
            self._texts[name] = text
            _log.warning("degraded", part=name, cause=text)

    def ended(self, name: str) -> None:
        """There is none, whether or not there was."""
        if self._texts.pop(name, None) is not None:
            _log.info("well again", part=name)

    @contextlib.contextmanager
    def watching(self, name: str, text: str) -> Iterator[None]:
        """An OSError inside is the host's trouble and not ours: it is remembered, and the next time may be better."""
        try:
            yield
        except OSError as error:
            self.began(name, f"{text}: {error}")
        else:
            self.ended(name)
