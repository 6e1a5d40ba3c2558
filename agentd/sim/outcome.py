"""What a simulation prints: one object for programs, and what it says of how the simulated agents behave.

Deterministic: the same trace, options and seed give the same text. How fast the simulation ran is not part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import to_builtins

from agentd.sim.measure import Result
from agentd.sim.options import LOAD, Options

CLAIRVOYANT = "clairvoyant"
LATE_WEIGHT = 0.1
_QUEUE = "one queue, first come first served"

Json = str | float | int | bool | None | dict[str, "Json"] | list["Json"]


def document(
    trace: str, results: Sequence[Result], options: Options, *, agents_min: int, initial: int,
    service_s: float | None, history: Json = None,
) -> dict[str, Json]:  # fmt: skip
    """The object that `--output json` prints. `service_s`: what a trace of counts was expanded with.

    `history`: where the load is from if it is no trace.
    """
    settings: dict[str, Json] = {
        "startup_s": options.startup_s,
        "concurrency": options.concurrency,
        "min": agents_min,
        "max": options.agents_max,
        "initial": initial,
        "slo_s": options.slo_s,
        "service_s": service_s,
        "seed": options.seed,
        "dispatch": options.dispatch,
        "drain": options.drain,
        "beat_jitter_ratio": options.beat_jitter_ratio,
        "beat_loss_ratio": options.beat_loss_ratio,
        "tell": options.tell,
        "set": dict(options.settings),
        "history": history,
    }
    hours = clairvoyant_hours(results)
    policies: list[Json] = []
    for result in results:
        entry: dict[str, Json] = to_builtins(result)
        timeline = entry.pop("timeline")
        entry["j"] = None if hours is None else score(result, hours)
        entry["timeline"] = timeline
        policies.append(entry)
    return {"trace": trace, "settings": settings, "policies": policies}


def clairvoyant_hours(results: Sequence[Result]) -> float | None:
    """The agent-hours of the clairvoyant plan, where it is among `results` and took any."""
    return next((result.agent_hours for result in results if result.policy == CLAIRVOYANT), None) or None


def score(result: Result, hours: float) -> float:
    """J: agent-hours over those of the clairvoyant plan, and a tenth for each percent of late requests."""
    return result.agent_hours / hours + LATE_WEIGHT * 100.0 * result.late_share


def behaviour(options: Options) -> list[str]:
    """How the simulated agents and their queue behave, in sentences."""
    tasks = "one task" if options.concurrency == 1 else f"{options.concurrency} tasks"
    dispatch = {
        "least-loaded": f"{_QUEUE}, to the least loaded agent",
        "most-loaded": f"{_QUEUE}, to the most loaded agent with a free slot",
        "first": f"{_QUEUE}, to the agent that has been ready for longest",
        "random": f"{_QUEUE}, to any agent with a free slot, at random",
        "at-once": "to whoever has least to do, and waits there; who drains hands what waits to the others",
    }[options.dispatch]
    drain = {
        "finish": "finishes its tasks, takes none, and is gone at once when it has none; it can be taken back before",
        "deadline": "finishes its tasks within the pool's drain_timeout_sec; what is cut then counts as unserved",
    }[options.drain]
    beats = "every 10 s and on change at most once a second"
    if options.tell == LOAD:
        beats += ", heartbeats with the load alone"
    if options.beat_jitter_ratio:
        beats += f", up to {100.0 * options.beat_jitter_ratio:g} % early"
    lost = f"{100.0 * options.beat_loss_ratio:g} % of them are lost" if options.beat_loss_ratio else "none is lost"
    return [
        f"agents: {tasks} at a time, ready {options.startup_s:g} s after the request for their start",
        f"dispatch ({options.dispatch}): {dispatch}",
        f"drain ({options.drain}): an agent {drain}",
        f"heartbeats and readings of the queue: {beats}; {lost}",
    ]
