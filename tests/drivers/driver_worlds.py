"""The hosts that the drivers' tests run on, behind one face: the scripted one and the real one."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import signal
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, Protocol

from agentd.core.model import (
    ExitCause,
    ExitKind,
    HealthCheck,
    Incarnation,
    InstanceId,
    InstanceSpec,
    Observed,
    PoolName,
    RestartPolicy,
    StartFailure,
    instance_id,
)
from agentd.drivers import DriverEvent
from agentd.drivers.memory import MemoryDriver, MemoryHost
from agentd.drivers.process import ProcessDriver
from agentd.drivers.process_table import ProcessTable, Remains, Row, read_stat
from agentd.drivers.systemd import SystemdDriver

POOL = PoolName("research")
RESTART = RestartPolicy(initial_s=0.01, max_s=0.02, healthy_s=60.0, attempts_max=3)
ID = instance_id(POOL, 9101)
FOREVER = ("sleep", "infinity")
PATIENCE_S = 20.0
NO_PROCESS_LEFT = OSError(errno.EAGAIN, "Resource temporarily unavailable")

AnyDriver = MemoryDriver | ProcessDriver | SystemdDriver
P = ParamSpec("P")


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own, in debug mode."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs), debug=True)

    return run


def spec(
    port: int = 9101,
    *,
    command: tuple[str, ...] = FOREVER,
    restart: RestartPolicy = RESTART,
    env: Mapping[str, str] | None = None,
) -> InstanceSpec:
    return InstanceSpec(
        id=instance_id(POOL, port),
        pool=POOL,
        port=port,
        core_name=None,
        command=command,
        env=tuple((env or {}).items()),
        concurrency=4,
        health=HealthCheck.NONE,
        restart=restart,
    )


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Wait for `condition`, looking every 5 ms."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        met = condition()
        if isinstance(met, Awaitable):
            met = await met
        if met:
            return
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        await asyncio.sleep(0.005)


class Reports(list[DriverEvent]):
    """What a driver has reported so far."""

    async def first(self, kind: type[DriverEvent], count: int = 1) -> DriverEvent:
        """The report number `count` of this kind, waited for."""
        await until(lambda: sum(isinstance(report, kind) for report in self) >= count, f"{kind.__name__} in {self}")
        return [report for report in self if isinstance(report, kind)][count - 1]


@asynccontextmanager
async def watching(driver: AnyDriver) -> AsyncIterator[Reports]:
    """Collect the reports of `driver`; whatever it raises is raised here. Closes it in the end."""
    reports = Reports()

    async def collect() -> None:
        async for report in driver.watch():
            reports.append(report)

    collecting = asyncio.create_task(collect())
    try:
        yield reports
    finally:
        await driver.close()
        await asyncio.wait_for(collecting, PATIENCE_S)


class World(Protocol):
    """`delays_s`: the waits before the restarts of an unhurried instance that ends again and again, until the driver
    gives up.
    `spawn_trouble`: what is told of `refuse_to_spawn`. `one_agentd`: the host has room for one driver at a time."""

    delays_s: tuple[float, ...]
    spawn_trouble: str
    one_agentd: bool

    def driver(self, state_id: str = "ours") -> AnyDriver: ...
    async def exit(self, observed: Observed) -> None: ...
    def crashing(self, port: int = 9101) -> InstanceSpec:
        """A specification whose processes exit with code 3 at once."""

    def unhurried(self, like: InstanceSpec) -> InstanceSpec:
        """`like`, not restarted before a driver has seen how it ended, even one that stands still for a moment."""

    def slow(self, port: int = 9101) -> InstanceSpec:
        """A specification whose restart nobody lives to see."""

    def brittle(self, port: int = 9101) -> InstanceSpec:
        """A specification that is given up after its first exit."""

    def take_port(self, port: int) -> None: ...
    def refuse_to_spawn(self, port: int, times: int) -> None:
        """Let the next `times` starts at `port` fail because the host has no process left to give."""

    def running(self, instance: InstanceId, state_id: str = "ours") -> int:
        """How many processes of `instance` there are on the host."""

    def clean_up(self) -> None: ...


class _ByTheSpecification:
    """Restarts follow the policy in the specification."""

    delays_s: tuple[float, ...] = (RESTART.delay_s(1, 0.0), RESTART.delay_s(2, 0.0))
    spawn_trouble = "Resource temporarily unavailable"
    one_agentd = False

    def unhurried(self, like: InstanceSpec) -> InstanceSpec:
        return like

    def slow(self, port: int = 9101) -> InstanceSpec:
        return spec(port, restart=RestartPolicy(initial_s=600.0, max_s=600.0))

    def brittle(self, port: int = 9101) -> InstanceSpec:
        return spec(port, restart=RestartPolicy(attempts_max=1))


class MemoryWorld(_ByTheSpecification):
    def __init__(self) -> None:
        self.host = MemoryHost()

    def driver(self, state_id: str = "ours") -> MemoryDriver:
        return MemoryDriver(self.host, state_id=state_id)

    async def exit(self, observed: Observed) -> None:
        self.host.exit(observed.id, ExitCause(ExitKind.SIGNAL, signal.SIGKILL))

    def crashing(self, port: int = 9101) -> InstanceSpec:
        self.host.crash_next_starts(instance_id(POOL, port), 100, ExitCause(ExitKind.EXIT, 3))
        return spec(port)

    def take_port(self, port: int) -> None:
        self.host.fail_next_start(instance_id(POOL, port), StartFailure.PORT_TAKEN, f"port {port} is held by a test")

    def refuse_to_spawn(self, port: int, times: int) -> None:
        for _ in range(times):
            self.host.fail_next_start(instance_id(POOL, port), StartFailure.SPAWN_FAILED, str(NO_PROCESS_LEFT))

    def running(self, instance: InstanceId, state_id: str = "ours") -> int:
        return int((state_id, instance) in self.host.processes)

    def clean_up(self) -> None:
        self.host.processes.clear()


class ProcessWorld(_ByTheSpecification):
    """Names of state directories are made unique, so that tests may run side by side."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self.taken: dict[int, str] = {}
        self.refused: dict[int, int] = {}
        self._run = uuid.uuid4().hex
        self._state_ids: set[str] = set()

    def state_id(self, name: str = "ours") -> str:
        self._state_ids.add(f"{name}-{self._run}")
        return f"{name}-{self._run}"

    def driver(self, state_id: str = "ours", fd_soft_limit: int | None = None) -> ProcessDriver:
        return ProcessDriver(
            state_id=self.state_id(state_id),
            agent_endpoint="unix:/run/test/agents.sock",
            log_dir=self.log_dir,
            port_probe=self._probe,
            sample_command=("sleep", "infinity"),
            chance=lambda: 0.0,
            fd_soft_limit=fd_soft_limit,
        )

    async def exit(self, observed: Observed) -> None:
        os.kill(observed.pid, signal.SIGKILL)

    def crashing(self, port: int = 9101) -> InstanceSpec:
        return spec(port, command=("sh", "-c", "exit 3"))

    def take_port(self, port: int) -> None:
        self.taken[port] = "a test"

    def refuse_to_spawn(self, port: int, times: int) -> None:
        self.refused[port] = times

    def _probe(self, port: int) -> str | None:
        if self.refused.get(port, 0):
            self.refused[port] -= 1
            raise NO_PROCESS_LEFT
        return self.taken.get(port)

    def rows(self, instance: InstanceId, state_id: str = "ours") -> list[Row]:
        """The living processes that carry the identity of `instance`."""
        snapshot = ProcessTable(self.state_id(state_id)).scan()
        incarnations = {owner.incarnation for owner in snapshot.leaders() if owner.instance == instance}
        return [row for incarnation in incarnations for row in snapshot.left_of(Remains(incarnation))]

    def running(self, instance: InstanceId, state_id: str = "ours") -> int:
        return len(self.rows(instance, state_id))

    def log(self, instance: InstanceId) -> str:
        path = self.log_dir / f"{instance}.log"
        return path.read_text() if path.exists() else ""

    def clean_up(self) -> None:
        """End every process that carries one of this world's state ids, and reap what was our child."""
        for state_id in self._state_ids:
            snapshot = ProcessTable(state_id).scan()
            for incarnation in {owner.incarnation for owner in snapshot.leaders()}:
                for row in snapshot.left_of(Remains(Incarnation(incarnation))):
                    with suppress(ProcessLookupError):
                        os.kill(row.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", textwrap.dedent(script))


async def started_up(world: ProcessWorld, marks: int = 1) -> list[str]:
    """The words after `up` in the agent's log, once it says so for the time number `marks`."""

    def ups() -> list[str]:
        return [line for line in world.log(ID).splitlines(keepends=True) if line.startswith("up") and line[-1] == "\n"]

    await until(lambda: len(ups()) >= marks, "the agent to be up")
    return ups()[marks - 1].split()[1:]


def gone(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is None or not stat.alive
