"""Of which agent's unit a process is, by the kernel's word: the control group that systemd has put it into.

A process cannot leave its unit's control group by itself, and neither an agent's user nor a person's may make one at
the place where systemd makes those of agents. A user's own manager can: `agent@research-9101.service` below
user.slice. So a name proves nothing, only the whole path from systemd's root.

Reads /proc/PID/cgroup and keeps nothing but where systemd's root is.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from pathlib import Path

from msgspec import Struct

from agentd import units
from agentd.core.model import InstanceId

PROC = Path("/proc")

# The hierarchy in which systemd tells units apart: its own of version 1 (also on hybrid hosts), or version 2.
_HIERARCHIES = (b"name=systemd", b"")
_INIT = b"/init.scope"
_SO_PEERPIDFD = 77  # Linux 6.5; Python does not name it
_PIDFD = struct.Struct("i")


class Origin(Struct, frozen=True):
    """The units of the systemd whose root in `hierarchy` is the control group `root` ("" but in containers)."""

    hierarchy: bytes
    root: bytes
    proc: Path = PROC

    def instance_of(self, client: socket.socket, uid: int, pid: int) -> InstanceId | None:
        """The instance whose unit the process at the other end of `client` belongs to; None: of no agent's, or ended.

        `uid` and `pid` are those of the process when it connected. It may have ended since, and another may have its
        pid. From Linux 6.5 on the kernel tells; before, no process of another user is taken for it, and agents under
        systemd have a user each (DynamicUser=).

        Raises:
            OSError: short of descriptors or memory: nobody knows.
        """
        process = self.proc / str(pid)
        try:
            text = (process / "cgroup").read_bytes()
            owner = process.stat().st_uid  # of the directory itself it is the process's user, whatever it hides
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None
        found = self._instance(text)
        if found is None or owner != uid or _has_ended(client):
            return None
        return found

    def _instance(self, text: bytes) -> InstanceId | None:
        group = _group(text, self.hierarchy)
        if group is None or not group.startswith(self.root + b"/"):
            return None
        return units.instance_of_cgroup(group[len(self.root) + 1 :].decode(errors="replace"))


def find(proc: Path = PROC) -> Origin | None:
    """Where systemd's root is: around its own first scope. None: no systemd, or other users' processes are hidden."""
    try:
        text = (proc / "1" / "cgroup").read_bytes()
    except (FileNotFoundError, PermissionError):
        return None
    for hierarchy in _HIERARCHIES:
        group = _group(text, hierarchy)
        if group is not None and group.endswith(_INIT):
            return Origin(hierarchy, group.removesuffix(_INIT), proc)
    return None


def _group(text: bytes, hierarchy: bytes) -> bytes | None:
    """The control group in one hierarchy, of a file with lines of number:hierarchy:group."""
    for line in text.split(b"\n"):  # and at nothing else that ends lines: the kernel allows all but this in a name
        fields = line.split(b":", 2)
        if len(fields) == 3 and fields[1] == hierarchy:
            return fields[2]
    return None


def _has_ended(client: socket.socket) -> bool:
    """Whether the process that connected has; False also where the kernel does not tell.

    Raises:
        OSError: short of descriptors or memory.
    """
    try:
        (descriptor,) = _PIDFD.unpack(client.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _PIDFD.size))
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return False
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENODATA):  # ended, and nobody waits for it any more
            return True
        raise
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        return bool(ended.poll(0))
    finally:
        os.close(descriptor)
