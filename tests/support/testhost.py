"""Throw-away Linux hosts that run a real systemd: systemd-nspawn over an overlay whose upper layer is a tmpfs.

    host = Host()
    host.up(base)                       # the root of a clean Debian; it stays as it is
    host.out("systemctl", "is-system-running")
    host.down()

Owns what it boots. A host's processes are all in control groups of its own, its mounts in a private mount namespace,
its network (loopback alone) in a private network namespace; see host_supervisor.py for the process that holds them.
`down` kills the groups' processes and removes the groups: it works after any part was killed, and twice. A host whose
owner, the process that called `up`, ends without `down` goes down by itself. Nothing is written outside the host but
RUN/NAME, the console's log and the mount point.

Needs root, overlayfs and Debian's systemd-container: `unmet` says what is missing.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import host_cgroups
from host_cgroups import CgroupError

RUN = Path("/run/agentd-testhost")
SUPERVISOR = Path(__file__).with_name("host_supervisor.py")
NEEDED = ("systemd-nspawn", "unshare", "nsenter", "setpriv", "mount", "umount")
CAP_SYS_ADMIN = 21
# On a machine where everything is slow (scripts/test-v2), every deadline is this many times later.
PATIENCE = float(os.environ.get("AGENTD_TEST_PATIENCE", "1"))
BOOT_S = 90.0 * PATIENCE
COMMAND_S = 60.0 * PATIENCE
POLL_S = 0.02
# What a command in the host sees; nothing of this process's environment goes in.
ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
    "PAGER": "cat",
}

T = TypeVar("T")
Done = subprocess.CompletedProcess[str]
_numbers = itertools.count(1)


class HostError(Exception):
    """A host did not do what it was told; the text carries what it said."""


def unmet() -> list[str]:
    """Why hosts cannot run here; empty when they can."""
    if not sys.platform.startswith("linux"):
        return ["not Linux"]
    if os.geteuid() != 0:
        return ["not root"]
    why = []
    if not _capable(CAP_SYS_ADMIN):
        why.append("no CAP_SYS_ADMIN")
    if missing := [tool for tool in NEEDED if not shutil.which(tool)]:
        why.append(f"not installed: {' '.join(missing)} (apt-get install systemd-container)")
    if not _has_overlay():
        why.append("no overlayfs")
    roots = host_cgroups.roots()
    if not roots:
        why.append("no cgroup hierarchy")
    elif not all(os.access(root, os.W_OK) for root in roots):
        why.append("the cgroup hierarchy is read-only")
    return why


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 30) -> T:
    """Call `condition` until it gives something true, and return that.

    Raises:
        HostError: it did not in `timeout_s` times PATIENCE; the text has `what` and the last answer.
    """
    deadline = time.monotonic() + timeout_s * PATIENCE
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise HostError(f"not in {timeout_s:g} s: {what}; the last answer was {answer!r}")
        time.sleep(POLL_S)
    return answer


class Host:
    """One host. It has no network but its own loopback.

    Invariant: `_supervisor` is set from the beginning of `up` to the end of `down`.
    """

    def __init__(self) -> None:
        self.name = f"t{os.getpid()}-{next(_numbers)}"
        self.directory = RUN / self.name
        self._supervisor: subprocess.Popen[bytes] | None = None

    def up(self, *layers: Path, binds: Sequence[str] = (), size: str = "2G", timeout_s: float = BOOT_S) -> str:
        """Boot, and wait until start-up is over: "running" or "degraded".

        Args:
            layers: directories that make up the root, the uppermost first; none of them is ever written.
            binds: what else it sees, SOURCE[:TARGET[:ro]].
            size: of the writable layer, in memory.
            timeout_s: for the boot.

        Raises:
            HostError: it cannot run here, or did not boot in time. Nothing is left of it then.
        """
        if why := unmet():
            raise HostError("; ".join(why))
        if self._supervisor:
            raise HostError(f"{self.name} is up already")
        try:
            self._spawn(layers, binds, size)
            return self._wait_for_boot(time.monotonic() + timeout_s)
        except BaseException as trouble:
            console = self.console()[-2000:]
            self.down()
            if isinstance(trouble, HostError | CgroupError):
                raise HostError(f"{self.name}: {trouble}\n{console}".rstrip()) from None
            raise

    def down(self, graceful_s: float = 0) -> None:
        """Take it down and remove every trace.

        Args:
            graceful_s: how long an orderly power-off may take before the rest is killed; 0 kills at once.

        Raises:
            HostError: some of it does not go.
        """
        if graceful_s and (leader := host_cgroups.leader(self.name)):
            os.kill(leader, signal.SIGRTMIN + 4)  # systemd: start poweroff.target
            deadline = time.monotonic() + graceful_s
            while host_cgroups.leader(self.name) == leader and time.monotonic() < deadline:
                time.sleep(POLL_S)
        try:
            if self._supervisor:
                # Before the groups: a supervisor that lives could start something in them again.
                self._supervisor.kill()
                self._supervisor.wait()
            host_cgroups.remove(self.name)
        except CgroupError as trouble:
            raise HostError(str(trouble)) from None
        self._supervisor = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def reboot(self, timeout_s: float = BOOT_S) -> str:
        """Reboot in order, and wait as `up` does. The disk stays; PID 1 and the boot id change."""
        before = self.leader()
        self.exec("systemctl", "--no-block", "reboot")
        deadline = time.monotonic() + timeout_s
        wait_until(lambda: host_cgroups.leader(self.name) not in (before, None), f"{self.name} reboots", timeout_s)
        return self._wait_for_boot(deadline)

    def leader(self) -> int:
        """The host's PID 1 as a pid of this machine: look it up each time, a reboot changes it.

        `/proc/LEADER/root/...` leads to the host's files and sockets.

        Raises:
            HostError: the host is not up.
        """
        if leader := host_cgroups.leader(self.name):
            return leader
        raise HostError(f"{self.name} is not up\n{self.console()[-2000:]}".rstrip())

    def pids(self) -> set[int]:
        """Every process of the host, as pids of this machine; systemd-nspawn among them."""
        return host_cgroups.pids(self.name)

    def console(self) -> str:
        """What the host wrote on its console; empty before it is up and after it is down."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")
        except OSError:
            return ""

    def argv(self, *command: str, user: str = "", env: Mapping[str, str] | None = None) -> list[str]:
        """The command line of this machine that runs `command` in the host, for subprocess.Popen; see `exec`."""
        # --wdns, for --wd would keep a directory of this machine's root, and that is a way out of the host.
        enter = ["nsenter", f"--target={self.leader()}", "-m", "-u", "-i", "-n", "-p", "-C", "--wdns=/", "--"]
        pairs = [f"{name}={value}" for name, value in (ENV | dict(env or {})).items()]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"] if user else []
        return [*host_cgroups.joining(self.name, "outside"), *enter, "env", "-i", *pairs, *become, *command]

    def exec(
        self,
        *command: str,
        user: str = "",
        env: Mapping[str, str] | None = None,
        input: str = "",
        check: bool = True,
        timeout_s: float = COMMAND_S,
    ) -> Done:
        """Run a command in the host's namespaces, outside any unit and with this machine's capabilities.

        For looking and administering; what is under test runs as a unit (`run`).

        Raises:
            HostError: with `check`, it failed; the text has its output. Or it took longer than `timeout_s`.
        """
        argv = self.argv(*command, user=user, env=env)
        try:
            done = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise HostError(f"{' '.join(command)}: no end after {timeout_s:g} s") from None
        if check and done.returncode:
            raise HostError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
        return done

    def out(self, *command: str, user: str = "", check: bool = True, timeout_s: float = COMMAND_S) -> str:
        """What a command writes to its standard output, without the last line's end; otherwise as `exec`."""
        return self.exec(*command, user=user, check=check, timeout_s=timeout_s).stdout.strip()

    def run(self, *command: str, properties: Sequence[str] = (), check: bool = True) -> Done:
        """Run a command as a transient unit, with its cgroup, journal and limits, and wait for it; raises as `exec`."""
        settings = [f"--property={text}" for text in properties]
        return self.exec(
            "systemd-run", "--quiet", "--pipe", "--wait", "--collect", *settings, "--", *command, check=check
        )

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of root's in the host, and the directories above it."""
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.exec("sh", "-c", script, "sh", path, f"{mode:o}", input=text)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """`systemctl show` of a unit ("" for the manager): the named properties, or all."""
        wanted = [f"--property={','.join(properties)}"] if properties else []
        lines = self.out("systemctl", "show", *wanted, *([unit] if unit else [])).splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """The journal's entries that `journalctl ARGUMENTS` selects, oldest first; all that was logged is in it.

        A value is a string; a list of numbers where it is not text, a list of strings where the field came twice.
        """
        self.exec("journalctl", "--sync")
        # --all, for without it a field of more than 4 KiB is null.
        text = self.exec("journalctl", "--output=json", "--all", "--no-pager", *arguments).stdout
        return [json.loads(line) for line in text.splitlines()]

    def _spawn(self, layers: Sequence[Path], binds: Sequence[str], size: str) -> None:
        if missing := [str(layer) for layer in layers if not layer.is_dir()]:
            raise HostError(f"cannot boot from {', '.join(missing)}: no such directory")
        self.directory.mkdir(parents=True)
        host_cgroups.make(self.name)
        settings = {
            "name": self.name,
            "directory": str(self.directory),
            "layers": [str(layer) for layer in layers],
            "binds": list(binds),
            "size": size,
            "owner": os.getpid(),
        }
        with (self.directory / "console.log").open("wb") as log:
            self._supervisor = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", sys.executable, str(SUPERVISOR), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,  # a Ctrl-C is pytest's; it takes its hosts down itself
            )

    def _wait_for_boot(self, deadline: float) -> str:
        while (left := deadline - time.monotonic()) > 0:
            if self._supervisor is None or self._supervisor.poll() is not None:
                raise HostError("it ended while it booted")
            leader = host_cgroups.leader(self.name)
            if leader and os.path.exists(f"/proc/{leader}/root/run/systemd/private"):
                state = self.out("systemctl", "is-system-running", "--wait", check=False, timeout_s=left)
                if state in ("running", "degraded"):
                    return state
            time.sleep(POLL_S)
        raise HostError("it did not finish booting in time")


def _capable(number: int) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return bool(effective >> number & 1)


def _has_overlay() -> bool:
    def known() -> bool:
        return any(line.split()[-1] == "overlay" for line in Path("/proc/filesystems").read_text().splitlines())

    if not known() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
    return known()
