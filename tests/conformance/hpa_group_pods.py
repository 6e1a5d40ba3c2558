"""HPA: which pods count."""

from __future__ import annotations

from collections.abc import Iterator

from agentd.sim.peers.hpa_pods import group_pods
from tests.conformance.cases import NOW, Case, Json, same, table
from tests.conformance.pods import pod, readiness, sample


def cases(document: Json) -> Iterator[Case]:
    def check(case: Json) -> int:
        samples = {name: sample(0, found["age_s"], found["window_s"]) for name, found in case["metrics"].items()}
        pods = [pod(entry) for entry in case["pods"]]
        groups = group_pods(pods, samples, case["resource"], readiness(document["constants"]), NOW)
        found = {
            "ready_count": groups.ready_count,
            "unready": list(groups.unready),
            "missing": list(groups.missing),
            "ignored": list(groups.ignored),
        }
        return same(case["expect"], found)

    yield from table(document["cases"], check)
