"""How `agentctl doctor` looks at a host.

Reads files, asks systemctl and pkaction, and a running agentd. It changes nothing, starts nothing, and judges
nothing: that is `doctor_checks`.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from agentd import units
from agentd.agentctl.command import Session
from agentd.agentctl.doctor_facts import (
    GROUPS,
    RUNNING_UNITS,
    USERS,
    Daemon,
    Facts,
    Holder,
    Kernel,
    Ports,
    Settings,
    State,
    Systemd,
)
from agentd.cgroups import Cgroups
from agentd.sdk import address

if TYPE_CHECKING:
    from agentd.config import Config

CONFIG_DEFAULT = Path("/etc/agentd/agentd.yaml")
STATE_DEFAULT = Path("/var/lib/agentd")
CONTROL_DEFAULT = Path("/run/agentd/control.sock")
RULES = ("/etc/polkit-1/rules.d/60-agentd.rules", "/usr/share/polkit-1/rules.d/60-agentd.rules")
HTTP_PORT_DEFAULT = 8766
# A busy host is slow, and that is when it is looked at: what comes too late counts as not there.
COMMAND_S = 10.0
ASK_S = 5.0


def gather(session: Session, config_file: Path | None, own_version: str) -> Facts:
    """Look at this host. `config_file` None: the running agentd's, else the packaged one, else the defaults."""
    systemd = _systemd() if os.path.isdir("/run/systemd/system") else None
    answer = _ask(session, systemd)
    daemon = answer.daemon
    if config_file is None and daemon is not None and daemon.config_file:
        config_file = Path(daemon.config_file)
    elif config_file is None and daemon is None and CONFIG_DEFAULT.exists():
        config_file = CONFIG_DEFAULT
    settings, found = _settings(config_file)
    installed = systemd is not None and units.SERVICE in systemd.unit_files
    state_dir = found.state_dir if found is not None else None
    if daemon is not None:
        state_dir = Path(daemon.state_dir)
    elif state_dir is None:
        state_dir = STATE_DEFAULT if installed else address.state_dir_default(os.environ, os.geteuid())
    out_of_step, strangers, mistakes = _drop_ins(found) if installed and found is not None else ((), (), ())
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return Facts(
        user=_user_name(os.geteuid()),
        init=_text("/proc/1/comm") or "something else",
        systemd=systemd,
        kernel=_kernel(Cgroups()),
        settings=settings,
        ports=_ports(settings, daemon),
        state=_state(state_dir),
        open_files=None if open_files == resource.RLIM_INFINITY else open_files,
        own_version=own_version,
        control=answer.control,
        denied=answer.denied,
        no_answer=answer.no_answer,
        daemon=daemon,
        out_of_step=out_of_step,
        strangers=strangers,
        mistakes=mistakes,
    )


# -- systemd and the kernel -------------------------------------------------------------------------


def _systemd() -> Systemd:
    listed = _run("systemctl", "list-unit-files", "--no-legend", "--no-pager", "--plain", *units.FILES)
    shown = _run("systemctl", "show", "--property=Id,ActiveState,LimitNOFILE", *RUNNING_UNITS)
    active, open_files = parse_shown(shown)
    version = re.match(r"systemd (\d+)", _run("systemctl", "--version"))
    polkit = re.search(r"\d+(\.\d+)*", _run("pkaction", "--version"))
    return Systemd(
        version=int(version[1]) if version else None,
        unit_files={words[0]: words[1] for line in listed.splitlines() if len(words := line.split()) >= 2},
        active=active,
        instances_mount=parse_mounted(_text("/proc/self/mountinfo") or "", units.INSTANCES_DIR),
        bus=_is_answered("/run/dbus/system_bus_socket"),
        polkit=tuple(map(int, polkit[0].split("."))) if polkit else None,
        rule=_any_exists(RULES),
        journal=os.path.exists("/run/systemd/journal/socket") and shutil.which("journalctl") is not None,
        users=frozenset(name for name in USERS if _is_known(pwd.getpwnam, name)),
        groups=frozenset(name for name in GROUPS if _is_known(grp.getgrnam, name)),
        open_files=open_files,
    )


def parse_shown(text: str) -> tuple[dict[str, str], int | None]:
    """Of what `systemctl show` prints: each unit's state, and how many files the service may open."""
    active: dict[str, str] = {}
    open_files = None
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        active[values.get("Id", "")] = values.get("ActiveState", "")
        if values.get("Id") == units.SERVICE and values.get("LimitNOFILE", "").isdigit():
            open_files = int(values["LimitNOFILE"])
    active.pop("", None)
    return active, open_files


def parse_mounted(text: str, place: str) -> frozenset[str] | None:
    """The options of what is mounted on `place`, by the text of a mountinfo file; None where nothing is."""
    found = None
    for words in map(str.split, text.splitlines()):
        if words[4] == place:
            found = frozenset(words[5].split(","))  # of several the last one is on top
    return found


def _kernel(groups: Cgroups) -> Kernel:
    controllers, read_only = (
        frozenset("io" if name == "blkio" else name for name in names)
        for names in (groups.controllers, groups.read_only)
    )
    return Kernel(groups.mode, controllers, read_only, os.path.exists("/proc/pressure/memory"))


# -- agentd -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """As in Facts."""

    control: str | None = None
    denied: bool = False
    no_answer: str = ""
    daemon: Daemon | None = None


