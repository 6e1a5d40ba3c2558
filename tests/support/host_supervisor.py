"""The process that holds one test host: it runs in the host's private mount namespace and is systemd-nspawn's parent.

`testhost.Host.up` starts it below `unshare --mount`, with its settings as one JSON word. It mounts the root, prepares
it, runs systemd-nspawn again for every reboot, and ends when the host powers off. When its owner ends first, it removes
the host: processes, groups and directory. The mounts go with the last process of the namespace, whatever happens.

The standard library and host_cgroups.py are all it needs.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import host_cgroups

REBOOT_STATUS = 133  # systemd-nspawn --keep-unit: the host asked for a reboot
# Units that want a terminal, a network or a mirror; a host has none of them.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "container-getty@.service",
    "getty@.service",
    "serial-getty@.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
)
# systemd-nspawn mounts v1 controllers read-only, and systemd then ignores limits in silence. Killed with -9 it leaves
# its container running, hence the death signal, here and at its own start.
INIT = """#!/bin/sh
for c in memory cpu cpuacct cpu,cpuacct pids blkio devices; do
    [ -e "/sys/fs/cgroup/$c/cgroup.procs" ] || continue
    mount -o remount,rw,bind "/sys/fs/cgroup/$c" || echo "test host: $c stays read-only"
done
exec setpriv --pdeathsig KILL /lib/systemd/systemd "$@"
"""


@dataclass(frozen=True)
class Settings:
    """What `Host.up` was asked for; see there. `owner` is the pid that the host ends with."""

    name: str
    directory: str
    layers: list[str]
    binds: list[str]
    size: str
    owner: int


def supervise(settings: Settings) -> None:
    """Hold the host until it powers off or its owner ends."""
    owner = os.pidfd_open(settings.owner)
    if os.getppid() != settings.owner:
        return  # it ended before we looked; the pid may be another's by now
    files = Path(settings.directory, "files")
    root = _mount_root(files, settings)
    _prepare(root, settings.name)
    status = REBOOT_STATUS
    while status == REBOOT_STATUS:
        host_cgroups.reset(settings.name)
        nspawn = subprocess.Popen(_command(root, settings), stdin=subprocess.DEVNULL)
        ended, _, _ = select.select([owner, os.pidfd_open(nspawn.pid)], [], [])
        if owner in ended:
            _remove(files, nspawn, settings)
            return
        status = nspawn.wait()


def _command(root: Path, settings: Settings) -> list[str]:
    command = [*host_cgroups.joining(settings.name, "host"), "setpriv", "--pdeathsig", "KILL", "systemd-nspawn"]
    command += ["--quiet", f"--directory={root}", f"--machine={settings.name}", "--private-network"]
    command += ["--register=no", "--keep-unit", "--link-journal=no", "--console=pipe", "--kill-signal=SIGRTMIN+3"]
    command += ["--resolv-conf=off", "--timezone=off"]
    for bind in settings.binds:
        source, _, rest = bind.partition(":")
        target, _, mode = rest.partition(":")
        command.append(f"--bind{'-ro' if mode == 'ro' else ''}={source}:{target or source}")
    return [*command, "--", "/.testhost-init"]


def _mount_root(files: Path, settings: Settings) -> Path:
    files.mkdir()
    _mount("tmpfs", f"mode=0755,size={settings.size}", files)
    root = files / "root"
    for name in ("upper", "work", "root"):
        (files / name).mkdir()
    lower = ":".join(settings.layers)
    _mount("overlay", f"lowerdir={lower},upperdir={files}/upper,workdir={files}/work", root)
    # systemd-nspawn leaves files here that it removes only from a tmpfs.
    own = Path("/run/systemd/nspawn")
    own.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", "mode=0755", own)
    return root


def _mount(kind: str, options: str, where: Path) -> None:
    subprocess.run(["mount", "-t", kind, "-o", options, "testhost", str(where)], check=True)


def _prepare(root: Path, name: str) -> None:
    """Make the root a host of its own: its id, its name, and none of the units it has no use for."""
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    links = dict.fromkeys(MASKED, "/dev/null") | {"default.target": "/lib/systemd/system/multi-user.target"}
    for unit, target in links.items():
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to(target)
    for path, text in (
        ("etc/machine-id", f"{uuid.uuid4().hex}\n"),
        ("etc/hostname", f"{name}\n"),
        ("etc/fstab", ""),
        ("etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n"),
    ):
        (root / path).unlink(missing_ok=True)
        (root / path).write_text(text)
    (root / ".dockerenv").unlink(missing_ok=True)
    init = root / ".testhost-init"
    init.write_text(INIT)
    init.chmod(0o755)


def _remove(files: Path, nspawn: subprocess.Popen[bytes], settings: Settings) -> None:
    host_cgroups.remove(settings.name)
    nspawn.wait()
    for mounted in (files / "root", files):
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)
    shutil.rmtree(settings.directory)


if __name__ == "__main__":
    supervise(Settings(**json.loads(sys.argv[1])))
