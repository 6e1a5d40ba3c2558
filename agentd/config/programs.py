"""Whether the programs that pools name are there: the one check that looks at the host, so `load` makes it.

Only warns. Agents may see other files than who reads the configuration, may have another PATH by a drop-in of their
unit, and a program may be installed later. What this user may not look at, and paths from a working directory that is
not ours, are not judged.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import PurePath

from agentd.config.nodes import Problems
from agentd.config.pools import Draft

# What systemd gives to units, whatever PATH the reader has.
_UNITS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"


def warn_about_programs(drafts: Sequence[Draft], path: str, problems: Problems) -> None:
    """A command whose program is not there starts nothing. `path` is the reader's PATH, which child processes get."""
    for draft in drafts:
        place, command = draft.section.place("command"), draft.pool.command
        if place is None or not command or "{" in command[0]:
            continue
        own = dict(draft.pool.env).get("PATH")
        text = _missing(command[0], f"{path}:{_UNITS_PATH}" if own is None else own)
        if text:
            problems.warn(place, f"{draft.section.name}.command: {text}")


def _missing(program: str, path: str) -> str:
    """What to say of `program`; "" where it is there, or cannot be judged."""
    if "/" in program:
        there = not PurePath(program).is_absolute() or _may_be_file(program)
        return "" if there else f"there is no program {program!r}"
    if any(_may_be_file(os.path.join(directory, program)) for directory in path.split(":")):
        return ""
    return f"there is no program {program!r} on PATH={path}"


def _may_be_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True  # not for this user to see
