"""What a scaling brought: its pool before and after, compared at equal demand per ready agent.

Each pool is sampled once per heartbeat round, when the host has been read. A scaling, by policy, person or relief,
closes the samples of the old size (`before`); those of the new size begin when what was started is ready and what was
retired is gone, and the tasks that had waited for that are done. After AFTER_SAMPLES of them, or at once where nothing
can be said, the verdict is recorded on the decision and told as an event. Repair is not scaling and is not judged.

`core.comparing` has the statistics. What is compared is the response time where agents report it, else the tasks in
hand, else the load; over demand as the arrivals that the agents count, else the tasks in hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from agentd.core import returns
from agentd.core.comparing import SAMPLES_MIN, Difference, Point, TooFew, compare
from agentd.core.effects import Comparison, Demand, Effect, Measured, Metric, Verdict
from agentd.core.lifecycle import ON_ITS_WAY
from agentd.core.messages import EventType
from agentd.core.model import Decision, Direction, InstanceId, PoolConfig, PoolName, State
from agentd.core.state import Fleet, Instance, Pool
from agentd.core.trial import Mark, Sample, Trial

# With a beat every 10 s: up to ten minutes before, four after, which end before the next scale-up may come.
BEFORE_SAMPLES_MAX = 60
AFTER_SAMPLES = 24
# Left out after the new size is in place: as long as its slow tasks take (p95), within these numbers of rounds.
SETTLE_ROUNDS = 3
SETTLE_ROUNDS_MAX = 12
# A sample that comes so little early is of the next round.
ROUND_RATIO = 0.9
# Response times are compared as ratios, and no ratio is made of less than this.
TIME_S_MIN = 0.001

_Kind = TypeVar("_Kind", Demand, Metric)


def begin(fleet: Fleet, pool: Pool, decision: Decision, now: float, resumed: Sequence[InstanceId] = ()) -> None:
    """`decision` has just been carried out on `pool`, taking back `resumed`; what it brings will be measured."""
    history = pool.history
    if history.trial is not None:
        _look_whether_in_place(fleet, pool, history.trial, now)
    if history.trial is not None:
        _conclude(fleet, pool, f"another scaling ({decision.id}) came before its effect was measured")
    # What is decided at a peak has the peak in its last numbers: they are left out.
    until = now - fleet.config.heartbeat_interval_s
    history.trial = Trial(
        decision=decision.id,
        decided_at=now,
        up=decision.direction is Direction.UP,
        resumed=tuple(resumed),
        victims=decision.victims,
        before=tuple(sample for sample in history.samples if sample.at <= until),
    )
    history.samples.clear()
    history.rounds = 0
    fleet.touch_history(pool.name)


def restarted(fleet: Fleet) -> None:
    """This agentd has just started: its samples do not follow those of the one before it."""
    for pool in fleet.pools.values():
        history = pool.history
        history.samples.clear()
        history.marks.clear()
        history.sampled_at = None
        history.saturated = 0
        if history.trial is not None:
            _conclude(fleet, pool, "agentd was restarted meanwhile")


def reconfigured(fleet: Fleet, before: Mapping[PoolName, PoolConfig]) -> None:
    """The pools were configured as in `before`: samples of another configuration are not compared."""
    for pool in fleet.pools.values():
        if pool.config == before.get(pool.name, pool.config):
            continue
        pool.history.samples.clear()
        was = before[pool.name]
        if _work(was) != _work(pool.config):
            pool.history.levels.clear()
            pool.law = None
            fleet.touch_history(pool.name)
        if pool.history.trial is not None:
            _conclude(fleet, pool, "the pool's configuration changed meanwhile")


def _work(config: PoolConfig) -> object:
    """What decides how much an agent can do."""
    return config.command, config.env, config.concurrency, config.resources, config.guards.diminishing_returns == "off"


def observe(fleet: Fleet, now: float) -> None:
    """The host has been read: sample the pools whose round has come, and judge what can be judged."""
    if not fleet.acts:
        return
    round_s = fleet.config.heartbeat_interval_s * ROUND_RATIO
    for pool in fleet.pools.values():
        at = pool.history.sampled_at
        if not pool.removed and (at is None or now - at >= round_s):
            _observe(fleet, pool, now)


def _observe(fleet: Fleet, pool: Pool, now: float) -> None:
    history = pool.history
    sample = _sample(fleet, pool, now)
    history.sampled_at = now
    trial = history.trial
    if trial is not None:
        _look_whether_in_place(fleet, pool, trial, now)
        trial = history.trial
    if trial is not None and (trial.in_place_at is None or now < trial.settled_at):
        history.saturated = 0
        return
    returns.observe(fleet, pool, sample, now)
    if sample is not None:
        history.samples.append(sample)
        del history.samples[:-BEFORE_SAMPLES_MAX]
    if trial is not None:
        history.rounds += 1
        if len(history.samples) >= AFTER_SAMPLES or history.rounds >= 2 * AFTER_SAMPLES:
            _conclude(fleet, pool)


def _look_whether_in_place(fleet: Fleet, pool: Pool, trial: Trial, now: float) -> None:
    if trial.in_place_at is not None:
        return
    instances = pool.instances.values()
    if trial.up:
        mine = [i for i in instances if i.decision == trial.decision or i.id in trial.resumed]
        if any(i.state in ON_ITS_WAY or i.state is State.BACKOFF or i.is_resuming or i.again for i in mine):
            return
        ready = [i.since for i in mine if i.state is State.READY]
        if not ready:
            pool.history.samples.extend(trial.before)  # the size is what it was
            _conclude(fleet, pool, "nothing came of it: no instance became ready")
            return
        trial.in_place_at = max(ready)
    else:
        # An id is used again; who was made later is somebody else.
        if any(i.id in trial.victims and i.created_at <= trial.decided_at for i in instances):
            return
        trial.in_place_at = now
    fleet.touch_history(pool.name)
    interval_s = fleet.config.heartbeat_interval_s
    slow_s = max((s.response_time_p95_s or 0.0 for s in trial.before), default=0.0)
    trial.settled_at = trial.in_place_at + min(max(SETTLE_ROUNDS * interval_s, slow_s), SETTLE_ROUNDS_MAX * interval_s)


# -- samples ------------------------------------------------------------------------------------


def _sample(fleet: Fleet, pool: Pool, now: float) -> Sample | None:
    """`pool` now; None where nobody is ready."""
    history = pool.history
    since = history.sampled_at if history.sampled_at is not None else now - fleet.config.heartbeat_interval_s
    ready = [i for i in pool.instances.values() if i.state is State.READY and not i.missed and not i.replaced_by]
    fresh = [i for i in ready if i.beat_at > since]
    # Response times outlive the heartbeat that brought them; what they were before a scaling says nothing of now.
    timed = [i for i in ready if i.timed_at > since]
    rates = [rate for i in fresh if (rate := _rates(i, history.marks.get(i.id))) is not None]
    history.marks = {
        i.id: Mark(i.incarnation, i.beat_at, i.tasks_completed, i.work) for i in ready if i.tasks_completed is not None
    }
    if not ready:
        return None
    count, host = len(ready), fleet.host

    def whole(values: Iterable[float | None]) -> float | None:
        """The sum over all, from those who tell; half of them must."""
        known = [value for value in values if value is not None]
        return count * math.fsum(known) / len(known) if 2 * len(known) >= count else None

    arrivals = whole(arrived for _, arrived in rates)
    return Sample(
        at=now,
        ready=count,
        arrivals=None if arrivals is None else max(0.0, arrivals),
        work=whole(i.work for i in fresh),
        throughput=whole(done for done, _ in rates),
        queue_length=whole(i.queue_length for i in fresh),
        load=_mean(i.load for i in fresh),
        response_time_p50_s=_mean(i.response_time_p50_s for i in timed),
        response_time_p95_s=_mean(i.response_time_p95_s for i in timed),
        cpu_used_cores=host.cpu_used_cores if host else None,
        memory_used_bytes=host.memory_total_bytes - host.memory_available_bytes if host else None,
        cpu_pressure_percent=host.cpu_pressure_percent if host else None,
        memory_pressure_percent=host.memory_pressure_percent if host else None,
        io_pressure_percent=host.io_pressure_percent if host else None,
    )


def _rates(instance: Instance, mark: Mark | None) -> tuple[float, float | None] | None:
    """Tasks per second that `instance` has done, and got, from the beat at `mark` to its last; None: it cannot tell."""
    done = instance.tasks_completed
    if mark is None or done is None or mark.incarnation != instance.incarnation or done < mark.tasks_completed:
        return None
    passed_s = instance.beat_at - mark.beat_at
    if passed_s <= 0.0:
        return None
    finished = done - mark.tasks_completed
    if instance.work is None or mark.work is None:
        return finished / passed_s, None
    return finished / passed_s, (finished + instance.work - mark.work) / passed_s


# -- the verdict --------------------------------------------------------------------------------


def _conclude(fleet: Fleet, pool: Pool, unclear: str = "") -> None:
    """End the pool's trial: with a verdict, or `unclear` for the reason given."""
    history = pool.history
    trial = history.trial
    assert trial is not None, f"broken invariant: no scaling of {pool.name} is at trial"
    before, after = trial.before, tuple(history.samples) if trial.in_place_at is not None else ()
    per_agent = whole = None
    verdict, reason = Verdict.UNCLEAR, unclear
    if not unclear:
        verdict, reason, per_agent, whole = _judge(before, after)
    effect = Effect(
        decision=trial.decision, pool=pool.name, wall=fleet.wall(trial.decided_at), verdict=verdict, reason=reason,
        before=_measured(before), after=_measured(after), per_agent=per_agent, whole=whole,
    )  # fmt: skip
    history.trial, history.last = None, effect
    fleet.effects.append(effect)
    fleet.touch_history(pool.name)
    word = verdict.value.replace("_", " ")
    fleet.tell(EventType.EFFECT, f"{word}: {reason}", pool=pool.name, decision=trial.decision)


