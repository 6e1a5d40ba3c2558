"""What agents and programs import to work with agentd: gRPC, the generated messages, nothing else of ours."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentd.sdk.agent import Agent as Agent
    from agentd.sdk.agent import Task as Task
    from agentd.sdk.latch import Latch as Latch

__all__ = ["Agent", "Latch", "Task"]

_MODULES = {"Agent": "agent", "Task": "agent", "Latch": "latch"}


def __getattr__(name: str) -> object:
    """The names above, loaded when they are used: agentd and agentctl need other parts of the SDK, without gRPC."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
