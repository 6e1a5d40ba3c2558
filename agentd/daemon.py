"""The composition root: read the configuration, build the parts, run them, end them in order.

    agentd [--config FILE] [--state-dir DIR]

Owns the signals. SIGINT (a person at the terminal) drains and stops every agent first, a second one hurries;
SIGTERM (the service manager) ends agentd alone and the agents run on; SIGHUP reads the configuration again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import pwd
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agentd import __version__, activation, config, daemon_history, log, ports, statedir, units
from agentd.about import About
from agentd.cgroups import Cgroups
from agentd.clock import SystemClock
from agentd.collectors import HostCollector
from agentd.config import Config
from agentd.config.checks import NO_LIMITS
from agentd.core.messages import EventType, Probed, Record, Shutdown
from agentd.core.model import Resources, Running
from agentd.discovery import Discovery
from agentd.drivers import Driver
from agentd.drivers.process import ProcessDriver
from agentd.drivers.process_limits import settle_descriptors
from agentd.errors import AgentdError, ConfigError, Problem, Refused, StateDirError
from agentd.logfiles import LogFiles
from agentd.logfiles_journal import JournalLogs
from agentd.probes import Prober, ProbeTarget
from agentd.rpc import identity
from agentd.rpc.operations import Reloaded
from agentd.rpc.server import Inherited, Servers
from agentd.runtime import Runtime
from agentd.runtime_troubles import Troubles
from agentd.sdk import address
from agentd.service import ServiceManager, is_service, watchdog_s
from agentd.web import listener

if TYPE_CHECKING:
    from agentd.rpc.services import Services
    from agentd.web.server import HttpServer

HTTP_DEFAULT = "127.0.0.1:8766"
EX_CONFIG = 78
# Of a socket address; the kernel takes 107 bytes and a zero.
SOCKET_PATH_BYTES_MAX = 107
# Of the problems in a bad configuration that one event or refusal tells.
PROBLEMS_BYTES_MAX = 2_500
# How long the first starts of agents have the machine for themselves, before what serves others is loaded.
AGENTS_FIRST_S = 1.0

_log = log.get("daemon")


class Daemon:
    """One agentd, from the lock on its directories to its last word."""

    def __init__(self, configuration: Config, state_dir: Path) -> None:
        self._config = configuration
        self._state_dir = state_dir
        self._clock = SystemClock()
        self._built = False
        self._ending = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._manager = ServiceManager()
        self._runtime: Runtime
        self._discovery: Discovery
        self._about: About
        self._collector: HostCollector
        self._servers: Servers
        self._logs: LogFiles | JournalLogs
        self._http: socket.socket
        self._fd_soft_limit: int  # that agentd was started with

    async def run(self) -> None:
        """Run until asked to end. Errors of any part come out here."""
        async with contextlib.AsyncExitStack() as stack:
            self._catch_signals()
            await self._build(stack)
            self._built = True
            if self._ending.is_set():  # asked for while it began: nothing has been started
                return
            parts = asyncio.create_task(self._run_parts(), name="runtime")
            stack.push_async_callback(_cancelled, parts)
            await self._agents_first(parts)
            await self._serve(stack)
            self._manager.ready(self._status())
            if timeout_s := watchdog_s(os.environ):
                # Through a step, the store and the loop: what does not get that far is stuck.
                feeding = self._manager.feed_watchdog(timeout_s, self._runtime.settled, self._status)
                stack.push_async_callback(_cancelled, asyncio.create_task(feeding, name="watchdog"))
            await self._serve_http(stack)
            ended = asyncio.create_task(self._ending.wait())
            await asyncio.wait((parts, ended), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            self._manager.stopping()
            if parts.done():
                parts.result()
            await self._runtime.relist()  # agents that end together with agentd do not run on
            left = self._runtime.view().processes
            self._runtime.tell(Record(EventType.AGENTD_STOP, f"{left} agent{'s run' if left != 1 else ' runs'} on"))
            # While the loop still runs: cancelled between storing and telling it would keep its last words to itself.
            await self._runtime.settled()

    async def _run_parts(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._runtime.run())
            group.create_task(self._discovery.run())

    # -- Operations, for ControlService ---------------------------------------------------------

    async def reload(self, owner: str) -> Reloaded:
        """Read the configuration file again. A bad one changes nothing.

        Raises:
            Refused: NO_CONFIG_FILE, or CONFIG_INVALID with every problem.
        """
        source = self._config.source
        if source is None:
            raise Refused("NO_CONFIG_FILE", "agentd was started without a configuration file")
        self._manager.reloading()
        try:
            fresh = config.load(source)
        except ConfigError as error:
            shown = _shown(error.problems, source)
            many = "1 problem" if len(error.problems) == 1 else f"{len(error.problems)} problems"
            text = f"kept the old configuration, {many}: {' | '.join(shown)}"
            self._runtime.tell(Record(EventType.CONFIG_REJECTED, text, actor=owner))
            raise Refused("CONFIG_INVALID", "\n".join(shown), status="INVALID_ARGUMENT") from None
        finally:
            self._manager.reloaded()
        changes = tuple(config.describe_changes(self._config, fresh))
        self._config = fresh
        self._collector.watch(fresh.watch)
        self._about.operators = _uids(fresh.operators)
        await self._runtime.reconfigure(daemon_history.remembered(fresh.fleet, self._runtime.store))
        self._runtime.tell(Record(EventType.CONFIG, "; ".join(changes) or "nothing changed", actor=owner))
        return Reloaded(str(source), fresh.warnings, changes)

    def _status(self) -> str:
        """One line for `systemctl status`."""
        view = self._runtime.view()
        ready = sum(pool.ready for pool in view.pools)
        return f"{len(view.instances)} agents, {ready} ready"

    async def shutdown(self, *, keep_agents: bool, owner: str) -> int:
        """Begin to end; return how many processes are being stopped. Repeated: hurry. At the very end: nothing."""
        if self._ending.is_set():
            return 0
        stopping = 0 if keep_agents else self._runtime.view().processes
        if keep_agents:
            await self._runtime.submit(Shutdown(keep_agents=True, owner=owner))
            self._ending.set()
        elif self._stopping is None:
            self._stopping = asyncio.create_task(self._stop_agents(owner), name="stop agents")
        else:
            await self._runtime.hurry()
            await self._runtime.submit(Shutdown(keep_agents=False, owner=owner, hurry=True))
        return stopping

    async def _stop_agents(self, owner: str) -> None:
        try:
            await self._runtime.submit(Shutdown(keep_agents=False, owner=owner))
            await self._runtime.gone()
        finally:
            self._ending.set()

    # -- building -------------------------------------------------------------------------------

    async def _build(self, stack: contextlib.AsyncExitStack) -> None:
        self._fd_soft_limit = settle_descriptors()  # every agent that is connected takes some, whoever runs it
        runtime_dir = address.runtime_dir_default(os.environ, os.geteuid(), self._state_dir)
        for directory in (self._state_dir, runtime_dir):
            statedir.prepare(directory)
            stack.callback(os.close, statedir.lock(directory))
        listen = self._config.listen
        inherited = activation.take(os.environ, os.getpid())
        self._servers = servers = Servers(
            _place(inherited.get("agents", ()), listen.agents, runtime_dir / address.AGENTS_SOCKET),
            _place(inherited.get("control", ()), listen.control, runtime_dir / address.CONTROL_SOCKET),
        )
        host, _, port = (listen.http or HTTP_DEFAULT).rpartition(":")
        self._http = stack.enter_context(listener.listen(host.strip("[]"), int(port)))
        on_systemd = self._is_on_systemd()
        files = None if on_systemd else LogFiles(self._state_dir / "logs")  # units write to the journal
        self._logs = files or JournalLogs()
        at = servers.agents_address
        driver = _systemd_driver(at) if files is None else self._process_driver(at, files)
        stack.push_async_callback(driver.close)
        history, troubles = self._config.history, Troubles()
        store = daemon_history.open_store(history, self._state_dir, self._clock)
        stack.push_async_callback(store.close)
        epoch = store.load().epoch
        self._collector = HostCollector(
            self._state_dir, self._config.watch, cgroups=Cgroups() if on_systemd else None, own_cgroup=not on_systemd
        )
        controller = daemon_history.controller(
            self._config.fleet, history, store, self._state_dir, self._clock, troubles, stack
        )
        self._discovery = discovery = Discovery(controller.endpoints, self._clock, epoch)
        self._runtime = runtime = Runtime(
            controller,
            driver,
            store,
            self._clock,
            epoch=epoch,
            collector=self._collector,
            prober=self._prober,
            housekeeping=(lambda: self._tend_logs(files)) if files else None,
            on_change=discovery.stir,
            troubles=troubles,
        )
        stack.push_async_callback(runtime.flush)
        await runtime.start()
        stack.push_async_callback(servers.stop)
        self._about = About(
            version=__version__,
            driver=driver.name,
            state_dir=self._state_dir,
            config_file=self._config.source,
            http_address=listener.shown(self._http),
            agents_address=servers.agents_address,
            started=self._clock.now(),
            operators=_uids(self._config.operators),
        )
        self._say_started()

    async def _agents_first(self, parts: asyncio.Task[None]) -> None:
        """Wait for the first starts, a while: what serves people takes as long to load as many agents to start."""
        performed = asyncio.create_task(self._runtime.performed())
        await asyncio.wait((parts, performed), timeout=AGENTS_FIRST_S, return_when=asyncio.FIRST_COMPLETED)
        await _cancelled(performed)

    async def _serve(self, stack: contextlib.AsyncExitStack) -> None:
        """Serve agents and programs. Who has connected until now has waited."""
        await asyncio.to_thread(importlib.import_module, "agentd.rpc.services")
        services = self._services()
        stack.callback(self._discovery.close)
        stack.push_async_callback(services.close)
        await services.serve(self._servers)
        addresses = {"control": self._servers.control_address, "agents": self._servers.agents_address}
        _log.info("listening", **addresses, http=self._about.http_address)

    def _services(self) -> Services:
        # A quarter of all that agentd loads.
        from agentd.rpc.agents import AgentService
        from agentd.rpc.control import ControlService
        from agentd.rpc.discovery import DiscoveryService
        from agentd.rpc.services import Services

        runtime, servers = self._runtime, self._servers
        # Child processes have no units of their own, whatever socket they were given.
        agents_peer = servers.agents_peer if self._is_on_systemd() else identity.unverified
        return Services(
            AgentService(runtime, runtime.store.load().epoch, agents_peer),
            ControlService(runtime, self._about, self, self._logs, peer_of=servers.control_peer),
            DiscoveryService(self._discovery),
        )

    async def _serve_http(self, stack: contextlib.AsyncExitStack) -> None:
        """Serve people. Who has connected until now has waited in the listener's queue."""
        http = await asyncio.to_thread(_http_server, self._runtime, self._about, self._http)
        stack.push_async_callback(http.stop)
        await http.start()

    def _is_on_systemd(self) -> bool:
        """Whether agents are units. Under `auto` they are where agentd is one."""
        return is_service() if self._config.driver == "auto" else self._config.driver == "systemd"

    def _process_driver(self, agents_address: str, logs: LogFiles) -> Driver:
        limited = any(pool.resources != Resources() for pool in self._config.fleet.pools.values())
        if limited and self._config.driver == "auto":
            _log.warning("configuration", cause=f"resources have no effect: {NO_LIMITS}")
        return ProcessDriver(
            state_id=statedir.identity(self._state_dir),
            agent_endpoint=agents_address,
            log_dir=logs.directory,
            port_probe=ports.probe,
            sample_command=(sys.executable, "-m", "agentd.sample"),
            clock=self._clock,
            fd_soft_limit=self._fd_soft_limit,
            births=self._state_dir / "births",
        )

    def _prober(self, running: Callable[[], tuple[Running, ...]], take: Callable[[Probed], None]) -> Prober:
        def targets() -> list[ProbeTarget]:
            return [ProbeTarget(r.id, r.incarnation, r.port, r.kind, r.path, r.starting) for r in running()]

        return Prober(targets, take, lambda: self._runtime.config.heartbeat_interval_s)

    async def _tend_logs(self, logs: LogFiles) -> None:
        live = {running.id for running in self._runtime.view().instances}
        for instance in await asyncio.to_thread(logs.rotate):
            _log.info("log rotated", instance=instance)
        await asyncio.to_thread(logs.prune, live, self._clock.wall())

    def _say_started(self) -> None:
        moved = self._runtime.store.load().moved_aside
        if moved is not None:
            text = f"the state file was damaged; it is now {moved.name}, and the state was rebuilt from the host"
            self._runtime.tell(Record(EventType.STORE, text))
        for warning in self._config.warnings:
            _log.warning("configuration", cause=warning)
        fleet = self._config.fleet
        known = len(self._runtime.view().instances)
        text = f"agentd {__version__}, {known} agent{'s' if known != 1 else ''} known"
        if not fleet.enabled:
            text += "; multi_agent.enabled is false: nothing is started or stopped"
        self._runtime.tell(Record(EventType.AGENTD_START, text))

    # -- signals --------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        background: set[asyncio.Task[object]] = set()

        def then(make: Callable[[], object]) -> Callable[[], None]:
            def handle() -> None:
                task: asyncio.Task[object] = loop.create_task(make())  # type: ignore[arg-type]
                background.add(task)
                task.add_done_callback(background.discard)

            return handle

        loop.add_signal_handler(signal.SIGINT, then(self._interrupt))
        loop.add_signal_handler(signal.SIGTERM, then(self._terminate))
        loop.add_signal_handler(signal.SIGHUP, then(self._hang_up))

    async def _interrupt(self) -> None:
        if not self._built:
            self._ending.set()
            return
        count = await self.shutdown(keep_agents=False, owner="Ctrl-C")
        if count:
            _log.info("stopping agents; interrupt again to end their grace", count=count)

    async def _terminate(self) -> None:
        if not self._built:
            self._ending.set()
            return
        await self.shutdown(keep_agents=True, owner="SIGTERM")

    async def _hang_up(self) -> None:
        if self._built:  # otherwise the file was read a moment ago
            with contextlib.suppress(Refused):  # told as a record already
                await self.reload("SIGHUP")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _http_server(runtime: Runtime, about: About, listening: socket.socket) -> HttpServer:
    """Loads what nothing else here needs, a fifth of all that agentd loads."""
    from agentd.web.app import create_app
    from agentd.web.server import HttpServer

    return HttpServer(create_app(runtime, about), listening)


