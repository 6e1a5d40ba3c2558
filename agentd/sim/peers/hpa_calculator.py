"""From samples to a number of replicas: the replica calculator of the Kubernetes HorizontalPodAutoscaler.

Source of the rule: kubernetes/kubernetes, pkg/controller/podautoscaler/replica_calculator.go (about v1.32; nearest
named revision omerap12/kubernetes@fb6d0a38).

ratio = usage / target, and replicas = ceil(ratio x pods). Inside the tolerance around 1 nothing changes. Pods whose
load is not known are filled in against the direction of the move: full on the way down, empty on the way up; if that
turns the move around, or brings it inside the tolerance, nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from msgspec import Struct

from agentd.sim.peers.hpa_pods import CPU, Groups, Pod, Readiness, Sample, group_pods, running_and_ready

REPLICAS_MAX = 2**31 - 1  # a count of replicas is a 32-bit number there
USAGE_MAX = 2**63 - 1


class Trouble(Enum):
    """Why a metric gives no count."""

    NO_METRICS = "no_metrics_returned"
    NO_MATCHING_PODS = "no_matching_pods"
    MISSING_REQUEST = "missing_request"
    ALL_UNREADY = "all_unready"


class MetricError(Exception):
    """A metric gives no count; `trouble` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(f"cannot count replicas: {trouble.value}")
        self.trouble = trouble


