#!/usr/bin/python3 -IS
"""Becomes the agent: takes the command that agentd wrote for an instance out of the environment, and runs it.

`agent@.service` starts this file for each instance, installed as /usr/lib/agentd/agentd-launch. It is paid for at
every start of every agent, so it knows the standard library alone, and little of that. It never stays: the program
takes its place, with the same process id, and whatever systemd sends goes to the program.

The environment holds AGENTD_LAUNCH, a JSON object with `command` (words), `env` (more environment for the program) and
`notify` (whether the program tells systemd itself when it is ready). The program does not see AGENTD_LAUNCH; it sees
AGENTD_INCARNATION, which is systemd's invocation id, and what `env` says except where agentd's own variables differ.

Exit status 127: there is no such program, or nothing says which. The template does not try that again.
Exit status 126: there is one, and the kernel does not run it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

NOT_FOUND = 127
NOT_RUN = 126

ORDER = "AGENTD_LAUNCH"
# Directories that the sandbox of agent@.service hides from agents.
_HIDDEN = ("/home/", "/root/", "/run/user/")


class LaunchError(Exception):
    """The program cannot be run. `status` is the exit status; the text, one line for the journal."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


def main() -> NoReturn:
    """Replace this process by the instance's program, or end with one line on standard error."""
    try:
        launch(os.environ)
    except LaunchError as error:
        print(f"agentd-launch: {error}", file=sys.stderr, flush=True)
        sys.exit(error.status)


def launch(given: Mapping[str, str]) -> NoReturn:
    """Run the program that the environment `given` names.

    Raises:
        LaunchError: it cannot be run. systemd may have been told READY=1, where the kernel refused it.
    """
    command, own, notifies = read_order(given.get(ORDER))
    environment = environment_for(given, own)
    try:
        program = find(command[0], environment.get("PATH", os.defpath))
    except LaunchError as error:
        raise LaunchError(error.status, f"{error}{_hint(command[0], given)}") from None
    if not notifies:
        say_ready(given.get("NOTIFY_SOCKET"))
    # Python ignores these two, and what is ignored stays so in the program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, command, environment)
    except OSError as error:
        # The kernel says "no such file" of a script whose interpreter is missing.
        missing = " (the interpreter in its first line?)" if isinstance(error, FileNotFoundError) else ""
        raise LaunchError(NOT_RUN, f"cannot run {program}: {error.strerror}{missing}{_hint(program, given)}") from error


def read_order(text: str | None) -> tuple[list[str], dict[str, str], bool]:
    """The command, the environment of its own and whether it notifies, as AGENTD_LAUNCH says.

    Raises:
        LaunchError: it is missing, or not what agentd writes.
    """
    if text is None:
        raise LaunchError(NOT_FOUND, f"{ORDER} is not set; agent@.service is started by agentd, not by hand")
    try:
        order = json.loads(text)
        command, own, notifies = order["command"], order["env"], order["notify"]
        words = [*command, *own, *own.values()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LaunchError(NOT_FOUND, f"cannot read {ORDER}: {error!r}") from error
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in words):
        raise LaunchError(NOT_FOUND, f"cannot read {ORDER}: it names no command of words")
    if any("\0" in word for word in words) or any("=" in name or not name for name in own):
        raise LaunchError(NOT_FOUND, f"cannot read {ORDER}: the kernel takes no such word or variable")
    return command, own, bool(notifies)


def environment_for(given: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The program's environment: systemd's, over that the pool's `own`, over that agentd's variables."""
    ours = {name: value for name, value in given.items() if name.startswith("AGENTD_") and name != ORDER}
    if "INVOCATION_ID" in given:
        ours["AGENTD_INCARNATION"] = given["INVOCATION_ID"]
    merged = {**given, **own, **ours}
    merged.pop(ORDER, None)
    return merged


def find(name: str, path: str) -> str:
    """The file that `name` means, looked up in the directories of `path` when it holds no slash.

    Raises:
        LaunchError: there is none, or none that may be executed.
    """
    candidates = [name] if "/" in name else [os.path.join(directory, name) for directory in path.split(":")]
    files = [candidate for candidate in candidates if os.path.isfile(candidate)]
    for candidate in files:
        if os.access(candidate, os.X_OK):
            return candidate
    if files:
        raise LaunchError(NOT_RUN, f"cannot run {files[0]}: this user may not execute it")
    where = "" if "/" in name else f" on PATH={path}"
    raise LaunchError(NOT_FOUND, f"cannot find {name!r}{where}")


def say_ready(address: str | None) -> None:
    """Tell systemd that the service is up. Nothing to do where systemd did not ask for it.

    Raises:
        LaunchError: systemd cannot be told, and would end the start with a timeout.
    """
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.sendto(b"READY=1", address)
    except OSError as error:
        raise LaunchError(NOT_RUN, f"cannot tell systemd at {address!r}: {error.strerror}") from error


def _hint(path: str, given: Mapping[str, str]) -> str:
    """What to do about a program that is there and cannot be seen, as the end of a line."""
    if not path.startswith(_HIDDEN):
        return ""
    pool = given.get("AGENTD_INSTANCE", "POOL-").rpartition("-")[0]
    where = f"/etc/agentd/sandbox/{pool}.conf"
    return f"; agents do not see /home and /root: install it below /opt or /srv, or allow it in {where}"


if __name__ == "__main__":
    main()
