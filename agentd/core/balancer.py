"""How new work is shared between the endpoints of a pool, and who takes over the work of one that leaves.

Pure arithmetic on what the agents last reported. The weight of an endpoint is made of three things:

  capacity   concurrency / response time. By Little's law that is the tasks per second that it finishes when all its
             slots are busy: the rule of gRPC's weighted round robin (gRFC A58: qps / utilization, reported by ORCA),
             worked out from what a heartbeat carries. A slower agent gets less, in proportion.
  business   divided by 1 + utilization, where utilization is the load, or tasks per slot where that is more. Finagle's
             and Envoy's peak EWMA multiplies the cost by the tasks outstanding; reports are up to a heartbeat interval
             old, and the full force of that would send everybody to whoever was idle a moment ago. So an agent whose
             slots are full gets half of what it would get idle, one with as many waiting a third.
  bounds     the heaviest of a pool weighs 1, and no ready one less than `SHARE_MIN`: without work it would never
             report that it is fast again. What is late with its heartbeat, or whose event loop stands still, weighs
             that least; what drains weighs 0.

A response time counts from the heartbeat that brought it until a newer one comes, as long as its process and agentd
live: tasks that last longer than a heartbeat interval finish in some intervals only. One that is not known counts as
the pool's median (A58: the mean of the others' weights), an unknown load as none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from agentd.core.model import Incarnation, InstanceId, PoolName, State, Successor

SHARE_MIN = 0.05
# How far one agent's response time counts beside the pool's median, either way: one odd task is not a trend.
SPEED_RATIO_MAX = 8.0
SUCCESSORS_MAX = 16


class Endpoint(Struct, frozen=True):
    """Where an instance takes work. `state` is ready or draining. Numbers that it never sent are None.

    The response times are the last ones it sent, however long ago.
    """

    id: InstanceId
    pool: PoolName
    port: int
    incarnation: Incarnation
    state: State = State.READY
    late: bool = False  # its heartbeat is overdue, or its event loop stands still: it may not answer
    load: float | None = None
    queue_length: int | None = None
    in_flight: int | None = None
    concurrency: int = 1
    response_time_p50_s: float | None = None
    response_time_p95_s: float | None = None
    weight: float = 0.0
    node: str = ""  # with one node there is no name for it
    host: str = "127.0.0.1"  # what to connect to

    def is_alike(self, other: Endpoint) -> bool:
        """Whether the two differ in numbers at most: nobody has to know of that at once."""
        return (
            self.state is other.state
            and self.late == other.late
            and self.incarnation == other.incarnation
            and (self.node, self.host, self.port) == (other.node, other.host, other.port)
        )


def weigh(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """The endpoints of one pool with their weights, in the same order."""
    ready = [each for each in endpoints if each.state is State.READY and not each.late]
    times = sorted(time_s for each in ready if (time_s := _response_time_s(each)) is not None)
    # The median. The module statistics would be loaded before the first agent is started, and takes as long as that.
    usual_s = (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2 if times else 0.0
    merits = {each.id: _merit(each, usual_s) for each in ready}
    heaviest = max(merits.values(), default=1.0)
    return tuple(replace(each, weight=_weight(each, merits, heaviest)) for each in endpoints)


def successors(endpoints: Sequence[Endpoint], leaving: InstanceId) -> tuple[Successor, ...]:
    """Who takes over the work of `leaving`, one of these weighed endpoints of its pool: the heaviest first.

    The late are asked only where nobody else is left. Their weights sum to 1. At most `SUCCESSORS_MAX`; empty: there is
    nobody.
    """
    others = [each for each in endpoints if each.id != leaving and each.state is State.READY]
    chosen = [each for each in others if not each.late] or others
    chosen = sorted(chosen, key=lambda each: (-each.weight, each.port))[:SUCCESSORS_MAX]
    total = sum(each.weight for each in chosen)
    return tuple(Successor(each.id, each.port, each.weight / total) for each in chosen)


def _weight(endpoint: Endpoint, merits: Mapping[InstanceId, float], heaviest: float) -> float:
    if endpoint.state is not State.READY:
        return 0.0
    return max(SHARE_MIN, round(merits.get(endpoint.id, 0.0) / heaviest, 4))  # the late have no merit


def _merit(endpoint: Endpoint, usual_s: float) -> float:
    """The weight before its bounds, above 0. `usual_s`: the pool's median response time, 0 where nobody knows one."""
    slots = max(1, endpoint.concurrency)
    tasks = (endpoint.in_flight or 0) + (endpoint.queue_length or 0)
    utilization = max(endpoint.load or 0.0, tasks / slots)
    return slots * _speed(endpoint, usual_s) / (1.0 + utilization)


def _speed(endpoint: Endpoint, usual_s: float) -> float:
    """How many times as fast as the pool's median."""
    time_s = _response_time_s(endpoint)
    if time_s is None or time_s == usual_s:
        return 1.0
    if time_s * SPEED_RATIO_MAX <= usual_s:
        return SPEED_RATIO_MAX
    return max(1.0 / SPEED_RATIO_MAX, usual_s / time_s)


def _response_time_s(endpoint: Endpoint) -> float | None:
    """The median: unlike the 95th percentile it is not made by one long task."""
    if endpoint.response_time_p50_s is not None:
        return endpoint.response_time_p50_s
    return endpoint.response_time_p95_s
