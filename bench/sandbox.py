"""What the sandbox of agent@.service costs at each start: 100 units by one `systemctl start`, on a booted test host.

The units run `sleep infinity` with the settings of the template's sandbox: none of them (bare), all, all but one kind,
and all with what the template leaves out. Each set is started and stopped in turns with the others. Wall time is of the
start; processor time is that of systemd and of what it forks, for start and stop together, and shows less of what else
the machine does. Needs root, and what the tests on booted hosts need.
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from harness import Report, interleaved, parser, positive

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

import unit_files  # noqa: E402
from testhost import Host, unmet  # noqa: E402

TEMPLATE = ROOT / "systemd/agent@.service"
# What belongs to the sandbox, by how its settings begin.
SANDBOX = (
    *("Dynamic", "User=", "Supplementary", "State", "Working", "Environment=", "UMask", "NoNew", "Capability"),
    *("Ambient", "Protect", "Private", "Restrict", "Lock", "RemoveIPC", "Keyring", "SystemCall"),
)
# Kinds of settings that are left out in turn; those that make no sense without them go too.
KINDS: dict[str, tuple[str, ...]] = {
    "DynamicUser": ("Dynamic", "User=", "State", "Working", "Environment="),
    "StateDirectory": ("State", "Working", "Environment="),
    **{
        name: (name,) for name in ("ProtectHome", "ProtectProc", "ProtectKernelModules", "PrivateTmp", "PrivateDevices")
    },
    "ProtectHome": ("ProtectHome",),
    "ProtectProc": ("ProtectProc",),
    "ProtectKernelModules": ("ProtectKernelModules",),
    "PrivateTmp": ("PrivateTmp",),
    "PrivateDevices": ("PrivateDevices",),
    "PrivateIPC": ("PrivateIPC",),
    "SystemCallFilter": ("SystemCallFilter",),
}
LEFT_OUT = ("ProtectKernelTunables=yes", "ProtectControlGroups=yes", "ProtectKernelLogs=yes")
STEM = "sandboxed"


def settings_sets() -> dict[str, tuple[str, ...]]:
    """The sets of settings that are compared, by what they are called in the report."""
    lines = [line for line in TEMPLATE.read_text(encoding="utf-8").splitlines() if line.startswith(SANDBOX)]
    shipped = tuple(lines)
    found = {"bare": (), "as shipped": shipped, "and what is left out": (*shipped, *LEFT_OUT)}
    for kind, prefixes in KINDS.items():
        found[f"without {kind}"] = tuple(line for line in shipped if not line.startswith(prefixes))
    return found


class Fleet:
    """Units of one set of settings on a host, `count` of them."""

    def __init__(self, host: Host, number: int, settings: tuple[str, ...], count: int) -> None:
        self._host = host
        self._units = [f"{STEM}{number}@a-{port}.service" for port in range(count)]
        self.cpu_ms: list[float] = []
        # Users and directories of each set are its own: one that was another's would be given away first.
        lines = [line.replace("agent", f"{STEM[0]}{number}") if "%i" in line else line for line in settings]
        text = "\n".join(("[Service]", "Type=exec", "ExecStart=sleep infinity", *lines, ""))
        host.write(f"/run/systemd/system/{STEM}{number}@.service", text)

    def start(self) -> float:
        """Start all and stop them; the milliseconds of the start for each."""
        before = _cpu_s(self._host.leader())
        began = time.perf_counter()
        self._host.exec("systemctl", "start", *self._units, timeout_s=300)
        took = time.perf_counter() - began
        self._host.exec("systemctl", "stop", *self._units, timeout_s=300)
        self.cpu_ms.append((_cpu_s(self._host.leader()) - before) / len(self._units) * 1e3)
        return took / len(self._units) * 1e3


def measure(host: Host, count: int, rounds: int) -> tuple[Mapping[str, list[float]], Mapping[str, list[float]]]:
    """Wall time of a start and processor time of start and stop of one unit, in milliseconds."""
    fleets = {name: Fleet(host, n, lines, count) for n, (name, lines) in enumerate(settings_sets().items())}
    host.exec("systemctl", "daemon-reload")
    measures: dict[str, Callable[[], float]] = {name: functools.partial(fleet.start) for name, fleet in fleets.items()}
    return interleaved(rounds, measures), {name: fleet.cpu_ms for name, fleet in fleets.items()}


def main() -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--units", type=positive, default=100, metavar="N", help="units in each set (100)")
    made.add_argument("--suite", default="bookworm", help="the release that is booted (bookworm)")
    options = made.parse_args()
    if why := unmet():
        print(f"no host can be booted: {'; '.join(why)}", file=sys.stderr)
        return 2
    report = Report(options)
    base = subprocess.run((ROOT / "scripts/test-base", options.suite), stdout=subprocess.PIPE, text=True, check=True)
    host = Host()
    with tempfile.TemporaryDirectory(prefix="agentd-bench-") as directory:
        layer = unit_files.layer(Path(directory) / "units", systemd=0)
        try:
            host.up(layer, Path(base.stdout.split()[-1]))
            report.note(host.out("systemctl", "--version").splitlines()[0])
            wall, cpu = measure(host, options.units, options.rounds)
        finally:
            host.down()
    for name in wall:
        report.add(f"{name}: start", wall[name], "ms")
        report.add(f"{name}: processor", cpu[name], "ms")
        report.add("  / bare", [value / statistics.median(cpu["bare"]) for value in cpu[name]])
    return report.finish()


def _cpu_s(pid: int) -> float:
    """The processor time of a process and of those that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
