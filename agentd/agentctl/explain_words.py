"""A decision's numbers and times in words. Pure: it makes texts and asks nobody."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from agentd.agentctl.text import moment

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

_WORDS = {"max_agents": "its maximum", "min_agents": "its minimum", "host_memory": "memory headroom",
          "host_cpu": "cpu headroom", "host_disk": "disk headroom"}  # fmt: skip

# The codes of a decision's limits, in its text.
_BLOCKED_BY = re.compile(r"blocked by \w+(?:, \w+)*")


def chain_text(decision: pb.Decision) -> str:
    """`wanted 7 -> its maximum 5 -> memory headroom 3; granted 3`; empty where nothing limits it."""
    links = list(decision.chain)
    if len(links) < 3:  # wanted and granted alone
        return ""
    steps = " -> ".join(f"{_WORDS.get(link.code, link.code.replace('_', ' '))} {link.count}" for link in links[:-1])
    return f"{steps}; granted {links[-1].count}"


def change_text(decision: pb.Decision, *, now: float | None = None) -> str:
    """What would change it; where all its limits lift by themselves, with the time of day when the last one does."""
    text = decision.counterfactual
    lifts = [limit.until_wall for limit in decision.limits if limit.HasField("until_wall")]
    if not text or not lifts or len(lifts) < len(decision.limits) or "blocked by" not in text:
        return text
    until = moment(max(lifts), now=time.time() if now is None else now)
    return _BLOCKED_BY.sub(lambda found: f"{found[0]} until {until}", text, count=1)