def _judge(
    before: Sequence[Sample], after: Sequence[Sample]
) -> tuple[Verdict, str, Comparison | None, Comparison | None]:
    for window, name in ((before, "before"), (after, "after")):
        if len(window) < SAMPLES_MIN:
            return Verdict.UNCLEAR, f"only {len(window)} samples {name} it, {SAMPLES_MIN} are needed", None, None
    demand = _first(_DEMANDS, before, after)
    if demand is None:
        return Verdict.UNCLEAR, "its agents report neither their queue nor their tasks in flight", None, None
    # At equal work in hand the work in hand is equal; that says nothing.
    metrics = {name: read for name, read in _METRICS.items() if demand is not Demand.WORK or name is not Metric.WORK}
    metric = _first(metrics, before, after)
    if metric is None:
        return Verdict.UNCLEAR, "its agents report neither response times nor their load", None, None
    per_agent = _compare(metric, demand, before, after, whole=False)
    whole = _compare(metric, demand, before, after, whole=True)
    whole_pool = whole if isinstance(whole, Comparison) else None
    if isinstance(per_agent, TooFew):
        text = f"{per_agent.before} of {len(before)} samples before and {per_agent.after} of {len(after)} after"
        return Verdict.UNCLEAR, f"too little demand per agent in common: {text}", None, whole_pool
    text = f"{told(per_agent)} at equal demand per agent"
    if not per_agent.excludes_zero:
        return Verdict.UNCLEAR, f"{text}, which may be none", per_agent, whole_pool
    return Verdict.HELPED if per_agent.high < 0.0 else Verdict.MADE_IT_WORSE, text, per_agent, whole_pool


