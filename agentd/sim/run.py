"""One policy on one trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentd.sim import clairvoyant, policies
from agentd.sim.measure import Result, result
from agentd.sim.options import TASKS, Options
from agentd.sim.world import TRACE_AT_S, Setup, World
from agentd.traces import Arrival

_TRIES_MAX = 3


def simulate(
    policy: str, arrivals: Sequence[Arrival], options: Options, on_progress: Callable[[float], None] | None = None
) -> Result:
    """Run `policy` over `arrivals`; `on_progress` is told the share that is done.

    Raises:
        policies.PolicyError: the policy or a setting cannot be simulated.
    """
    share = clairvoyant.LATE_SHARE_MAX
    found = _run(policy, arrivals, options, share, on_progress)
    for _ in range(_TRIES_MAX if policy == policies.CLAIRVOYANT else 0):
        if found.late_share <= clairvoyant.LATE_SHARE_MAX:
            break
        share *= 0.5  # the pool could not follow the plan in all: it promises less
        found = _run(policy, arrivals, options, share, on_progress)
    return found


def _run(
    policy: str, arrivals: Sequence[Arrival], options: Options, late_share_max: float,
    on_progress: Callable[[float], None] | None,
) -> Result:  # fmt: skip
    fleet, steered = policies.make(policy, options, arrivals, late_share_max=late_share_max)
    pool = fleet.pools[policies.POOL]
    setup = Setup(
        startup_s=options.startup_s,
        initial=policies.initial(fleet, options, arrivals),
        seed=options.seed,
        dispatch=options.dispatch,
        beat_jitter_ratio=options.beat_jitter_ratio,
        beat_loss_ratio=options.beat_loss_ratio,
        wall=policies.wall(options),
        tells_tasks=options.tell == TASKS,
    )
    world = World(fleet, arrivals, setup, steered)
    world.on_progress = on_progress
    measure = world.run()
    measure.evaluations = world.controller.evaluations
    return result(
        policy, measure, arrivals, slo_s=options.slo_s, cost_per_hour=pool.rates.per_hour, end_s=world.now - TRACE_AT_S
    )
