"""Ray Serve's autoscaling policy: a mean of ongoing requests, and patience.

Source of the rule: ray-project/ray, python/ray/serve/autoscaling_policy.py (@01624ad4: wall clock; @00590c45 counted
ticks), _private/autoscaling_state.py (@00215194), config.py (@00239d48).

    desired   running x (ongoing / (target x running)), then moved by the factor of its direction, then bounded
    delay     a wish acts when it has kept its direction for the delay: 30 s up, 600 s down
    zero      a fleet shrinks to one first, and from one to none after a delay of its own where that is set
"""

from __future__ import annotations

import math
from collections import deque

from msgspec import Struct, field

EPSILON_S = 1e-6  # a delay that is reached but for the rounding of the clock is reached


class Config(Struct, frozen=True):
    """The defaults are those of an AutoscalingConfig."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 2.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    downscale_to_zero_delay_s: float | None = None
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0


def desired_replicas(config: Config, running: int, ongoing: float) -> float:
    """What the load asks for; `running` is above 0."""
    return running * (ongoing / (config.target_ongoing_requests * running))


def queue_replicas(config: Config, running: int, queue_length: int, ongoing: float) -> float:
    """The same for tasks that wait in a broker besides those that run; the first replica comes for any of them."""
    waiting = queue_length + ongoing
    if running == 0:
        return 1.0 if waiting > 0 else 0.0
    return waiting / config.target_ongoing_requests


def scaled(config: Config, desired: float, running: int) -> int:
    """`desired` moved by its direction's factor, and no further than a small factor lets it: but where fewer replicas
    are wanted it is one less at least.
    """
    factor = config.upscaling_factor if desired > running else config.downscaling_factor
    moved = math.ceil(running + factor * (desired - running))
    return moved - 1 if math.ceil(desired) < running and moved == running else moved


def bounded(config: Config, replicas: int) -> int:
    return min(max(replicas, config.min_replicas), config.max_replicas)


def cold_start(config: Config, running: int, ongoing: float, target: int) -> int | None:
    """While nothing runs there is nothing to measure by: a first size at once where there is load, else the target as
    it is. None: something runs.
    """
    if running > 0:
        return None
    return max(math.ceil(config.upscaling_factor), target) if ongoing > 0 else target


def in_gangs(replicas: int, gang_size: int) -> int:
    """Replicas that only work together come in whole gangs."""
    return -(-replicas // gang_size) * gang_size


class Delay(Struct):
    """How long a wish has kept its direction."""

    _up: bool = False
    _since: float | None = None

    def decide(self, config: Config, desired: int, target: int, now: float) -> int:
        """The new target: `desired` when it has waited long enough, else `target`."""
        if desired == target:
            self._since = None
            return target
        up = desired > target
        if self._since is None or up != self._up:
            self._up, self._since = up, now
        delay_s = config.upscale_delay_s
        if not up:
            # Shrinking ends at one; the last step has a delay of its own, and begins to wait only then.
            desired = max(desired, 1) if target > 1 else desired
            delay_s = config.downscale_delay_s
            if target == 1 and config.downscale_to_zero_delay_s is not None:
                delay_s = config.downscale_to_zero_delay_s
        if now - self._since + EPSILON_S < delay_s:
            return target
        self._since = None
        return desired


class Policy(Struct):
    """One deployment's state."""

    config: Config
    delay: Delay = field(default_factory=Delay)

    def decide(self, running: int, target: int, ongoing: float, now: float, desired: float | None = None) -> int:
        """The new target; `desired` stands in for the rule by ongoing requests. A cold start is not yet bounded."""
        first = cold_start(self.config, running, ongoing, target)
        if first is not None:
            return first
        wish = desired_replicas(self.config, running, ongoing) if desired is None else desired
        return self.delay.decide(self.config, bounded(self.config, scaled(self.config, wish, running)), target, now)


class LookBack:
    """The time-weighted mean of what was told within the last `window_s`: each number holds until the next one."""

    def __init__(self, window_s: float = 30.0) -> None:
        self._window_s = window_s
        self._told = deque[tuple[float, float]]()

    def tell(self, value: float, now: float) -> None:
        self._told.append((now, value))
        # The newest of those that are too old still holds at the window's beginning.
        while len(self._told) > 1 and self._told[1][0] <= now - self._window_s:
            self._told.popleft()

    def mean(self, now: float) -> float:
        """0 before anything was told. The window begins when there was something first."""
        if not self._told:
            return 0.0
        begin = max(self._told[0][0], now - self._window_s)
        if begin >= now:
            return self._told[-1][1]
        area = 0.0
        ends = [*(at for at, _ in self._told), now][1:]
        for (at, value), end in zip(self._told, ends, strict=True):
            area += value * max(0.0, end - max(at, begin))
        return area / (now - begin)
