"""The search: deterministic, bounded, honest about what it cannot tell, and its settings are those of a file."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import fields, replace
from worlds import SIM, fleet

from agentd.config import load
from agentd.core.experts import NAMES
from agentd.core.model import FleetConfig
from agentd.core.rates import FREE, Rates
from agentd.core.rates import Budget as Budgeted
from agentd.core.rules import (
    QUEUE,
    AdaptiveTrigger,
    CollectorConfig,
    DemandTrigger,
    TargetTrigger,
    ThresholdTrigger,
    Trigger,
)
from agentd.sim import clairvoyant, optimize
from agentd.sim.candidates import Candidate, candidates
from agentd.sim.optimize import HELD_OUT_S_MIN, HELD_OUT_SHARE, Budget, Finding, OutOfTime, search
from agentd.sim.options import Options
from agentd.sim.trials import Case, Piece, Run, needed_ratio, simulate
from agentd.traces import Arrival

HOURS = 2
OWN = AdaptiveTrigger(late_weight=10.0)
SET = AdaptiveTrigger(expert=NAMES[0], forecast="on")
ALL = candidates(5.0, OWN)
EVERY = tuple(dict.fromkeys((*ALL, *candidates(5.0, OWN, tells_tasks=False), *candidates(5.0, SET)[:1])))
DEMAND = Candidate("demand", DemandTrigger(0.8, 120.0))
SLOW = ThresholdTrigger(0.75, 0.25)
STAY = Candidate("today")


def trace(seed: int = 1) -> list[Arrival]:
    """Twenty minutes with much to do after twenty with little."""
    rng = random.Random(seed)
    made: list[Arrival] = []
    offset_s = 0.0
    while offset_s < HOURS * 3600.0:
        busy = 5.0 if int(offset_s / 1200.0) % 2 else 1.0
        offset_s += rng.expovariate(busy / 30.0)
        made.append(Arrival(offset_s, rng.expovariate(1.0 / 30.0)))
    return made


def slow(**changes: object) -> FleetConfig:
    """Seed A's thresholds and cooldowns."""
    queue = (CollectorConfig(QUEUE, "simulated"),)
    return fleet(triggers=(SLOW,), scale_up_cooldown_s=300.0, scale_down_cooldown_s=600.0, collectors=queue, **changes)


def budget(runs: int = 100) -> Budget:
    return Budget(runs, 1e9, lambda: 0.0)


def find(case: Case, choice: Sequence[Candidate], given: Budget | None = None) -> Finding:
    return search(case, choice, given or budget())


def test_a_better_setting_is_found_and_the_same_each_time() -> None:
    case = Case(slow(), trace)
    first, second = (find(case, [DEMAND, Candidate("asleep", ThresholdTrigger(1.0, 0.0))]) for _ in range(2))
    assert first == second
    assert first.best is not None
    assert first.best.candidate is DEMAND
    assert first.best.late_share < first.today.late_share
    assert 0.0 < first.best.gain_low <= first.best.gain <= first.best.gain_high
    assert first.best.confidence > 0.95
    assert (first.seeds, first.cut_short, first.length_s > 1.9 * 3600.0) == (3, False, True)
    assert {one.candidate.name for one in first.others} == {"asleep"}


def test_what_is_no_better_is_not_recommended() -> None:
    case = Case(slow(), trace)
    alike = Candidate("as good as the same", replace(SLOW, scale_up_threshold=0.7500001), 300.0, 600.0)
    found = find(case, [alike, Candidate("asleep", ThresholdTrigger(1.0, 0.0))])
    assert found.best is None
    assert found.others[0].candidate is alike
    assert (found.others[0].gain, found.others[0].gain_low, found.others[0].confidence) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("trigger", "cooldowns"),
    [
        (SLOW, {"scale_up_cooldown_s": 300.0, "scale_down_cooldown_s": 600.0, "quick_up_cooldown_s": 7.0}),
        # Unless a file says else it has the cooldowns of a threshold, which are not for it.
        (TargetTrigger(target=0.7), {"scale_up_cooldown_s": 300.0, "scale_down_cooldown_s": 600.0}),
    ],
    ids=["threshold", "target"],
)
def test_what_the_pool_has_already_is_not_tried_again(trigger: Trigger, cooldowns: dict[str, float]) -> None:
    own = (300.0, 600.0) if trigger is SLOW else (0.0, 0.0)
    again, later = Candidate("the same", trigger, *own), Candidate("later", trigger, 300.0, 700.0)
    queue = (CollectorConfig(QUEUE, "simulated"),)
    case = Case(fleet(triggers=(trigger,), policy=trigger.kind, collectors=queue, **cooldowns), trace)
    found = find(case, [again, later, DEMAND], budget(20))
    tried = {one.candidate.name for one in (found.best, *found.others) if one}
    assert (found.tried, tried) == (2, {"later", "demand"})


