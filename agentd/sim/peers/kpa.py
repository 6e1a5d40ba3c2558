"""Knative's pod autoscaler (KPA): a slow mean for the size, a fast one for panic.

Source of the rule: knative/serving@98e5ef90, pkg/autoscaler/scaling/autoscaler.go (`Scale`) and
pkg/reconciler/autoscaling/kpa/scaler.go. It looks every 2 seconds.

    stable    ceil(stable mean / target), within the rates
    panic     entered when the panic mean wants at least `panic_threshold` times what is ready, left when it has not
              for a stable window; inside it the size never shrinks
    delay     the largest wish of the last `scale_down_delay_s`
"""

from __future__ import annotations

import math

from msgspec import Struct

from agentd.sim.peers.kpa_windows import TimeWindowMax

TICK_S = 2.0


class Spec(Struct, frozen=True):
    """What a revision asks for. `target_value` is what one pod should carry (the container's target times the
    utilisation), `total_value` what it can carry. `target_burst_capacity` -1 is without limit, 0 none.
    """

    target_value: float
    total_value: float
    target_burst_capacity: float = 200.0
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    stable_window_s: float = 60.0
    scale_down_delay_s: float = 0.0
    reachable: bool = True
    activation_scale: int = 0


class Means(Struct, frozen=True):
    """The metric in the mean of the stable and of the panic window."""

    stable: float
    panic: float


class Wish(Struct, frozen=True):
    """What one tick came to; an invalid one changes nothing."""

    desired: int
    excess_burst_capacity: int
    valid: bool = True


INVALID = Wish(0, 0, valid=False)


class Autoscaler:
    """The memory of one revision's autoscaler. `ready` is the count at its creation, None when it cannot be known: with
    more than one pod it starts in panic, so that a restart does not shrink what runs.
    """

    def __init__(self, spec: Spec, ready: int | None, now: float) -> None:
        self.max_panic_pods = ready or 0
        self.panic_since: float | None = now if self.max_panic_pods > 1 else None
        self._delay = TimeWindowMax(spec.scale_down_delay_s, TICK_S) if spec.scale_down_delay_s > 0 else None

    def scale(self, spec: Spec, ready: int | None, means: Means | None, now: float) -> Wish:
        """One tick. `ready` or `means` None: they could not be read."""
        if ready is None or means is None:
            return INVALID
        pods = max(1, ready)
        panic_pods = math.ceil(means.panic / spec.target_value)
        stable = self._rated(spec, math.ceil(means.stable / spec.target_value), pods)
        panic = self._rated(spec, panic_pods, pods)
        self._watch(panic_pods / pods >= spec.panic_threshold, spec.stable_window_s, now)
        desired = stable
        if self.panic_since is not None:
            self.max_panic_pods = desired = max(self.max_panic_pods, stable, panic)
        if self._delay is not None and spec.reachable:
            self._delay.record(now, desired)
            desired = self._delay.current()
        return Wish(desired, _excess(spec, ready, means.panic))

    def _rated(self, spec: Spec, pods_wanted: int, pods: int) -> int:
        most = math.ceil(spec.max_scale_up_rate * pods)
        least = math.floor(pods / spec.max_scale_down_rate) if spec.reachable else 0
        rated = min(max(pods_wanted, least), most)
        # A floor of its own for what is not idle; what the down rate alone keeps is.
        return max(rated, spec.activation_scale) if pods_wanted > 0 and spec.activation_scale > 1 else rated

    def _watch(self, over: bool, stable_window_s: float, now: float) -> None:
        if over:
            self.panic_since = now
        elif self.panic_since is not None and self.panic_since + stable_window_s < now:
            self.panic_since = None
            self.max_panic_pods = 0


def _excess(spec: Spec, ready: int, panic_mean: float) -> int:
    """What the ready pods can carry beyond the load and the burst that must always fit."""
    if spec.target_burst_capacity == 0:
        return 0
    if spec.target_burst_capacity < 0:
        return -1
    return math.floor(ready * spec.total_value - spec.target_burst_capacity - panic_mean)


class ZeroHold(Struct):
    """The last pod stays until the fleet has been active for a stable window, and then for the grace (30 s), or for the
    retention where that is longer.
    """

    stable_window_s: float = 60.0
    grace_s: float = 30.0
    retention_s: float = 0.0
    _active_since: float | None = None
    _idle_since: float | None = None
    _at_zero: bool = False

    def hold(self, desired: int, now: float) -> int:
        """`desired`, or 1 while the last pod is kept."""
        if desired > 0:
            if self._active_since is None:
                self._active_since = now
            self._idle_since, self._at_zero = None, False
            return desired
        if self._at_zero:
            return 0
        if self._active_since is None:
            self._active_since = now
        if now - self._active_since < self.stable_window_s:
            return 1
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since < max(self.grace_s, self.retention_s):
            return 1
        self._active_since, self._at_zero = None, True
        return 0
