"""What else agentd's status says that a configuration should follow: start-up times, ports, memory, useful maxima.

Pure: messages in, sentences out, in the order of the pools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentd.agentctl.text import duration, plural, size

if TYPE_CHECKING:
    from agentd.config import Config
    from agentd.core.model import PoolConfig
    from agentd.v1 import control_pb2 as pb

# A start timeout is meant for starts that fail: it should leave the slowest of twenty this much room, and not far more.
START_ROOM = 1.5
START_WASTE = 20.0
STARTS_MIN = 5
PORTS_SHARE = 0.8
MEMORY_SHARE = 0.85
MEMORY_WASTE = 4.0


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to change besides the policy: a stable code, the pool, and a sentence."""

    code: str
    pool: str
    text: str


def advise(status: pb.Status, config: Config) -> list[Advice]:
    """What `status` of a running agentd says about the pools of its configuration."""
    found: list[Advice] = []
    for pool in status.pools:
        own = next((one for one in config.fleet.pools.values() if one.name == pool.name), None)
        if own is not None:
            texts = (
                ("start_timeout", _start(pool, own)), ("ports", _ports(pool, own)), ("memory", _memory(pool, own)),
                ("useful_max", _useful(pool, own)),
            )  # fmt: skip
            found += [Advice(code, pool.name, text) for code, text in texts if text]
    return found


def _start(pool: pb.Pool, own: PoolConfig) -> str:
    times = pool.start_times
    if times.counted < STARTS_MIN or not times.HasField("p95_s"):
        return ""
    took = f"{duration(times.p95_s)} (95 % of {plural(times.counted, 'start')})"
    now = f"start_timeout_sec is {own.start_timeout_s:g}"
    if own.start_timeout_s < START_ROOM * times.p95_s:
        return f"{now}, and starts take up to {took}: {2.0 * times.p95_s:.0f} would leave them room"
    if own.start_timeout_s > max(60.0, START_WASTE * times.p95_s):
        best = max(10.0, 5.0 * times.p95_s)
        return f"{now}, and starts take up to {took}: {best:.0f} would tell a failed one sooner"
    return ""


def _ports(pool: pb.Pool, own: PoolConfig) -> str:
    if own.ports is None:
        return ""
    used = pool.count + pool.draining - len(own.core)
    if own.max - len(own.core) > len(own.ports):
        return f"max {own.max} is out of reach: {plural(len(own.ports), 'port')} and {len(own.core)} core agents"
    if used < PORTS_SHARE * len(own.ports):
        return ""
    return f"{used} of its {len(own.ports)} ports are in use, and those that drain keep theirs: widen ports"


def _memory(pool: pb.Pool, own: PoolConfig) -> str:
    most = own.resources.memory_max_bytes
    if most is None or not pool.footprint_learned or not pool.footprint_bytes:
        return ""
    now = f"resources.memory_max is {size(most)}, and an agent uses {size(pool.footprint_bytes)}"
    if pool.footprint_bytes > MEMORY_SHARE * most:
        return f"{now}: {size(1.5 * pool.footprint_bytes)} would leave it room"
    if pool.footprint_bytes * MEMORY_WASTE < most:
        return f"{now}: {size(2.0 * pool.footprint_bytes)} would stop a leak sooner"
    return ""


def _useful(pool: pb.Pool, own: PoolConfig) -> str:
    """An agentd that fits how throughput grows with the count says from where on it does not."""
    useful = int(getattr(pool, "useful_max", 0) or 0)
    if not 0 < useful < own.max:
        return ""
    return f"more than {plural(useful, 'agent')} add little throughput, and max is {own.max}"
