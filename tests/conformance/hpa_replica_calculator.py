"""HPA: from samples to a count."""

from __future__ import annotations

from collections.abc import Iterator

from agentd.sim.peers.hpa_calculator import (
    Count,
    MetricError,
    PodUsage,
    Scene,
    Tolerance,
    average_count,
    plain_count,
    resource_count,
    total_count,
)
from tests.conformance.cases import NOW, Case, Json, same, table
from tests.conformance.pods import pod, readiness, sample


def cases(document: Json) -> Iterator[Case]:
    def check(case: Json) -> int:
        scene = Scene(
            current=case["current_replicas"],
            status=case["current_replicas"],
            pods=tuple(pod(entry) for entry in case["pods"]),
            now=NOW,
            tolerance=Tolerance(case["tolerance_down"], case["tolerance_up"]),
            readiness=readiness(document["constants"]),
        )
        try:
            count = counted(scene, case)
        except MetricError as error:
            return same(case["expect"], {"error_kind": error.trouble.value, "replicas": None})
        usage = {"utilization_pct": count.usage, "usage_m": count.usage, "average_raw_m": count.average_m}
        return same(case["expect"], {"replicas": count.replicas, **usage, "error_kind": None})

    yield from table(document["cases"], check)
    yield from table(document["derived_cases"], check, "derived")


def counted(scene: Scene, case: Json) -> Count:
    age_s, window_s = case["metric_age_s"], case["metric_window_s"]
    match case["kind"]:
        case "resource":
            usages = [
                PodUsage(name, tuple(containers.items()), NOW - age_s, window_s)
                for name, containers in case["metrics_m"].items()
            ]
            return resource_count(scene, usages, case["target_utilization_pct"], case["resource"], case["container"])
        case "pods":
            samples = {f"p{n}": sample(value, age_s, window_s) for n, value in enumerate(case["samples_m"])}
            return plain_count(scene, samples, case["target_m"])
        case "object" | "external":
            return total_count(scene, case["samples_m"], case["target_m"])
        case "object_per_pod" | "external_per_pod":
            return average_count(scene, case["samples_m"], case["target_m"])
        case kind:
            raise AssertionError(f"no such kind: {kind}")
