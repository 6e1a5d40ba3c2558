"""How a simulation is set up: the virtual agents, the queue, and the pool's configuration with its default model."""

from __future__ import annotations

from msgspec import Struct

AGENTS_MAX = 50
DRAINS = ("finish", "deadline")
TASKS, LOAD = "tasks", "load"
TELLS = (TASKS, LOAD)


class Options(Struct, frozen=True):
    """The setting of a simulation; the defaults are those of the published figures.

    `settings` are keys of a pool's configuration and their values as a file would have them. `drain`: whether a
    draining agent finishes whatever it has, or is stopped at the pool's drain timeout. `initial` None: right for the
    opening of the trace. `tell`: what heartbeats have, one of TELLS: the tasks beside the load, or the load alone.
    `wall`: when the load begins, for what goes by the time of day and week; None: a Monday, midnight UTC.
    """

    startup_s: float = 30.0
    concurrency: int = 1
    agents_max: int = AGENTS_MAX
    slo_s: float = 5.0
    seed: int = 1
    settings: tuple[tuple[str, str], ...] = ()
    dispatch: str = "least-loaded"
    drain: str = "finish"
    initial: int | None = None
    beat_jitter_ratio: float = 0.0
    beat_loss_ratio: float = 0.0
    tell: str = TASKS
    wall: float | None = None