def _shown(problems: Sequence[Problem], source: Path) -> list[str]:
    """The first problems, as many as an event or a refusal can carry, and where to see the others."""
    lines: list[str] = []
    left = PROBLEMS_BYTES_MAX
    for problem in problems:
        left -= len(str(problem).encode()) + 1
        if left < 0 and lines:
            lines.append(f"and {len(problems) - len(lines)} more; agentctl config check {source} shows all")
            break
        lines.append(str(problem))
    return lines


def _systemd_driver(agents_address: str) -> Driver:
    try:
        from agentd.drivers.systemd import SystemdDriver
    except ModuleNotFoundError as error:
        text = f"the driver systemd needs {error.name}, which is not installed: pip install 'agentd[systemd]'"
        raise AgentdError(text) from error
    return SystemdDriver(
        agent_endpoint=agents_address,
        instances_dir=Path(units.INSTANCES_DIR),
        port_probe=ports.probe,
        sample_command=(sys.executable, "-m", "agentd.sample"),
    )


def _place(listeners: tuple[socket.socket, ...], configured: str | None, path: Path) -> str | Inherited:
    """Where a role is served: on what the service manager passed on, else as configured, else at `path`."""
    if not listeners:
        return configured or _socket(path)
    if configured:
        cause = f"listen: {configured} does not count, {listeners[0].getsockname()} was inherited"
        _log.warning("configuration", cause=cause)
    return Inherited(listeners, path)


