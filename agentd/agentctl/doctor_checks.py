"""What `agentctl doctor` says: from facts to checks, each with what to do.

Pure: all it knows comes with the facts. A failure is something that agentd cannot run with as it is set up; a warning
is something that it runs without.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from agentd import units
from agentd.agentctl.doctor_facts import GROUPS, USERS, Facts, Kernel, Systemd
from agentd.agentctl.text import plural, size
from agentd.cgroups import V2, Mode

VERSION_MIN = 252
# What systemd has learned since, and agentd's units make use of where it is there.
FEATURES = ((254, "restart delays that grow"),)
POLKIT_MIN = (0, 106)  # before it rules were no JavaScript, and could not tell units apart
FREE_BYTES_MIN = 64 * 1024 * 1024
FILES_RESERVED, FILES_PER_AGENT = 256, 3
SHOWN_MAX = 5

_REINSTALL = "sudo apt install --reinstall agentd"
# By the state that systemctl list-unit-files tells: a mask under /run is not found without a word.
_UNMASKING = {"masked": "sudo systemctl unmask", "masked-runtime": "sudo systemctl unmask --runtime"}
_UP = ("active", "reloading")
_LAST_WORDS = f"journalctl -u {units.SERVICE} -n 30"


class Level(enum.StrEnum):
    """How good a check's answer is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what to do; `fix` is a command or a short sentence."""

    name: str
    level: Level
    text: str
    fix: str = ""
    group: str = ""


def checks(facts: Facts) -> list[Check]:
    """Everything, in the order in which to read it."""
    groups = {
        "systemd": _systemd(facts),
        "limits": _limits(facts),
        "host": _host(facts),
        "agentd": _agentd(facts),
    }
    return [replace(check, group=group) for group, found in groups.items() for check in found]


def _ok(name: str, text: str) -> Check:
    return Check(name, Level.OK, text)


def _warn(name: str, text: str, fix: str) -> Check:
    return Check(name, Level.WARN, text, fix)


def _fail(name: str, text: str, fix: str) -> Check:
    return Check(name, Level.FAIL, text, fix)


# -- systemd ----------------------------------------------------------------------------------------


def _systemd(facts: Facts) -> Iterator[Check]:
    found, driver = facts.systemd, facts.settings.driver
    children = "agents run as child processes of agentd, without limits of their own"
    if found is None:
        text = f"PID 1 is {facts.init}, not systemd"
        if driver == "systemd":
            yield _fail("init", f"{text}, and the configuration says driver: systemd", "set driver: auto")
        else:
            yield _ok("init", f"{text}: {children}")
        return
    yield _ok("init", "PID 1 is systemd")
    if driver == "process":
        yield _ok("driver", f"the configuration says driver: process: {children}")
        return
    yield _version(found.version)
    if not found.unit_files:
        worst = _fail if driver == "systemd" else _warn
        yield worst("units", f"agentd's units are not installed: {children}", "sudo apt install ./agentd_*.deb")
        return
    yield _units(found)
    yield _service(found)
    if found.active.get(units.SERVICE) in _UP:  # otherwise they are closed by design
        yield _setter(facts, found)
        yield _instances(found)
    yield _bus(found)
    yield _polkit(found)
    yield _journal(found)
    yield _accounts(found)
    yield from _drop_ins(facts)


def _version(version: int | None) -> Check:
    if version is None:
        return _fail("version", "systemctl does not tell its version", "sudo apt install --reinstall systemd")
    if version < VERSION_MIN:
        text = f"systemd {version}; agentd's units need {VERSION_MIN} or later"
        return _fail("version", text, "upgrade the distribution, or set driver: process")
    missing = [f"{what} ({since})" for since, what in FEATURES if version < since]
    later = f"; later versions add {', '.join(missing)}" if missing else ", with all that agentd makes use of"
    return _ok("version", f"systemd {version}{later}")


def _units(found: Systemd) -> Check:
    missing = [name for name in units.FILES if name not in found.unit_files]
    if missing:
        return _fail("units", f"not installed: {', '.join(missing)}", _REINSTALL)
    masked: list[str] = []
    commands: list[str] = []
    for state, command in _UNMASKING.items():
        names = [name for name in units.FILES if found.unit_files[name] == state]
        masked += names
        commands += [f"{command} {' '.join(names)}"] if names else []
    if masked:
        return _fail("units", f"masked: {', '.join(masked)}", " && ".join(commands))
    return _ok("units", "installed, none masked")


