"""Pods and samples of the HPA tables, as the rules take them."""

from __future__ import annotations

from collections.abc import Mapping

from agentd.sim.peers.hpa_pods import Phase, Pod, Readiness, Sample
from tests.conformance.cases import NOW, Json


def readiness(constants: Mapping[str, Json]) -> Readiness:
    return Readiness(constants["cpu_initialization_period_s"], constants["initial_readiness_delay_s"])


def before(age_s: float | None) -> float | None:
    return None if age_s is None else NOW - age_s


def pod(entry: Mapping[str, Json]) -> Pod:
    return Pod(
        name=entry["name"],
        phase=Phase(entry["phase"]),
        ready=entry["ready"],
        started_at=before(entry["start_age_s"]),
        ready_changed_at=before(entry["ready_transition_age_s"]),
        deleting=entry["deleting"],
        requests_m=tuple(entry.get("requests_m", {}).items()),
    )


def sample(value_m: int, age_s: float, window_s: float) -> Sample:
    return Sample(value_m, NOW - age_s, window_s)
