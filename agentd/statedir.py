"""The directories that one agentd owns: locks and the identity that its agents carry.

A lock on both the state and the runtime directory keeps a second agentd out: grpcio would take over the
sockets of a running one without a word. The identity is a random word that every agent has in its environment;
it is what makes an agent ours, also when the database is lost.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

from agentd.errors import StateDirError

LOCK = "lock"
IDENTITY = "identity"


def prepare(directory: Path, *, mode: int = 0o700) -> None:
    """Make `directory` where it is missing.

    What lies in it decides which processes agentd takes for its own: nobody else may have a hand in it.

    Raises:
        StateDirError: it cannot be made or written, belongs to somebody else, or others may write to it.
    """
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise StateDirError(f"cannot make {directory}: {error.strerror}") from None
    found = directory.stat()
    mode, user = found.st_mode & 0o7777, os.geteuid()
    if found.st_uid != user:
        text = f"{directory} belongs to uid {found.st_uid} (mode {mode:o}), and agentd runs as uid {user}"
        raise StateDirError(f"{text}; run it as that user, give it another --state-dir, or: chown {user} {directory}")
    if mode & 0o022:
        text = f"others may write to {directory} (mode {mode:o}, uid {found.st_uid})"
        raise StateDirError(f"{text}; make sure of what is in it, then: chmod go-w {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            raise StateDirError(f"cannot write to {directory}: its file system is read-only")
        raise StateDirError(f"cannot write to {directory} (mode {mode:o}, uid {found.st_uid})")


def lock(directory: Path) -> int:
    """Take the lock of `directory`; the descriptor holds it until it is closed or agentd ends.

    Raises:
        StateDirError: another agentd holds it.
    """
    path = directory / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirError(f"cannot open {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StateDirError(
            f"another agentd (pid {holder}) uses {directory}; stop it with `agentctl shutdown`, "
            "or give this one another --state-dir"
        ) from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def identity(directory: Path) -> str:
    """The identity of the state directory, made with the first call. The caller holds the lock.

    Raises:
        StateDirError: it cannot be written.
    """
    path = directory / IDENTITY
    try:
        if path.exists() and (known := path.read_text(encoding="ascii", errors="replace").strip()):
            return known
        fresh = uuid.uuid4().hex
        part = path.with_suffix(".new")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(f"{fresh}\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StateDirError(f"cannot write {path}: {error.strerror}") from None
    return fresh
