"""The `adaptive` trigger: as many as will be needed when a start that begins now has ended.

It puts together what is known of the stream of tasks (`core.flow`), what eight experts make of it (`core.experts`), and
which of them has been right lately (`core.shadow`). `note` takes what the agents tell, once per evaluation; `propose`
changes nothing.

Silence is information: who is late counts as fully at work on the way down and as nothing more on the way up, and where
half of a pool is silent, it stays as it is.
"""

from __future__ import annotations

import math

from agentd.core import demand as demands
from agentd.core import experts, forecasting
from agentd.core.demand import Demand
from agentd.core.experts import EXPERTS
from agentd.core.learned import Learned
from agentd.core.metrics import Totals, quantile
from agentd.core.model import Proposal, Reason
from agentd.core.rules import AdaptiveTrigger
from agentd.core.shadow import Shadows, Step
from agentd.core.state import Fleet, Pool

# Before a start of the pool has been seen.
START_S_DEFAULT = 30.0
# The shadows move in steps of this share of a start, at least a second.
STEP_RATIO = 1.0 / 15.0
STEP_S_MIN = 1.0
# What has just grown is not made smaller before so long: where a start takes no time, counts would follow every task.
HOLD_S = 10.0
# Nobody is let go before what arrives has been seen for so long, and for a start.
SEEN_S = 60.0
# After so long without a look nobody knows what came in between.
AWAY_S = 300.0
# How often what was learned is worth a write.
SAVE_S = 60.0


def note(fleet: Fleet, pool: Pool, trigger: AdaptiveTrigger, sums: Totals, now: float) -> None:
    """Take what the agents of `pool` tell now."""
    demand = demands.known(pool, sums)
    start_s = start_time_s(pool)
    if pool.adaptive is not None:
        pool.adaptive.forecast = forecasting.floor(fleet, pool, start_s, now)
    if demand is None or now < fleet.recovering_until:  # by then everybody has spoken again
        return
    if pool.adaptive is None:
        pool.adaptive = Learned(saved_at=now - SAVE_S)
    learned = pool.adaptive
    if not demand.whole:  # what is missing has not left
        learned.flow.resumed = True
        return
    passed_s = max(0.0, now - learned.flow.at)
    learned.flow.observe(now, demand.total, demand.at_work, sums.completed)
    view = experts.outlook(learned.flow, start_s, trigger.wait_target_s, _full_ratio(demand))
    floor = view.floor(demand.at_work, demand.waiting)
    most = float(pool.max * pool.config.concurrency)
    for place, expert in enumerate(EXPERTS):
        learned.peaks[place] = experts.remembered(expert, learned.peaks[place], floor, passed_s, view.stretch, most)
    shadows = learned.shadows
    if shadows is None:
        learned.shadows = Shadows.beginning(sums.count, now)
    elif now - shadows.lived_at > AWAY_S:
        shadows.since += now - shadows.lived_at
        shadows.lived_at = now
        learned.flow.take_lately(trigger.wait_target_s)
    elif now - shadows.lived_at >= max(STEP_S_MIN, STEP_RATIO * start_s):
        step_s, slots = now - shadows.lived_at, pool.config.concurrency
        # Who begins between two looks has waited for longer than the looks show: half a step in the mean.
        lately = learned.flow.take_lately(max(0.0, trigger.wait_target_s - step_s / 2.0))
        step = Step(view, now, step_s, lately, start_s, slots, pool.min, pool.max, trigger.standby)
        shadows.live(step, trigger.late_weight, _kept(learned, slots), _pinned(trigger))
    if now - learned.saved_at >= SAVE_S:
        learned.saved_at = now
        fleet.touch_adaptive(pool.name)


def propose(pool: Pool, trigger: AdaptiveTrigger, sums: Totals, now: float) -> Proposal:
    """The count that is nearest to what there is, of those that the leading expert finds right."""
    demand = demands.known(pool, sums)
    learned = pool.adaptive
    if demand is None or learned is None:
        text = "no ready instance has told its load, in_flight or queue_length"
        return Proposal(trigger.kind, None, Reason("no_sample", text))
    if _silent(sums):
        text = f"{sums.unhealthy} of {sums.ready + sums.unhealthy} instances are silent"
        return Proposal(trigger.kind, sums.count, Reason("silent", text))
    leader = _leader(trigger, learned)
    expert = EXPERTS[leader]
    start_s = start_time_s(pool)
    slots = pool.config.concurrency
    view = experts.outlook(learned.flow, start_s, trigger.wait_target_s, _full_ratio(demand))
    floor = view.floor(demand.at_work, demand.waiting)
    passed_s = max(0.0, now - learned.flow.at)
    peak = experts.remembered(expert, learned.peaks[leader], floor, passed_s, view.stretch, float(pool.max * slots))
    expected = view.expected(demand.total)
    urgent = view.floor(demand.at_work, demand.waiting, expert.relied_ratio)
    low, high = experts.band(expert, expected, urgent, peak, slots)
    if trigger.standby:
        low = max(low, math.ceil(demand.total / slots) + trigger.standby)
        high = max(high, low)
    if sums.unhealthy:  # who is late may be at work with all it can take
        high = max(high, math.ceil((demand.total + sums.unhealthy * slots) / slots))
    count = without = max(low, min(high, sums.count))
    if forecasting.heeds(trigger, learned):
        kept = _kept(learned, slots)
        low, high, count = max(low, kept), max(high, kept), max(count, kept)
    # A pool at its minimum lets nobody go: there is nothing to hold back.
    held = _held(pool, learned, demand, count, start_s, now) if pool.min < sums.count > count else None
    if held is not None:
        return Proposal(trigger.kind, sums.count, held)
    full = not demand.waits_show and demand.at_work > demands.FULL_RATIO * sums.ready * slots
    text = _text(demand, expected, start_s, learned, expert.name, low, high, full=full)
    if count > without:
        text = f"{text}; {learned.forecast:.1f} are usual at this time: forecast"
        return Proposal(trigger.kind, count, Reason("forecast", text))
    code = "needs_more" if count > sums.count else "needs_fewer" if count < sums.count else "in_band"
    return Proposal(trigger.kind, count, Reason(code, text))


