"""What must hold whatever happens: invariants of the controller, looked at after every single step.

`Chaos` is a `World` to which anything may happen, and which checks after each step what DESIGN promises. It
looks into the controller's state where no view shows what matters.
"""

from __future__ import annotations

import json

from world import World

from agentd.core.controller import Controller
from agentd.core.messages import (
    ConfigChanged,
    Event,
    EventType,
    HostSampled,
    InstanceExited,
    InstanceGaveUp,
    InstanceHeld,
    InstancesListed,
    InstanceStarted,
    InstanceStopped,
    Outcome,
    Restored,
    Shutdown,
    Start,
    StartFailed,
    Stop,
    Tick,
)
from agentd.core.model import (
    Decision,
    Direction,
    FleetConfig,
    HostSample,
    InstanceId,
    PoolConfig,
    PoolName,
    Usage,
    parse_instance_id,
)
from agentd.core.state import Fleet
from agentd.sim.replay import differences, replay

MIB = 1024 * 1024
USAGE = Usage(64 * MIB, 0.25)
_PORTS_HELD = "broken: two instances on one port"

# What an instance, a pool and the fleet must not lose when agentd is killed: everything else is either told anew
# by beats, or moved with every tick. What a level of `levels` has learned is written now and then.
_VOLATILE = {
    "instance": {
        "heard_at", "beat_at", "started_at", "since", "wake_at", "seq", "load", "queue_length", "in_flight",
        "tasks_completed", "completed", "completed_told", "response_time_p50_s", "response_time_p95_s", "labels",
        "core_name", "turned_at", "asked_at", "requested_at", "timed_at", "rate", "counted_at", "counted",
        "paid_tasks", "unpaid_tasks",
    },
    "pool": {
        "footprint_cores", "restarting", "evaluated_at", "evaluate_at", "readings", "recent",
        "schedule", "held_from",
    },
    "history": {"samples", "marks", "levels", "saturated", "sampled_at", "rounds"},
    "ledger": {"hours", "days", "months", "since", "metered_at", "marks"},
    "adaptive": {"flow", "peaks", "shadows", "forecast"},  # every minute, but never without its `saved_at`
    "forecast": {"series", "busy_at", "seen", "labels_at"},
    "season": set(),
    "controller": {"wall_offset", "next_check", "ticked_at", "recovering_until"},
}  # fmt: skip


