"""Resource limits: agentd's own, its children's, and what they allow in all.

Owns: RLIMIT_NOFILE of this process, and the words put before a child's command to give it another one. The limit is
lowered by a program of its own between fork and exec: `preexec_fn` is not safe beside gRPC's threads, and lowering
it from here after the exec would let the child see the high one first.
"""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import suppress

from agentd.drivers import Capacity

FDS_RESERVED = 256
"""Descriptors agentd needs for itself: sockets, database, logs, gRPC, /proc."""

FDS_PER_INSTANCE = 2
"""A pidfd, and the connection its agent holds to agentd."""


def raise_fd_limit() -> int:
    """Raise the soft limit on open files to the hard one; the soft limit that was in force before.

    Children should get the old one back: `select` breaks above 1024, and some programs close every number up to it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def settle_descriptors() -> int:
    """`raise_fd_limit`, and let agents inherit none of what agentd was handed.

    They outlive it, and would hold a lock or a pipe of whoever started it for as long.
    """
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that listed them
            if int(name) > 2:
                os.set_inheritable(int(name), False)
    return raise_fd_limit()


def with_fd_limit(soft: int | None) -> tuple[str, ...]:
    """The words that run the command after them with this soft limit; none where it is in force already.

    `prlimit` is preferred because a shell drops environment variables that are no shell names.
    """
    if soft is None or soft == resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        return ()
    prlimit = shutil.which("prlimit", path="/usr/bin:/bin")
    if prlimit is not None:
        return (prlimit, f"--nofile={soft}:", "--")
    return ("/bin/sh", "-c", 'ulimit -S -n "$0" && exec "$@"', str(soft))


def capacity() -> Capacity:
    """How many instances the limits of this process leave room for."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    bounds = []
    if files != resource.RLIM_INFINITY:
        room = max(0, files - FDS_RESERVED) // FDS_PER_INSTANCE
        bounds.append((room, f"open files: limit {files}, {FDS_PER_INSTANCE} per instance, {FDS_RESERVED} for agentd"))
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if processes != resource.RLIM_INFINITY and os.geteuid() != 0:  # the kernel does not hold root to it
        bounds.append((processes, f"processes of this user: limit {processes}, at least one per instance"))
    if not bounds:
        return Capacity(None, "no limit on open files or processes")
    return Capacity(*min(bounds))
