"""What is wrong with a pool, in lines for people: its counts, and why instances do not run.

Shared by status and explain. It only words what agentd says; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentd.agentctl.terminal import styled
from agentd.agentctl.text import plural, printable, wrapped
from agentd.agentctl.values import state_word

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

DISABLED = "multi_agent.enabled is false: agentd starts and stops nothing"

# States in which an instance does no work and the cause says why, the worst first, and how they read.
_BROKEN = {"failed": "failed", "backoff": "in backoff", "held": "held"}
_CAUSES_MAX = 3


def pool_lines(pool: pb.Pool, instances: Iterable[pb.Instance], width: int) -> list[str]:
    """How many of `pool` are something else than ready, then a line per cause. Nothing where all is well.

    `instances` may be those of all pools. Of many causes the first are shown.
    """
    broken = _broken(pool, instances)
    lines = wrapped(printable(f"{pool.name}: {note}"), width=width, rest="  ") if (note := _note(pool, broken)) else []
    causes = list(_by_cause(broken).items())
    for (state, cause), ids in causes[:_CAUSES_MAX]:
        lines += wrapped(printable(_cause(state, cause, ids)), width=width, first="  ", rest="    ")
    if left := sum(len(ids) for _, ids in causes[_CAUSES_MAX:]):
        lines.append(f"  and {plural(left, 'more instance')}")
    if lines and pool.start_failure and all(pool.start_failure not in cause for (_, cause), _ in causes):
        why = printable(f"the last start failed: {pool.start_failure}")
        lines += wrapped(why, width=width, first="  ", rest="    ")
    style = "bad" if broken or pool.failed else "warn"
    return [*_rolling_lines(pool, width), *(styled(line, style) for line in lines)]


def _rolling_lines(pool: pb.Pool, width: int) -> list[str]:
    """How far the pool's restart is, or why it has stopped."""
    if not pool.HasField("rolling"):
        return []
    lines = wrapped(printable(f"{pool.name}: {pool.rolling.text}"), width=width, rest="  ")
    return [styled(line, "bad" if pool.rolling.state == "stopped" else "") for line in lines]


def _broken(pool: pb.Pool, instances: Iterable[pb.Instance]) -> list[tuple[str, pb.Instance]]:
    """The pool's instances that do not work, each with its state, the worst first."""
    found = [(state_word(one), one) for one in instances if one.pool == pool.name]
    order = list(_BROKEN)
    return sorted((pair for pair in found if pair[0] in _BROKEN), key=lambda pair: order.index(pair[0]))


def _by_cause(broken: Iterable[tuple[str, pb.Instance]]) -> dict[tuple[str, str], list[str]]:
    causes: dict[tuple[str, str], list[str]] = {}
    for state, one in broken:
        causes.setdefault((state, one.cause), []).append(one.id)
    return causes


def _cause(state: str, cause: str, ids: list[str]) -> str:
    who = ids[0] if len(ids) == 1 else plural(len(ids), "instance")
    # agentd leaves a held instance alone for reasons of its own; its output does not tell them.
    where = "" if state == "held" else f"; see agentctl logs {ids[0]}"
    return f"{who} {_BROKEN[state]}: {cause or 'cause unknown'}{where}"


def _note(pool: pb.Pool, broken: Iterable[tuple[str, pb.Instance]]) -> str:
    counts = (
        # For good, also when a reload has mended its command.
        (pool.failed, "failed (agentctl restart ID starts it again)"),
        (pool.unhealthy, "unhealthy"),
        (pool.starting, "starting"),
        (pool.draining, "draining"),
    )
    parts = [f"{count} {word}" for count, word in counts if count]
    # What waits for its next start counts as starting, and yet nobody can rely on it.
    able = pool.ready + pool.unhealthy + pool.starting - sum(state == "backoff" for state, _ in broken)
    if able < pool.min:
        parts.append(f"below its minimum of {pool.min}")
    return ", ".join(parts)
