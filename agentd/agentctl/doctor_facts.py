"""What `agentctl doctor` knows of a host, as frozen values. None: a fact that cannot be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentd import units
from agentd.cgroups import Mode

SOCKET_UNITS = ("agentd.socket", "agentd-agents.socket")
UNIT_FILES = (units.SERVICE, units.TEMPLATE, *SOCKET_UNITS, units.TARGET, units.AGENTS_SLICE)
USERS = ("agentd",)
GROUPS = ("agentd-agents", "agentd-operators", "systemd-journal")


@dataclass(frozen=True, slots=True)
class Systemd:
    """The systemd that runs.

    `unit_files`: of UNIT_FILES that are installed, the state of each (enabled, static, masked, ...). `active`: of the
    service and its sockets, the state. `polkit`: its version; None: not installed. `open_files`: LimitNOFILE of
    agentd.service.
    """

    version: int | None
    unit_files: Mapping[str, str]
    active: Mapping[str, str]
    bus: bool
    polkit: tuple[int, ...] | None
    rule: bool | None
    journal: bool
    users: frozenset[str]
    groups: frozenset[str]
    open_files: int | None


@dataclass(frozen=True, slots=True)
class Kernel:
    """Control groups and pressure. `read_only`: what is mounted so that no limit can be set there."""

    mode: Mode
    controllers: frozenset[str]
    read_only: frozenset[str]
    pressure: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration asks of the host, or in `problems` why it cannot be used. `file` None: the defaults."""

    file: Path | None
    problems: tuple[str, ...] = ()
    driver: str = "auto"
    core_ports: frozenset[int] = frozenset()
    pool_ports: frozenset[int] = frozenset()
    http_port: int | None = None
    agents_max: int = 0
    disk_reserve_bytes: int = 0

    @property
    def ports(self) -> frozenset[int]:
        """All ports of agents."""
        return self.core_ports | self.pool_ports


@dataclass(frozen=True, slots=True)
class Holder:
    """Who listens on a port. `ours`: an agent, or agentd. `pid` None: not for this user to see."""

    pid: int | None
    name: str
    ours: bool

    def __str__(self) -> str:
        return "an unknown process" if self.pid is None else f"{self.name or 'a process'} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class Ports:
    """Who listens on ports of the configuration; where the kernel takes those of connections from, and not from."""

    listeners: Mapping[int, Holder]
    local_first: int | None
    local_last: int | None
    reserved: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class State:
    """The state directory. `free_bytes`: for ordinary users. `owner` None: it is not there, or hidden.

    `packaged`: it is the one that systemd makes for agentd.service.
    """

    path: Path
    packaged: bool
    free_bytes: int | None
    owner: str | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Daemon:
    """What a running agentd says of itself. `ports`: of its instances."""

    version: str
    driver: str
    agents: int
    ports: frozenset[int]
    degraded: tuple[str, ...]
    config_file: str
    state_dir: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about a host.

    `systemd` None: PID 1 is something else, called `init`. `open_files`: the hard limit of this process; None: no
    limit. `control`: the address of agentd's socket; `denied`: this user may not use it; `no_answer`: why agentd gave
    none. `out_of_step`: the units whose limits or sandbox are not what the configuration says; `strangers`: the files
    of sandboxes that no pool has.
    """

    user: str
    init: str
    systemd: Systemd | None
    kernel: Kernel
    settings: Settings
    ports: Ports
    state: State
    open_files: int | None
    own_version: str
    control: str | None = None
    denied: bool = False
    no_answer: str = ""
    daemon: Daemon | None = None
    out_of_step: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
