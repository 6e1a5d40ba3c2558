"""The booted systemd that the systemd driver's tests run on, behind the face of the other drivers' hosts."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from driver_worlds import POOL, spec, until
from testhost import Host

from agentd.cgroups import Cgroups
from agentd.core.messages import InstanceStarted
from agentd.core.model import HealthCheck, InstanceId, InstanceSpec, Observed, RestartPolicy
from agentd.drivers.systemd import SystemdDriver
from agentd.units import instance_cgroup, unit_name

PROJECT = Path(__file__).parents[2]
UNITS = ("agent@.service", "agentd.slice", "agentd-agents.slice", "agentd.target")
RESTART_S = 0.5
STARTS_MAX = 3
# Quicker than the real template, which gives up after ten starts.
QUICK = f"[Unit]\nStartLimitBurst={STARTS_MAX}\n[Service]\nRestartSec={RESTART_S:g}\n"
# For those that look at an exit itself: once the unit runs again systemd knows nothing of how the earlier run ended.
UNHURRIED_S = 3.0
SLOW_S = 600.0
SLOW = RestartPolicy(initial_s=SLOW_S, max_s=SLOW_S)
DROP_INS = "/run/systemd/system"
CONTROL = "/run/systemd/system.control"
NOTIFY = """
import os, socket, sys, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.sendto(text, os.environ["NOTIFY_SOCKET"])
"""


def lay_out(layer: Path) -> None:
    """Put into `layer` what agentd's package brings for agents, and nothing of agentd itself."""
    units = layer / "usr/lib/systemd/system"
    for folder in (units, layer / "usr/lib/agentd", layer / "usr/lib/sysusers.d", layer / "usr/lib/tmpfiles.d"):
        folder.mkdir(parents=True)
    for name in UNITS:
        shutil.copy(PROJECT / "systemd" / name, units)
    shutil.copy(PROJECT / "packaging/sysusers.conf", layer / "usr/lib/sysusers.d/agentd.conf")
    shutil.copy(PROJECT / "packaging/tmpfiles.conf", layer / "usr/lib/tmpfiles.d/agentd.conf")
    launcher = layer / "usr/lib/agentd/agentd-launch"
    shutil.copy(PROJECT / "agentd/launch.py", launcher)
    launcher.chmod(0o755)


def prepare(host: Host) -> None:
    """Bring a host that has booted with that layer to where the package's installation would leave it."""
    host.exec("systemd-sysusers", "agentd.conf")
    host.exec("systemd-tmpfiles", "--create", "agentd.conf")
    host.write(f"{DROP_INS}/agent@.service.d/50-quick.conf", QUICK)
    host.exec("systemctl", "daemon-reload")
    host.exec("systemctl", "start", "agentd.target")


class SystemdWorld:
    """A booted host. systemd restarts by its own rules, whatever a specification says."""

    one_agentd = True
    spawn_trouble = "resources"

    def __init__(self, host: Host) -> None:
        self.host = host
        self.root = Path(f"/proc/{host.leader()}/root")
        self.bus_address = f"unix:path={self.root}/run/dbus/system_bus_socket"
        self.cgroups = Cgroups(self.root)
        self.taken: dict[int, str] = {}
        self.delays_s = (UNHURRIED_S,) * STARTS_MAX

    def driver(self, state_id: str = "ours", **others: Any) -> SystemdDriver:  # noqa: ARG002
        settings: dict[str, Any] = {
            "agent_endpoint": "unix:/run/agentd/agents.sock",
            "instances_dir": self.root / "run/agentd/instances",
            "port_probe": self.taken.get,
            "sample_command": ("sleep", "infinity"),
            "bus_address": self.bus_address,
            "root": self.root,
        }
        return SystemdDriver(**settings | others)

    async def exit(self, observed: Observed | InstanceStarted) -> None:
        await self.do("kill", "-KILL", str(observed.pid))

    def crashing(self, port: int = 9101) -> InstanceSpec:
        return spec(port, command=("sh", "-c", "exit 3"))

    def unhurried(self, like: InstanceSpec) -> InstanceSpec:
        self.drop_in(like.id, f"[Service]\nRestartSec={UNHURRIED_S:g}")
        return like

    def slow(self, port: int = 9101) -> InstanceSpec:
        slow = spec(port, restart=SLOW)
        self.drop_in(slow.id, f"[Service]\nRestartSec={SLOW_S:g}")
        return slow

    def brittle(self, port: int = 9101) -> InstanceSpec:
        brittle = spec(port, restart=RestartPolicy(attempts_max=1))
        self.drop_in(brittle.id, "[Unit]\nStartLimitBurst=1")
        return brittle

    def take_port(self, port: int) -> None:
        self.taken[port] = "a test"

    def refuse_to_spawn(self, port: int, times: int) -> None:  # noqa: ARG002
        """systemd cannot prepare a process without the instance's file, however often it tries."""
        (self.root / f"run/agentd/instances/{spec(port).id}.env").unlink()

    def running(self, instance: InstanceId, state_id: str = "ours") -> int:  # noqa: ARG002
        return len(self.cgroups.pids(instance_cgroup(instance)))

    # -- what an operator does ------------------------------------------------------------------

    async def do(self, *command: str) -> str:
        """Run a command in the host while the driver goes on."""
        return await asyncio.to_thread(self.host.out, *command)

    async def systemctl(self, *words: str) -> str:
        return await self.do("systemctl", *words)

    def drop_in(self, instance: InstanceId, text: str) -> None:
        """Change the unit of one instance until the end of the test."""
        self.host.write(f"{DROP_INS}/{unit_name(instance)}.d/60-test.conf", text + "\n")
        self.host.exec("systemctl", "daemon-reload")

    async def show(self, instance: InstanceId, name: str) -> str:
        """A property of the instance's unit."""
        return await self.systemctl("show", "--value", f"--property={name}", unit_name(instance))

    async def home(self, instance: InstanceId, file: str) -> str:
        """What is in a file in an agent's home, once it is there: agents rename what they write into place."""
        path = self.root / f"var/lib/private/agentd-agents/{instance}/{file}"
        await until(path.exists, f"{file} of {instance}")
        return path.read_text()

    def clean_up(self) -> None:
        """Leave no agent and no setting behind."""
        self.host.exec("sh", "-c", "systemctl kill -s KILL 'agent@*.service'; systemctl stop 'agent@*.service'")
        self.host.exec("systemctl", "reset-failed")
        paths = f"{DROP_INS}/agent@?*.service.d/60-test.conf {CONTROL}/* /run/agentd/instances/*"
        paths += " /var/lib/private/agentd-agents/*"
        self.host.exec("sh", "-c", f"rm -rf {paths}")
        self.host.exec("systemctl", "daemon-reload")


def python(script: str) -> tuple[str, ...]:
    return ("/usr/bin/python3", "-c", NOTIFY + script)


def notifying(script: str, health: HealthCheck) -> InstanceSpec:
    """A program that says itself when it is ready."""
    return InstanceSpec(
        id=spec().id,
        pool=POOL,
        port=9101,
        core_name=None,
        command=python(script),
        env=(),
        concurrency=1,
        health=health,
        restart=RestartPolicy(),
        notify=True,
    )