def test_agent_hours_are_measured_by_those_of_a_plan_that_knows_all_arrivals() -> None:
    """As in the simulator, or the two would say the opposite: by the work alone, to keep capacity looks wasted."""
    bursts = [Arrival(600.0 * n + 0.2 * m, 2.0) for n in range(12) for m in range(100)]
    case = Case(fleet(triggers=(DemandTrigger(0.8, 120.0),), collectors=(CollectorConfig(QUEUE, "simulated"),)), trace)
    pool, options = case.pool, Options(agents_max=case.pool.max, concurrency=case.pool.concurrency)
    plan = clairvoyant.plan(bursts, options, 1, pool.min)
    ratio = needed_ratio(case, bursts)
    found = simulate(replace(case, needed_ratio=ratio), STAY, bursts, 1)
    assert ratio > 1.2
    assert found.least_hours == pytest.approx(clairvoyant.hours(plan, bursts[-1].offset_s), rel=0.01)
    assert found.j == pytest.approx(found.agent_hours / found.least_hours + 10.0 * found.late_share)


def test_a_load_that_comes_evenly_needs_hardly_more_than_its_work() -> None:
    even = [Arrival(5.0 * n, 30.0) for n in range(720)]
    assert 1.0 <= needed_ratio(Case(slow(), lambda _seed: even), even) < 1.1


def test_the_weight_of_lateness_decides() -> None:
    """Fewer agents at the price of some waiting: right where nobody minds waiting, and wrong where everybody does."""
    wide = fleet(triggers=(DemandTrigger(0.5, 600.0),), collectors=(CollectorConfig(QUEUE, "simulated"),))
    lean = Candidate("lean", DemandTrigger(1.0, 0.0))
    assert find(Case(wide, trace, late_weight=0.1), [lean], budget(4)).best is not None
    assert find(Case(wide, trace, late_weight=1000.0), [lean], budget(4)).best is None


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """In place of simulations: what is run, and for how long in all; a candidate's hours are its place in the list."""
    spent = {"seconds": 0.0, "runs": 0.0}

    def simulate(
        case: Case, candidate: Candidate, load: Sequence[Arrival], seed: int, begin_s: float,
        on_progress: Callable[[float], None], measured_from_s: float = 0.0,
    ) -> Run:  # fmt: skip
        del case, begin_s, measured_from_s
        spent["seconds"] += load[-1].offset_s / 3600.0
        spent["runs"] += 1
        on_progress(1.0)
        hours = 1.0 + (ALL.index(candidate) if candidate in ALL else 99)
        pieces = (Piece(10, 0, hours), Piece(10, 0, hours))
        return Run(candidate, seed, len(load), 0.0, 0.0, hours, 9, 1.0, hours, pieces)

    monkeypatch.setattr(optimize, "simulate", simulate)
    return spent


LONG = [Arrival(60.0 * n, 1.0) for n in range(48 * 60)]


@pytest.mark.parametrize("runs", [8, 30, 1000])
def test_the_number_of_runs_is_bounded(made_up: dict[str, float], runs: int) -> None:
    found = find(Case(slow(), lambda _seed: LONG), ALL, budget(runs))
    assert found.runs == made_up["runs"] <= runs
    assert (found.cut_short, found.tried < len(ALL) - 1) == (runs < 1000, runs < 1000)  # one is what it has
    assert found.best is not None
    assert found.best.candidate is ALL[0]
    assert found.length_s == pytest.approx(48 * 3600.0, rel=0.01)


