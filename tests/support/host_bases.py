"""The roots that test hosts boot from: clean Debian releases, and the same with the agentd package installed.

Owns the calls of scripts/test-base and packaging/build-deb and a package's installation into a copy of a clean root.
A clean root is shared by everybody on this machine and never written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]
BUILD_S = 600.0
# Runs a command in a root that no systemd runs in: what it mounts goes with its mount namespace.
IN_ROOT = 'mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && exec chroot "$@"'


class BaseError(Exception):
    """A root cannot be made; the text has what the tool said."""


def clean_base(suite: str) -> Path:
    """The clean root of a release, built when this machine has none yet: about half a minute.

    Raises:
        BaseError: it cannot be built here, and why.
    """
    return Path(_run(str(PROJECT / "scripts/test-base"), suite).splitlines()[-1])


def build_deb(clean: Path, directory: Path) -> Path:
    """Build the agentd package for the release of the root `clean`, into `directory`.

    Raises:
        BaseError: it cannot be built.
    """
    return Path(_run(str(PROJECT / "packaging/build-deb"), str(clean), str(directory)).splitlines()[-1])


def install_deb(deb: Path, clean: Path, root: Path) -> None:
    """Make `root`, a copy of `clean` with the package installed by dpkg; its maintainer scripts have run.

    Raises:
        BaseError: dpkg refused.
    """
    # Reading the copy is cheaper than a stack of layers, and dpkg meets a plain file system.
    _run("cp", "--archive", "--reflink=auto", str(clean), str(root))
    shutil.copy(deb, root / "agentd.deb")
    in_root(root, "dpkg", "--install", "/agentd.deb")
    (root / "agentd.deb").unlink()


def in_root(root: Path, *command: str) -> str:
    """Run a command chrooted in `root`, with /dev and /proc, and give its standard output.

    Raises:
        BaseError: it failed.
    """
    private = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    settings = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    return _run(*private, "sh", "-c", IN_ROOT, "sh", str(root), *command, env=settings | {"HOME": "/root"})


def _run(*command: str, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"} if env is None else env,
        )
    except (OSError, subprocess.TimeoutExpired) as trouble:
        raise BaseError(f"cannot run {' '.join(command)}: {trouble}") from None
    if done.returncode:
        raise BaseError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"[-4000:].rstrip())
    return done.stdout
