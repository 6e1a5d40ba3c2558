"""The world of a simulated pool in virtual time: the real controller, and agents, requests and a queue around it.

One FIFO queue for the pool, from which an agent takes a request when one of its slots is free; or, dispatched at once,
a queue in each agent, which it hands over when it drains. The world does what the runtime,
the driver and the agents' SDK do in production, and only that: it steps the controller with heartbeats, readings of
the queue, the driver's reports and a Tick at the deadline the controller asked for, and carries out its actions.

Time is one float, the controller's clock. The trace begins at TRACE_AT_S; agentd has started one recovery window
before, so that the first request meets a controller that acts. Everything that happens later stands on a heap and is
ordered by its time, then by when it was put there: the same seed gives the same run to the last bit.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct

from agentd.core.controller import Controller
from agentd.core.messages import (
    Acknowledgement,
    BeatReply,
    Collected,
    Event,
    InstancesListed,
    InstanceStarted,
    InstanceStopped,
    NextDirective,
    Outcome,
    Reply,
    Restored,
    Stage,
    Start,
    Stop,
    Tick,
)
from agentd.core.model import (
    Direction,
    Directive,
    DirectiveKind,
    FleetConfig,
    Incarnation,
    InstanceId,
    Observed,
    instance_id,
)
from agentd.core.rules import QUEUE
from agentd.sim import dispatch
from agentd.sim.agents import Agent
from agentd.sim.measure import BUCKETS, SAMPLES_PER_BUCKET, UNSERVED, Measure
from agentd.traces import Arrival

TRACE_AT_S = 1024.0
# A Monday, midnight UTC, is the wall time of the trace's beginning.
TRACE_WALL = 1_699_833_600.0
CHANGE_INTERVAL_S = 1.0  # the soonest that a change is told after the last report
QUEUE_INTERVAL_S = 10.0
# After the last arrival the queue has so long to be served.
AFTER_S = 3600.0


class Setup(Struct, frozen=True):
    """What the world around the controller is like.

    `dispatch`: one of `dispatch.NAMES`. `beat_jitter_ratio`: by how much a heartbeat may come sooner than its interval;
    `beat_loss_ratio`: how many are lost on their way, of those that acknowledge nothing. `wall`: when the trace begins.
    `tells_tasks`: agents tell their tasks beside their load.
    """

    startup_s: float = 30.0
    initial: int = 1
    seed: int = 0
    dispatch: str = "least-loaded"
    beat_jitter_ratio: float = 0.0
    beat_loss_ratio: float = 0.0
    wall: float = TRACE_WALL
    tells_tasks: bool = True


class Steered(Protocol):
    """Whoever asks for counts from outside of the controller, as an external program would."""

    def attach(self, world: World) -> None:
        """Called once, before the first request; schedules what it does with `world.later`."""
        ...


class World:
    """One pool, one trace, one run: `run` once, then `measure` has what came of it."""

    def __init__(
        self, fleet: FleetConfig, arrivals: Sequence[Arrival], setup: Setup, steered: Steered | None = None
    ) -> None:
        """Raises ValueError where `arrivals` is empty or `fleet` has not one pool with a range of ports."""
        (self.pool,) = fleet.pools.values()
        if self.pool.ports is None or not arrivals:
            raise ValueError("cannot simulate a pool without ports or a trace without requests")
        self.controller = Controller(fleet, saved=False)
        self.arrivals = arrivals
        self.setup = setup
        self.measure = Measure([UNSERVED] * len(arrivals))
        self.agents: dict[InstanceId, Agent] = {}
        self.open: list[Agent] = []  # those that take work, by the time they became ready
        self.queue: deque[int] = deque()  # requests that wait outside of agents, by their number
        self.waiting = 0  # all that wait
        self.arrived = 0  # how many requests have
        self.now = TRACE_AT_S - fleet.heartbeat_interval_s
        self.last_at = TRACE_AT_S + arrivals[-1].offset_s
        self.on_progress: Callable[[float], None] | None = None
        self.on_step: Callable[[Event, Outcome], None] | None = None
        self._steered = steered
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._incarnations = 0
        self._rng = random.Random(setup.seed)
        self._choose = dispatch.chooser(setup.dispatch, self._rng)
        self._at_once = setup.dispatch == dispatch.AT_ONCE
        self._interval_s = fleet.heartbeat_interval_s
        self._has_queue_collector = self.pool.collector(QUEUE) is not None
        self._queue_told_at = self._queue_due = 0.0

    def run(self) -> Measure:
        """Let the trace pass, and then at most an hour until the queue is served."""
        self._boot()
        controller, heap, arrivals = self.controller, self._heap, self.arrivals
        count = len(arrivals)
        end = self.last_at + AFTER_S
        while True:
            number = self.arrived
            arrives_at = TRACE_AT_S + arrivals[number].offset_s if number < count else math.inf
            at = heap[0][0] if heap else math.inf
            due = controller.deadline
            if due is not None and due < at and due < arrives_at:
                if due > end:
                    self.now = end
                    break
                self.now = max(self.now, due)
                self.step(Tick(wall=self.setup.wall + self.now - TRACE_AT_S))
            elif at <= arrives_at:
                if number == count and not self.waiting:
                    break
                if at > end:
                    self.now = end
                    break
                self.now = at
                heapq.heappop(heap)[2]()
            else:
                self.now = arrives_at
                self.arrived = number + 1
                self._arrive(number)
        self._close()
        return self.measure

    def later(self, at: float, what: Callable[[], object]) -> None:
        """Do `what` at `at`, after what is to be done at that time already."""
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, what))

    def step(self, event: Event) -> Reply | None:
        """Let the controller take notice of `event` now, and carry out what it asks for."""
        outcome = self.controller.step(event, self.now)
        self.measure.steps += 1
        if outcome.actions or outcome.directed or outcome.decisions:
            self._take(outcome)
        if self.on_step is not None:
            self.on_step(event, outcome)
        return outcome.reply

    # -- requests -------------------------------------------------------------------------------

    def _arrive(self, number: int) -> None:
        free = self.open if self._at_once else [agent for agent in self.open if agent.in_flight < agent.slots]
        if not free:
            self.queue.append(number)
            self.waiting += 1
            self._queue_changed()
            return
        agent = self._choose(free)
        if agent.in_flight < agent.slots:
            self._begin(agent, number)
        else:
            agent.queue.append(number)
            self.waiting += 1
            self._changed(agent)

    def _begin(self, agent: Agent, number: int) -> None:
        arrival = self.arrivals[number]
        self.measure.waits[number] = self.now - (TRACE_AT_S + arrival.offset_s)
        agent.begin(self.now)
        self.later(self.now + arrival.service_s, partial(self._end, agent, number))
        self._changed(agent)

    def _end(self, agent: Agent, number: int) -> None:
        if agent.gone:
            self.measure.waits[number] = UNSERVED  # it was cut off
            return
        agent.end(self.now, self.arrivals[number].service_s)
        if agent.draining:
            if agent.in_flight == 0:
                self._finished(agent)
            else:
                self._changed(agent)
            return
        self._changed(agent)
        self._fill(agent)

    def _fill(self, agent: Agent) -> None:
        """Let `agent` take what waits, as far as its slots go: its own queue first."""
        for queue in (agent.queue, self.queue):
            if not queue:
                continue
            while queue and agent.in_flight < agent.slots:
                self.waiting -= 1
                self._begin(agent, queue.popleft())
            if queue is self.queue:
                self._queue_changed()

    # -- what agents say ------------------------------------------------------------------------

    def _changed(self, agent: Agent) -> None:
        """Its numbers have changed: the next heartbeat comes soon."""
        due = max(self.now, agent.beat_at + CHANGE_INTERVAL_S)
        if due < agent.beat_due:
            agent.beat_due = due
            self.later(due, agent.wake)

    def _wake(self, agent: Agent) -> None:
        if agent.beat_due == self.now and not agent.gone:
            loss = self.setup.beat_loss_ratio
            self._beat(agent, lost=loss > 0.0 and agent.ready and self._rng.random() < loss)

    def _beat(self, agent: Agent, acks: tuple[Acknowledgement, ...] = (), *, lost: bool = False) -> None:
        now, interval_s = self.now, self._interval_s
        beat = agent.report(now)
        agent.beat_at = now
        directive: Directive | None = None
        if not lost:
            beat.acks = acks
            reply = self.step(beat)
            if acks:
                beat.acks = ()
            if isinstance(reply, BeatReply):
                interval_s, directive = reply.interval_s, reply.directive
        if self.setup.beat_jitter_ratio > 0.0:
            interval_s *= 1.0 - self.setup.beat_jitter_ratio * self._rng.random()
        agent.beat_due = now + interval_s
        self.later(agent.beat_due, agent.wake)
        if directive is not None and directive.id:
            self._obey(agent, directive)

    def _told(self, ident: InstanceId) -> None:
        """agentd has something to tell an agent, and tells it over the session it has."""
        agent = self.agents.get(ident)
        if agent is None:
            return
        reply = self.step(NextDirective(ident))
        if isinstance(reply, BeatReply) and reply.directive.id:
            self._obey(agent, reply.directive)

    def _obey(self, agent: Agent, directive: Directive) -> None:
        if directive.kind is DirectiveKind.DRAIN:
            self._take_no_more(agent)
            agent.directive = directive.id
            if agent.in_flight == 0:
                self._finished(agent)
            else:
                self._beat(agent, (Acknowledgement(directive.id, Stage.ACCEPTED, done_follows=True),))
        elif directive.kind is DirectiveKind.RESUME:
            agent.draining, agent.directive = False, 0
            self.open.append(agent)
            self._fill(agent)
            self._beat(agent, (Acknowledgement(directive.id, Stage.ACCEPTED),))

    def _finished(self, agent: Agent) -> None:
        """It drains, and has nothing left."""
        if agent.stopping:
            self._gone(agent, forced=False)
        elif agent.directive:
            self._beat(agent, (Acknowledgement(agent.directive, Stage.DONE),))

    def _take_no_more(self, agent: Agent) -> None:
        agent.draining = True
        if agent in self.open:
            self.open.remove(agent)
        handed_over, agent.queue = agent.queue, deque()
        for number in handed_over:
            self.waiting -= 1
            self._arrive(number)

    def _queue_changed(self) -> None:
        if self._has_queue_collector:
            due = max(self.now, self._queue_told_at + CHANGE_INTERVAL_S)
            if due < self._queue_due:
                self._queue_due = due
                self.later(due, self._read_queue)

    def _read_queue(self) -> None:
        if self._queue_due == self.now:
            self._queue_told_at = self.now
            self._queue_due = self.now + QUEUE_INTERVAL_S
            self.later(self._queue_due, self._read_queue)
            self.step(Collected(self.pool.name, QUEUE, float(len(self.queue))))

    # -- the host -------------------------------------------------------------------------------

    def _boot(self) -> None:
        """agentd starts and finds the initial agents at work; they have been there since the trace began."""
        assert self.pool.ports is not None
        wall = self.setup.wall + self.now - TRACE_AT_S
        for number in range(self.setup.initial):
            ident = instance_id(self.pool.name, self.pool.ports.first + number)
            agent = self._agent(ident)
            agent.started_at = TRACE_AT_S
        self.step(Restored(rows={}, saved_at=self.now, saved_wall=wall, wall=wall))
        observed = tuple(Observed(agent.id, agent.beat.incarnation, 1) for agent in self.agents.values())
        self.step(InstancesListed(observed))
        for agent in list(self.agents.values()):
            self._ready(agent)
            # They have beaten for long, each at its own moment of the interval.
            agent.beat_due = self.now + self._interval_s * self._rng.random()
            self.later(agent.beat_due, agent.wake)
        self.step(Tick(wall=wall))
        self.later(TRACE_AT_S, partial(self._sample, (self.last_at - TRACE_AT_S) / (BUCKETS * SAMPLES_PER_BUCKET)))
        if self._has_queue_collector:
            self._queue_due = self.now
            self._read_queue()
        if self._steered is not None:
            self._steered.attach(self)

    def _agent(self, ident: InstanceId) -> Agent:
        self._incarnations += 1
        incarnation, slots = Incarnation(f"sim{self._incarnations}"), self.pool.concurrency
        agent = Agent(ident, incarnation, slots, self.now, tells_tasks=self.setup.tells_tasks)
        agent.wake = partial(self._wake, agent)
        self.agents[ident] = agent
        self.measure.came()
        return agent

    def _take(self, outcome: Outcome) -> None:
        """Carry out what a step asked for, after what is to be done now already."""
        for decision in outcome.decisions:
            if decision.direction is Direction.UP:
                self.measure.ups += 1
            elif decision.direction is Direction.DOWN:
                self.measure.downs += 1
            else:
                self.measure.held += 1
        for action in outcome.actions:
            if isinstance(action, Start):
                agent = self._agent(action.spec.id)
                if self.now <= self.last_at:
                    self.measure.starts += 1
                self.later(self.now, partial(self._started, agent))
                self.later(self.now + self.setup.startup_s, partial(self._ready, agent))
            elif isinstance(action, Stop):
                self.later(self.now, partial(self._stop, action.instance, action.grace_s))
        for ident in outcome.directed:
            self.later(self.now, partial(self._told, ident))

    def _started(self, agent: Agent) -> None:
        if not agent.gone:
            self.step(InstanceStarted(agent.id, agent.beat.incarnation, 1))

    def _ready(self, agent: Agent) -> None:
        if not agent.gone:
            agent.ready, agent.seen_at = True, self.now
            self.open.append(agent)
            self._fill(agent)
            self._beat(agent)

    def _stop(self, ident: InstanceId, grace_s: float) -> None:
        agent = self.agents.get(ident)
        if agent is None:
            return
        self._take_no_more(agent)
        agent.stopping = True
        if agent.in_flight == 0:
            self._gone(agent, forced=False)
        else:
            self.later(self.now + grace_s, partial(self._gone, agent, forced=True))

    def _gone(self, agent: Agent, *, forced: bool) -> None:
        if agent.gone:
            return
        agent.gone = True
        del self.agents[agent.id]
        self.measure.went(self._existed_s(agent))
        self.step(InstanceStopped(agent.id, forced))

    def _existed_s(self, agent: Agent) -> float:
        return max(0.0, min(self.now, self.last_at) - agent.started_at)

    def _close(self) -> None:
        for agent in self.agents.values():
            self.measure.went(self._existed_s(agent))

    def _sample(self, every_s: float) -> None:
        busy = sum(agent.in_flight for agent in self.agents.values())
        self.measure.samples.append((len(self.agents), len(self.open), busy, self.waiting))
        if self.on_progress is not None and len(self.measure.samples) % SAMPLES_PER_BUCKET == 0:
            self.on_progress(len(self.measure.samples) / (BUCKETS * SAMPLES_PER_BUCKET))
        if every_s > 0.0 and self.now + every_s < self.last_at:
            self.later(self.now + every_s, partial(self._sample, every_s))