def _socket(path: Path) -> str:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        text = f"{path} is longer than the {SOCKET_PATH_BYTES_MAX} bytes of a socket address"
        raise StateDirError(f"{text}; set listen: or use a shorter --state-dir")
    return f"unix:{path}"


def _uids(names: tuple[str, ...]) -> frozenset[int]:
    uids = set()
    for name in names:
        try:
            uids.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            _log.warning("configuration", cause=f"operators: there is no user {name!r}")
    return frozenset(uids)


def parser() -> argparse.ArgumentParser:
    """The command line of agentd."""
    made = argparse.ArgumentParser(
        prog="agentd",
        description="Keep a fleet of AI agents alive and the right size on this machine.",
        epilog="example: agentd --config agentd.yaml; in another terminal: agentctl status",
    )
    made.add_argument("--config", type=Path, metavar="FILE", help="configuration (without: built-in defaults)")
    made.add_argument("--state-dir", type=Path, metavar="DIR", help="where agentd keeps its state")
    made.add_argument("--log-level", choices=log.LEVELS, default="info", help="how much to log (info)")
    made.add_argument("--version", action="version", version=f"agentd {__version__}")
    return made


def main() -> None:
    """The entry point `agentd`. Exit status 78: the configuration or the state directory cannot be used."""
    options = parser().parse_args()
    log.setup(options.log_level)
    try:
        configuration = config.load(options.config) if options.config else config.default()
        chosen = options.state_dir or configuration.state_dir
        state_dir = chosen or address.state_dir_default(os.environ, os.geteuid())
        asyncio.run(_run(configuration, state_dir.absolute()))
    except (ConfigError, StateDirError) as error:
        print(f"agentd: {error}", file=sys.stderr)
        sys.exit(EX_CONFIG)
    except AgentdError as error:
        print(f"agentd: {error}", file=sys.stderr)
        sys.exit(1)


async def _run(configuration: Config, state_dir: Path) -> None:
    await Daemon(configuration, state_dir).run()
