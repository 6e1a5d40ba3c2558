"""The units and rights of this checkout as a layer for test hosts: where the package puts them, without the package.

A test of the units alone boots from `layer(...)` above a clean root: nothing is built, and it runs on any release. A
host's own sysusers and tmpfiles make the users and directories while it boots.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from testhost import Host

PROJECT = Path(__file__).parents[2]
UNITS = PROJECT / "systemd"
UNITS_DIR = "usr/lib/systemd/system"
FILES = {
    "packaging/60-agentd.rules": "usr/share/polkit-1/rules.d/60-agentd.rules",
    "packaging/sysusers.conf": "usr/lib/sysusers.d/agentd.conf",
    "packaging/tmpfiles.conf": "usr/lib/tmpfiles.d/agentd.conf",
    "agentd/launch.py": "usr/lib/agentd/agentd-launch",
}


def layer(directory: Path, systemd: int) -> Path:
    """Make `directory` a layer with the units for that release of systemd, the rights and the launcher."""
    units = directory / UNITS_DIR
    units.mkdir(parents=True)
    for source in UNITS.iterdir():
        if source.is_file():
            shutil.copy(source, units)
        elif source.name.isdecimal() and int(source.name) <= systemd:
            shutil.copytree(source, units, dirs_exist_ok=True)
    for name, target in FILES.items():
        (directory / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, directory / target)
    # The layer's directories become the host's: root's own modes, whatever the umask here.
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.name == "agentd-launch" else 0o644)
    directory.chmod(0o755)
    return directory


def order(host: Host, instance: str, command: Sequence[str]) -> None:
    """Write the file from which agent@INSTANCE.service takes its command, as agentd does."""
    launch = json.dumps({"command": list(command), "env": {}, "notify": False}).replace("'", "\\u0027")
    path = f"/run/agentd/instances/{instance}.env"
    host.write(path, f"AGENTD_INSTANCE={instance}\nAGENTD_LAUNCH='{launch}'\n", mode=0o600)
    host.exec("chown", "agentd:agentd", path)
