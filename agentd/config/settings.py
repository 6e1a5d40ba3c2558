"""The sections beside the pools: host reserves, the driver, addresses, watched programs, history, operators.

Owns their keys, defaults and bounds. Resolves nothing on the host: user names, paths and addresses are checked for
their form alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from agentd.config.model import RECORD_BYTES_MIN, RECORDS, History, Listen, WatchSpec
from agentd.config.nodes import Section, Value
from agentd.config.readers import choice, number, optional, or_else, or_off, size, text, whole
from agentd.core.model import HostReserve

HOST_KEYS = ("reserve", "starting_max")
RESERVE_KEYS = ("memory", "memory_ratio", "disk", "cpu_ratio", "memory_pressure_percent", "io_pressure_percent")
LISTEN_KEYS = ("agents", "control", "http")
WATCH_KEYS = ("name", "process", "unit")
HISTORY_KEYS = ("events_max", "decisions_max", "metrics_days", "record", "record_max", "record_days")

HTTP_PORT_DEFAULT = 8766
# A socket address holds 108 bytes with the closing NUL.
UNIX_PATH_BYTES_MAX = 107
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})\Z")
_LOOPBACK = re.compile(r"localhost\Z|\[::1\]\Z|127(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}\Z")
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,254}\$?\Z")
_LABEL = re.compile(r"[^\s/\x00-\x1f][^/\x00-\x1f]{0,63}\Z")


def read_reserve(host: Section) -> HostReserve:
    reserve = host.subsection("reserve", RESERVE_KEYS)
    base = HostReserve()
    percent = or_off(number(0, 100, "percent"))
    ratio = number(0, 0.95)
    return HostReserve(
        memory_bytes=reserve.read("memory", base.memory_bytes, or_else(0, size)),
        memory_ratio=reserve.read("memory_ratio", base.memory_ratio, or_else(0.0, ratio)),
        disk_bytes=reserve.read("disk", base.disk_bytes, or_else(0, size)),
        cpu_ratio=reserve.read("cpu_ratio", base.cpu_ratio, or_off(ratio)),
        memory_pressure_percent_max=reserve.read("memory_pressure_percent", base.memory_pressure_percent_max, percent),
        io_pressure_percent_max=reserve.read("io_pressure_percent", base.io_pressure_percent_max, percent),
    )


def read_listen(root: Section) -> Listen:
    section = root.subsection("listen", LISTEN_KEYS)
    listen = Listen(
        agents=section.read("agents", None, optional(_agents_address)),
        control=section.read("control", None, optional(_control_address)),
        http=section.read("http", None, optional(_http_address)),
    )
    place = section.place("control")
    if place is not None and listen.control is not None and listen.control == listen.agents:
        root.problems.error(place, f"listen.control must not be the same address as listen.agents: {listen.control}")
    return listen


def http_port(listen: Listen) -> int:
    return int(listen.http.rpartition(":")[2]) if listen.http else HTTP_PORT_DEFAULT


def read_watch(root: Section) -> tuple[WatchSpec, ...]:
    names: set[str] = set()

    def watched(value: Value) -> WatchSpec | None:
        if not value.is_mapping:
            name = _label(value)
            found = WatchSpec(name, process=name)
        else:
            entry = value.section(WATCH_KEYS)
            process = entry.read("process", None, _label)
            unit = entry.read("unit", None, _label)
            if not entry.sound(*WATCH_KEYS):
                return None
            if (process is None) == (unit is None):
                raise value.bad("must have either process or unit")
            found = WatchSpec(entry.read("name", process or unit or "", _label), process, unit)
        if found.name in names:
            raise value.bad(f"has the name of an earlier one: {found.name}")
        names.add(found.name)
        return found

    def listed(value: Value) -> tuple[WatchSpec, ...]:
        if value.is_null:
            return ()
        entries = [entry.attempt(None, watched) for entry in value.items("a list of programs")]
        return tuple(entry for entry in entries if entry is not None)

    return root.read("watch", (), listed)


def read_history(root: Section) -> History:
    section, base = root.subsection("history", HISTORY_KEYS), History()
    return History(
        events_max=section.read("events_max", base.events_max, whole(100, 10_000_000)),
        decisions_max=section.read("decisions_max", base.decisions_max, whole(100, 10_000_000)),
        metrics_days=section.read("metrics_days", base.metrics_days, number(0.01, 3650, "days")),
        record=section.read("record", base.record, choice(RECORDS)),
        record_bytes_max=section.read("record_max", base.record_bytes_max, _record_max),
        record_days=section.read("record_days", base.record_days, number(0.01, 3650, "days")),
    )


def _record_max(value: Value) -> int:
    found = size(value)
    if found < RECORD_BYTES_MIN:
        raise value.must(f"at least {RECORD_BYTES_MIN // 2**20}M")
    return found


def read_operators(root: Section) -> tuple[str, ...]:
    def operator(value: Value) -> str:
        name = text(value)
        if not _USER_NAME.match(name):
            raise value.must("the name of a user")
        return name

    def operators(value: Value) -> tuple[str, ...]:
        if value.is_null:
            return ()
        names = [entry.attempt("", operator) for entry in value.items("a list of user names")]
        return tuple(dict.fromkeys(name for name in names if name))

    return root.read("operators", (), operators)


def state_dir(value: Value) -> Path:
    """An absolute path; `~` is the home directory of whoever runs agentd."""
    try:
        path = Path(text(value)).expanduser()
    except RuntimeError as error:
        raise value.bad(f"cannot be found: {str(error).lower()}") from error
    if not path.is_absolute():
        raise value.must("an absolute path")
    return path


def _label(value: Value) -> str:
    found = text(value)
    if not _LABEL.match(found):
        raise value.must("a name of at most 64 characters without /")
    return found


def _agents_address(value: Value) -> str:
    address = text(value)
    if address.startswith("unix:"):
        return _unix_address(value, address)
    if int(_loopback_address(value, address).rpartition(":")[2]) == 0:
        raise value.bad("must name its port: agents that outlive agentd come back to the same one")
    return address


def _control_address(value: Value) -> str:
    address = text(value)
    if not address.startswith("unix:"):
        raise value.must("unix:/path (nobody is authenticated on TCP)")
    return _unix_address(value, address)


def _http_address(value: Value) -> str:
    return _loopback_address(value, text(value))


def _unix_address(value: Value, address: str) -> str:
    path = address.removeprefix("unix:")
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/") or path.startswith("//") or path.endswith("/"):
        raise value.must("unix: and the absolute path of a socket")
    length = len(path.encode())
    if length > UNIX_PATH_BYTES_MAX:
        raise value.bad(f"is too long for a socket address: {length} bytes, at most {UNIX_PATH_BYTES_MAX}")
    return f"unix:{path}"


def _loopback_address(value: Value, address: str) -> str:
    found = _HOST_PORT.match(address)
    if not found or int(found[2]) > 65535:
        raise value.must("host:port, for example 127.0.0.1:8766")
    if not _LOOPBACK.match(found[1]):
        raise value.must("on a loopback address such as 127.0.0.1, [::1] or localhost")
    return address
