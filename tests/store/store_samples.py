"""What the tests of the store write, and how they break its file and its disk."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentd.core.effects import Comparison, Demand, Effect, Measured, Metric, Verdict
from agentd.core.messages import EventType, Record
from agentd.core.model import Decision, InstanceId, Limit, PoolName, Proposal, Reason
from agentd.store import Bounds, Store

RESEARCH = PoolName("research")


class FakeClock:
    def __init__(self, wall: float = 1_000_000.0) -> None:
        self.at = 50.0
        self.time = wall

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.time


def open_store(path: Path, *, wall: float = 1_000_000.0, bounds: Bounds | None = None) -> Store:
    return Store.open(path, bounds or Bounds(), FakeClock(wall))


def record(number: int, kind: EventType = EventType.START, pool: str = "research") -> tuple[float, Record]:
    change = Record(
        kind, f"reason {number}", pool=pool, instance=f"{pool}-{9100 + number % 50}", decision=f"d-{number}"
    )
    return 1_000.0 + number, change


def decision(number: int, pool: PoolName = RESEARCH) -> Decision:
    return Decision(
        id=f"d-{number}",
        pool=pool,
        at=1.5,
        wall=2.5,
        current=2,
        wanted=4,
        granted=3,
        reasons=(Reason("threshold", "High load: 0.88 > 0.75"), Reason("count", "2 -> 4")),
        limits=(Limit("headroom_memory", "needs 310 MiB more"), Limit("cooldown", "wait", until=12.5)),
        counterfactual="with 310 MiB more: 4",
        victims=(InstanceId("research-9101"),),
        trigger="demand",
        proposals=(
            Proposal("demand", 4, Reason("high_demand", "14 tasks")),
            Proposal("external", None, Reason("no_offer", "none")),
        ),
    )


def effect(of: str, pool: PoolName = RESEARCH) -> Effect:
    window = Measured(samples=24, ready=3.0, load=0.5, memory_used_bytes=1e9)
    change = Comparison(Metric.RESPONSE_TIME, Demand.ARRIVALS, True, -0.3, -0.5, -0.1, 20, 18)
    return Effect(of, pool, 7.5, Verdict.HELPED, "response time -30 %", window, window, change, None)


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * 4096)


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes: every write there fails with an I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(folder: Path) -> Path:
    """Leave no byte free on the file system of `folder`; remove the returned file to free them."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return ballast