class Tolerance(Struct, frozen=True):
    """How far the ratio may be from 1 before anything happens, downwards and upwards; the edges are inside."""

    down: float = 0.1
    up: float = 0.1

    def inside(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


DEFAULT_TOLERANCE = Tolerance()
DEFAULT_READINESS = Readiness()


class Count(Struct, frozen=True):
    """`usage` is in percent of the requests for a resource, in thousandths else, as it was before any filling in.
    `average_m` is what a pod uses in the mean (0 where the metric has no such number).
    """

    replicas: int
    usage: int
    average_m: int = 0


class Scene(Struct, frozen=True):
    """What all metrics are counted against. `current` is the size asked for, `status` the size that there is."""

    current: int
    status: int
    pods: tuple[Pod, ...]
    now: float
    tolerance: Tolerance = DEFAULT_TOLERANCE
    readiness: Readiness = DEFAULT_READINESS


class PodUsage(Struct, frozen=True):
    """What the containers of the pod `name` used, by container, in the mean of the `window_s` before `at`."""

    name: str
    containers_m: tuple[tuple[str, int], ...]
    at: float
    window_s: float


def resource_count(
    scene: Scene, usages: Sequence[PodUsage], target_pct: int, resource: str = CPU, container: str | None = None
) -> Count:
    """The count that brings a resource to `target_pct` of what the pods request. Raises MetricError."""
    samples = _of_container(usages, container)
    if not samples:
        raise MetricError(Trouble.NO_METRICS)
    groups = group_pods(scene.pods, samples, resource, scene.readiness, scene.now)
    requests = _requests(scene.pods, container)
    known = _known(samples, groups)
    percent, average = _utilisation(known, requests)
    full = {name: requests[name] * max(100, target_pct) // 100 for name in groups.missing}

    def ratio_of(values: Mapping[str, int]) -> float:
        return _utilisation(values, requests)[0] / target_pct

    replicas = _filled(scene, known, groups, percent / target_pct, full, ratio_of)
    return Count(replicas, percent, average)


def plain_count(scene: Scene, samples: Mapping[str, Sample], target_m: int, resource: str = "") -> Count:
    """The count that brings the mean of the pods' samples to `target_m`. Raises MetricError."""
    if not samples:
        raise MetricError(Trouble.NO_METRICS)
    groups = group_pods(scene.pods, samples, resource, scene.readiness, scene.now)
    known = _known(samples, groups)
    usage = _mean(known)

    def ratio_of(values: Mapping[str, int]) -> float:
        return _mean(values) / target_m

    replicas = _filled(scene, known, groups, usage / target_m, dict.fromkeys(groups.missing, target_m), ratio_of)
    return Count(replicas, usage, usage)


def total_count(scene: Scene, values_m: Sequence[int], target_m: int) -> Count:
    """The count that brings a number of the whole fleet to `target_m`: it is shared among the pods that are running and
    ready. From a size of zero the tolerance is not asked.
    """
    usage = total(values_m)
    ratio = usage / target_m
    if scene.current == 0:
        return Count(_capped(math.ceil(ratio)), usage)
    if scene.tolerance.inside(ratio):
        return Count(scene.current, usage)
    return Count(_capped(math.ceil(ratio * running_and_ready(scene.pods))), usage)


def average_count(scene: Scene, values_m: Sequence[int], target_m: int) -> Count:
    """The count with which a number of the whole fleet comes to `target_m` for each replica."""
    usage = total(values_m)
    if scene.status == 0:
        return Count(_capped(math.ceil(usage / target_m)), usage)
    each = -(-usage // scene.status)
    if scene.tolerance.inside(usage / (target_m * scene.status)):
        return Count(scene.status, each)
    return Count(_capped(math.ceil(usage / target_m)), each)


def total(values_m: Sequence[int]) -> int:
    """The sum of all series of a metric; it stops at the largest number there is."""
    return min(sum(values_m), USAGE_MAX)


def _of_container(usages: Sequence[PodUsage], container: str | None) -> dict[str, Sample]:
    """A pod that says nothing of the container asked for has no sample."""
    found = dict[str, Sample]()
    for usage in usages:
        values = [value for name, value in usage.containers_m if container in (None, name)]
        if values:
            found[usage.name] = Sample(sum(values), usage.at, usage.window_s)
    return found


def _requests(pods: Sequence[Pod], container: str | None) -> dict[str, int]:
    found = dict[str, int]()
    for pod in pods:
        asked = 0
        for name, value in pod.requests_m:
            if container in (None, name):
                if value is None:
                    raise MetricError(Trouble.MISSING_REQUEST)
                asked += value
        found[pod.name] = asked
    return found


def _known(samples: Mapping[str, Sample], groups: Groups) -> dict[str, int]:
    without = {*groups.ignored, *groups.unready}
    known = {name: sample.value_m for name, sample in samples.items() if name not in without}
    if not known:
        raise MetricError(Trouble.ALL_UNREADY)
    return known


def _utilisation(values: Mapping[str, int], requests: Mapping[str, int]) -> tuple[int, int]:
    """Percent of what the same pods request, and the mean of the values; both cut off, as there."""
    used = asked = pods = 0
    for name, value in values.items():
        if name in requests:
            used += value
            asked += requests[name]
            pods += 1
    if asked == 0:
        raise MetricError(Trouble.NO_MATCHING_PODS)
    return 100 * used // asked, used // pods


def _mean(values: Mapping[str, int]) -> int:
    return sum(values.values()) // len(values)


def _filled(
    scene: Scene,
    known: Mapping[str, int],
    groups: Groups,
    ratio: float,
    full: Mapping[str, int],
    ratio_of: Callable[[Mapping[str, int]], float],
) -> int:
    """`full` is what a pod without a sample is taken to use on the way down."""
    empty_unready = bool(groups.unready) and ratio > 1.0
    if not empty_unready and not groups.missing:
        return scene.current if scene.tolerance.inside(ratio) else _capped(math.ceil(ratio * groups.ready_count))
    values = dict(known)
    if ratio < 1.0:
        values.update(full)
    elif ratio > 1.0:
        values.update(dict.fromkeys(groups.missing, 0))
    if empty_unready:
        values.update(dict.fromkeys(groups.unready, 0))
    again = ratio_of(values)
    turned = (ratio < 1.0 < again) or (again < 1.0 < ratio)
    if turned or scene.tolerance.inside(again):
        return scene.current
    replicas = _capped(math.ceil(again * len(values)))
    # The filled-in pods may be more than the size that was asked for: the count may not move against its ratio.
    if (again < 1.0 and replicas > scene.current) or (again > 1.0 and replicas < scene.current):
        return scene.current
    return replicas


def _capped(replicas: int) -> int:
    return min(replicas, REPLICAS_MAX)