def _service(found: Systemd) -> Check:
    state = found.active.get(units.SERVICE, "unknown")
    if state == "failed":
        return _fail("service", f"{units.SERVICE} has failed", _LAST_WORDS)
    if state not in _UP:
        return _warn("service", f"{units.SERVICE} is {state}", "sudo systemctl start agentd")
    closed = [name for name in units.SOCKETS if name != units.LIMITS_SOCKET and found.active.get(name) != "active"]
    if closed:
        return _fail("service", f"not listening: {', '.join(closed)}", f"sudo systemctl restart {' '.join(closed)}")
    if found.unit_files.get(units.SERVICE) == "disabled":
        return _warn("service", f"{units.SERVICE} will not run after a reboot", "sudo systemctl enable agentd")
    return _ok("service", f"{units.SERVICE} is active, its sockets listen")


def _setter(facts: Facts, found: Systemd) -> Check:
    """agentd itself may not set limits: the service behind a socket of its own does."""
    socket, service = (found.active.get(name, "unknown") for name in (units.LIMITS_SOCKET, units.LIMITS_SERVICE))
    if socket != "active":
        worst = _fail if facts.settings.limits else _warn
        text = f"{units.LIMITS_SOCKET} is {socket}: agents that have limits cannot be started"
        return worst("setter", text, f"sudo systemctl restart {units.LIMITS_SOCKET}")
    if service == "failed":
        text = f"{units.LIMITS_SERVICE}, which sets agents' limits, has failed; it is started again when it is needed"
        return _warn("setter", text, f"journalctl -u {units.LIMITS_SERVICE} -n 30")
    return _ok("setter", f"{units.LIMITS_SOCKET} listens: agents' limits can be set")


def _instances(found: Systemd) -> Check:
    if found.instances_mount is None:
        state = found.active.get(units.INSTANCES_MOUNT, "unknown")
        text = f"{units.INSTANCES_MOUNT} is {state}: systemd, as root, would follow a link in {units.INSTANCES_DIR}"
        fix = f"journalctl -u {units.INSTANCES_MOUNT} -n 30" if state == "failed" else "sudo systemctl restart agentd"
        return _warn("instances", text, fix)
    if "nosymfollow" not in found.instances_mount:
        text = f"{units.INSTANCES_DIR} is mounted without nosymfollow: systemd, as root, would follow a link in it"
        return _warn("instances", text, f"sudo mount -o remount,nosymfollow {units.INSTANCES_DIR}")
    return _ok("instances", f"{units.INSTANCES_DIR} is mounted, and links in it lead nowhere")


def _bus(found: Systemd) -> Check:
    if found.bus:
        return _ok("d-bus", "the system bus answers")
    text = "the system bus does not answer: systemd cannot be asked to start agents"
    return _fail("d-bus", text, "sudo systemctl start dbus.socket")


def _polkit(found: Systemd) -> Check:
    refused = "systemd refuses to start agents for the user agentd"
    if found.polkit is None:
        return _fail("polkit", f"not installed: {refused}", "sudo apt install polkitd")
    if found.polkit < POLKIT_MIN:
        text = f"polkit {_dotted(found.polkit)} knows no rules about units; agentd needs {_dotted(POLKIT_MIN)} or later"
        return _fail("polkit", text, "upgrade the distribution, or set driver: process")
    version = f"polkit {_dotted(found.polkit)}"
    if found.rule is None:
        return _ok("polkit", f"{version}; only root may see whether it has agentd's rule")
    if not found.rule:
        return _fail("polkit", f"{version} has no rule for agentd: {refused}", _REINSTALL)
    return _ok("polkit", f"{version}, with agentd's rule")


def _journal(found: Systemd) -> Check:
    if found.journal:
        return _ok("journal", "journald runs, and keeps what agents write")
    text = "journald does not run, or there is no journalctl: what agents write is lost"
    return _fail("journal", text, "sudo systemctl start systemd-journald")


def _accounts(found: Systemd) -> Check:
    missing = [f"user {name}" for name in USERS if name not in found.users]
    missing += [f"group {name}" for name in GROUPS if name not in found.groups]
    if missing:
        return _fail("accounts", f"missing: {', '.join(missing)}", "sudo systemd-sysusers")
    return _ok("accounts", f"user {', '.join(USERS)}; groups {', '.join(GROUPS)}")


