"""What agents cost, and how much may be spent: frozen nouns of the configuration.

Amounts are in the currency of the configuration, whichever that is; nobody converts. The hours, days and months of a
budget are those of the calendar, in UTC.
"""

from __future__ import annotations

import math

from msgspec import Struct

GIB = 1024**3
HOUR_S = 3600.0


class Rates(Struct, frozen=True):
    """What a pool costs. All 0: nobody has said, and nothing of it is counted or shown.

    `per_hour` is for an agent, from when its start is asked for until it is gone; `per_cpu_hour` for a core that its
    agents keep busy, `per_gib_hour` for memory that they use, `per_task` for a task that they have done.
    """

    per_hour: float = 0.0
    per_cpu_hour: float = 0.0
    per_gib_hour: float = 0.0
    per_task: float = 0.0

    def __bool__(self) -> bool:
        return self is not FREE and self != FREE


class Budget(Struct, frozen=True):
    """The most that may be spent in each hour, day and month. None: any amount."""

    per_hour: float | None = None
    per_day: float | None = None
    per_month: float | None = None

    def __bool__(self) -> bool:
        return self is not UNBOUNDED and self != UNBOUNDED


FREE = Rates()
UNBOUNDED = Budget()


def money(amount: float, currency: str = "") -> str:
    """An amount as people read it: two decimals, three digits of small ones."""
    size = abs(amount)
    decimals = 2 if size >= 0.1 or size < 5e-7 else min(6, 2 - math.floor(math.log10(size)))
    whole, _, rest = f"{amount:.{decimals}f}".partition(".")
    return " ".join(part for part in (f"{whole}.{rest.rstrip('0').ljust(2, '0')}", currency) if part)
