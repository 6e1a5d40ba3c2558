"""All of a controller's state at one moment, so that another goes on exactly as it does.

What is saved across restarts of agentd (`core.rows`) leaves out what an agentd learns anew within seconds. Here nothing
is left out that decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from msgspec import Struct, field

from agentd.core import rows
from agentd.core.controller import Controller
from agentd.core.messages import Event, Outcome
from agentd.core.model import Decision, FleetConfig, HostSample, InstanceId, PoolConfig, PoolName, Usage


class Whole(Struct, frozen=True):
    """`rows` as `Controller.snapshot` gives them; `removed`: pools that the configuration has no more.

    `changed`: rows that the next outcome will carry whatever it is of.
    """

    rows: Mapping[str, str]
    changed: tuple[str, ...]
    usage: Mapping[InstanceId, Usage]
    waiting: tuple[InstanceId, ...]
    coming: tuple[InstanceId, ...]
    host: HostSample | None = None
    host_at: float = 0.0
    capacity_max: int | None = None
    removed: Mapping[PoolName, PoolConfig] = field(default_factory=dict)
    due: float | None = None


class WholeController(Controller):
    """A controller whose state can be taken and given as a whole, and which says what its steps have evaluated."""

    _seen: dict[PoolName, Decision | None]

    def whole(self) -> Whole:
        """Everything as it is between two steps. Changes nothing."""
        fleet = self._fleet
        return Whole(
            rows=rows.snapshot(fleet),
            changed=tuple(fleet.changed),
            usage={i.id: i.usage for i in fleet.instances.values() if i.usage is not None},
            waiting=tuple(fleet.waiting),
            coming=tuple(fleet.coming),
            host=fleet.host,
            host_at=fleet.host_at,
            capacity_max=fleet.capacity_max,
            removed={name: pool.config for name, pool in fleet.pools.items() if pool.removed},
            due=self._due,
        )

    @classmethod
    def from_whole(cls, config: FleetConfig, whole: Whole, epoch: int) -> Self:
        """A controller that goes on exactly as the one that `whole` was taken of."""
        controller = cls(config, epoch)
        fleet = controller._fleet
        rows.load(fleet, whole.rows)
        fleet.changed = dict.fromkeys(whole.changed)
        for name, pool_config in whole.removed.items():
            fleet.pools[name].config = pool_config
        order = [InstanceId(key.partition("/")[2]) for key in whole.rows if key.startswith("instance/")]
        fleet.instances = {ident: fleet.instances[ident] for ident in order}
        for pool in fleet.pools.values():
            pool.instances = {ident: pool.instances[ident] for ident in order if ident in pool.instances}
        for instance in fleet.instances.values():
            instance.core_name = fleet.pools[instance.pool].config.core_name(instance.port)
            instance.usage = whole.usage.get(instance.id)
        fleet.waiting, fleet.coming = dict.fromkeys(whole.waiting), dict.fromkeys(whole.coming)
        fleet.host, fleet.host_at, fleet.capacity_max = whole.host, whole.host_at, whole.capacity_max
        controller._due = whole.due
        return controller

    def step_seen(self, event: Event, now: float) -> tuple[Outcome, tuple[Decision, ...]]:
        """A step, and what was decided of each pool that it has evaluated, also where all stays as it is."""
        fleet = self._fleet
        before = fleet.evaluations
        outcome = Controller.step(self, event, now)
        if fleet.evaluations == before and not outcome.decisions:
            return outcome, ()
        seen: dict[PoolName, Decision | None] = getattr(self, "_seen", {})
        self._seen = {name: pool.last_decision for name, pool in fleet.pools.items()}
        return outcome, tuple(
            made for name, made in self._seen.items() if made is not None and made is not seen.get(name)
        )

    @property
    def says_go_on(self) -> Outcome:
        """What nearly every heartbeat comes to."""
        return self._go_on
