"""What the kernel tells in files: processes and pressure.

Owns the parsing of /proc that psutil leaves out or is too slow at for a thousand processes.
Every number is optional: kernels without pressure accounting, hidden processes and processes that end while they
are read are ordinary. Keeps no state.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

_STAT_BYTES_MAX = 4096


class Process(Struct, frozen=True):
    """One line of /proc/PID/stat. `ticks` is CPU time so far, `started_ticks` counts from boot."""

    pid: int
    name: str
    zombie: bool
    parent: int
    group: int
    session: int
    ticks: int
    started_ticks: int
    resident_bytes: int


def processes(proc: Path = PROC) -> dict[int, Process]:
    """All processes that can be seen, by pid."""
    found: dict[int, Process] = {}
    root = os.fspath(proc)
    for name in os.listdir(root):
        if name.isdigit():
            text = read(f"{root}/{name}/stat", _STAT_BYTES_MAX)
            process = _parse_stat(int(name), text) if text else None
            if process is not None:
                found[process.pid] = process
    return found


def private_bytes(pid: int, proc: Path = PROC) -> int:
    """Resident memory that is not shared with files or other programs; 0 for a process that is gone.

    It leaves out what 500 agents share (interpreter, libraries) and costs a twentieth of the exact figure.
    """
    fields = read(f"{os.fspath(proc)}/{pid}/statm", _STAT_BYTES_MAX).split()
    if len(fields) < 3:
        return 0
    return max(0, int(fields[1]) - int(fields[2])) * PAGE_BYTES


def pressure(resource: str, proc: Path = PROC) -> float | None:
    """`some avg10` of "cpu", "memory" or "io" in percent; None where the kernel does not account it."""
    return some_avg10(read(f"{os.fspath(proc)}/pressure/{resource}"))


def some_avg10(text: bytes) -> float | None:
    """`some avg10` of a pressure file, in percent."""
    for line in text.splitlines():
        kind, *pairs = line.split()
        if kind == b"some":
            values = dict(pair.split(b"=", 1) for pair in pairs)
            return float(values[b"avg10"]) if b"avg10" in values else None
    return None


def cpu_s(pid: int, proc: Path = PROC) -> float | None:
    """Processor time of a process and of the children that it has waited for; None where it cannot be seen."""
    text = read(f"{os.fspath(proc)}/{pid}/stat", _STAT_BYTES_MAX)
    fields = text[text.rfind(b")") + 2 :].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S if len(fields) >= 15 else None


def _parse_stat(pid: int, text: bytes) -> Process | None:
    # The name may hold spaces and parentheses; the last parenthesis ends it.
    end = text.rfind(b")")
    fields = text[end + 2 :].split()
    if end < 0 or len(fields) < 22:
        return None
    return Process(
        pid=pid,
        name=text[text.find(b"(") + 1 : end].decode(errors="replace"),
        zombie=fields[0] in (b"Z", b"X"),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        ticks=int(fields[11]) + int(fields[12]),
        started_ticks=int(fields[19]),
        resident_bytes=int(fields[21]) * PAGE_BYTES,
    )


def read(path: str, bytes_max: int | None = None) -> bytes:
    """A file of the kernel's; empty where it is not there (any more) or not for us to see.

    `bytes_max`: the file is known to be shorter, one read gets it all. Other files come in pieces of any length.
    """
    chunks: list[bytes] = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        while chunk := os.read(descriptor, bytes_max or 65_536):
            chunks.append(chunk)
            if bytes_max:
                break
    except OSError:  # it ended while it was read
        return b""
    finally:
        os.close(descriptor)
    return b"".join(chunks)
