"""Facts of this agentd, for those who show them. Owns nothing."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class About(Struct):
    """Facts of this agentd, for those who show them; the addresses are known once they are bound.

    `started` is monotonic. `operators` are the uids that may steer the fleet over HTTP, besides root and our own.
    """

    version: str
    driver: str
    state_dir: Path
    config_file: Path | None
    http_address: str
    agents_address: str
    started: float
    operators: frozenset[int] = frozenset()