def told(comparison: Comparison) -> str:
    """A comparison in words: `response time -31 % (-42 % to -18 %)`."""
    numbers = (comparison.change, comparison.low, comparison.high)
    change, low, high = (f"{each * 100.0:+.0f} %" if comparison.relative else f"{each:+.2f}" for each in numbers)
    return f"{_NAMES[comparison.metric]} {change} ({low} to {high})"


def _compare(
    metric: Metric, demand: Demand, before: Sequence[Sample], after: Sequence[Sample], *, whole: bool
) -> Comparison | TooFew:
    relative = metric is Metric.RESPONSE_TIME

    def points(window: Sequence[Sample]) -> list[Point]:
        read = [(s, _DEMANDS[demand](s), _METRICS[metric](s)) for s in window]
        return [
            Point(x if whole else x / s.ready, math.log(max(TIME_S_MIN, y)) if relative else y)
            for s, x, y in read
            if x is not None and y is not None
        ]

    found = compare(points(before), points(after))
    if not isinstance(found, Difference):
        return found
    numbers = (found.change, found.low, found.high)
    change, low, high = (math.expm1(min(each, 50.0)) if relative else each for each in numbers)
    return Comparison(metric, demand, relative, change, low, high, found.before, found.after)


def _first(
    kinds: dict[_Kind, Callable[[Sample], float | None]], before: Sequence[Sample], after: Sequence[Sample]
) -> _Kind | None:
    """The first kind of number that both windows have enough of."""
    for kind, read in kinds.items():
        if all(sum(read(sample) is not None for sample in window) >= SAMPLES_MIN for window in (before, after)):
            return kind
    return None


def _per_agent(value: float | None, sample: Sample) -> float | None:
    return None if value is None else value / sample.ready


_DEMANDS: dict[Demand, Callable[[Sample], float | None]] = {
    Demand.ARRIVALS: lambda sample: sample.arrivals,
    Demand.WORK: lambda sample: sample.work,
}
_METRICS: dict[Metric, Callable[[Sample], float | None]] = {
    Metric.RESPONSE_TIME: lambda sample: sample.response_time_p50_s,
    Metric.WORK: lambda sample: _per_agent(sample.work, sample),
    Metric.LOAD: lambda sample: sample.load,
}
_NAMES = {Metric.RESPONSE_TIME: "response time", Metric.WORK: "tasks in hand per agent", Metric.LOAD: "load"}


def _measured(window: Sequence[Sample]) -> Measured | None:
    """Plain means over a window; None where it is empty."""
    if not window:
        return None
    demand = _first(_DEMANDS, window, window) or Demand.WORK
    return Measured(
        samples=len(window),
        ready=math.fsum(s.ready for s in window) / len(window),
        demand_per_agent=_mean(_per_agent(_DEMANDS[demand](s), s) for s in window),
        load=_mean(s.load for s in window),
        response_time_p50_s=_mean(s.response_time_p50_s for s in window),
        response_time_p95_s=_mean(s.response_time_p95_s for s in window),
        throughput_per_agent=_mean(_per_agent(s.throughput, s) for s in window),
        queue_length=_mean(s.queue_length for s in window),
        cpu_used_cores=_mean(s.cpu_used_cores for s in window),
        memory_used_bytes=_mean(s.memory_used_bytes for s in window),
        cpu_pressure_percent=_mean(s.cpu_pressure_percent for s in window),
        memory_pressure_percent=_mean(s.memory_pressure_percent for s in window),
        io_pressure_percent=_mean(s.io_pressure_percent for s in window),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
