"""The process managers that `peers.py` compares: how each is installed, told to keep N processes, and launched.

Every one keeps N copies of the same program alive, with its own defaults except where a line here says otherwise.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from harness import BenchError, free_ports, plain_environment, wait_until
from own_agentd import fleet_settings

PROJECT = Path(__file__).resolve().parent.parent
INSTALL_S_MAX = 300.0
# A child counts when it has become this program; managers fork, or put a wrapper before it.
PROGRAM = ["sleep", "infinity"]


@dataclass(frozen=True, slots=True)
class Launched:
    """A manager whose process is known, and the monotonic time just before its first process was made."""

    pid: int
    launched: float


@dataclass(frozen=True, slots=True)
class Manager:
    """`launch(directory, count)` starts it on `count` processes, with everything it writes in `directory`."""

    name: str
    version: str
    launch: Callable[[Path, int], Launched]


def agentd(environment_dir: Path) -> Manager:
    """From a wheel, as the others: finding a package that is installed from its sources costs each start some time."""
    source = environment_dir / "agentd-source"
    if not source.exists():
        shutil.copytree(
            PROJECT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
        )
    python = _pip_install(environment_dir / "agentd", str(source))
    version = _output(str(python), "-m", "agentd", "--version").removeprefix("agentd ")
    return Manager("agentd", version, lambda place, count: _agentd(python, place, count))


def supervisord(environment_dir: Path) -> Manager:
    """Raises BenchError where it cannot be installed."""
    python = _pip_install(environment_dir, "supervisor")
    version = _output(str(python.with_name("supervisord")), "--version")
    return Manager("supervisord", version, lambda place, count: _supervisord(python, place, count))


def circus(environment_dir: Path) -> Manager:
    """Raises BenchError where it cannot be installed."""
    python = _pip_install(environment_dir, "circus")
    version = _output(str(python.with_name("circusd")), "--version")
    return Manager("circus", version, lambda place, count: _circus(python, place, count))


def pm2(environment_dir: Path) -> Manager:
    """Raises BenchError where it cannot be installed."""
    npm = shutil.which("npm")
    if npm is None:
        raise BenchError("there is no npm")
    _install(npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(environment_dir / "npm"), "pm2")
    program = environment_dir / "npm/node_modules/.bin/pm2"
    package = environment_dir / "npm/node_modules/pm2/package.json"
    version = str(json.loads(package.read_text(encoding="utf-8"))["version"])
    return Manager("pm2", version, lambda place, count: _pm2(program, place, count))


PEERS: dict[str, Callable[[Path], Manager]] = {"supervisord": supervisord, "circus": circus, "pm2": pm2}


# -- launching --------------------------------------------------------------------------------------


def _agentd(python: Path, place: Path, count: int) -> Launched:
    """Core agents: a fixed set that is always there, as with the others."""
    first, last = free_ports(count + 1)  # the last one is for HTTP
    pool = {"command": PROGRAM, "health": "none", "core": {f"a{port}": port for port in range(first, last)}}
    settings = fleet_settings({"keep": pool})
    sockets = {role: f"unix:{place}/{role}.sock" for role in ("agents", "control")}
    settings |= {"driver": "process", "listen": {**sockets, "http": f"127.0.0.1:{last}"}}
    file = place / "agentd.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    words = (str(python), "-m", "agentd", "--config", str(file), "--state-dir", str(place / "state"))
    return _spawn(place, *words)


def _supervisord(python: Path, place: Path, count: int) -> Launched:
    file = place / "supervisord.conf"
    file.write_text(
        f"""[supervisord]
nodaemon = true
logfile = {place}/log
pidfile = {place}/pid
childlogdir = {place}
minfds = {count * 4 + 1024}
[program:keep]
command = {" ".join(PROGRAM)}
numprocs = {count}
process_name = keep%(process_num)d
autorestart = true
""",
        encoding="utf-8",
    )
    return _spawn(place, str(python.with_name("supervisord")), "-c", str(file))


def _circus(python: Path, place: Path, count: int) -> Launched:
    first, _ = free_ports(2)
    file = place / "circus.ini"
    file.write_text(
        f"""[circus]
endpoint = tcp://127.0.0.1:{first}
pubsub_endpoint = tcp://127.0.0.1:{first + 1}
[watcher:keep]
cmd = {" ".join(PROGRAM)}
numprocesses = {count}
""",
        encoding="utf-8",
    )
    return _spawn(place, str(python.with_name("circusd")), str(file))


def _pm2(program: Path, place: Path, count: int) -> Launched:
    """`pm2 start` makes a daemon, tells it what to run, and ends."""
    app = {"name": "keep", "script": shutil.which(PROGRAM[0]), "args": PROGRAM[1:], "interpreter": "none"}
    file = place / "keep.config.json"
    file.write_text(json.dumps({"apps": [{**app, "instances": count, "exec_mode": "fork"}]}), encoding="utf-8")
    env = {**plain_environment(), "PM2_HOME": str(place / "pm2"), "PM2_DISCRETE_MODE": "true"}
    launched = time.monotonic()
    with (place / "output").open("wb") as output:
        subprocess.Popen([program, "start", str(file)], cwd=place, stdout=output, stderr=output, env=env)
    pid_file = place / "pm2/pm2.pid"
    wait_until("pm2's daemon runs", lambda: pid_file.exists() and bool(pid_file.read_text()), 60.0, 0.01)
    return Launched(int(pid_file.read_text()), launched)


def _spawn(place: Path, *words: str, env: Mapping[str, str] | None = None) -> Launched:
    launched = time.monotonic()
    with (place / "output").open("wb") as output:
        process = subprocess.Popen(
            words, cwd=place, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env or plain_environment()
        )
    return Launched(process.pid, launched)


# -- installing -------------------------------------------------------------------------------------


def _pip_install(environment_dir: Path, package: str) -> Path:
    python = environment_dir / "venv/bin/python"
    if not python.exists():
        _install(sys.executable, "-m", "venv", str(environment_dir / "venv"))
    _install(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package)
    return python


def _install(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(str(error)) from error
    if done.returncode:
        raise BenchError(f"{' '.join(words[-2:])}: {(done.stderr or done.stdout).strip()[-300:]}")


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
