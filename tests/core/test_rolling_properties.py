"""A rolling restart keeps what it promises whatever happens: no dip of its making, and a new process for everybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chaos import Chaos
from fleets import STORIES, fleet, pool
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentd.core.messages import Done, Event, Outcome, RollingRestart, SetTarget
from agentd.core.model import CoreAgent, FleetConfig, HealthCheck, Incarnation, InstanceId, PoolName, PortRange, State
from agentd.core.views import InstanceView, PoolView

RESEARCH = PoolName("research")


@dataclass(frozen=True)
class Given:
    """A pool, and how it is to be restarted."""

    size: int
    core: int  # how many of them are core agents
    spare_ports: int
    max_unavailable: int | None
    health: HealthCheck
    drain_share: float
    start_delay_s: float
    stop_delay_s: float

    def config(self) -> FleetConfig:
        core = tuple(CoreAgent(f"agent{n}", 9001 + n) for n in range(self.core))
        last = 9100 + self.size - self.core + self.spare_ports
        research = pool(
            min=self.size,
            max=self.size + 1,
            ports=PortRange(9101, last) if last > 9100 else None,
            health=self.health,
            drain_share_max=self.drain_share,
            drain_timeout_s=40.0,
            scale_up_cooldown_s=10.0,
            scale_down_cooldown_s=20.0,
        )
        return fleet(replace(research, core=core), check_interval_s=10.0)


class Watched(Chaos):
    """Checks after every step that as many are ready as there were, less who may be away and who died by himself."""

    def __init__(self, given: Given) -> None:
        super().__init__(given.config(), start_delay_s=given.start_delay_s, stop_delay_s=given.stop_delay_s)
        self.needed = 0
        self.dead: dict[InstanceId, Incarnation] = {}
        check = self.on_step
        assert check is not None

        def look(event: Event, outcome: Outcome) -> None:
            check(event, outcome)
            self._look(event)

        self.on_step = look

    def members(self) -> dict[InstanceId, InstanceView]:
        return {view.id: view for view in self.view().instances if view.pool == RESEARCH}

    def pool(self) -> PoolView:
        return next(view for view in self.view().pools if view.name == RESEARCH)

    def die(self, ident: str, how: Callable[[str], None]) -> None:
        agent = self.agents[InstanceId(ident)]
        self.dead[agent.id] = agent.incarnation
        how(ident)

    def _look(self, event: Event) -> None:
        members = self._fleet.pools[RESEARCH].instances
        ready = sum(each.state is State.READY and not each.missed for each in members.values())
        back = [
            ident
            for ident, incarnation in self.dead.items()
            if ident in members and members[ident].state is State.READY and members[ident].incarnation != incarnation
        ]
        assert ready >= self.needed - len(self.dead), f"{ready} ready, {self.needed} needed, after {event}"
        for ident in back:
            del self.dead[ident]


def _die(world: Watched, number: int, restart_in_s: float) -> None:
    if world.agents:
        ident = sorted(world.agents)[number % len(world.agents)]
        if world.members()[ident].state is State.STOPPING:
            restart_in_s = -1.0  # what a driver stops it does not start again
        world.die(ident, lambda name: world.exit(name, restart_in_s=restart_in_s))


def _work(world: Watched, number: int, tasks: int, follows: bool, ignorant: bool) -> None:
    if world.agents:
        ident = sorted(world.agents)[number % len(world.agents)]
        world.work(ident, tasks)
        world.agents[ident].done_follows, world.agents[ident].ignorant = follows, ignorant


def _reboot(world: Watched, later_s: float) -> None:
    world.now += later_s
    world.reboot()


def _load(world: Watched, load: float) -> None:
    world.usual_load = load
    for agent in world.agents.values():
        agent.load = load


HAPPENINGS: dict[str, Callable[..., Any]] = {
    "run": lambda world, seconds: world.run_until(world.now + seconds),
    "die": _die,
    "work": _work,
    "load": _load,
    "target": lambda world, count: world.step(SetTarget("up", count, RESEARCH, "bob", "", 100.0)),
    "reboot": _reboot,
    "clone": lambda world: world.clone(),
}
_run = st.tuples(st.just("run"), st.tuples(st.sampled_from([0.5, 3.0, 11.0, 41.0])))
_quiet = st.one_of(
    _run,
    _run,
    st.tuples(st.just("work"), st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 3]), st.booleans(), st.booleans())),
    st.tuples(st.just("load"), st.tuples(st.sampled_from([0.1, 0.5, 0.9]))),
    st.tuples(st.just("target"), st.tuples(st.integers(1, 6))),
    st.tuples(st.just("reboot"), st.tuples(st.sampled_from([0.5, 5.0, 25.0]))),
    st.tuples(st.just("clone"), st.just(())),
)
_deadly = st.one_of(_quiet, st.tuples(st.just("die"), st.tuples(st.integers(0, 5), st.sampled_from([-1.0, 0.1, 30.0]))))
_given = st.builds(
    Given,
    size=st.integers(1, 5),
    core=st.integers(0, 2),
    spare_ports=st.integers(0, 2),
    max_unavailable=st.sampled_from([None, None, None, 1, 2, 5]),
    health=st.sampled_from([HealthCheck.HEARTBEAT, HealthCheck.HEARTBEAT, HealthCheck.NONE]),
    drain_share=st.sampled_from([0.2, 0.5, 1.0]),
    start_delay_s=st.sampled_from([0.0, 2.0, 15.0]),
    stop_delay_s=st.sampled_from([0.0, 3.0]),
).filter(lambda given: given.core <= given.size)


@STORIES
@given(_given, st.lists(_quiet, max_size=12))
def test_nobody_is_missed_and_everybody_gets_a_new_process(given: Given, story: list[Any]) -> None:
    play(given, story)


@STORIES
@given(_given, st.lists(_deadly, max_size=14))
def test_nobody_is_missed_but_those_who_die_by_themselves(given: Given, story: list[Any]) -> None:
    play(given, story)


def play(given: Given, story: list[Any]) -> None:
    world = Watched(given)
    world.boot()
    world.run_until(60.0)
    before = {ident: view.incarnation for ident, view in world.members().items()}
    ready = world.pool().ready
    assert ready == given.size
    assert world.step(RollingRestart(RESEARCH, "alice", given.max_unavailable)) == Done()
    rolling = world.pool().rolling
    assert rolling is not None
    world.needed = ready - rolling.max_unavailable
    for name, values in story:
        HAPPENINGS[name](world, *values)
        world.check_stored()
    for agent in world.agents.values():
        agent.ignorant, agent.in_flight, agent.queue_length = False, 0, 0
    for _ in range(50):
        if world.pool().rolling is None:
            break
        world.run_until(world.now + 30.0)
    assert world.pool().rolling is None, world.pool().rolling
    world.run_until(world.now + 60.0)  # who died at last is back
    after = {ident: view.incarnation for ident, view in world.members().items()}
    assert all(after.get(ident) != incarnation for ident, incarnation in before.items())
    assert world.pool().ready >= given.size
