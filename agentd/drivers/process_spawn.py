"""Turns the specification of an instance into a running process.

Owns: the command, the environment, the log and the session that an agent is born with. Never watches it.

The child writes to its log file directly: a pipe would break with agentd and kill the agent on its next line. It
leads a session of its own, so that no signal meant for agentd's terminal reaches it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from agentd.core.model import Incarnation, InstanceSpec, StartFailure
from agentd.drivers.commands import command_words, identity
from agentd.drivers.process_limits import with_fd_limit
from agentd.errors import StartError

_OURS = frozenset(
    (
        "NOTIFY_SOCKET",
        "JOURNAL_STREAM",
        "INVOCATION_ID",
        "MANAGERPID",
        "MAINPID",
        "SYSTEMD_EXEC_PID",
        "CREDENTIALS_DIRECTORY",
        "FDSTORE",
    )
)
_OURS_PREFIXES = ("AGENTD_", "WATCHDOG_", "LISTEN_", "MEMORY_PRESSURE_")


class Spawned(Struct, frozen=True):
    pid: int
    incarnation: Incarnation


class Spawner(Struct, frozen=True):
    """What all instances of one agentd have in common.

    `environment` is what agents inherit; `fd_soft_limit` None leaves the limit on open files as it is.
    """

    state_id: str
    agent_endpoint: str
    log_dir: Path
    sample_command: tuple[str, ...]
    fd_soft_limit: int | None
    environment: Mapping[str, str]

    def spawn(self, spec: InstanceSpec) -> Spawned:
        """Start the process of `spec` as a new incarnation; it has been exec'ed when this returns (about 1 ms).

        Raises:
            StartError: COMMAND_NOT_FOUND or SPAWN_FAILED; there is no process.
        """
        incarnation = Incarnation(uuid.uuid4().hex)
        environment = self._environment(spec, incarnation)
        command = self._command(spec, environment)
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            log_fd = os.open(
                self.log_dir / f"{spec.id}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640
            )
            try:
                child = subprocess.Popen(
                    (*with_fd_limit(self.fd_soft_limit), *command),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log_fd,
                    stderr=log_fd,
                    start_new_session=True,
                    # Python's and gRPC's descriptors all close on exec; closing hundreds of pidfds one by one in
                    # each child would make the start of a fleet quadratic.
                    close_fds=False,
                )
            finally:
                os.close(log_fd)
        except OSError as error:
            raise StartError(StartFailure.SPAWN_FAILED, f"cannot start {spec.id}: {command[0]}: {error}") from error
        child.returncode = 0  # the driver reaps it through its pidfd; Popen shall not
        return Spawned(child.pid, incarnation)

    def _command(self, spec: InstanceSpec, environment: Mapping[str, str]) -> tuple[str, ...]:
        words = command_words(spec, self.sample_command)
        found = shutil.which(words[0], path=environment.get("PATH", os.defpath)) if words else None
        if found is None:
            name = repr(words[0]) if words else "an empty command"
            text = f"cannot start {spec.id}: {name} is no program on the agent's PATH"
            raise StartError(StartFailure.COMMAND_NOT_FOUND, text)
        return (found, *words[1:])

    def _environment(self, spec: InstanceSpec, incarnation: Incarnation) -> dict[str, str]:
        return {
            **self.environment,
            **dict(spec.env),
            **identity(spec, self.agent_endpoint),
            "AGENTD_INCARNATION": incarnation,
            "AGENTD_STATE_ID": self.state_id,
        }


def inheritable(environment: Mapping[str, str]) -> dict[str, str]:
    """What agents inherit of agentd's environment: all but what concerns agentd's own service."""
    return {
        name: value for name, value in environment.items() if name not in _OURS and not name.startswith(_OURS_PREFIXES)
    }
