"""agentd as its package runs it, on a booted test host: its configuration, its service, and agentctl to look at it.

    agentd = Agentd(host)
    agentd.configure({"research": idle(3)})
    agentd.start()
    agentd.wait_ready(3)
    ...
    agentd.clean_up()

Owns what it writes: /etc/agentd/agentd.yaml and drop-ins of units. Looks from outside only, through agentctl, systemctl
and the journal, as an operator does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml
from testhost import Done, Host, wait_until

from agentd import units

CONFIG = "/etc/agentd/agentd.yaml"
DROP_INS = "/run/systemd/system"
# agentd's memory, the instances' files, and all drop-ins: those of tests, and the limits that agentd has set.
LEFT_BEHIND = f"/var/lib/agentd /run/agentd/instances/* {DROP_INS}/agent*.d /run/systemd/system.control/agent*.d"
READY_S = 60.0
# The host shares this machine's memory and cores with everything else on it: nothing is kept free for others.
NO_RESERVE: dict[str, Any] = {"memory": "1M", "memory_ratio": 0, "disk": "1M", "cpu_ratio": False}
NO_RESERVE |= {"memory_pressure_percent": False, "io_pressure_percent": False}
NO_AUTOSCALING = {"enabled": False, "scale_up_cooldown_sec": 0, "scale_down_cooldown_sec": 0}
SAMPLE = ["/usr/lib/agentd/venv/bin/python", "-m", "agentd.sample"]


class Run(NamedTuple):
    """One incarnation of an agent, as systemd knows it."""

    pid: str
    invocation: str


def idle(number: int, **settings: Any) -> dict[str, Any]:
    """A pool of `number` agents that do nothing and are well for as long as they run."""
    pool = {"command": "sleep infinity", "health": "none", "core": {}, "ports": [9101, 9300]}
    return pool | {"min": number, "max": number} | settings


class Agentd:
    """The one agentd of `host`. It is not started before `start`."""

    def __init__(self, host: Host) -> None:
        self.host = host

    # -- what an operator does ------------------------------------------------------------------

    def configure(self, pools: Mapping[str, Any], **settings: Any) -> None:
        """Write the configuration. Without `settings` only people scale, and no cooldown nor reserve stops them."""
        whole = {
            "multi_agent": {"enabled": True, "autoscaling": NO_AUTOSCALING},
            "pools": dict(pools),
            "host": {"starting_max": 64, "reserve": NO_RESERVE},
        }
        self.host.write(CONFIG, yaml.safe_dump(whole | settings))

    def start(self) -> None:
        """Start agentd, and return when it serves."""
        self.systemctl("start", "agentd.service")

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.host.out("systemctl", *words, check=check)

    def drop_in(self, unit: str, text: str) -> None:
        """Add settings to a unit, until `clean_up`."""
        self.host.write(f"{DROP_INS}/{unit}.d/60-test.conf", f"{text}\n")
        self.systemctl("daemon-reload")

    def clean_up(self) -> None:
        """Stop everything at once, and leave nothing of it: no agent, no state, no setting of a test."""
        self.systemctl("kill", "--signal=KILL", "agentd.service", check=False)
        self.systemctl("kill", "--signal=KILL", units.PATTERN, check=False)
        # All by name: the target's own stop does not wait for what it stops.
        self.systemctl("stop", units.TARGET, units.SERVICE, *units.SOCKETS, units.PATTERN)
        self.host.exec("sh", "-c", f"rm -rf {LEFT_BEHIND}")
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed")

    # -- what an operator sees ------------------------------------------------------------------

    def ctl(self, *words: str, check: bool = True) -> Done:
        """Call agentctl as root."""
        return self.host.exec("agentctl", *words, check=check)

    def ask(self, *words: str) -> Any:
        """What `agentctl --output json` prints."""
        return json.loads(self.ctl("--output", "json", *words).stdout)

    def instances(self) -> dict[str, dict[str, Any]]:
        return {instance["id"]: instance for instance in self.ask("ps")}

    def events(self, *types: str) -> list[dict[str, Any]]:
        """The events of these types, or all; oldest first."""
        return list(self.ask("events", "--number", "10000", *(f"--type={name}" for name in types)))

    def pid(self) -> str:
        """The process of agentd, "0" where there is none."""
        return self.host.show("agentd.service", "MainPID")["MainPID"]

    def running(self) -> dict[str, Run]:
        """The agents whose units are active, by instance."""
        names = "--property=Id,ActiveState,MainPID,InvocationID"
        found = {}
        for block in self.systemctl("show", names, units.PATTERN).split("\n\n"):
            shown = dict(line.split("=", 1) for line in block.splitlines())
            instance = units.instance_of(shown.get("Id", ""))
            if instance and shown["ActiveState"] == "active":
                found[str(instance)] = Run(shown["MainPID"], shown["InvocationID"])
        return found

    # -- waiting --------------------------------------------------------------------------------

    def wait_ready(self, number: int) -> dict[str, Run]:
        """Wait until there are `number` instances, all of them ready and none else running; how they run."""

        def are_ready() -> tuple[dict[str, Run]] | None:
            states = [instance["state"] for instance in self.instances().values()]
            running = self.running()
            return (running,) if states == ["ready"] * number and len(running) == number else None

        (found,) = wait_until(are_ready, f"{number} agents are ready", READY_S) or ({},)
        return found

    def wait_state(self, instance: str, state: str) -> dict[str, Any]:
        """Wait until an instance is in a state; how it is listed then."""

        def found() -> dict[str, Any] | None:
            listed = self.instances().get(instance)
            return listed if listed and listed["state"] == state else None

        return wait_until(found, f"{instance} is {state}", READY_S) or {}

    def wait_event(self, kind: str, number: int = 1) -> list[dict[str, Any]]:
        """Wait for the first `number` events of a type."""
        return (
            wait_until(lambda: len(found := self.events(kind)) >= number and found, f"{number} {kind}", READY_S) or []
        )
