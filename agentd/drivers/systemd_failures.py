"""Why a start through systemd failed, in words that say what to do.

Owns the translation of refused calls and failed runs into `StartError`. Asks systemd nothing; where a unit is masked,
its files tell how.
"""

from __future__ import annotations

import os
from pathlib import Path

from agentd.core.model import ExitKind, InstanceId, StartFailure
from agentd.drivers.systemd_bus import SYSTEMD, BusAway, BusError
from agentd.drivers.systemd_unit import SETUP_STATUS_MIN, Run
from agentd.errors import StartError
from agentd.units import TEMPLATE

POLKIT_RULE = "/usr/share/polkit-1/rules.d/60-agentd.rules"

# systemd's words for its exit statuses, from SETUP_STATUS_MIN.
_SETUP_NAMES = (
    *("CHDIR", "NICE", "FDS", "EXEC", "MEMORY", "LIMITS", "OOM_ADJUST", "SIGNAL_MASK", "STDIN", "STDOUT"),
    *("CHROOT", "IOPRIO", "TIMERSLACK", "SECUREBITS", "SETSCHEDULER", "CPUAFFINITY", "GROUP", "USER", "CAPABILITIES"),
    *("CGROUP", "SETSID", "CONFIRM", "STDERR", "", "PAM", "NETWORK", "NAMESPACE", "NO_NEW_PRIVILEGES", "SECCOMP"),
    *("SELINUX_CONTEXT", "PERSONALITY", "APPARMOR", "ADDRESS_FAMILIES", "RUNTIME_DIRECTORY", "", "CHOWN"),
    *("SMACK_PROCESS_LABEL", "KEYRING", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY"),
    *("CONFIGURATION_DIRECTORY", "NUMA_POLICY", "CREDENTIALS", "BPF"),
)
_DENIED = ("org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired")
_MISSING = (f"{SYSTEMD}.NoSuchUnit", f"{SYSTEMD}.LoadFailed", f"{SYSTEMD}.BadUnitSetting")
# Where `systemctl mask` puts a link, and what `systemctl unmask` needs to find it.
_MASKS = {"etc/systemd/system": "", "run/systemd/system": "--runtime "}
_JOB_ENDS = {
    "canceled": "somebody stopped it meanwhile",
    "dependency": "something that its unit needs could not be started",
}


def setup_text(status: int) -> str:
    """An exit status of systemd's own, with its word: `226/NAMESPACE`."""
    index = status - SETUP_STATUS_MIN
    name = _SETUP_NAMES[index] if 0 <= index < len(_SETUP_NAMES) else ""
    return f"{status}/{name}" if name else str(status)


def is_denied(error: BusError) -> bool:
    """We may not do that, or nobody is there who could say so."""
    return error.name in _DENIED or error.name.startswith("org.freedesktop.PolicyKit1.Error.")


def denial(error: BusError) -> str:
    """What to do about it."""
    return f"systemd does not let agentd ({error}); is polkit running, and is its rule {POLKIT_RULE} installed?"


def unmasking(unit: str, root: Path) -> str:
    """The command that lifts the mask of `unit`, or of its template, on the host whose file system begins at `root`."""
    for name in (unit, TEMPLATE):
        for place, option in _MASKS.items():
            mask = root / place / name
            if mask.is_symlink() and os.readlink(mask) == os.devnull:
                return f"systemctl unmask {option}{name}"
    return f"systemctl unmask {unit}"


def start_refused(instance: InstanceId, unit: str, error: BusError, root: Path) -> StartError:
    """Why systemd would not even try to start `unit`. `root`: where the host's file system begins."""
    failure, text = StartFailure.SPAWN_FAILED, str(error)
    if isinstance(error, BusAway):
        failure = StartFailure.DRIVER_AWAY
    elif is_denied(error):
        failure, text = StartFailure.DENIED, denial(error)
    elif error.name == f"{SYSTEMD}.UnitMasked":
        failure = StartFailure.UNIT_MISSING
        text = f"its unit is masked; `{unmasking(unit, root)}` lets it start again"
    elif error.name in _MISSING:
        failure = StartFailure.UNIT_MISSING
        text = f"{error} Is {TEMPLATE} installed as agentd's package has it? systemd-analyze verify {unit} tells"
    return StartError(failure, f"cannot start {instance}: {text}")


def start_failed(instance: InstanceId, unit: str, command: str, run: Run, job: str) -> StartError:
    """Why the run that systemd began came to nothing. `job`: how its job ended, "" where that is unknown."""
    failure, text = StartFailure.SPAWN_FAILED, f"systemd ended its start as {job or 'failed'} ({run.result})"
    cause = run.cause()
    if job in _JOB_ENDS:
        text = _JOB_ENDS[job]
    elif run.result == "start-limit-hit":
        failure, text = StartFailure.CRASH_LOOP, "it was started too often in a short time"
    elif run.result == "timeout":
        failure, text = StartFailure.TIMEOUT, "its program did not say in time that it is ready"
    elif run.result == "resources":
        text = not_begun(run.result)
    elif run.not_found:
        failure, text = StartFailure.COMMAND_NOT_FOUND, f"{command!r} is no program on the agent's PATH"
        if "/" in command:
            text = f"{command!r} is no program that the agent can see; its sandbox hides /home and /root"
    elif cause.kind is ExitKind.SETUP:
        failure, text = StartFailure.SETUP_FAILED, f"the host could not set it up: status {setup_text(run.status)}"
    elif run.pid:
        text = f"it ended before it was ready: {cause}"
    return StartError(failure, f"cannot start {instance}: {text}; {where_to_look(unit)}")


def not_begun(result: str) -> str:
    """What it means that a run came to no process."""
    return f"systemd could not prepare a process for it ({result})"


def where_to_look(unit: str) -> str:
    return f"see journalctl -u {unit}"
