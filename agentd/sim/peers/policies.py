"""The published policies as the simulator runs them: each with its published defaults, on what a view shows.

A publication leaves open what its numbers mean for a pool of agents; each class says what is chosen here, and why. All
that scale by tasks are given the same number, in-flight plus queue, as KEDA, Knative and Ray count it. Where a project
publishes no default for a target, its nearest published advice is scaled to an agent that takes c tasks at once. The
arguments are for comparisons with other targets.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from agentd.sim.peers import hpa, kpa, nomad
from agentd.sim.peers.hpa import Controller, Metric, ResourceMetric, Settings, Source, TotalMetric
from agentd.sim.peers.hpa_behavior import Bounds
from agentd.sim.peers.hpa_calculator import PodUsage, Scene
from agentd.sim.peers.hpa_pods import Phase, Pod
from agentd.sim.peers.kpa import Autoscaler, Means, Spec, ZeroHold
from agentd.sim.peers.kpa_windows import WindowAverage
from agentd.sim.peers.nomad import Machine, Vote
from agentd.sim.peers.ray import Config, LookBack, Policy
from agentd.sim.peers.view import Peer, PeerView

MILLI = 1000
_LONG_AGO = -1e9


class _Hpa:
    """One controller of a pool, asked every 15 s; without a `behavior`, which is the default."""

    interval_s = hpa.INTERVAL_S

    def __init__(self) -> None:
        self._controller: Controller | None = None
        self._pods = dict[tuple[int, int], tuple[Pod, ...]]()

    def decide(self, view: PeerView, now: float) -> int | None:
        if self._controller is None:
            self._controller = Controller(Settings(Bounds(view.min, view.max)))
        scene = Scene(view.current, view.current, self._pods_of(view), now)
        look = self._controller.look(scene, (self._metric(view, now),))
        return look.desired if look.rescaled else None

    def _metric(self, view: PeerView, now: float) -> Metric:
        raise NotImplementedError

    def _pods_of(self, view: PeerView) -> tuple[Pod, ...]:
        """Ready agents have been so for long, starting ones are pending; which one is which makes no difference."""
        key = view.ready, view.starting
        if key not in self._pods:
            requests = (("agent", MILLI),)
            ready = (Pod(f"p{n}", Phase.RUNNING, True, _LONG_AGO, _LONG_AGO, False, requests) for n in range(key[0]))
            starting = (Pod(f"s{n}", Phase.PENDING, False, None, None, False, requests) for n in range(key[1]))
            self._pods[key] = (*ready, *starting)
        return self._pods[key]


class Hpa(_Hpa):
    """Kubernetes HPA on utilisation: the rule for CPU, with busy slots in the place of CPU.

    Target 80 %: what the API gives an HPA without metrics (the 50 % of the walkthrough is an example). An agent
    requests its slots, and its sample is the mean since the last look, as fresh as a metrics server's. A starting agent
    is a pending pod: unready, empty on the way up, left out on the way down. A ready one is never suspected of
    initialising: tasks alone make slots busy.
    """

    def __init__(self, target_pct: int = 80) -> None:
        super().__init__()
        self._target_pct = target_pct

    def _metric(self, view: PeerView, now: float) -> Metric:
        usages = tuple(
            PodUsage(f"p{n}", (("agent", round(MILLI * busy)),), now, self.interval_s)
            for n, busy in enumerate(view.utilisation)
        )
        return ResourceMetric(self._target_pct, usages)


class HpaInFlight(_Hpa):
    """Kubernetes HPA on in-flight plus queue, as KEDA feeds it: an external metric with a target of AverageValue.

    KEDA leaves the number per replica to the user: here the 80 % that HPA itself takes by default, of c tasks. The
    metric is read at each look: KEDA's cache is off by default.
    """

    def __init__(self, target_ratio: float = 0.8) -> None:
        super().__init__()
        self._target_ratio = target_ratio

    def _metric(self, view: PeerView, now: float) -> Metric:  # noqa: ARG002
        target_m = max(1, round(MILLI * self._target_ratio * view.concurrency))
        return TotalMetric(Source.EXTERNAL, target_m, (MILLI * view.demand,), average=True)


class Kpa:
    """Knative KPA on concurrency, every 2 s: target 70 % of a container concurrency of c, stable window 60 s, panic
    window 10 % of it, panic threshold 200 %, rates 1000 up and 2 down, no scale-down delay.

    The queue counts as the activator's does. Knative samples every second and averages buckets of a second; here a look
    is a sample, so a bucket is as long as a look. The burst capacity changes the path of requests and never a size.
    """

    interval_s = kpa.TICK_S
    STABLE_S = 60.0
    PANIC_S = 6.0

    def __init__(self, target_ratio: float = 0.7) -> None:
        self._target_ratio = target_ratio
        self._stable = WindowAverage(self.STABLE_S, self.interval_s)
        self._panic = WindowAverage(self.PANIC_S, self.interval_s)
        self._autoscaler: Autoscaler | None = None
        self._spec = Spec(1.0, 1.0)
        self._zero = ZeroHold(self.STABLE_S)

    def decide(self, view: PeerView, now: float) -> int | None:
        if self._autoscaler is None:
            self._spec = self._spec_of(view)
            self._autoscaler = Autoscaler(self._spec, view.ready, now)
        self._stable.record(now, view.demand)
        self._panic.record(now, view.demand)
        means = Means(self._stable.average(now), self._panic.average(now))
        wish = self._autoscaler.scale(self._spec, view.ready, means, now)
        if not wish.valid:
            return None
        return _bounded(self._zero.hold(wish.desired, now), view)

    def _spec_of(self, view: PeerView) -> Spec:
        carried = float(view.concurrency)
        return Spec(self._target_ratio * carried, carried, stable_window_s=self.STABLE_S)


class Ray:
    """Ray Serve on ongoing requests, every 10 s (as often as handles push), in the mean of a look-back of 30 s.

    Delays 30 s up and 600 s down, factors 1. The default target of 2 belongs to replicas that take 5 at once, and says
    nothing for others; Ray's guide wants `max_ongoing_requests` 20 to 50 % higher than the target. An agent takes c, so
    the target is c / 1.35, the middle of that. (2/5 of c would cost Ray far more hours.)
    """

    interval_s = 10.0

    def __init__(self, target_ratio: float = 1 / 1.35) -> None:
        self._target_ratio = target_ratio
        self._ongoing = LookBack()
        self._policy: Policy | None = None

    def decide(self, view: PeerView, now: float) -> int | None:
        if self._policy is None:
            config = Config(view.min, view.max, self._target_ratio * view.concurrency)
            self._policy = Policy(config)
        self._ongoing.tell(view.demand, now)
        return _bounded(self._policy.decide(view.ready, view.current, self._ongoing.mean(now), now), view)


class Nomad:
    """Nomad Autoscaler, strategy target-value, every 10 s: threshold 1 %, cooldown 5 min after every action.

    The metric is in-flight plus queue per agent, starting ones counted, as a share of an agent's c slots; the target of
    70 % is the one that the strategy's documentation works with. Of the query's window of 60 s the strategy takes the
    newest sample, and that is this look's.
    """

    interval_s = nomad.INTERVAL_S

    def __init__(self, target_ratio: float = 0.7) -> None:
        self._config = {"target": repr(100 * target_ratio)}
        self._machine = Machine()

    def decide(self, view: PeerView, now: float) -> int | None:
        machine = self._machine
        if not machine.may_act(view.current, now):
            return None
        busy_pct = 100 * view.demand / (view.concurrency * max(1, view.current))
        action = nomad.target_value(self._config, [busy_pct], view.current)
        winner = nomad.pick_winner({"": [Vote("in-flight", action)]})
        if winner is None:
            return None
        capped = nomad.cap_count(winner[1], view.min, view.max)
        if not nomad.scaling_needed(capped, view.current):
            return None
        machine.wants()
        machine.begins()
        machine.done(capped, now)
        return capped.count


class Static:
    """Always the same size."""

    interval_s = 60.0

    def __init__(self, count: int) -> None:
        self._count = count

    def decide(self, view: PeerView, now: float) -> int | None:  # noqa: ARG002
        return _bounded(self._count, view)


_MAKERS: dict[str, Callable[[], Peer]] = {
    "hpa": Hpa,
    "hpa-inflight": HpaInFlight,
    "kpa": Kpa,
    "nomad": Nomad,
    "ray": Ray,
}
NAMES = tuple(_MAKERS)
_STATIC = re.compile(r"static:([0-9]{1,6})")


def make(name: str) -> Peer:
    """A new policy by its name: one of NAMES, or `static:N`.

    Raises:
        ValueError: there is none of that name.
    """
    if match := _STATIC.fullmatch(name):
        return Static(int(match[1]))
    if name not in _MAKERS:
        raise ValueError(f"cannot make the policy {name!r}: there are {', '.join(NAMES)} and static:N")
    return _MAKERS[name]()


def _bounded(count: int, view: PeerView) -> int:
    return min(max(count, view.min), view.max)
