"""Which processes agentd has started, in a file: for those whose environment says nothing any more.

A program may overwrite its environment to show a title, or begin anew with another. Its pid and the moment of its
start are then the only proof that it is ours. The environment stays the first one: it needs no file.
"""

from __future__ import annotations

import os
from pathlib import Path

from agentd import log
from agentd.core.model import Incarnation, InstanceId, parse_instance_id
from agentd.drivers.process_table import Owner, read_stat

_log = log.get("process")


class Births:
    """The starts that are remembered, by pid and start. `path` None: in memory alone.

    The file belongs to one boot of the machine; its lines are the boot, then `pid start_ticks instance incarnation`.
    """

    def __init__(self, path: Path | None = None, boot_id: str | None = None) -> None:
        self._path = path
        self._boot_id = boot_id or Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self._owners: dict[tuple[int, int], Owner] = {}
        if path is not None:
            self._load(path)
            self._write_anew(path)

    def note(self, owner: Owner, pid: int, start_ticks: int) -> None:
        """Remember that `pid` is of `owner`. A file that cannot be written is told; the environment still speaks."""
        self._owners[pid, start_ticks] = owner
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="ascii") as file:
                file.write(_line(pid, start_ticks, owner))
        except OSError as error:
            _log.warning("birth not noted", instance=owner.instance, cause=str(error))

    def owner(self, pid: int, start_ticks: int) -> Owner | None:
        """Whose process this is, where it was noted."""
        return self._owners.get((pid, start_ticks))

    def _load(self, path: Path) -> None:
        try:
            boot, *lines = path.read_text(encoding="ascii", errors="replace").splitlines() or [""]
        except FileNotFoundError:
            return
        if boot != self._boot_id:
            return  # of another boot: all of them are gone
        for line in lines:
            words = line.split()
            if len(words) != 4 or not (words[0].isdecimal() and words[1].isdecimal()):
                continue  # cut short when agentd was killed
            pid, start_ticks = int(words[0]), int(words[1])
            stat = read_stat(pid)
            if stat is None or stat.start_ticks != start_ticks:
                continue
            try:
                parse_instance_id(words[2])
            except ValueError:
                continue
            self._owners[pid, start_ticks] = Owner(InstanceId(words[2]), Incarnation(words[3]))

    def _write_anew(self, path: Path) -> None:
        """Leave out those that have ended, so that the file does not grow from run to run."""
        part = path.with_suffix(".new")
        try:
            with part.open("w", encoding="ascii") as file:
                file.write(f"{self._boot_id}\n")
                file.writelines(_line(*key, owner) for key, owner in self._owners.items())
            os.replace(part, path)
        except OSError as error:
            _log.warning("births not written", path=str(path), cause=str(error))


def _line(pid: int, start_ticks: int, owner: Owner) -> str:
    return f"{pid} {start_ticks} {owner.instance} {owner.incarnation}\n"
