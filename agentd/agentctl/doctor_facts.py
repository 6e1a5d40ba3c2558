"""What `agentctl doctor` knows of a host, as frozen values. None: a fact that cannot be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentd import units
from agentd.cgroups import Mode

# Of agentd's units, those that are up while it runs.
RUNNING_UNITS = (units.SERVICE, *units.SOCKETS, units.LIMITS_SERVICE, units.INSTANCES_MOUNT)
USERS = ("agentd", "agentd-limits")
GROUPS = ("agentd-agents", "agentd-operators", "systemd-journal")


@dataclass(frozen=True, slots=True)
class Systemd:
    """The systemd that runs.

    `unit_files`: of agentd's units that are installed, the state of each (enabled, static, masked, ...). `active`: of
    RUNNING_UNITS, the state. `instances_mount`: the options of what is mounted on units.INSTANCES_DIR; None: nothing.
    `polkit`: its version; None: not installed. `open_files`: LimitNOFILE of agentd.service.
    """

    version: int | None
    unit_files: Mapping[str, str]
    active: Mapping[str, str]
    instances_mount: frozenset[str] | None
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
    """What the configuration asks of the host, or in `problems` why it cannot be used. `file` None: the defaults.

    `hidden`: this user may not read the file, so nothing is known of it. `limits`: some pool's agents have any.
    """

    file: Path | None
    problems: tuple[str, ...] = ()
    hidden: bool = False
    driver: str = "auto"
    core_ports: frozenset[int] = frozenset()
    pool_ports: frozenset[int] = frozenset()
    http_port: int | None = None
    agents_max: int = 0
    limits: bool = False
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
    of sandboxes that no pool has; `mistakes`: what systemd does not understand in the others.
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
    mistakes: tuple[str, ...] = ()
