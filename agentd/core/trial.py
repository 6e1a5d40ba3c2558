"""What is remembered of a pool to tell what a scaling brings: samples of the present size, and the scaling at trial.

Owns the values and their form in the store. `core.validation` takes the samples and judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import asdict, astuple

from agentd.core.effects import Effect, restored
from agentd.core.model import Incarnation, InstanceId
from agentd.core.scalability import Level


class Sample(Struct, frozen=True):
    """A pool at one moment, of its ready agents that have spoken since the sample before. Sums are of the pool.

    `arrivals` and `throughput` are tasks per second, `work` tasks in hand; means over those who tell, times `ready`.
    """

    at: float
    ready: int
    arrivals: float | None = None
    work: float | None = None
    throughput: float | None = None
    queue_length: float | None = None
    load: float | None = None
    response_time_p50_s: float | None = None
    response_time_p95_s: float | None = None
    cpu_used_cores: float | None = None
    memory_used_bytes: float | None = None
    cpu_pressure_percent: float | None = None
    memory_pressure_percent: float | None = None
    io_pressure_percent: float | None = None


class Mark(Struct, frozen=True):
    """How far an agent had come at the beat that the last sample saw."""

    incarnation: Incarnation
    beat_at: float
    tasks_completed: int
    work: int | None


class Trial(Struct):
    """A scaling whose effect is being measured. Times are monotonic.

    In place when what was started is ready and what was retired is gone; settled when also the tasks that had waited
    for that are done.
    """

    decision: str
    decided_at: float
    up: bool
    resumed: tuple[InstanceId, ...] = ()
    victims: tuple[InstanceId, ...] = ()
    before: tuple[Sample, ...] = ()
    in_place_at: float | None = None
    settled_at: float = 0.0


class History(Struct):
    """Of one pool. `samples`, oldest first, are all of its present size: of the time since the last scaling settled.

    Invariant: while a trial is not settled, `samples` is empty.
    """

    samples: list[Sample] = field(default_factory=list)
    marks: dict[InstanceId, Mark] = field(default_factory=dict)
    sampled_at: float | None = None
    trial: Trial | None = None
    rounds: int = 0  # since the trial has settled, also those without a sample
    last: Effect | None = None
    # What so many agents can do, by their number; how many were ready at the end of the last round, if all had work.
    levels: dict[int, Level] = field(default_factory=dict)
    saturated: int = 0
    unsaved: int = 0  # rounds that the levels have learned from since they were written down


def row(history: History) -> dict[str, Any]:
    """Its form in the store."""
    trial = history.trial
    return {
        "samples": [astuple(sample) for sample in history.samples],
        "marks": {ident: astuple(mark) for ident, mark in history.marks.items()},
        "sampled_at": history.sampled_at,
        "rounds": history.rounds,
        "trial": None if trial is None else asdict(trial) | {"before": [astuple(sample) for sample in trial.before]},
        "last": None if history.last is None else to_builtins(history.last),
        "levels": {count: astuple(level) for count, level in history.levels.items()},
        "saturated": history.saturated,
        "unsaved": history.unsaved,
    }


def load(value: Mapping[str, Any], shift: float = 0.0) -> History:
    """The history that `row` gave; the times of what outlives agentd are moved by `shift`."""
    trial = None
    if value["trial"] is not None:
        trial = Trial(**value["trial"])
        trial.resumed, trial.victims = tuple(trial.resumed), tuple(trial.victims)
        trial.before = tuple(Sample(*sample) for sample in value["trial"]["before"])
    return History(
        samples=[Sample(*sample) for sample in value["samples"]],
        marks={InstanceId(ident): Mark(*mark) for ident, mark in value["marks"].items()},
        sampled_at=value["sampled_at"],
        trial=trial,
        rounds=value["rounds"],
        last=None if value["last"] is None else restored(value["last"]),
        levels={
            int(count): Level(weight, mean, spread, at + shift)
            for count, (weight, mean, spread, at) in value.get("levels", {}).items()
        },
        saturated=value.get("saturated", 0),
        unsaved=value.get("unsaved", 0),
    )
