"""The pools that docs/any-program.md shows, for the tests that run them as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
FILES = ("own_agent.py", "grpc_agent.py", "plain_worker.py", "slow_start.py")


def documented_pools(replaced: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Every pool of the page by its name; in the words of its command `replaced` says what stands for what."""
    text = (DOCS / "any-program.md").read_text()
    pools: dict[str, dict[str, Any]] = {}
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        pools |= yaml.safe_load(block)["pools"]
    for pool in pools.values():
        pool["command"] = [_replaced(word, replaced) for word in pool["command"]]
    return pools


def _replaced(word: str, replaced: dict[str, str]) -> str:
    for old, new in replaced.items():
        word = word.replace(old, new)
    return word
