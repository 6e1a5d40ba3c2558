"""Nomad: strategies, how actions combine, and cooldowns."""

from __future__ import annotations

from collections.abc import Iterator

from agentd.sim.peers import nomad
from agentd.sim.peers.nomad import Action, ConfigError, Direction, Vote
from tests.conformance.cases import NOW, Case, Json, same, table

STRATEGIES = {"target_value": nomad.target_value, "threshold": nomad.threshold, "pass_through": nomad.pass_through}
FACTOR_TOLERANCE = 1e-6


def cases(document: Json) -> Iterator[Case]:
    yield from table(document["target_value"], lambda case: _strategy("target_value", case))
    yield from table(document["target_value_derived"], lambda case: _strategy("target_value", case), "derived")
    yield from table(document["target_value_direction"], _direction)
    yield from table(document["threshold"], lambda case: _strategy("threshold", case))
    yield from table(document["pass_through"], lambda case: _strategy("pass_through", case))
    yield from table(document["preempt"], _preempt)
    yield from table(document["cap_count"], _cap_count)
    yield from table(document["dry_run"], _dry_run)
    yield from table(document["scaling_needed"], _scaling_needed)
    yield from table(document["remaining_cooldown"], _cooldown)
    yield from table(document["pick_winner"], _pick_winner)


def _action(entry: Json) -> Action:
    return Action(Direction[entry["direction"].upper()], entry["count"])


def _shown(action: Action) -> dict[str, Json]:
    return {"direction": action.direction.name.lower(), "count": action.count}


def _strategy(name: str, case: Json) -> int:
    expect = dict(case["expect"])
    factor = expect.pop("factor", None)
    try:
        action = STRATEGIES[name](case["config"], case["metrics"], case["count"])
    except ConfigError as error:
        return same(expect, {"error_field": error.field, "error_kind": error.kind, "direction": None})
    if action is None:
        return same(expect, {"result": None, "direction": "abstains", "error_field": None})
    if factor is not None:
        assert action.factor is not None and abs(action.factor - factor) <= FACTOR_TOLERANCE
    return same(expect, {**_shown(action), "result": "an action", "error_field": None})


def _direction(case: Json) -> int:
    direction = nomad.target_direction(case["count"], case["factor"], case["threshold"])
    return same(case["expect"], {"direction": direction.name.lower()})


def _preempt(case: Json) -> int:
    return same(case["expect"], _shown(nomad.preempt(_action(case["a"]), _action(case["b"]))))


def _cap_count(case: Json) -> int:
    before = Action(Direction.UP, case["count"], reason=case["previous_reason"])
    after = nomad.cap_count(before, case["min"], case["max"])
    found = {
        "count": after.count,
        "capped": after.original is not None,
        "original": after.original,
        "reason_history_len": len(after.history),
    }
    return same(case["expect"], found)


def _dry_run(case: Json) -> int:
    action = nomad.dry_run(Action(Direction.UP, case["count"]))
    return same(case["expect"], {"submitted_count": action.count, "recorded_count": action.recorded})


def _scaling_needed(case: Json) -> int:
    action = Action(Direction[case["direction"].upper()], case["action_count"])
    return same(case["expect"], {"scale": nomad.scaling_needed(action, case["current_count"])})


def _cooldown(case: Json) -> int:
    left = nomad.remaining_cooldown_s(case["cooldown_s"], NOW - case["last_event_age_s"], NOW)
    return same(case["expect"], {"remaining_s": left})


def _pick_winner(case: Json) -> int:
    groups = {
        name: [
            Vote(check["check"], None if check["action"] is None else _action(check["action"]))
            for check in checks
            if check["check"] is not None
        ]
        for name, checks in case["groups"].items()
    }
    winner = nomad.pick_winner(groups)
    if case["expect"] is None:
        assert winner is None
        return 1
    assert winner is not None
    return same(case["expect"], _shown(winner[1]))
