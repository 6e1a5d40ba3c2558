"""A real agentd with real agents in a directory of its own, and the ways to look at it and to steer it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from e2e_hosts import PATIENCE_S, Ports, Process, end_all, processes

from agentd.agentctl.values import as_value
from agentd.sdk.control import ControlClient, ControlError

T = TypeVar("T")

LIGHT = [sys.executable, str(Path(__file__).with_name("e2e_agent.py"))]
SAMPLE = [sys.executable, "-m", "agentd.sample"]
# The tests must not depend on how busy the machine is.
HOST = {
    "reserve": {
        "memory": "1M",
        "memory_ratio": 0,
        "disk": 0,
        "cpu_ratio": False,
        "memory_pressure_percent": False,
        "io_pressure_percent": False,
    }
}
# Silent for 9 s, an agent is replaced: long for a machine that hiccups. Tests of that very thing use QUICK.
PATIENT = {
    "check_interval_sec": 0.5,
    "heartbeat_timeout_sec": 3,
    "unhealthy_threshold": 3,
    "scale_up_cooldown_sec": 0,
    "scale_down_cooldown_sec": 0,
}
QUICK = {**PATIENT, "heartbeat_timeout_sec": 1.5}
# Of the surroundings, what would lead agentd or agentctl elsewhere.
_LEADS_ELSEWHERE = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "NOTIFY_SOCKET")


class Fleet:
    """One state directory, its configuration, and the agentd that runs on it."""

    def __init__(self, ports: Ports, *, state_dir: Path | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="agd-", dir="/tmp"))
        self.state_dir = state_dir or self.root / "s"
        self.file = self.root / "agentd.yaml"
        self.ports = ports
        self.daemon: subprocess.Popen[bytes] | None = None
        self.prefix: tuple[str, ...] = ()  # of agentd's command line
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._followers: list[subprocess.Popen[str]] = []
        self._client: ControlClient | None = None
        self.env = {
            name: value
            for name, value in os.environ.items()
            if name not in _LEADS_ELSEWHERE and not name.startswith("AGENTD_")
        }
        self.env["HOME"] = str(self.root)
        self.env["COLUMNS"] = "200"

    # -- configuration --------------------------------------------------------------------------

    def configure(
        self,
        pools: Mapping[str, Mapping[str, Any]],
        *,
        enabled: bool = True,
        autoscaling: bool = False,
        rules: Mapping[str, Any] = PATIENT,
        **sections: Any,
    ) -> None:
        """Write the configuration file. A pool without a command runs the light agent."""
        content = {
            "driver": "process",
            "listen": {"http": "127.0.0.1:0"},
            "multi_agent": {"enabled": enabled, "autoscaling": {"enabled": autoscaling, **rules}},
            "pools": {name: {"command": LIGHT, "drain_timeout_sec": 10, **pool} for name, pool in pools.items()},
            "host": HOST,
            **sections,
        }
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))

    def core(self, name: str = "researcher", number: int = 1, **more: Any) -> dict[str, Any]:
        """A pool of one core agent and nothing else."""
        return {"core": {name: self.ports[number]}, "min": 1, "max": 1, **more}

    def elastic(self, first: int = 2, last: int = 5, **more: Any) -> dict[str, Any]:
        """A pool without core agents."""
        return {"core": {}, "ports": [self.ports[first], self.ports[last]], "min": 1, "max": 4, **more}

    # -- the daemon -----------------------------------------------------------------------------

    def start(self, *, wait: bool = True, **env: str) -> subprocess.Popen[bytes]:
        """Start agentd; return when it answers."""
        assert self.daemon is None or self.daemon.poll() is not None, "one runs already"
        self._forget_client()
        self.daemon = self.spawn(**env)
        if wait:
            self.until("agentd answers", self._answers)
        return self.daemon

    def spawn(self, **env: str) -> subprocess.Popen[bytes]:
        """One more agentd on the same directory; it may not live long."""
        with self.log_file.open("ab") as log:
            daemon = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "agentd", "--config", self.file, "--state-dir", self.state_dir],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.env, **env},
                start_new_session=True,
            )
        self._daemons.append(daemon)
        return daemon

    def kill(self) -> None:
        """agentd dies without a word."""
        self.signal(signal.SIGKILL)
        self.ended()

    def signal(self, number: signal.Signals) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(number)

    def ended(self) -> int:
        """Wait for the end of agentd; its exit status."""
        assert self.daemon is not None
        self._forget_client()
        try:
            return self.daemon.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"agentd does not end{self._report()}") from None

    def _answers(self) -> bool:
        assert self.daemon is not None
        assert self.daemon.poll() is None, f"agentd ended with {self.daemon.returncode}{self._report()}"
        try:
            self.client.status()
        except ControlError:
            self._forget_client()
            return False
        return True

    # -- looking --------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return f"unix:{self.state_dir}/run/control.sock"

    @property
    def log_file(self) -> Path:
        return self.root / "log"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def client(self) -> ControlClient:
        if self._client is None:
            self._client = ControlClient(self.address, timeout_s=PATIENCE_S)
        return self._client

    @property
    def state_id(self) -> str:
        return (self.state_dir / "identity").read_text().strip()

    def status(self) -> dict[str, Any]:
        return as_value(self.client.status())

    def pool(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(pool for pool in self.status()["pools"] if pool["name"] == name)
        return found

    def ps(self, pool: str = "") -> dict[str, dict[str, Any]]:
        return {one.id: as_value(one) for one in self.client.instances(pool)}

    def ready(self, *instances: str, pool: str = "") -> dict[str, dict[str, Any]]:
        """Wait until exactly these instances (of `pool`) exist, all ready; what they are."""

        def look() -> list[dict[str, dict[str, Any]]]:
            found = self.ps(pool)
            complete = set(found) == set(instances) and all(one["state"] == "ready" for one in found.values())
            return [found] if complete else []

        return self.until(f"{', '.join(instances)} ready and nothing else", look)[0]

    def events(self, *types: str, instance: str = "", pool: str = "") -> list[dict[str, Any]]:
        """Of these types, the oldest first."""
        found = self.client.events(1000, types=types, instance=instance, pool=pool)
        return [as_value(event) for event in reversed(found)]

    def event(self, kind: str, *, instance: str = "", pool: str = "", count: int = 1) -> dict[str, Any]:
        """Wait until there are `count` of this kind; the last of them."""
        what = f"event {kind} {instance or pool}".strip()
        return self.until(
            what, lambda: (found := self.events(kind, instance=instance, pool=pool))[count - 1 : count]
        )[0]  # fmt: skip

    def running(self) -> list[Process]:
        """The processes on the host that are this fleet's."""
        return processes(self.state_id)

    def until(self, what: str, condition: Callable[[], T]) -> T:
        """Wait for `condition` to be true; what it gave."""
        deadline = time.monotonic() + PATIENCE_S
        while not (met := condition()):
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for: {what}{self._report()}"
            time.sleep(0.03)
        return met

    def _report(self) -> str:
        try:
            now = "\n".join(f"  {one['id']} {one['state']} {one['cause']}" for one in self.ps().values())
        except ControlError as error:
            now = f"  {error}"
        return f"\ninstances:\n{now}\nagentd's log:\n{self.log}"

    # -- steering -------------------------------------------------------------------------------

    def run(self, *words: str, find: bool = False) -> subprocess.CompletedProcess[str]:
        """agentctl as people call it; with `find` it looks for agentd itself."""
        at = () if find else ("--address", self.address)
        return subprocess.run(
            [sys.executable, "-c", "from agentd.agentctl import main; main()", *at, *words],
            capture_output=True,
            text=True,
            env=self.env,
            timeout=PATIENCE_S,
            check=False,
        )

    def ctl(self, *words: str, code: int = 0) -> Any:
        """agentctl with JSON as its output."""
        done = self.run(*words, "--output", "json")
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}{self._report()}"
        return json.loads(done.stdout) if done.stdout else None

    def http(self, method: str, path: str, **headers: str) -> tuple[int, Any]:
        """A plain HTTP call to agentd: status and JSON."""
        host, _, port = self.status()["http_address"].rpartition(":")
        return call(int(port), method, path, host=host, headers=headers)

    def follow(self, *words: str, output: str = "json") -> subprocess.Popen[str]:
        """agentctl, left running. `close` ends it."""
        command = [sys.executable, "-c", "from agentd.agentctl import main; main()", "--address", self.address]
        follower = subprocess.Popen(
            [*command, *words, "--output", output],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        self._followers.append(follower)
        return follower

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        self._forget_client()
        for follower in self._followers:
            follower.kill()
            follower.communicate()
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()
        if (self.state_dir / "identity").exists():
            end_all(self.state_id)
        print(f"agentd's log ({self.root}):\n{self.log}")  # pytest shows it where the test failed
        shutil.rmtree(self.root, ignore_errors=True)

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def call(
    port: int,
    method: str,
    path: str,
    body: object = None,
    *,
    host: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any]:
    """One HTTP request: status and JSON of the answer."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, dict(headers or {}))
        return _answer(connection)
    finally:
        connection.close()


def _answer(connection: http.client.HTTPConnection) -> tuple[int, Any]:
    answer = connection.getresponse()
    text = answer.read()
    return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()


class Task:
    """A task that lasts until the test ends it: the agent works on it while it waits for its content."""

    _CONTENT = json.dumps({"service_s": 0}).encode()

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._connection.putrequest("POST", "/task")
        self._connection.putheader("Content-Length", str(len(self._CONTENT)))
        self._connection.endheaders()

    def end(self) -> None:
        self._connection.send(self._CONTENT)

    def answer(self) -> tuple[int, Any]:
        """Status and JSON."""
        try:
            return _answer(self._connection)
        finally:
            self._connection.close()


def set_load(port: int, load: float) -> None:
    """Have the light agent on `port` report this load."""
    status, _ = call(port, "POST", "/load", {"load": load})
    assert status == 200


def shell(script: str) -> list[str]:
    """A command that runs a few lines of sh."""
    return ["/bin/sh", "-c", script]


def pids(instances: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    """Who runs: pid and incarnation by id."""
    return {ident: (one["pid"], one["incarnation"]) for ident, one in instances.items()}
