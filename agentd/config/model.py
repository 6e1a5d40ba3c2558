"""What a configuration file says, as frozen values: the fleet for the core, and the rest for the daemon.

The pools and the rules they share are `core.model.FleetConfig`; this module adds what only the shell around the
core needs. It reads nothing and decides nothing.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from agentd.core.model import FleetConfig

# `auto` is the best one for the host; with one to choose from, that is `process`.
DRIVERS = ("auto", "systemd", "process")
RECORDS = ("decisions", "full")
# A recording below that would be a few segments of a large fleet.
RECORD_BYTES_MIN = 4 * 1024 * 1024


class Listen(Struct, frozen=True):
    """Where agentd serves. None: the daemon's default for the place it runs in.

    `control` is `unix:/path`, `agents` that or a loopback `host:port`, `http` a loopback `host:port`. Port 0, for
    `http` alone, takes a free one. Paths are absolute and fit a socket address.
    """

    agents: str | None = None
    control: str | None = None
    http: str | None = None


class WatchSpec(Struct, frozen=True):
    """A program shown beside the host's figures, by process name or by systemd unit.

    Invariant: exactly one of `process` and `unit` is set.
    """

    name: str
    process: str | None = None
    unit: str | None = None


class History(Struct, frozen=True):
    """How much the store keeps; the oldest goes first.

    `record` is one of RECORDS: the decisions alone, or besides, in files of their own, all that reaches the controller.
    """

    events_max: int = 100_000
    decisions_max: int = 20_000
    metrics_days: float = 14.0
    record: str = "decisions"
    record_bytes_max: int = 256 * 1024 * 1024
    record_days: float = 7.0


class Config(Struct, frozen=True):
    """A whole configuration, valid in itself.

    `driver` is one of DRIVERS. `operators` are names of users who may change things over HTTP besides root and
    agentd's own user. `warnings` are lines for people, each with its position. `source` is the file it came from,
    `dropins` what lies over that, in the order in which they count.
    """

    fleet: FleetConfig
    driver: str = "auto"
    listen: Listen = Listen()
    state_dir: Path | None = None
    watch: tuple[WatchSpec, ...] = ()
    history: History = History()
    operators: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    source: Path | None = None
    dropins: tuple[Path, ...] = ()
