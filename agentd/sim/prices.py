"""What a simulated load would cost, by all the rates of a pool that there is something to say of."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from agentd.core.model import PoolConfig
from agentd.core.rates import GIB


class Prices(Struct, frozen=True):
    """Of an hour of an agent, with what it uses, and of a task. `told` says what is not in them; empty: nothing."""

    per_hour: float = 0.0
    per_task: float = 0.0
    told: str = ""

    def __bool__(self) -> bool:
        return self.per_hour > 0.0 or self.per_task > 0.0

    def of(self, agent_hours: float, tasks: float) -> float:
        return agent_hours * self.per_hour + tasks * self.per_task


def prices(pool: PoolConfig, *, memory_bytes: int | None = None, cores: Sequence[float] = ()) -> Prices:
    """What the rates of `pool` come to in a simulation, which itself knows of agents and tasks alone.

    `memory_bytes` is what an agent uses, `cores` what each of those that run keeps busy; None and () where nobody
    knows: that is left out then.
    """
    rates, missing = pool.rates, []
    per_hour = rates.per_hour
    if rates.per_gib_hour:
        per_hour += rates.per_gib_hour * (memory_bytes or 0) / GIB
        missing += ["memory"] if memory_bytes is None else []
    if rates.per_cpu_hour:
        per_hour += rates.per_cpu_hour * sum(cores) / max(1, len(cores))
        missing += [] if cores else ["CPU"]
    what = " and ".join(missing)
    told = f"COST is without {what}: how much its agents use is known where they run" if missing else ""
    return Prices(per_hour, rates.per_task, told)