def _drop_ins(facts: Facts) -> Iterator[Check]:
    shown = ", ".join(facts.out_of_step[:SHOWN_MAX]) + (", ..." if len(facts.out_of_step) > SHOWN_MAX else "")
    if facts.out_of_step:
        text = f"not what the configuration says: {shown} ({plural(len(facts.out_of_step), 'unit')})"
        yield _warn("drop-ins", text, "sudo systemctl reload agentd")
    else:
        yield _ok("drop-ins", "exceptions from agents' sandbox are where the configuration has their pools")
    for path in facts.strangers:
        yield _warn(
            "sandbox", f"{path} has no effect: there is no such pool", f"name it after a pool, or: sudo rm {path}"
        )
    for mistake in facts.mistakes:
        yield _warn("sandbox", mistake, f"sudoedit {mistake.partition(':')[0]} && sudo systemctl reload agentd")


# -- limits -----------------------------------------------------------------------------------------


def _limits(facts: Facts) -> Iterator[Check]:
    if facts.systemd is not None:
        yield _mode(facts.kernel.mode)
        yield _controller(facts.kernel, "memory", "memory_max", "memory_high")
        yield _controller(facts.kernel, "cpu", "cpu_quota and cpu_weight")
        yield _controller(facts.kernel, "pids", "tasks_max")
        yield _controller(facts.kernel, "io", "io_weight")
    if facts.kernel.pressure:
        yield _ok("pressure", "the kernel tells how long work waits for memory, processors and disks")
    else:
        yield _warn("pressure", "no /proc/pressure: free memory alone tells when the host is short", "boot with psi=1")


def _mode(mode: Mode) -> Check:
    fix = "boot with systemd.unified_cgroup_hierarchy=1"
    if mode is Mode.V2:
        return _ok("cgroups", "version 2")
    if mode is Mode.NONE:
        return _warn("cgroups", "none: no limit is enforced, and what agents use is not known", fix)
    shown = "version 1 beside an empty version 2" if mode is Mode.HYBRID else "version 1"
    return _warn("cgroups", f"{shown}: systemd takes a kill for want of memory for any other", fix)


def _controller(kernel: Kernel, name: str, enforced: str, v2_alone: str = "") -> Check:
    if name not in kernel.controllers:
        fix = "boot with cgroup_enable=memory" if name == "memory" else f"boot a kernel that has {name}"
        return _warn(name, f"the kernel has no such controller: {enforced} cannot be enforced", fix)
    if name in kernel.read_only or (kernel.mode is Mode.V2 and V2 in kernel.read_only):
        place = "/sys/fs/cgroup" if kernel.mode is Mode.V2 else f"/sys/fs/cgroup/{name}"
        text = f"mounted read-only: systemd ignores {enforced} without a word"
        return _warn(name, text, f"sudo mount -o remount,rw,bind {place}")
    if v2_alone and kernel.mode is not Mode.V2:
        return _ok(name, f"{enforced} can be enforced; {v2_alone} cannot, it needs version 2")
    return _ok(name, f"{enforced} can be enforced")


# -- the host ---------------------------------------------------------------------------------------


def _host(facts: Facts) -> Iterator[Check]:
    yield _ports(facts)
    yield _local_ports(facts)
    yield _open_files(facts)
    yield _disk(facts)
    yield _state(facts)


def _ports(facts: Facts) -> Check:
    settings, listeners = facts.settings, facts.ports.listeners
    ours = settings.ports | ({settings.http_port} if settings.http_port is not None else set())
    foreign = [port for port in sorted(ours & listeners.keys()) if not listeners[port].ours]
    if not foreign:
        return _ok("ports", f"{plural(len(settings.ports), 'port')} for agents, none taken by others")
    if facts.daemon is None and all(listeners[port].pid is None for port in foreign):
        return _warn("ports", f"in use, by agents or by others: {_ranges(foreign)}", "sudo agentctl doctor")
    holders = [f"{port} by {listeners[port]}" for port in foreign[:SHOWN_MAX]]
    more = f" and {len(foreign) - SHOWN_MAX} more" if len(foreign) > SHOWN_MAX else ""
    text, fix = f"taken: {', '.join(holders)}{more}", "end what holds them, or choose other ports"
    if set(foreign) <= settings.pool_ports:
        return _warn("ports", f"{text}; agentd leaves them out", fix)
    return _fail("ports", text, fix)


