"""The Kubernetes HorizontalPodAutoscaler: one look at a fleet, from metrics to a size.

Source of the rule: kubernetes/kubernetes, pkg/controller/podautoscaler/horizontal.go (@4e62298c, about v1.32, and a
2026 development revision, omerap12/kubernetes@a769d588). The controller looks every 15 seconds.

    size 0 with a minimum above 0         scaling is off
    size out of bounds                    back to the bound, without a look at any metric
    else                                  the largest count of all metrics, then stabilised, then limited

A metric that fails does not stop a step up, but it stops every step down: less is wanted only when all agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct, field

from agentd.sim.peers import hpa_behavior as behaving
from agentd.sim.peers.hpa_behavior import Behavior, Bounds, Events, Recommendation, Recommendations, Why
from agentd.sim.peers.hpa_calculator import (
    Count,
    MetricError,
    PodUsage,
    Scene,
    average_count,
    plain_count,
    resource_count,
    total_count,
)
from agentd.sim.peers.hpa_pods import CPU, Sample

INTERVAL_S = 15.0


# --- metrics: what is asked for, and what was read (None: it could not be)


class ResourceMetric(Struct, frozen=True):
    """Of one container, or (None) of all containers of a pod."""

    target_pct: int
    usages: tuple[PodUsage, ...] | None
    resource: str = CPU
    container: str | None = None

    @property
    def failure(self) -> str:
        return "FailedGetResourceMetric" if self.container is None else "FailedGetContainerResourceMetric"

    def count(self, scene: Scene) -> Count:
        return resource_count(scene, self.usages or (), self.target_pct, self.resource, self.container)


class PodsMetric(Struct, frozen=True):
    """A number of each pod, pod name to sample."""

    target_m: int
    samples: tuple[tuple[str, Sample], ...] | None

    @property
    def failure(self) -> str:
        return "FailedGetPodsMetric"

    def count(self, scene: Scene) -> Count:
        return plain_count(scene, dict(self.samples or ()), self.target_m)


class Source(Enum):
    OBJECT = "Object"
    EXTERNAL = "External"


class TotalMetric(Struct, frozen=True):
    """A number of the whole fleet, from one object or from outside. `average`: the target is for each replica."""

    source: Source
    target_m: int
    values_m: tuple[int, ...] | None
    average: bool = False

    @property
    def failure(self) -> str:
        return f"FailedGet{self.source.value}Metric"

    def count(self, scene: Scene) -> Count:
        rule = average_count if self.average else total_count
        return rule(scene, self.values_m or (), self.target_m)


class UnknownMetric(Struct, frozen=True):
    """A metric of a type that nobody knows."""

    @property
    def failure(self) -> str:
        return "InvalidMetricSourceType"


Metric = ResourceMetric | PodsMetric | TotalMetric | UnknownMetric


class Combined(Struct, frozen=True):
    """`replicas` is None when the fleet is held; `failure` is then why. `counts`: of the metrics that gave one."""

    replicas: int | None
    failure: str
    counts: tuple[tuple[Metric, Count], ...]


def combine(metrics: Sequence[Metric], scene: Scene, failed_blocks_down: bool = True) -> Combined:
    """The largest count. `failed_blocks_down` False is the rule before pull request 99514."""
    counts = list[tuple[Metric, Count]]()
    failure = ""
    for metric in metrics:
        count = _counted(metric, scene)
        if count is None:
            failure = failure or metric.failure
        else:
            counts.append((metric, count))
    best = max((count.replicas for _, count in counts), default=None)
    if best is None or (failure and failed_blocks_down and best < scene.current):
        return Combined(None, failure, tuple(counts))
    return Combined(best, failure, tuple(counts))


def _counted(metric: Metric, scene: Scene) -> Count | None:
    try:
        match metric:
            case UnknownMetric():
                return None
            case ResourceMetric(usages=None) | PodsMetric(samples=None) | TotalMetric(values_m=None):
                return None
            case _:
                return metric.count(scene)
    except MetricError:
        return None


# --- the controller


class Fault(Enum):
    """What may go wrong around one look."""

    GET_SCALE = "get_scale"
    UPDATE_SCALE = "update_scale"
    SELECTOR = "selector"


class Condition(Struct, frozen=True):
    kind: str
    status: bool
    reason: str


class Settings(Struct, frozen=True):
    """`behavior` None: the rule without one, by which a step up ends at `growth` times the size."""

    bounds: Bounds
    behavior: Behavior | None = None
    down_window_s: float = behaving.DOWN_WINDOW_S
    growth: int = behaving.GROWTH
    failed_blocks_down: bool = True


class Look(Struct, frozen=True):
    """What one look came to. `desired` is the size after it; `rescaled`: it was changed."""

    desired: int
    rescaled: bool
    conditions: tuple[Condition, ...]
    counts: tuple[tuple[Metric, Count], ...] = ()


class Controller(Struct):
    """What a controller remembers of one fleet: without recommendations it has never looked."""

    settings: Settings
    recommendations: Recommendations | None = None
    events: Events = field(default_factory=Events)

    def look(self, scene: Scene, metrics: Sequence[Metric], fault: Fault | None = None) -> Look:
        """One look, at `scene.now`."""
        if fault is Fault.GET_SCALE:
            return Look(scene.current, False, (Condition("AbleToScale", False, "FailedGetScale"),))
        if self.recommendations is None:
            # So that a controller that has just started does not shrink what it finds.
            self.recommendations = (Recommendation(scene.now, scene.current),)
        able = Condition("AbleToScale", True, "SucceededGetScale")
        bounds = self.settings.bounds
        if scene.current == 0 and bounds.min != 0:
            return Look(0, False, (able, Condition("ScalingActive", False, "ScalingDisabled")))
        if not bounds.min <= scene.current <= bounds.max:
            return self._change(scene, min(max(scene.current, bounds.min), bounds.max), (), (), fault)
        if fault is Fault.SELECTOR:
            return Look(scene.current, False, (able, Condition("ScalingActive", False, "InvalidSelector")))
        combined = combine(metrics, scene, self.settings.failed_blocks_down)
        if combined.replicas is None:
            inactive = Condition("ScalingActive", False, combined.failure)
            return Look(scene.current, False, (able, inactive), combined.counts)
        desired, held, why = self._normalised(scene, combined.replicas)
        others = (
            Condition("ScalingActive", True, "ValidMetricFound"),
            Condition("ScalingLimited", why is not Why.WITHIN, why.value),
        )
        if desired == scene.current:
            able = Condition("AbleToScale", True, held or "ReadyForNewScale")
            return Look(desired, False, (able, *others), combined.counts)
        return self._change(scene, desired, others, combined.counts, fault)

    def _normalised(self, scene: Scene, wanted: int) -> tuple[int, str, Why]:
        """The size within windows, rates and bounds; which window held it, if one did; and what limited it."""
        history, current, behavior = self.recommendations or (), scene.current, self.settings.behavior
        bounds, now = self.settings.bounds, scene.now
        if behavior is None:
            steady, self.recommendations = behaving.stabilise_default(history, wanted, now, self.settings.down_window_s)
            held = "" if steady == wanted else "ScaleDownStabilized"
            size, why = behaving.limit_default(current, steady, bounds, self.settings.growth)
            return size, held, why
        steady, self.recommendations = behaving.stabilise(history, current, wanted, behavior, now)
        direction = "ScaleUpStabilized" if wanted >= current else "ScaleDownStabilized"
        size, why = behaving.limit(current, steady, bounds, behavior, self.events, now)
        return size, "" if steady == wanted else direction, why

    def _change(
        self,
        scene: Scene,
        desired: int,
        others: tuple[Condition, ...],
        counts: tuple[tuple[Metric, Count], ...],
        fault: Fault | None,
    ) -> Look:
        if fault is Fault.UPDATE_SCALE:
            failed = Condition("AbleToScale", False, "FailedUpdateScale")
            return Look(scene.current, False, (failed, *others), counts)
        self._remember(desired - scene.current, scene.now)
        return Look(desired, True, (Condition("AbleToScale", True, "SucceededRescale"), *others), counts)

    def _remember(self, change: int, now: float) -> None:
        behavior = self.settings.behavior
        if behavior is None:
            return
        if change > 0:
            self.events = Events(behaving.store_event(self.events.up, change, behavior.up, now), self.events.down)
        else:
            self.events = Events(self.events.up, behaving.store_event(self.events.down, -change, behavior.down, now))
