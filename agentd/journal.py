"""The native protocol of systemd's journal: one entry is one datagram of fields.

Owns the socket to journald. Never blocks and never raises: what journald does not take at once is dropped and
counted, because a supervisor that waits for its log supervises nothing.

An entry is a sequence of fields, `NAME=value\\n`; a value with a newline is `NAME\\n`, its length as 64 bits little
endian, the value, `\\n`. An entry above the datagram limit travels as a sealed memory file instead.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping

SOCKET_PATH = "/run/systemd/journal/socket"
SEND_BUFFER_BYTES = 8 * 1024 * 1024  # what systemd's own clients ask for; the kernel caps it
NAME_MAX = 64

_NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_NOT_IN_NAME = re.compile(r"[^A-Z0-9_]")


def is_stream(environ: Mapping[str, str], descriptor: int) -> bool:
    """Whether `descriptor` is the connection to the journal that JOURNAL_STREAM speaks of.

    The variable alone proves nothing: it is inherited by programs whose output was redirected since.
    """
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def field_name(key: str, prefix: str = "") -> str:
    """`key` as a field name that journald keeps: upper case, digits, underscore, no leading underscore."""
    name = (prefix + _NOT_IN_NAME.sub("_", key.upper())).lstrip("_0123456789")[:NAME_MAX]
    return name or "FIELD"


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """One entry. A name may come more than once; names must be as `field_name` makes them."""
    parts: list[bytes] = []
    for name, text in fields:
        assert _NAME.match(name) and len(name) <= NAME_MAX, name
        value = text.encode("utf-8", "backslashreplace")
        if b"\n" in value:
            parts += (name.encode(), b"\n", struct.pack("<Q", len(value)), value, b"\n")
        else:
            parts += (name.encode(), b"=", value, b"\n")
    return b"".join(parts)


class Journal:
    """A connectionless way to journald: it may come and go, each entry finds the one that runs."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.dropped = 0  # entries that journald did not take, ever

    def send(self, fields: Iterable[tuple[str, str]]) -> bool:
        """Hand over one entry; False when it was dropped (journald is away, or slower than we are)."""
        entry = encode(fields)
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and self._send_file(entry):
                return True
            self.dropped += 1
            return False
        return True

    def close(self) -> None:
        self._socket.close()

    def _send_file(self, entry: bytes) -> bool:
        try:
            descriptor = os.memfd_create("agentd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return False
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(entry)
            # journald maps the file only if nobody can change it under its hands any more.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([], [rights], 0, self._path)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True
