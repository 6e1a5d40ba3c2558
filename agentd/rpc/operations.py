"""What the daemon itself does when it is asked over ControlService. Loads nothing, for the daemon begins with it."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Reloaded(Struct, frozen=True):
    """What a reload did."""

    config_file: str
    warnings: tuple[str, ...]
    changes: tuple[str, ...]


class Operations(Protocol):
    """What the daemon itself does when asked."""

    async def reload(self, owner: str) -> Reloaded:
        """Raises Refused: CONFIG_INVALID, with every problem; nothing was changed."""

    async def shutdown(self, *, keep_agents: bool, owner: str) -> int:
        """Begin to end agentd; return how many instances are being stopped."""