def _full_ratio(demand: Demand) -> float:
    return 1.0 if demand.waits_show else demands.FULL_RATIO


def _silent(sums: Totals) -> bool:
    """Whether too many say nothing for anything to be decided."""
    return sums.unhealthy > 0 and sums.unhealthy * 2 >= sums.ready + sums.unhealthy


def _held(pool: Pool, learned: Learned, demand: Demand, count: int, start_s: float, now: float) -> Reason | None:
    """Why `count`, which is fewer than there are, is not followed yet."""
    grown_s = math.inf if pool.last_up_at is None else now - pool.last_up_at
    if grown_s < HOLD_S:
        return Reason("just_grown", f"{count} would do; it grew {grown_s:.0f} s ago and is held for {HOLD_S:.0f} s")
    seen_s, needed_s = now - learned.flow.began, max(SEEN_S, start_s)
    if seen_s < needed_s:
        text = f"{count} would do; fewer only when tasks have been watched for {needed_s:.0f} s, so far {seen_s:.0f} s"
        return Reason("just_begun", text)
    if not demand.sure:
        return Reason("unsure", "nobody knows all the tasks that wait or are at work")
    return None


def _kept(learned: Learned, slots: int) -> int:
    """As many as the forecast expects to be at work; 0: it knows nothing."""
    return experts.instances(learned.forecast, slots)


def start_time_s(pool: Pool) -> float:
    """How long a start of `pool` takes, by its last ones."""
    return quantile(pool.start_times_s, 0.5) if pool.start_times_s else START_S_DEFAULT


def turning(pool: Pool, trigger: AdaptiveTrigger, sums: Totals, fewer: bool) -> str:
    """What would change a pool that is to stay as it is. `fewer`: whether it may shrink."""
    learned = pool.adaptive
    if learned is None or learned.flow.demand is None:
        return "decides when a ready instance tells its load, in_flight or queue_length"
    if _silent(sums):
        return "decides when more than half of the instances are heard"
    slots = pool.config.concurrency
    parts = []
    if sums.count < pool.max:
        full = sums.count * slots
        expected = experts.most_expected(EXPERTS[_leader(trigger, learned)], full)
        word = "slot takes" if full == 1 else "slots take"
        more = f"would grow above {expected:.1f} expected tasks, or when more wait than its {full} {word} in time"
        parts.append(more if full else "would grow when a task comes or is expected")
        demand = demands.known(pool, sums)
        if full and demand is not None and not demand.waits_show:
            parts.append(
                f"or above {demands.FULL_RATIO * full:.1f} tasks at work, while no waiting task was ever told of"
            )
        if trigger.standby:
            parts.append(
                f"or above {max(0, sums.count - trigger.standby) * slots} tasks, for a standby of {trigger.standby}"
            )
    if fewer and sums.count > trigger.standby:
        does = "1 is" if sums.count == 2 else f"{sums.count - 1} are"
        parts.append(f"would shrink when {does} enough for what is expected and what came lately")
    return ", ".join(parts)


def _leader(trigger: AdaptiveTrigger, learned: Learned) -> int:
    """The place of the expert whom the pool follows."""
    pinned = _pinned(trigger)
    if pinned is not None:
        return pinned
    return learned.shadows.leader if learned.shadows else 0


def _pinned(trigger: AdaptiveTrigger) -> int | None:
    """The place of the expert whom people have named; None: nobody."""
    return experts.NAMES.index(trigger.expert) if trigger.expert in experts.NAMES else None


def _text(
    demand: Demand, expected: float, start_s: float, learned: Learned, name: str, low: int, high: int, *, full: bool
) -> str:  # fmt: skip
    right = f"{low}" if low == high else f"{low} to {high}"
    at_work = f"{demand.at_work:.3g}"
    tasks = "1 task" if at_work == "1" else f"{at_work} tasks"
    takes = "takes" if learned.flow.done else "may take"  # nobody has seen one end
    taken = f" ({demands.FULL_RATIO:.0%} is full while no waiting task was ever told of)" if full else ""
    return (
        f"{tasks} at work{taken}, {demand.waiting:.3g} waiting; {expected:.1f} expected in {start_s:.3g} s "
        f"(each {takes} {learned.flow.service_s:.3g} s); right: {right} ({name})"
    )
