"""Which pods count: the grouping of the Kubernetes HorizontalPodAutoscaler.

Source of the rule: kubernetes/kubernetes, pkg/controller/podautoscaler/replica_calculator.go, `groupPods` (about v1.32;
nearest named revision omerap12/kubernetes@fb6d0a38).

A pod that is going away is ignored, one that has no say yet is unready, one that should have a sample and has none is
missing. Only CPU looks at readiness: a starting program burns CPU that says nothing about the load.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum

from msgspec import Struct

CPU = "cpu"


class Phase(Enum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Pod(Struct, frozen=True):
    """`ready` is None without a readiness condition, `started_at` None before the start; `ready_changed_at` is when
    readiness last changed. `requests_m`: container name to what it asks for, None where it does not say.
    """

    name: str
    phase: Phase = Phase.RUNNING
    ready: bool | None = True
    started_at: float | None = 0.0
    ready_changed_at: float | None = 0.0
    deleting: bool = False
    requests_m: tuple[tuple[str, int | None], ...] = ()


class Sample(Struct, frozen=True):
    """One pod's number, averaged over the `window_s` before `at`."""

    value_m: int
    at: float
    window_s: float


class Readiness(Struct, frozen=True):
    """How long a young pod's CPU is looked at with suspicion. The defaults are the controller manager's."""

    cpu_initialization_s: float = 300.0
    initial_readiness_delay_s: float = 30.0


class Groups(Struct, frozen=True):
    """Names of pods in the order they were given; `ready_count` pods are in none of the three."""

    ready_count: int
    unready: tuple[str, ...]
    missing: tuple[str, ...]
    ignored: tuple[str, ...]


def group_pods(
    pods: Sequence[Pod], samples: Mapping[str, Sample], resource: str, readiness: Readiness, now: float
) -> Groups:
    """Puts every pod into one group. `resource` is "" for a number that is no resource."""
    ready = 0
    unready, missing, ignored = list[str](), list[str](), list[str]()
    for pod in pods:
        sample = samples.get(pod.name)
        if pod.deleting or pod.phase is Phase.FAILED:
            ignored.append(pod.name)
        elif pod.phase is Phase.PENDING:
            unready.append(pod.name)
        elif sample is None:
            missing.append(pod.name)
        elif resource == CPU and _cpu_says_nothing(pod, sample, readiness, now):
            unready.append(pod.name)
        else:
            ready += 1
    return Groups(ready, tuple(unready), tuple(missing), tuple(ignored))


def _cpu_says_nothing(pod: Pod, sample: Sample, readiness: Readiness, now: float) -> bool:
    if pod.ready is None or pod.started_at is None or pod.ready_changed_at is None:
        return True
    if pod.started_at + readiness.cpu_initialization_s > now:
        # While it may still be starting: what was measured before it became ready is not load.
        return not pod.ready or sample.at < pod.ready_changed_at + sample.window_s
    # Later only a pod that has never been ready: one that was, and is not, is under load.
    return not pod.ready and pod.started_at + readiness.initial_readiness_delay_s > pod.ready_changed_at


def running_and_ready(pods: Collection[Pod]) -> int:
    """How many pods a number of the whole fleet is shared among."""
    return sum(pod.phase is Phase.RUNNING and pod.ready is True for pod in pods)