@pytest.mark.parametrize("limit_s", [120.0, 400.0])
def test_the_time_is_bounded_and_what_fits_is_compared(made_up: dict[str, float], limit_s: float) -> None:
    """A simulated hour takes a second."""
    found = find(Case(slow(), lambda _seed: LONG), ALL, Budget(1000, limit_s, lambda: made_up["seconds"]))
    assert found.cut_short
    assert made_up["seconds"] <= limit_s
    assert found.best is not None
    assert 6 * 3600.0 <= found.length_s < 48.0 * 3600.0


def test_a_search_without_time_for_anything_says_so(made_up: dict[str, float]) -> None:
    with pytest.raises(OutOfTime):
        find(Case(slow(), lambda _seed: LONG), ALL, Budget(1000, 0.5, lambda: made_up["seconds"]))


WEEK = [Arrival(60.0 * n, 1.0) for n in range(7 * 24 * 60)]
HELD_FROM_S = (1.0 - HELD_OUT_SHARE) * WEEK[-1].offset_s


def week(
    monkeypatch: pytest.MonkeyPatch, hours: Callable[[Candidate, bool], float]
) -> tuple[Finding, list[tuple[float, float, float]]]:
    """A search on a week in which each has `hours` in each piece, held out or not; of each run what it saw.

    From when until when, and from when on it was measured.
    """
    seen: list[tuple[float, float, float]] = []

    def run(
        case: Case, candidate: Candidate, load: Sequence[Arrival], seed: int, begin_s: float,
        on_progress: Callable[[float], None], measured_from_s: float = 0.0,
    ) -> Run:  # fmt: skip
        del case, on_progress
        seen.append((begin_s, begin_s + load[-1].offset_s, begin_s + measured_from_s))
        it = hours(candidate, measured_from_s > 0.0)
        return Run(candidate, seed, len(load), 0.0, 0.0, it, 9, 1.0, it, (Piece(10, 0, it), Piece(10, 0, it)))

    monkeypatch.setattr(optimize, "simulate", run)
    return find(Case(slow(), lambda _seed: WEEK), ALL), seen


def test_what_is_measured_in_the_end_was_held_back_while_it_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    found, seen = week(monkeypatch, lambda one, _: 1.0 + (ALL.index(one) if one in ALL else 99))
    choosing, judging = seen[:-12], seen[-12:]  # the best three and today, three seeds
    assert max(until for _, until, _ in choosing) <= HELD_FROM_S
    assert [measured for _, _, measured in judging] == pytest.approx([HELD_FROM_S] * 12)
    assert {(begin, until) for begin, until, _ in judging} == {(0.0, WEEK[-1].offset_s)}
    assert found.held_out
    assert found.length_s == pytest.approx(HELD_OUT_SHARE * WEEK[-1].offset_s)
    assert found.best is not None
    assert found.best.candidate is ALL[0]


