"""The fleet's form in the store: one row of JSON for the controller, each pool, its history, and each instance.

Everything that decides later behaviour is in the rows, so that a fleet loaded from them goes on exactly as the
one that wrote them. What is learned anew within seconds is not: the host, and what each instance uses of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from msgspec.structs import asdict, astuple

from agentd.core import forecast, learned, ledger, scalability, trial
from agentd.core.ledger import Ledger
from agentd.core.messages import Stage
from agentd.core.model import (
    STOP_GRACE_S_DEFAULT,
    AutoscalingMode,
    DirectiveKind,
    HealthCheck,
    InstanceId,
    PoolConfig,
    PoolName,
    RollingState,
    State,
    Target,
)
from agentd.core.recent import Recent
from agentd.core.rules import Offer, Pause, Reading
from agentd.core.state import Fleet, Instance, Pool, Purpose, Rolling, Schedule

CONTROLLER = "controller"

# What is saved of the fleet itself; `listed`, `ticked_at` and `recovering_until` belong to one run of agentd
# and are reset by `Restored`.
_CONTROLLER_FIELDS = (
    "mode_is_persons",
    "listed",
    "recovering_until",
    "next_check",
    "ticked_at",
    "shutting_down",
    "scaling_events",
    "decisions_made",
    "directives_made",
    "wall_offset",
)
# What goes with a pool; what it has spent outlives it.
_OF_POOLS = frozenset({"pool", "history", "adaptive", "forecast", "season"})
_TIMES = ("since", "created_at", "started_at", "born_at", "heard_at")
_TIMES_OR_ZERO = (
    "wake_at",
    "leaving_at",
    "retry_at",
    "beat_at",
    "timed_at",
    "asked_at",
    "turned_at",
    "still_at",
    "counted_at",
)


def take_changed(fleet: Fleet) -> dict[str, str | None]:
    """The rows that changed since the last call; None: the row is gone."""
    keys = list(fleet.changed)
    fleet.changed.clear()
    return {key: _row(fleet, key) for key in keys}


def row(fleet: Fleet, key: str) -> str | None:
    """One row as it is now; None: there is nothing of that name."""
    return _row(fleet, key)


def snapshot(fleet: Fleet) -> dict[str, str]:
    """All rows, instances in the order in which they were made."""
    keys = [CONTROLLER, "ledger/"]
    for pool in fleet.pools.values():
        keys += [f"{kind}/{pool.name}" for kind in ("pool", "history", "ledger", "adaptive", "forecast")]
        keys += [f"season/{pool.name}/{day}" for day in (pool.forecast.days if pool.forecast else ())]
    keys += [f"instance/{ident}" for ident in fleet.instances]
    found = {key: _row(fleet, key) for key in keys}
    return {key: text for key, text in found.items() if text is not None}


def load(fleet: Fleet, rows: Mapping[str, str], shift: float = 0.0) -> None:
    """Let `fleet` take over `rows`; saved monotonic times are moved by `shift`.

    Instances made at the same moment keep the order of `rows`.
    """
    if CONTROLLER in rows:
        value = json.loads(rows[CONTROLLER])
        mode = AutoscalingMode(**value.pop("mode"))
        fleet.pauses = _pauses(value.pop("pauses", {}), shift)
        for name in _CONTROLLER_FIELDS:
            if name in value:
                setattr(fleet, name, value[name])
        # Whose word it is stays known where the file says the same.
        if fleet.mode_is_persons or mode.enabled == fleet.mode.enabled:
            fleet.mode = mode
    loaded = [_load_instance(json.loads(text), shift) for key, text in rows.items() if key.startswith("instance/")]
    # A pool that is no longer configured is there as long as one of its instances is. Nothing of the others is kept.
    populated = {instance.pool for instance in loaded}
    _forget_others(fleet, rows, fleet.pools.keys() | populated)
    for key in sorted(rows):
        kind, _, name = key.partition("/")
        if kind == "pool" and (name in fleet.pools or name in populated):
            _load_pool(fleet, PoolName(name), json.loads(rows[key]), shift)
    marks = _load_books(fleet, rows, shift)
    for name, pool in fleet.pools.items():
        if f"history/{name}" in rows:
            pool.history = trial.load(json.loads(rows[f"history/{name}"]), shift)
            pool.law = scalability.fit(pool.history.levels)
        if f"adaptive/{name}" in rows:
            pool.adaptive = learned.load(json.loads(rows[f"adaptive/{name}"]), shift)
        if f"forecast/{name}" in rows:
            pool.forecast = forecast.load(json.loads(rows[f"forecast/{name}"]), _days(rows, name), shift)
    for name in populated - set(fleet.pools):
        fleet.pools[name] = Pool(config=PoolConfig(name=name, min=0, max=0), removed=True)
    for instance in sorted(loaded, key=lambda i: i.created_at):
        instance.core_name = fleet.pools[instance.pool].config.core_name(instance.port)
        fleet.insert(instance)
        incarnation, paid, unpaid = marks.get(instance.id, (None, 0, 0))
        if incarnation == instance.incarnation:
            instance.paid_tasks, instance.unpaid_tasks = paid, unpaid
        if instance.wake_at:
            fleet.alarms.push(instance.wake_at, instance.id)
    fleet.pools = {name: fleet.pools[name] for name in sorted(fleet.pools)}


def _forget_others(fleet: Fleet, rows: Iterable[str], pools: Collection[PoolName]) -> None:
    """Have what is saved of other pools than `pools` deleted."""
    for key in rows:
        kind, _, name = key.partition("/")
        if kind in _OF_POOLS and name.partition("/")[0] not in pools:
            fleet.changed[key] = None


def _row(fleet: Fleet, key: str) -> str | None:
    kind, _, name = key.partition("/")
    value: Mapping[str, Any] | None = None
    if kind == CONTROLLER:
        pauses = {direction: astuple(pause) for direction, pause in fleet.pauses.items()}
        value = {name: getattr(fleet, name) for name in _CONTROLLER_FIELDS}
        value |= {"mode": asdict(fleet.mode), "pauses": pauses}
    elif kind == "pool":
        pool = fleet.pools.get(PoolName(name))
        value = _pool_row(pool) if pool else None
    elif kind == "history":
        pool = fleet.pools.get(PoolName(name))
        value = trial.row(pool.history) if pool else None
    elif kind == "adaptive":
        pool = fleet.pools.get(PoolName(name))
        value = learned.row(pool.adaptive) if pool and pool.adaptive else None
    elif kind in ("forecast", "season"):
        value = _forecast_row(fleet, kind, name)
    elif kind == "ledger":
        value = _ledger_row(fleet, name)
    else:
        instance = fleet.instances.get(InstanceId(name))
        if instance:
            value = asdict(instance)
            del value["usage"]
    return None if value is None else json.dumps(value, separators=(",", ":"))


def _forecast_row(fleet: Fleet, kind: str, name: str) -> Mapping[str, Any] | None:
    """What was learned of a pool, or (`name` is pool/day) what it had to do on one day."""
    pool = fleet.pools.get(PoolName(name.partition("/")[0]))
    if pool is None or pool.forecast is None:
        return None
    if kind == "forecast":
        return forecast.row(pool.forecast)
    return forecast.day_row(pool.forecast, int(name.partition("/")[2]))


def _days(rows: Mapping[str, str], name: PoolName) -> dict[int, dict[str, list[float | None]]]:
    prefix = f"season/{name}/"
    return {int(key[len(prefix) :]): json.loads(text) for key, text in rows.items() if key.startswith(prefix)}


def _ledger_row(fleet: Fleet, name: str) -> dict[str, Any] | None:
    """With how far the tasks of each process are entered: an instance may have been saved earlier than the books."""
    pool = fleet.pools.get(PoolName(name))
    books = pool.ledger if pool else Ledger() if name else fleet.past
    if books == Ledger():
        return None
    instances = pool.instances.values() if pool and pool.config.rates else ()
    marks = {i.id: (i.incarnation, i.paid_tasks, i.unpaid_tasks) for i in instances if i.tasks_completed is not None}
    return ledger.row(books) | {"marks": marks}


def _load_books(fleet: Fleet, rows: Mapping[str, str], shift: float) -> dict[str, tuple[str, int, int]]:
    """What pools have spent, also those that are there no more; and of each instance how far its tasks are entered."""
    marks: dict[str, tuple[str, int, int]] = {}
    values = {key.partition("/")[2]: json.loads(row) for key, row in rows.items() if key.startswith("ledger/")}
    if "" in values:
        fleet.past = ledger.load(values.pop(""), shift)
    for name, value in values.items():
        books, pool = ledger.load(value, shift), fleet.pools.get(PoolName(name))
        if pool is not None:
            pool.ledger = books
            marks |= value["marks"]
        else:  # it was removed meanwhile
            fleet.past.merge(books)
            fleet.touch_ledger(name)
            fleet.touch_ledger("")
    return marks


def _load_pool(fleet: Fleet, name: PoolName, value: dict[str, Any], shift: float) -> None:
    pool = fleet.pools.get(name)
    if pool is None:
        left = PoolConfig(
            name=name,
            min=0,
            max=0,
            health=HealthCheck(value["health"]),
            start_timeout_s=value["start_timeout_s"],
            drain_timeout_s=value["drain_timeout_s"],
            stop_grace_s=value.get("stop_grace_s", STOP_GRACE_S_DEFAULT),
        )
        pool = fleet.pools[name] = Pool(config=left, removed=True)
    for moved in ("last_up_at", "last_down_at", "last_resume_at", "held_from"):
        at = value.get(moved)
        setattr(pool, moved, None if at is None else at + shift)
    pool.ups = [at + shift for at in value.get("ups", ())]
    pool.downs = [at + shift for at in value.get("downs", ())]
    pool.down_in_steps = value.get("down_in_steps", False)
    pool.start_failures = value["start_failures"]
    pool.start_failure = value.get("start_failure", "")
    pool.backoff_until = value["backoff_until"] + shift if value["backoff_until"] else 0.0
    if value["target"]:
        target = Target(**value["target"])
        expires = None if target.expires is None else target.expires + shift
        pool.target = Target(target.count, target.owner, target.reason, expires)
    pool.pauses = _pauses(value.get("pauses", {}), shift)
    pool.start_times_s = value.get("start_times_s", [])
    pool.starts_failed = value.get("starts_failed", 0)
    pool.footprint_bytes = value["footprint_bytes"]
    pool.footprint_learned = value["footprint_learned"]
    pool.footprint_cores = value["footprint_cores"]
    pool.completed_gone = value.get("completed_gone", 0)
    pool.conflicts = {int(port): until + shift for port, until in value["conflicts"].items()}
    pool.restart_queue = [InstanceId(name) for name in value["restart_queue"]]
    pool.restarting = value["restarting"]
    rolling = value.get("rolling")
    pool.rolling = Rolling(**rolling | {"state": RollingState(rolling["state"])}) if rolling else None
    pool.last_gist = value["last_gist"]
    pool.recheck_at = value["recheck_at"] + shift if value["recheck_at"] else 0.0
    _load_signals(pool, value, shift)


def _pauses(value: dict[str, Any], shift: float) -> dict[str, Pause]:
    return {
        direction: Pause(owner, reason, since_wall, None if expires is None else expires + shift)
        for direction, (owner, reason, since_wall, expires) in value.items()
    }


def _load_signals(pool: Pool, value: dict[str, Any], shift: float) -> None:
    """An agentd before this one did not know them."""
    for moved in ("evaluated_at", "evaluate_at"):
        at = value.get(moved)
        setattr(pool, moved, at + shift if at else 0.0)
    for name, (number, at, trouble) in value.get("readings", {}).items():
        if pool.config.collector(name):
            pool.readings[name] = Reading(number, at + shift, trouble)
    for name, (highs, lows) in value.get("recent", {}).items():
        pool.recent[name] = Recent([(at + shift, count) for at, count in highs], [(at + shift, n) for at, n in lows])
    if value.get("schedule"):
        since, until, active, least, most = value["schedule"]
        pool.schedule = Schedule(since, until, tuple(active), least, most)
    pool.conditions = {name: (status, since) for name, (status, since) in value.get("conditions", {}).items()}
    for source, (count, owner, reason, expires) in value.get("offers", {}).items():
        pool.offers[source] = Offer(source, count, owner, reason, expires + shift)


def _pool_row(pool: Pool) -> dict[str, Any]:
    return {
        "last_up_at": pool.last_up_at,
        "last_down_at": pool.last_down_at,
        "last_resume_at": pool.last_resume_at,
        "ups": pool.ups,
        "downs": pool.downs,
        "down_in_steps": pool.down_in_steps,
        "start_failures": pool.start_failures,
        "start_failure": pool.start_failure,
        "backoff_until": pool.backoff_until,
        "target": asdict(pool.target) if pool.target else None,
        "pauses": {direction: astuple(pause) for direction, pause in pool.pauses.items()},
        "start_times_s": pool.start_times_s,
        "starts_failed": pool.starts_failed,
        "footprint_bytes": pool.footprint_bytes,
        "footprint_learned": pool.footprint_learned,
        "footprint_cores": pool.footprint_cores,
        "completed_gone": pool.completed_gone,
        "conflicts": pool.conflicts,
        "restart_queue": pool.restart_queue,
        "restarting": pool.restarting,
        "rolling": asdict(pool.rolling) if pool.rolling else None,
        "last_gist": pool.last_gist,
        "held_from": pool.held_from,
        "recheck_at": pool.recheck_at,
        "evaluated_at": pool.evaluated_at,
        "evaluate_at": pool.evaluate_at,
        "readings": {name: (it.value, it.at, it.trouble) for name, it in pool.readings.items()},
        "recent": {name: (it.highs, it.lows) for name, it in pool.recent.items()},
        "schedule": astuple(pool.schedule) if pool.schedule.since else None,
        "offers": {it.source: (it.count, it.owner, it.reason, it.expires) for it in pool.offers.values()},
        "conditions": pool.conditions,
        # What is needed of the configuration to let go of what runs when it says nothing of the pool any more.
        "health": pool.config.health,
        "start_timeout_s": pool.config.start_timeout_s,
        "drain_timeout_s": pool.config.drain_timeout_s,
        "stop_grace_s": pool.config.stop_grace_s,
    }


def _load_instance(value: dict[str, Any], shift: float) -> Instance:
    value["state"] = State(value["state"])
    value["purpose"] = Purpose(value["purpose"])
    value["stop_purpose"] = Purpose(value["stop_purpose"]) if value["stop_purpose"] else None
    # What an agentd before this one did not know yet is missing.
    value["directive_kind"] = DirectiveKind(value.get("directive_kind", DirectiveKind.CONTINUE))
    value["stage"] = Stage(value["stage"]) if value.get("stage") else None
    value.setdefault("born_at", value["started_at"])
    for name in _TIMES:
        value[name] += shift
    for name in _TIMES_OR_ZERO:
        value[name] = value[name] + shift if value.get(name) else 0.0
    for name in ("requested_at", "costs_from"):
        if value.get(name) is not None:
            value[name] += shift
    known = frozenset(Instance.__struct_fields__)
    return Instance(**{name: item for name, item in value.items() if name in known})
