"""A fleet in virtual time: the real controller, and a scripted host and agents around it.

`World.run_until` is the runtime in small: it wakes the controller at the deadlines it asked for, delivers
the agents' heartbeats, and carries out what the controller asks for at once. Nothing here sleeps.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from agentd.core.controller import Controller
from agentd.core.messages import (
    Acknowledgement,
    Beat,
    BeatReply,
    Event,
    InstanceExited,
    InstanceGaveUp,
    InstancesListed,
    InstanceStarted,
    InstanceStopped,
    Outcome,
    Record,
    Reply,
    Restored,
    Stage,
    Start,
    StartFailed,
    Stop,
    Tick,
)
from agentd.core.model import (
    Directive,
    DirectiveKind,
    ExitCause,
    ExitKind,
    FleetConfig,
    Incarnation,
    InstanceId,
    Observed,
    Phase,
    StartFailure,
)
from agentd.core.views import FleetView, InstanceView

WALL = 1_700_000_000.0

_HostEvent = InstanceStarted | StartFailed | InstanceStopped


@dataclass
class Agent:
    """A scripted agent: beats every interval with `load` unless `silent`.

    It accepts a drain and says DONE only where the script has it do so; `ignorant`: it does not know directives.
    `resumes`, `configures`: what it answers to RESUME and CONFIGURE, None for nothing.
    """

    id: InstanceId
    incarnation: Incarnation
    pid: int
    load: float = 0.5
    silent: bool = False
    next_beat: float = 0.0
    seq: int = 0
    queue_length: int | None = None
    in_flight: int | None = None
    tasks_completed: int | None = None
    response_time_p50_s: float | None = None
    response_time_p95_s: float | None = None
    acknowledge: list[Acknowledgement] = field(default_factory=list)
    ignorant: bool = False
    done_follows: bool = False
    resumes: Stage | None = Stage.ACCEPTED
    configures: Stage | None = Stage.ACCEPTED
    heard: list[Directive] = field(default_factory=list)

    def obey(self, directive: Directive) -> bool:
        """Hear what an answer says; whether there is something to acknowledge."""
        if directive.kind is DirectiveKind.CONTINUE or self.ignorant:
            return False
        self.heard.append(directive)
        stage: Stage | None = Stage.ACCEPTED
        if directive.kind is DirectiveKind.RESUME:
            stage = self.resumes
        if directive.kind is DirectiveKind.CONFIGURE:
            stage = self.configures
        if stage is None:
            return False
        follows = self.done_follows and directive.kind is DirectiveKind.DRAIN
        self.acknowledge.append(Acknowledgement(directive.id, stage, done_follows=follows))
        return True

    @property
    def drains(self) -> int:
        """The id of the drain it was told last."""
        return [directive.id for directive in self.heard if directive.kind is DirectiveKind.DRAIN][-1]


class World:
    def __init__(self, config: FleetConfig, *, start_delay_s: float = 0.0, stop_delay_s: float = 0.0) -> None:
        self.config = config
        self.now = 0.0
        self.epoch = 1
        self.start_delay_s = start_delay_s
        self.stop_delay_s = stop_delay_s
        self.controller = self.new_controller()
        self.agents: dict[InstanceId, Agent] = {}
        self.loads: dict[str, float] = {}
        self.usual_load = 0.5  # of agents that `loads` does not know
        self.taken_ports: dict[int, str] = {}
        self.failing: dict[str, str] = {}
        self.slow: set[str] = set()  # instances that never become ready
        self.records: list[tuple[float, Record]] = []
        self.outcomes: list[Outcome] = []
        self.busy: set[InstanceId] = set()
        self.saved: dict[str, str] = {}
        self.saved_at: float | None = None  # when rows were saved last
        self.on_step: Callable[[Event, Outcome], None] | None = None
        self._later: list[tuple[float, int, _HostEvent]] = []
        self._restarts: set[int] = set()  # which of `_later` are restarts by the driver
        self._not_running: dict[InstanceId, Observed] = {}  # what the driver remembers without a process
        self._count = 0

    # -- life -----------------------------------------------------------------------------------

    def new_controller(self) -> Controller:
        """The one of the agentd that begins now."""
        return Controller(self.config, epoch=self.epoch)

    def boot(self) -> None:
        """agentd starts: it takes what was saved, looks at the host, and ticks once."""
        at = self.now if self.saved_at is None else self.saved_at
        self.step(Restored(rows=dict(self.saved), saved_at=at, saved_wall=WALL + at, wall=WALL + self.now))
        self.relist()
        self.step(Tick(wall=WALL + self.now))
        self._deliver()

    def reboot(self, config: FleetConfig | None = None) -> None:
        """agentd is killed and starts again; the agents run on."""
        self.config = config or self.config
        self.epoch += 1
        self.busy.clear()
        self._later.clear()
        self._not_running.clear()
        self.controller = self.new_controller()
        self.boot()

    def relist(self) -> None:
        observed = tuple(Observed(a.id, a.incarnation, a.pid) for a in self.agents.values())
        remembered = tuple(seen for ident, seen in self._not_running.items() if ident not in self.agents)
        self.step(InstancesListed(observed + remembered, frozenset(self.busy)))

    def step(self, event: Event) -> Reply | None:
        outcome = self.controller.step(event, self.now)
        if outcome.rows:
            self.saved_at = self.now
        for key, row in outcome.rows.items():
            if row is None:
                self.saved.pop(key, None)
            else:
                self.saved[key] = row
        self.records += [(self.now, record) for record in outcome.records]
        if not (isinstance(event, Beat) and not outcome.records and not outcome.actions):
            self.outcomes.append(outcome)
        for action in outcome.actions:
            self._perform(action)
        if self.on_step:
            self.on_step(event, outcome)
        return outcome.reply

    def run_until(self, end: float) -> None:
        """Let time pass, waking the controller and the agents when they want it."""
        self._deliver()
        while True:
            deadline = self.controller.deadline
            times = [agent.next_beat for agent in self.agents.values() if not agent.silent]
            times += [self._later[0][0]] if self._later else []
            times += [max(deadline, self.now)] if deadline is not None else []
            if not times or min(times) > end:
                break
            self.now = max(self.now, min(times))
            self._deliver()
            self._beat_due()
            deadline = self.controller.deadline
            if deadline is not None and deadline <= self.now:
                self.step(Tick(wall=WALL + self.now))
                self._deliver()
        self.now = end

    # -- script ---------------------------------------------------------------------------------

    def set_load(self, ident: str, load: float) -> None:
        self.loads[ident] = load
        if InstanceId(ident) in self.agents:
            self.agents[InstanceId(ident)].load = load

    def work(self, ident: str, in_flight: int, queued: int = 0) -> None:
        """The agent reports so many tasks from its next beat on."""
        agent = self.agents[InstanceId(ident)]
        agent.in_flight, agent.queue_length = in_flight, queued

    def say(self, ident: str, stage: Stage, text: str = "") -> None:
        """The agent tells at once how far it has come with the last directive."""
        agent = self.agents[InstanceId(ident)]
        agent.acknowledge.append(Acknowledgement(agent.heard[-1].id, stage, text))
        agent.next_beat = self.now
        self.run_until(self.now)

    def exit(self, ident: str, *, restart_in_s: float = 0.1) -> None:
        """The agent's process dies; the driver restarts it, unless `restart_in_s` is negative."""
        agent = self.agents.pop(InstanceId(ident))
        if restart_in_s >= 0:
            self._schedule(restart_in_s, self._fresh(agent.id))
            self._restarts.add(self._count)
            self._not_running[agent.id] = Observed(agent.id, agent.incarnation, 0, Phase.BACKOFF)
        self.step(InstanceExited(agent.id, agent.incarnation, ExitCause(ExitKind.EXIT, 1), restart_in_s))

    def give_up(self, ident: str, cause: StartFailure = StartFailure.CRASH_LOOP) -> None:
        """The agent's process dies once too often; the driver leaves it at that."""
        agent = self.agents.pop(InstanceId(ident))
        self._not_running[agent.id] = Observed(agent.id, agent.incarnation, 0, Phase.FAILED)
        self.step(InstanceExited(agent.id, agent.incarnation, ExitCause(ExitKind.EXIT, 1), 0.0))
        self.step(InstanceGaveUp(agent.id, cause, "ended too often"))

    def vanish(self, ident: str) -> None:
        """The agent's process is gone and nobody saw it end."""
        del self.agents[InstanceId(ident)]

    def left_running(self, ident: str) -> None:
        """An agent runs that agentd knows nothing of."""
        self._run(self._fresh(InstanceId(ident)))

    def view(self) -> FleetView:
        return self.controller.view(self.now)

    def instance(self, ident: str) -> InstanceView:
        return next(i for i in self.view().instances if i.id == ident)

    def texts(self) -> list[str]:
        return [f"{record.type} {record.instance or record.pool}: {record.reason}" for _, record in self.records]

    # -- host -----------------------------------------------------------------------------------

    def _perform(self, action: Start | Stop) -> None:
        if isinstance(action, Start):
            ident = action.spec.id
            self.busy.add(ident)
            if action.spec.port in self.taken_ports:
                text = f"port {action.spec.port} is taken by {self.taken_ports[action.spec.port]}"
                self._schedule(0.0, StartFailed(ident, StartFailure.PORT_TAKEN, text))
            elif ident in self.failing:
                self._schedule(0.0, StartFailed(ident, StartFailure.SPAWN_FAILED, self.failing[ident]))
            else:
                self._schedule(self.start_delay_s, self._fresh(ident))
        else:
            self.busy.add(action.instance)
            forced = action.instance in self.agents and self.agents[action.instance].silent
            self._schedule(self._stop_takes_s(action.instance), InstanceStopped(action.instance, forced))

    def _stop_takes_s(self, ident: InstanceId) -> float:
        """A stop cancels a restart that is pending, and waits for a start that is under way."""
        pending = [
            (at, n)
            for at, n, event in self._later
            if isinstance(event, InstanceStarted | StartFailed) and event.instance == ident
        ]
        self._later = [item for item in self._later if item[1] not in self._restarts or item[2].instance != ident]
        heapq.heapify(self._later)
        starts = [at - self.now for at, n in pending if n not in self._restarts]
        return max([self.stop_delay_s, *starts])

    def _fresh(self, ident: InstanceId) -> InstanceStarted:
        self._count += 1
        return InstanceStarted(ident, Incarnation(f"inc{self._count}"), 1000 + self._count)

    def _schedule(self, delay_s: float, event: _HostEvent) -> None:
        self._count += 1
        heapq.heappush(self._later, (self.now + delay_s, self._count, event))

    def _deliver(self) -> None:
        while self._later and self._later[0][0] <= self.now:
            _, _, event = heapq.heappop(self._later)
            self._not_running.pop(event.instance, None)
            if isinstance(event, InstanceStarted):
                self._run(event)
                self.busy.discard(event.instance)
            elif isinstance(event, StartFailed | InstanceStopped):
                self.busy.discard(event.instance)
                self.agents.pop(event.instance, None)
            self.step(event)
            self._beat_due()

    def _run(self, started: InstanceStarted) -> None:
        ident = started.instance
        agent = Agent(
            ident, started.incarnation, started.pid, self.loads.get(ident, self.usual_load), ident in self.slow
        )
        agent.next_beat = self.now
        self.agents[ident] = agent

    def _beat_due(self) -> None:
        for agent in sorted(self.agents.values(), key=lambda a: a.id):
            if not agent.silent and agent.next_beat <= self.now and agent.id in self.agents:
                self._beat(agent)

    def _beat(self, agent: Agent) -> None:
        agent.seq += 1
        done = tuple(agent.acknowledge)
        agent.acknowledge = []
        beat = Beat(
            agent.id,
            agent.incarnation,
            agent.seq,
            load=agent.load,
            queue_length=agent.queue_length,
            in_flight=agent.in_flight,
            tasks_completed=agent.tasks_completed,
            response_time_p50_s=agent.response_time_p50_s,
            response_time_p95_s=agent.response_time_p95_s,
            acks=done,
        )
        reply = self.step(beat)
        agent.next_beat = self.now + self.config.heartbeat_interval_s
        if isinstance(reply, BeatReply):
            agent.next_beat = self.now + reply.interval_s
            if agent.obey(reply.directive):
                agent.next_beat = self.now + 0.01