class Chaos(World):
    """A world in which every step is checked. The `twins` must do as the controller does."""

    def __init__(self, config: FleetConfig, *, start_delay_s: float = 0.0, stop_delay_s: float = 0.0) -> None:
        super().__init__(config, start_delay_s=start_delay_s, stop_delay_s=stop_delay_s)
        self.twins: list[Controller] = []
        self.sample: HostSample | None = None
        self.shut = False
        self._asked: dict[InstanceId, type] = {}
        self._counts: dict[PoolName, int] = {}
        self._decided: dict[str, float] = {}  # decisions that scaled, by id -> when
        self._last_up: dict[str, float] = {}  # per pool, those that came about
        self._last_down: dict[str, float] = {}
        self._last_resume: dict[str, float] = {}
        self._steps: set[str] = set()
        self._made: set[str] = set()
        self._started_for: dict[str, str] = {}
        self.on_step = self._check

    # -- what may happen beyond a World's script ------------------------------------------------

    def reboot(self, config: FleetConfig | None = None) -> None:
        self.twins.clear()
        self._asked.clear()
        self.shut = False
        super().reboot(config)
        if self.sample is not None:
            self.measure(self.sample.memory_available_bytes)

    def measure(self, available_bytes: int) -> None:
        self.sample = HostSample(
            cores=8,
            cpu_used_cores=1.0,
            memory_total_bytes=4096 * MIB,
            memory_available_bytes=available_bytes,
            disk_free_bytes=100_000 * MIB,
            instances=dict.fromkeys(self.agents, USAGE),
        )
        self.step(HostSampled(self.sample))

    def configure(self, config: FleetConfig) -> None:
        self.config = config
        self.step(ConfigChanged(config))

    def clone(self) -> None:
        """From here on, a controller made from a snapshot must do exactly as the original does."""
        rows = self.controller.snapshot()
        twin = Controller.from_snapshot(self.config, rows, self.epoch)
        assert twin.snapshot() == rows
        assert twin.deadline == self.controller.deadline
        self.twins.append(twin)
        if self.sample is not None:
            self.step(HostSampled(self.sample))

    @property
    def _fleet(self) -> Fleet:
        return self.controller._fleet

    # -- the invariants -------------------------------------------------------------------------

    def _check(self, event: Event, outcome: Outcome) -> None:
        for twin in self.twins:
            assert twin.step(event, self.now) == outcome, f"a restored controller differs after {event}"
            assert twin.deadline == self.controller.deadline, f"a restored controller wakes differently after {event}"
        if isinstance(event, Tick):
            deadline = self.controller.deadline
            assert deadline is None or deadline > self.now, "a deadline that stays in the past: a busy loop"
        self._note(event)
        for decision in outcome.decisions:
            different = differences(decision, replay(decision, self.config))
            assert not different, f"made again, {decision.id} differs after {event}: {different}"
            self._made.add(decision.id)
        for record in outcome.records:
            if record.type in (EventType.SCALE_UP, EventType.SCALE_DOWN, EventType.HOLD):
                assert record.decision in self._made, f"{record}: by no decision that was kept"
        if outcome.actions or outcome.records or outcome.rows:
            self._check_actions(event, outcome)
            self._check_counts(event, outcome)
            self._check_cooldowns(outcome)
        if outcome.actions or outcome.records:
            self.check_stored()

    def _note(self, event: Event) -> None:
        """What was asked of the driver and has come to its end."""
        if isinstance(event, StartFailed | InstanceStopped | InstanceGaveUp | InstanceExited | InstanceHeld):
            self._asked.pop(event.instance, None)
        if isinstance(event, InstancesListed):
            found = {seen.id for seen in event.observed} | event.busy
            self._asked = {ident: kind for ident, kind in self._asked.items() if ident in found}
        if isinstance(event, Shutdown):
            self.shut = True

    def _check_actions(self, event: Event, outcome: Outcome) -> None:
        known = self._fleet.instances
        for action in outcome.actions:
            if isinstance(action, Start):
                self._check_start(action)
            else:
                assert action.instance in known or isinstance(event, InstanceStarted), f"{action}: unknown"
                stopped_twice = self._asked.get(action.instance) is Stop
                assert not stopped_twice or isinstance(event, InstancesListed), f"{action}: asked for already"
                self._asked[action.instance] = Stop
        ports = [i.port for i in known.values()]
        assert len(ports) == len(set(ports)), _PORTS_HELD

    def _check_start(self, action: Start) -> None:
        ident, spec = action.spec.id, action.spec
        assert self.config.enabled, f"{ident} started while disabled"
        assert not self.shut, f"{ident} started after a shutdown"
        assert self._asked.get(ident) is None, f"{ident} started while {self._asked[ident]} is under way"
        assert ident not in self.agents, f"{ident} started while it runs"
        pool = self.config.pools[spec.pool]
        assert parse_instance_id(ident) == (spec.pool, spec.port)
        assert pool.core_name(spec.port) == spec.core_name
        elastic = pool.ports is not None and spec.port in pool.ports
        assert elastic or spec.core_name is not None, f"{ident}: a port that is not the pool's"
        self._asked[ident] = Start

    def _check_counts(self, event: Event, outcome: Outcome) -> None:
        by_us = not isinstance(event, InstancesListed | Restored | ConfigChanged)
        for pool in self._fleet.pools.values():
            count = len(pool.committed())
            core = sum(1 for i in pool.instances.values() if i.is_core)
            bound = max(pool.max, self._counts.get(pool.name, 0), core)
            assert not by_us or count <= bound, f"{pool.name}: {count} > {bound} after {event}"
            self._counts[pool.name] = count
        for record in outcome.records:
            if record.type is EventType.SCALE_DOWN:
                name, port = parse_instance_id(record.instance)
                config = self.config.pools[name]
                assert config.core_name(port) is None, f"{record.instance} is a core agent"
                least = self._fleet.pools[name].min
                assert self._counts[name] >= least, f"{name}: fewer than {least} by our own act"

    def _check_cooldowns(self, outcome: Outcome) -> None:
        for decision in outcome.decisions:
            up_s, down_s = _cooldowns(self.config.pools[decision.pool], decision)
            up, down = self._last_up.get(decision.pool, -1e9), self._last_down.get(decision.pool, -1e9)
            back = sum(1 for r in outcome.records if r.type is EventType.RESUME and r.decision == decision.id)
            if decision.granted - decision.current > back:
                assert self.now - up >= up_s - 1e-6, f"{decision}: in the up cooldown"
            relief = decision.reasons[0].code == "memory_pressure"  # physics outranks policy
            down = max(down, self._last_resume.get(decision.pool, -1e9))
            if decision.direction is Direction.DOWN and not relief:
                assert self.now - max(up, down) >= down_s - 1e-6, f"{decision}: in the cooldown"
            if decision.direction is not Direction.NONE:
                self._decided[decision.id] = self.now
            if decision.reasons[0].code == "target" and any(limit.code == "drain_share" for limit in decision.limits):
                self._steps.add(decision.id)
        for record in outcome.records:
            if record.type is EventType.READY and record.reason == "takes work again":
                self._last_resume[record.pool] = self.now
            at = self._decided.get(record.decision)
            if at is None:
                continue
            if record.type is EventType.SCALE_UP:
                self._started_for[record.instance] = record.decision
            elif record.type is EventType.READY and self._started_for.pop(record.instance, ""):
                self._last_up[record.pool] = max(at, self._last_up.get(record.pool, at))
            elif record.type in (EventType.STOP, EventType.STOP_FORCED):
                started_for = self._started_for.pop(record.instance, "")
                # One wish of a person costs one cooldown, in however many steps it comes about.
                if started_for != record.decision and record.decision not in self._steps:
                    self._last_down[record.pool] = max(at, self._last_down.get(record.pool, at))

    def check_stored(self) -> None:
        """What a kill of agentd right now would leave is what the controller knows."""
        now = self.controller.snapshot()
        assert set(self.saved) == set(now), f"not stored or not deleted: {set(self.saved) ^ set(now)}"
        for key in now:
            volatile = _VOLATILE[key.partition("/")[0]]
            have, want = json.loads(self.saved[key]), json.loads(now[key])
            differ = {name: (have.get(name), want[name]) for name in want if have.get(name) != want[name]}
            lost = {name: pair for name, pair in differ.items() if name not in volatile}
            if not want.get("mode_is_persons", True):
                lost.pop("mode", None)  # the configuration says it anew
            assert not lost, f"{key} is stored without {lost}"


def _cooldowns(config: PoolConfig, decision: Decision) -> tuple[float, float]:
    """What must have passed since the last scaling: for `threshold`, and for people where the pool has it."""
    if decision.trigger in ("", "threshold") and config.threshold is not None:
        return config.scale_up_cooldown_s, config.scale_down_cooldown_s
    return config.quick_up_cooldown_s, config.quick_down_cooldown_s
