"""Every table, its adapter, and how many of its comparisons there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from tests.conformance import (
    hpa_behavior,
    hpa_controller,
    hpa_group_pods,
    hpa_replica_calculator,
    knative_kpa,
    nomad_strategies,
    ray_serve,
)
from tests.conformance.cases import Case, Json, read

ADAPTERS: Mapping[str, Callable[[Json], Iterator[Case]]] = {
    "hpa_replica_calculator": hpa_replica_calculator.cases,
    "hpa_group_pods": hpa_group_pods.cases,
    "hpa_behavior": hpa_behavior.cases,
    "hpa_controller": hpa_controller.cases,
    "knative_kpa": knative_kpa.cases,
    "nomad_strategies": nomad_strategies.cases,
    "ray_serve": ray_serve.cases,
}
# What the tables' README counts. A case that is left out without a word shows here.
HELD: Mapping[str, Mapping[str, int]] = {
    "hpa_replica_calculator": {"upstream": 76, "derived": 12},
    "hpa_group_pods": {"upstream": 14},
    "hpa_behavior": {"upstream": 69, "derived": 8},
    "hpa_controller": {"upstream": 82, "legacy": 4},
    "knative_kpa": {"upstream": 105},
    "nomad_strategies": {"upstream": 96, "derived": 6},
    "ray_serve": {"upstream": 43},
}


def cases_of(name: str) -> list[Case]:
    return list(ADAPTERS[name](read(name)))


def passes(cases: list[Case]) -> tuple[Counter[str], dict[str, str]]:
    """How many comparisons hold, by group; and of each case that fails, why."""
    held, failed = Counter[str](), dict[str, str]()
    for case in cases:
        try:
            held[case.group] += case.run()
        except Exception as error:  # a case that crashes is one that fails
            failed[case.id] = f"{type(error).__name__}: {error}"
    return held, failed