def test_who_was_best_only_where_he_was_chosen_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is who is better where it counts and was not the one chosen: that may be chance."""

    def hours(one: Candidate, judging: bool) -> float:
        if one not in ALL:
            return 50.0
        return (90.0 if one is ALL[0] else 10.0) if judging else 1.0 + ALL.index(one)

    found, _ = week(monkeypatch, hours)
    assert found.best is None
    assert [one.candidate for one in found.others][-1] is ALL[0]


@pytest.mark.parametrize(("days", "held_out"), [(3.0, False), (3.5, True)])
def test_only_of_a_long_load_something_is_held_back(
    made_up: dict[str, float], days: float, held_out: bool
) -> None:  # fmt: skip
    load = WEEK[: int(days * 24 * 60)]
    assert (HELD_OUT_SHARE * load[-1].offset_s >= HELD_OUT_S_MIN) is held_out
    found = find(Case(slow(), lambda _seed: load), ALL, budget(4))
    assert found.held_out is held_out
    assert found.runs == made_up["runs"] <= 4


def test_of_a_run_only_what_is_asked_for_is_measured() -> None:
    load = trace()
    case = Case(slow(), trace)
    whole, part = simulate(case, DEMAND, load, 1), simulate(case, DEMAND, load, 1, measured_from_s=3600.0)
    half_s = load[-1].offset_s / 2.0
    later = [one for one in load if one.offset_s >= half_s]
    assert part.requests == pytest.approx(len(later), abs=20)
    assert sum(piece.requests for piece in part.pieces) == part.requests
    assert sum(piece.hours for piece in part.pieces) == pytest.approx(part.agent_hours)
    assert 0.3 * whole.agent_hours < part.agent_hours < 0.7 * whole.agent_hours
    assert part.least_hours == pytest.approx(sum(one.service_s for one in later) / 3600.0, rel=0.05)
    assert sum(piece.late for piece in part.pieces) == pytest.approx(part.late_share * part.requests)
    assert part.late_share != whole.late_share


@pytest.mark.parametrize("candidate", EVERY, ids=[one.name.replace(" ", "-") for one in EVERY])
@pytest.mark.parametrize("own", ["", "policy: target", "scale_up_threshold: 0.6", "scale_up_cooldown_sec: 77"])
def test_a_file_says_what_was_simulated(candidate: Candidate, own: str, tmp_path: Path) -> None:
    file = tmp_path / "agentd.yaml"
    file.write_text(f"pools:\n  sim:\n    ports: [9101, 9140]\n    {own}\n")
    written = [own.partition(":")[0]]
    text = "\n".join(["pools:", "  sim:", *(f"    {line}" for line in candidate.lines(written)), ""])
    pool = load(file, {tmp_path / "agentd.yaml.d" / "50-optimize.yaml": text}).fleet.pools[SIM]
    wanted = candidate.apply(pool)
    assert replace(pool, policy=wanted.policy) == wanted
    assert pool.triggers == (candidate.trigger,)


def test_no_field_of_a_trigger_is_left_to_the_defaults() -> None:
    """A default of the file may be another than what was simulated, and what the pool has set is none."""
    for trigger in {type(one.trigger): one.trigger for one in EVERY if one.trigger is not None}.values():
        keys = len(fields(trigger))
        (line,) = (line for line in Candidate("it", trigger).lines() if line.startswith("triggers:"))
        assert line.count(": ") == 2 + keys, line


@pytest.mark.parametrize(
    ("changes", "budget_of_all", "peak"),
    [
        ({}, Budgeted(), 8),
        ({"max": 4}, Budgeted(), 4),
        ({"budget": Budgeted(per_hour=10.0)}, Budgeted(), 5),
        ({"budget": Budgeted(per_day=150.0)}, Budgeted(), 3),
        ({}, Budgeted(per_month=31 * 24 * 4.0), 2),
        ({"min": 6, "budget": Budgeted(per_hour=10.0)}, Budgeted(), 6),
        ({"rates": FREE, "budget": Budgeted(per_hour=10.0)}, Budgeted(), 8),
    ],
)
@pytest.mark.parametrize("begin_s", [0.0, 23.5 * 3600.0])
def test_a_run_begins_with_what_the_budgets_pay_for(
    changes: dict[str, object], budget_of_all: Budgeted, peak: int, begin_s: float
) -> None:
    """Also at the end of a day, when what is left of it would pay many for an hour: nobody takes them back later."""
    made = replace(fleet(**({"rates": Rates(per_hour=2.0)} | changes)), budget=budget_of_all)
    busy = [Arrival(5.0 * n, 30.0) for n in range(360)]  # six at work all the time: eight, with some to spare
    assert simulate(Case(made, lambda _: busy, startup_s=0.0), STAY, busy, 1, begin_s).peak == peak


def test_demand_is_not_tried_where_agents_do_not_tell_their_tasks() -> None:
    others = candidates(5.0, OWN, tells_tasks=False)
    names = {one.name for one in others}
    assert len(names) == len(others)
    assert not any(name.startswith("demand") for name in names)
    assert {one.name for one in ALL if not one.name.startswith("demand")} < names


def test_what_would_need_to_know_of_tasks_is_not_found_better_where_agents_tell_only_a_load() -> None:
    """The same load and the same candidate, which is far better where it learns of tasks."""
    fleet_of_loads = replace(slow(), pools={SIM: replace(slow().pools[SIM], collectors=())})
    assert find(Case(fleet_of_loads, trace), [DEMAND], budget(4)).best is not None
    assert find(Case(fleet_of_loads, trace, tells_tasks=False), [DEMAND], budget(4)).best is None
    target = Candidate("target", TargetTrigger(target=0.6))
    assert find(Case(fleet_of_loads, trace, tells_tasks=False), [target], budget(4)).best is not None
