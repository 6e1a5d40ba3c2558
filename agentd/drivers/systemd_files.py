"""The file of each instance: what systemd hands to the launcher when it starts the instance's unit.

Owns the directory of these files, and the lock that keeps a second agentd from driving the same units. A unit whose
file is missing is not started: a file says that agentd wants the instance to be restarted when it ends.

systemd reads the file, not the agent, so it may hold secrets of the pool's environment: mode 0600.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentd.core.model import InstanceId, InstanceSpec, parse_instance_id
from agentd.drivers.commands import command_words, identity
from agentd.errors import AgentdError

_SUFFIX = ".env"


class InstanceFiles:
    """The files in `directory`. `sample_command` runs where a specification has no command."""

    def __init__(self, directory: Path, *, agent_endpoint: str, sample_command: tuple[str, ...]) -> None:
        self._directory = directory
        self._agent_endpoint = agent_endpoint
        self._sample_command = sample_command
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the directory, until `unlock` or the end of the process.

        Raises:
            AgentdError: it is not there, not ours, or another agentd has it.
        """
        try:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            text = f"cannot open {self._directory}: {error.strerror}; systemd-tmpfiles makes it from agentd's package"
            raise AgentdError(text) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            text = f"cannot lock {self._directory}: another agentd runs the agents of this host's systemd"
            raise AgentdError(text) from error
        self._lock = descriptor

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, spec: InstanceSpec) -> None:
        """Say what the next start of the instance runs. A file that says so already stays as it is.

        Raises:
            OSError: the file cannot be written, as its text says; the old one, if any, is intact.
        """
        path = self._path(spec.id)
        content = self._content(spec)
        with _telling(f"write {path}"):
            try:
                if path.read_bytes() == content:
                    return
            except FileNotFoundError:
                pass
            fresh = path.with_suffix(".new")
            try:
                with open(fresh, "wb", opener=_private) as file:
                    file.write(content)
                os.replace(fresh, path)
            except OSError:
                with suppress(OSError):  # what went wrong first is what is told
                    fresh.unlink()
                raise

    def remove(self, instance: InstanceId) -> None:
        """Let the instance not be started again.

        Raises:
            OSError: the file cannot be removed, as its text says.
        """
        path = self._path(instance)
        if os.path.lexists(path):  # where nothing can be written, not even what is not there can be removed
            with _telling(f"remove {path}"):
                path.unlink(missing_ok=True)

    def has(self, instance: InstanceId) -> bool:
        return self._path(instance).exists()

    def instances(self) -> list[InstanceId]:
        """The instances that have a file, in order."""
        return sorted(
            InstanceId(name.removesuffix(_SUFFIX))
            for name in os.listdir(self._directory)
            if name.endswith(_SUFFIX) and _is_instance(name.removesuffix(_SUFFIX))
        )

    def _path(self, instance: InstanceId) -> Path:
        return self._directory / f"{instance}{_SUFFIX}"

    def _content(self, spec: InstanceSpec) -> bytes:
        order = {
            "command": command_words(spec, self._sample_command),
            "env": dict(spec.env),
            "notify": spec.notify,
        }
        # ASCII without a single quote: within single quotes systemd takes every byte for itself.
        launch = json.dumps(order).replace("'", "\\u0027")
        variables = {**identity(spec, self._agent_endpoint), "AGENTD_LAUNCH": launch}
        return "".join(f"{name}='{value}'\n" for name, value in variables.items()).encode("ascii")


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Not every error of the host names the file, and none says what was to be done with it."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot {what}: {error.strerror}") from error


def _is_instance(text: str) -> bool:
    try:
        parse_instance_id(text)
    except ValueError:
        return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
