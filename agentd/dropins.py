"""Gives the instances of a pool the exceptions from the sandbox that an administrator made for the pool.

    python -m agentd.dropins --config /etc/agentd/agentd.yaml

systemd has drop-ins for one instance and for all of a template, and none for those whose name begins with `research-`.
So an exception is one file, /etc/agentd/sandbox/research.conf, and this puts a link to it among the drop-ins of every
instance that the configuration gives the pool. agentd.service runs it as root before it starts agentd and when it is
reloaded; all that it reads is root's.

Owns the links named LINK in the drop-in directories of instances. systemd reads them when it loads a unit, so a
daemon-reload is made only where a loaded unit has changed. A running agent gets a new sandbox with its next start.
What systemd does not understand in an exception it leaves out, and says so where nobody looks: `mistakes` asks it. It
never starts, stops or looks at an agent.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agentd import config
from agentd.core.model import InstanceId, PoolConfig, PoolName, instance_id
from agentd.errors import ConfigError
from agentd.units import PATTERN, unit_name

# It sorts before what `systemctl edit` makes (override.conf): what is said of one instance wins over its pool.
LINK = "40-agentd-sandbox.conf"

UNITS_DIR = Path("/run/systemd/system")
SANDBOX_DIR = Path("/etc/agentd/sandbox")

_EX_CONFIG = 78
_SYSTEMCTL_S = 60.0
_VERIFY_S = 10.0


def wanted(pools: Iterable[PoolConfig], sandbox_dir: Path = SANDBOX_DIR) -> dict[Path, Path]:
    """The links that shall exist for `pools`, by their path below the directory of units, and where each leads."""
    files = ((pool, sandbox_dir / f"{pool.name}.conf") for pool in pools)
    return {
        Path(f"{unit_name(instance_id(pool.name, port))}.d") / LINK: file
        for pool, file in files
        if file.is_file()
        for port in _ports(pool)
    }


def existing(units_dir: Path = UNITS_DIR) -> dict[Path, Path]:
    """The links that exist below `units_dir`."""
    paths = (directory / LINK for directory in units_dir.glob(f"{PATTERN}.d"))
    return {path.relative_to(units_dir): path.readlink() for path in paths if path.is_symlink()}


def synchronize(units_dir: Path, links: Mapping[Path, Path]) -> None:
    """Make what exists below `units_dir` equal to `links`.

    Raises:
        OSError: a link cannot be made or removed. Those before it have been.
    """
    there = existing(units_dir)
    for path in there.keys() - links.keys():
        (units_dir / path).unlink()
        if not any((units_dir / path.parent).iterdir()):
            (units_dir / path.parent).rmdir()
    for path, target in links.items():
        if there.get(path) != target:
            _link(units_dir / path, target)


def strangers(pools: Mapping[PoolName, PoolConfig], sandbox_dir: Path = SANDBOX_DIR) -> tuple[Path, ...]:
    """The files in `sandbox_dir` that belong to no pool, and so have no effect."""
    return tuple(path for path in sorted(sandbox_dir.glob("*.conf")) if path.stem not in pools)


def mistakes(pools: Iterable[PoolName], sandbox_dir: Path = SANDBOX_DIR) -> tuple[str, ...]:
    """What systemd does not understand in the exceptions of `pools`, each as FILE:LINE: TEXT; anybody may ask.

    Empty where systemd-analyze is missing or does not answer: then nobody can tell.

    Raises:
        OSError: there is no place for temporary files.
    """
    files = {InstanceId(f"{name}-1"): sandbox_dir / f"{name}.conf" for name in pools}
    with tempfile.TemporaryDirectory(prefix="agentd-sandbox-") as scratch:
        made = [_trial(Path(scratch), instance, file) for instance, file in files.items() if file.is_file()]
        said = _verify(made) if made else ""
        for instance, file in files.items():
            said = said.replace(f"{_trial_link(Path(scratch), instance)}:", f"{file}:")
    own = re.compile(rf"{re.escape(str(sandbox_dir))}/[^/:]+\.conf:\d+: ")
    return tuple(line for line in said.splitlines() if own.match(line))


def main() -> None:
    """The entry point. Exit status 78: the configuration has errors, which agentd will tell; nothing was changed."""
    parser = argparse.ArgumentParser(prog="agentd.dropins", description="Link the exceptions from agents' sandbox.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    try:
        pools = config.load(parser.parse_args().config).fleet.pools
    except ConfigError:
        _say("the configuration has errors; the sandboxes of agents stay as they are")
        sys.exit(_EX_CONFIG)
    for path in strangers(pools):
        _say(f"{path} has no effect: there is no pool {path.stem!r}")
    try:
        for mistake in mistakes(pools):
            _say(mistake)
        synchronize(UNITS_DIR, wanted(pools.values()))
        if _reload_needed():
            _systemctl("daemon-reload")
    except OSError as error:
        _say(f"cannot change the drop-ins of agents: {error.filename}: {error.strerror}")
        sys.exit(1)
    except subprocess.SubprocessError as error:
        _say(f"systemd has not read the drop-ins of agents: {error}")
        sys.exit(1)


def _ports(pool: PoolConfig) -> Iterator[int]:
    yield from (agent.port for agent in pool.core)
    if pool.ports is not None:
        yield from range(pool.ports.first, pool.ports.last + 1)


def _trial(scratch: Path, instance: InstanceId, exception: Path) -> Path:
    """A unit below `scratch` with an exception and nothing else."""
    unit = scratch / unit_name(instance)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    _link(_trial_link(scratch, instance), exception)
    return unit


def _trial_link(scratch: Path, instance: InstanceId) -> Path:
    return scratch / f"{unit_name(instance)}.d" / LINK


def _verify(unit_files: Iterable[Path]) -> str:
    """What systemd-analyze says of units; whether they are good does not matter here."""
    command = ("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, unit_files))
    settings = os.environ | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_LOG_TARGET": "console"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_VERIFY_S, check=False, env=settings)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stderr


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")  # which is no drop-in: those end in .conf
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(path)


def _reload_needed() -> bool:
    """Whether a unit that systemd has loaded differs from its files now, an exception's text included."""
    return "yes" in _systemctl("show", "--property=NeedDaemonReload", "--value", PATTERN).split()


def _systemctl(*arguments: str) -> str:
    command = ("systemctl", *arguments)
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=_SYSTEMCTL_S).stdout


def _say(text: str) -> None:
    print(f"agentd: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.umask(0o022)  # agentd.service has a narrower one, and these links are for everybody to see
    main()
