"""HPA: whole looks, from metrics to conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentd.sim.peers.hpa import (
    Controller,
    Fault,
    Look,
    Metric,
    PodsMetric,
    ResourceMetric,
    Settings,
    Source,
    TotalMetric,
    UnknownMetric,
)
from agentd.sim.peers.hpa_behavior import DEFAULT_DOWN, DEFAULT_UP, Behavior, Bounds
from agentd.sim.peers.hpa_calculator import PodUsage, Scene, Tolerance
from tests.conformance.cases import NOW, Case, Json, same, table
from tests.conformance.hpa_behavior import UPSTREAM_TEST_GROWTH, recommendations, rules
from tests.conformance.pods import pod, readiness, sample

FAULTS = {
    "get_scale_error": Fault.GET_SCALE,
    "update_scale_error": Fault.UPDATE_SCALE,
    "selector_missing": Fault.SELECTOR,
    "selector_unparsable": Fault.SELECTOR,
}
CONTAINERS = 2


def cases(document: Json) -> Iterator[Case]:
    constants = document["constants"]
    yield from table(document["cases"], lambda case: _check(constants, case, case["expect"], blocks=True))
    older = [{**case, "id": f"{case['id']}-legacy"} for case in document["cases"] if "legacy" in case]
    yield from table(older, lambda case: _check(constants, case, case["legacy"]["expect"], blocks=False), "legacy")


def _check(constants: Mapping[str, Json], case: Json, expect: Json, blocks: bool) -> int:
    history = case["recommendations"]
    # The factor of the upstream test binary, for which these were written.
    settings = Settings(
        bounds=Bounds(case["min"], case["max"]),
        behavior=_behavior(case["behavior"]),
        down_window_s=constants["downscale_window_s"],
        growth=UPSTREAM_TEST_GROWTH,
        failed_blocks_down=blocks,
    )
    controller = Controller(settings, None if history is None else recommendations(history))
    scene = Scene(
        current=case["spec_replicas"],
        status=case["status_replicas"],
        pods=tuple(pod(entry) for entry in case["pods"]),
        now=NOW,
        tolerance=Tolerance(constants["tolerance"], constants["tolerance"]),
        readiness=readiness(constants),
    )
    failure = case.get("failure", "")
    metrics = [_metric(constants, entry, case["levels_m"], failure) for entry in case["metrics"]]
    look = controller.look(scene, metrics, FAULTS.get(failure))
    return same(expect, _found(look))


def _found(look: Look) -> dict[str, Json]:
    cpu = [count.usage for metric, count in look.counts if isinstance(metric, ResourceMetric)]
    return {
        "desired": look.desired,
        "conditions": [[condition.kind, condition.status, condition.reason] for condition in look.conditions],
        "cpu_utilization_pct": cpu[0] if cpu else None,
        "event": look.rescaled,
    }


def _behavior(entry: Json) -> Behavior | None:
    if entry is None:
        return None
    return Behavior(rules(entry["scale_up"], DEFAULT_UP), rules(entry["scale_down"], DEFAULT_DOWN))


def _metric(constants: Mapping[str, Json], entry: Json, levels_m: list[int], failure: str) -> Metric:
    age_s, window_s = constants["metric_age_s"], constants["metric_window_s"]
    broken = failure == "all_metrics_error" or (failure == "external_metrics_error" and entry["type"] == "external")
    match entry["type"]:
        case "resource" | "container_resource":
            usages = tuple(
                PodUsage(f"p{n}", _over_containers(level), NOW - age_s, window_s) for n, level in enumerate(levels_m)
            )
            target = entry.get("target_utilization_pct", 0)
            return ResourceMetric(target, None if broken else usages, entry["resource"], entry.get("container"))
        case "pods":
            samples = tuple((f"p{n}", sample(level, age_s, window_s)) for n, level in enumerate(levels_m))
            return PodsMetric(entry["target_average_m"], None if broken else samples)
        case "object" | "external":
            source = Source(entry["type"].capitalize())
            values = tuple(levels_m[:1] if source is Source.OBJECT else levels_m)
            average = "target_average_m" in entry
            target = entry["target_average_m" if average else "target_m"]
            return TotalMetric(source, target, None if broken else values, average)
        case "unknown":
            return UnknownMetric()
        case kind:
            raise AssertionError(f"no such metric: {kind}")


def _over_containers(level_m: int) -> tuple[tuple[str, int], ...]:
    first = level_m // CONTAINERS
    return ("container1", first), ("container2", level_m - first)