def _local_ports(facts: Facts) -> Check:
    first, last = facts.ports.local_first, facts.ports.local_last
    if first is None or last is None:
        return _ok("local ports", "the kernel tells no range for outgoing connections")
    inside = {port for port in facts.settings.ports - facts.ports.reserved if first <= port <= last}
    if not inside:
        return _ok("local ports", f"outgoing connections take theirs from {first}-{last}, apart from agents'")
    text = f"outgoing connections take theirs from {first}-{last}, and so at times {_ranges(sorted(inside))}"
    reserved = _ranges(sorted(inside | facts.ports.reserved))
    return _warn("local ports", text, f"sudo sysctl -w net.ipv4.ip_local_reserved_ports={reserved}")


def _open_files(facts: Facts) -> Check:
    service = facts.systemd.open_files if facts.systemd is not None else None
    limit = facts.open_files if service is None else service
    needed = FILES_RESERVED + FILES_PER_AGENT * facts.settings.agents_max
    text = f"{plural(facts.settings.agents_max, 'agent')} at most, for which agentd needs {needed}"
    if limit is None:
        return _ok("open files", f"no limit; {text}")
    if limit >= needed:
        return _ok("open files", f"limit {limit}; {text}")
    fix = f"ulimit -n {needed}, as root" if service is None else f"sudo systemctl edit {units.SERVICE}: LimitNOFILE="
    return _warn("open files", f"limit {limit}; {text}", fix)


def _disk(facts: Facts) -> Check:
    path, free, reserve = facts.state.path, facts.state.free_bytes, facts.settings.disk_reserve_bytes
    if free is None:
        return _warn("disk", f"nobody tells how much space is left for {path}", "sudo agentctl doctor")
    text = f"{size(free)} left for {path}"
    if free < FREE_BYTES_MIN:
        return _fail("disk", f"{text}: agentd cannot keep its state", "make room there")
    if free < reserve:
        fix = "make room there, or lower host.reserve.disk"
        return _warn("disk", f"{text}, {size(reserve)} reserved: no agent is added", fix)
    return _ok("disk", text)


def _state(facts: Facts) -> Check:
    state = facts.state
    if state.owner is None or state.mode is None:
        return _ok("state", f"{state.path} is not there yet, or not for {facts.user} to see")
    packaged = facts.systemd is not None and units.SERVICE in facts.systemd.unit_files and facts.state.packaged
    wanted = USERS[0] if packaged else state.owner
    if state.owner != wanted:
        text = f"{state.path} belongs to {state.owner}, and agentd runs as {wanted}"
        return _fail("state", text, f"sudo chown -R {wanted}: {state.path}")
    if state.mode & 0o077:
        text = f"{state.path} has mode {state.mode:04o}: others may look into it"
        return _warn("state", text, f"sudo chmod 0700 {state.path}")
    return _ok("state", f"{state.path} belongs to {state.owner} alone")


# -- agentd -----------------------------------------------------------------------------------------


def _agentd(facts: Facts) -> Iterator[Check]:
    yield _configuration(facts)
    yield _control(facts)
    if facts.daemon is None:
        return
    if facts.daemon.version != facts.own_version:
        text = f"agentd {facts.daemon.version} runs, {facts.own_version} is installed"
        yield _warn("version", text, "sudo systemctl restart agentd")
    for trouble in facts.daemon.degraded:
        yield _warn("trouble", trouble, "agentctl events")


def _configuration(facts: Facts) -> Check:
    file, problems = facts.settings.file, facts.settings.problems
    if facts.settings.hidden:
        return _warn("configuration", problems[0], "sudo agentctl doctor")
    if problems:
        text = f"{plural(len(problems), 'error')}, the first: {problems[0]}"
        return _fail("configuration", text, f"agentctl config check {file}")
    return _ok("configuration", str(file) if file is not None else "no file: the defaults hold")


def _control(facts: Facts) -> Check:
    daemon = facts.daemon
    if facts.denied:
        text = f"{facts.user} may not use {facts.control}"
        return _warn("control", text, f"sudo usermod -aG agentd-operators {facts.user}, and log in again")
    if facts.no_answer:
        return _fail("control", f"agentd does not answer at {facts.control}: {facts.no_answer}", _LAST_WORDS)
    if daemon is None:
        return _warn("control", "no agentd is running", "sudo systemctl start agentd, or: agentd --config FILE")
    text = f"agentd {daemon.version} answers: driver {daemon.driver}, {plural(daemon.agents, 'agent')}"
    return _ok("control", text)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _ranges(ports: Iterable[int]) -> str:
    """Ascending ports as the kernel writes them: 9001-9006,9101."""
    parts = []
    for _, group in itertools.groupby(enumerate(ports), key=lambda pair: pair[1] - pair[0]):
        run = [port for _, port in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(parts)
