"""Health probes from outside, for agents that send no heartbeat: HTTP and grpc.health.v1 on their port.

Owns the probes in flight. Only a success is reported: a failed probe is silence, and what silence means is the
core's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from urllib.parse import quote

from msgspec import Struct

from agentd import __version__, log
from agentd.core.messages import Probed
from agentd.core.model import HealthCheck, Incarnation, InstanceId

HOST = "127.0.0.1"
CONCURRENCY_MAX = 32
TIMEOUT_S = 2.0
STARTING_INTERVAL_S = 0.5
_STATUS_LINE_BYTES_MAX = 1024

_log = log.get("probes")


async def http(port: int, path: str, timeout_s: float) -> bool:
    """Whether GET `path` on `port` is answered with a status in 200..399 within `timeout_s` seconds."""
    request = (
        f"GET {quote(path or '/', safe='/?&=%+:@,;~!$()*')} HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
        f"User-Agent: agentd/{__version__}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(HOST, port, limit=_STATUS_LINE_BYTES_MAX)
            writer.write(request.encode("ascii"))
            line = await reader.readuntil(b"\r\n")
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()  # the rest of the answer is of no interest, nor is a polite end
    version, _, rest = line.partition(b" ")
    status = rest[:3]
    return version.startswith(b"HTTP/1.") and status.isdigit() and 200 <= int(status) < 400


async def grpc(port: int, timeout_s: float) -> bool:
    """Whether grpc.health.v1 on `port` calls the whole server ("") SERVING within `timeout_s` seconds."""
    # Most fleets never ask this way, and loading it delays the first start of every agent.
    from grpc import aio
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    # A connection of its own: a shared one would be in reconnect backoff just when the agent comes back.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with aio.insecure_channel(f"{HOST}:{port}", options=options) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            answer = await check(health_pb2.HealthCheckRequest(service=""), timeout=timeout_s)
        except aio.AioRpcError:
            return False
    # None stands for an answer that is no HealthCheckResponse.
    return answer is not None and bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class ProbeTarget(Struct, frozen=True):
    """An instance to be probed. `path` is for HTTP alone; one that is `starting` is asked more often."""

    instance: InstanceId
    incarnation: Incarnation
    port: int
    kind: HealthCheck
    path: str = "/"
    starting: bool = False


class Prober:
    """Probes every target once per interval, evenly spread over it, at most CONCURRENCY_MAX at a time.

    What is starting is probed every STARTING_INTERVAL_S, so that it is ready when it says so and not an interval later.

    `targets` is asked at the start of each interval; it may return instances that need no probe, they are left
    out. `report` is called with each success, on the loop. `interval_s` is asked again each time, so that a new
    configuration counts. When hung agents use up all slots, an interval takes longer.
    """

    def __init__(
        self,
        targets: Callable[[], Iterable[ProbeTarget]],
        report: Callable[[Probed], None],
        interval_s: Callable[[], float],
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._targets = targets
        self._report = report
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(CONCURRENCY_MAX)
        self._probing: set[InstanceId] = set()
        self._odd: set[InstanceId] = set()  # whose probe broke, said once until one succeeds

    async def run(self) -> None:
        """Probe until cancelled; probes in flight are cancelled too."""
        async with asyncio.TaskGroup() as probes:
            for starting in (False, True):
                probes.create_task(self._rounds(probes, starting=starting))

    async def _rounds(self, probes: asyncio.TaskGroup, *, starting: bool) -> None:
        while True:
            interval_s = self._interval_s()
            await self._round(probes, min(interval_s, STARTING_INTERVAL_S) if starting else interval_s, starting)

    async def _round(self, probes: asyncio.TaskGroup, interval_s: float, starting: bool) -> None:
        started = asyncio.get_running_loop().time()
        probed = (HealthCheck.HTTP, HealthCheck.GRPC)
        due = sorted(
            (target for target in self._targets() if target.kind in probed and target.starting is starting),
            key=lambda one: one.instance,
        )
        for number, target in enumerate(due):
            await _sleep_until(started + interval_s * number / len(due))
            if target.instance not in self._probing:
                await self._slots.acquire()
                self._probing.add(target.instance)
                probes.create_task(self._probe(target))
        await _sleep_until(started + interval_s)

    async def _probe(self, target: ProbeTarget) -> None:
        try:
            if target.kind is HealthCheck.HTTP:
                healthy = await http(target.port, target.path, self._timeout_s)
            else:
                healthy = await grpc(target.port, self._timeout_s)
        except Exception as error:  # whatever one agent answers, the probes of all others go on
            healthy = False
            if target.instance not in self._odd:
                self._odd.add(target.instance)
                _log.warning("probe failed", instance=target.instance, cause=repr(error))
        finally:
            self._probing.discard(target.instance)
            self._slots.release()
        if healthy:
            self._odd.discard(target.instance)
            self._report(Probed(target.instance, target.incarnation))


async def _sleep_until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