def _ask(session: Session, systemd: Systemd | None) -> _Answer:
    """Ask agentd, unless it is a service that does not run: to connect to its socket would start it."""
    if session.address is None and systemd is not None and units.SERVICE in systemd.unit_files:
        if systemd.active.get(units.SERVICE) not in ("active", "reloading"):
            return _Answer()
        found: str | None = f"unix:{CONTROL_DEFAULT}"
    else:
        found = session.address or address.find_control(os.environ, os.geteuid())
    if found is None:
        return _Answer()
    path = found.removeprefix("unix:")
    if path != found and os.path.exists(path) and not os.access(path, os.W_OK):
        return _Answer(path, denied=True)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines would mix with ours
    from agentd.sdk.control import ControlClient, ControlError, NoDaemonError

    try:
        with ControlClient(found, timeout_s=min(session.timeout_s, ASK_S)) as client:
            status = client.status()
    except NoDaemonError:
        return _Answer()
    except ControlError as error:
        return _Answer(path, no_answer=str(error))
    daemon = Daemon(
        version=status.version,
        driver=status.driver,
        agents=len(status.instances),
        ports=frozenset(one.endpoint.port for one in status.instances),
        degraded=tuple(status.degraded),
        config_file=status.config_file,
        state_dir=status.state_dir,
    )
    return _Answer(path, daemon=daemon)


def _settings(file: Path | None) -> tuple[Settings, Config | None]:
    """What the configuration asks of the host, and all of it where it has no errors."""
    from agentd import config
    from agentd.core.model import Resources
    from agentd.errors import ConfigError

    try:
        found = config.load(file) if file is not None else config.default()
    except ConfigError as error:
        hidden = isinstance(error.__cause__, PermissionError)
        return Settings(file, tuple(map(str, error.problems)), hidden), None
    core: set[int] = set()
    ranges: set[int] = set()
    for pool in found.fleet.pools.values():
        core.update(agent.port for agent in pool.core)
        ranges.update(range(pool.ports.first, pool.ports.last + 1) if pool.ports else ())
    http_port = int(found.listen.http.rpartition(":")[2]) if found.listen.http else HTTP_PORT_DEFAULT
    settings = Settings(
        file=file,
        driver=found.driver,
        core_ports=frozenset(core),
        pool_ports=frozenset(ranges),
        http_port=http_port or None,
        agents_max=sum(pool.max for pool in found.fleet.pools.values()),
        limits=any(pool.resources != Resources() for pool in found.fleet.pools.values()),
        disk_reserve_bytes=found.fleet.reserve.disk_bytes,
    )
    return settings, found


def _drop_ins(found: Config) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """As `Facts.out_of_step`, `Facts.strangers` and `Facts.mistakes`."""
    from agentd import dropins

    wanted, existing = dropins.wanted(found.fleet.pools.values()), dropins.existing()
    differing = {path for path in wanted.keys() | existing.keys() if wanted.get(path) != existing.get(path)}
    names = sorted({path.parts[0].removesuffix(".d") for path in differing})
    strangers = tuple(map(str, dropins.strangers(found.fleet.pools)))
    return tuple(names), strangers, dropins.mistakes(found.fleet.pools)


# -- the host ---------------------------------------------------------------------------------------


def _ports(settings: Settings, daemon: Daemon | None) -> Ports:
    listeners: dict[int, Holder] = {}
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.laddr:
            continue
        port: int = connection.laddr[1]
        if port in settings.ports or port == settings.http_port:
            ours = daemon is not None and (port in daemon.ports or port == settings.http_port)
            listeners[port] = _holder(connection.pid, ours)
    words = (_text("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    first, last = (int(words[0]), int(words[1])) if len(words) == 2 else (None, None)
    reserved = parse_ranges(_text("/proc/sys/net/ipv4/ip_local_reserved_ports") or "")
    return Ports(listeners, first, last, reserved)


def parse_ranges(text: str) -> frozenset[int]:
    """The ports in "8080,9101-9150"."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _holder(pid: int | None, ours: bool) -> Holder:
    if pid is None:
        return Holder(None, "", ours)
    try:
        process = psutil.Process(pid)
        return Holder(pid, process.name(), ours or "AGENTD_INSTANCE" in process.environ())
    except psutil.Error:
        return Holder(pid, "", ours)


def _state(path: Path) -> State:
    free_bytes = None
    for place in (path, *path.parents):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        free_bytes = found.f_bavail * found.f_frsize
        break
    packaged = path == STATE_DEFAULT
    try:
        status = path.stat()
    except OSError:
        return State(path, packaged, free_bytes)
    return State(path, packaged, free_bytes, _user_name(status.st_uid), stat.S_IMODE(status.st_mode))


# -- small tools ------------------------------------------------------------------------------------


def _run(*command: str) -> str:
    """Standard output of a command; empty where it is not there or does not end in time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            env=os.environ | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _is_answered(path: str) -> bool:
    """Whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(COMMAND_S)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _any_exists(paths: Iterable[str]) -> bool | None:
    """Whether one of them exists; None where this user may not know."""
    hidden = False
    for path in paths:
        try:
            os.stat(path)
        except FileNotFoundError:
            continue
        except OSError:
            hidden = True
        else:
            return True
    return None if hidden else False


def _is_known(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except KeyError:
        return False
    return True


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None
