"""The test hosts themselves: real systemd, enforced limits, and nothing left of them however they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import host_cgroups
import pytest
import testhost
from host_fixtures import FindBase, MakeHost
from testhost import Host, HostError, unmet, wait_until

SUPPORT = Path(testhost.__file__).parent
# A process that owns a host, as pytest does, and says which.
OWNER = """
import sys, time
from pathlib import Path
from testhost import Host
host = Host()
host.up(Path(sys.argv[1]))
print(host.name, flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def clean_host(bookworm_base: Path, make_shared_host: MakeHost) -> Host:
    return make_shared_host(bookworm_base)


def left_of(name: str) -> list[str]:
    """What is still there of a host: processes, control groups, mounts or files."""
    left = [f"pid {pid}" for pid in host_cgroups.pids(name)]
    left += ["control groups"] if host_cgroups.exist(name) else []
    left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{name}/" in line]
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name.encode() in command.read_bytes():
                left.append(str(command))
        except OSError:
            continue  # it ended while we looked
    return left + [str(path) for path in testhost.RUN.glob(name)]


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_each_release_boots_its_own_systemd(suite: str, clean_base: FindBase, make_host: MakeHost) -> None:
    host = make_host(clean_base(suite))
    assert host.out("systemctl", "is-system-running") == "running"
    assert host.out("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME") == suite
    assert host.out("cat", "/proc/1/comm") == "systemd"
    assert host.show("dbus.service", "ActiveState", "LoadState") == {"ActiveState": "active", "LoadState": "loaded"}
    assert host.out("hostname") == host.name


def test_limits_are_enforced(clean_host: Host) -> None:
    within = clean_host.run("python3", "-c", "bytearray(20 << 20)", properties=["MemoryMax=60M"])
    assert within.returncode == 0
    over = clean_host.run("python3", "-c", "bytearray(120 << 20)", properties=["MemoryMax=60M"], check=False)
    assert over.returncode != 0
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; wait"
    assert "fork" in clean_host.run("sh", "-c", script, properties=["TasksMax=4"], check=False).stderr


def test_commands_have_input_output_status_and_another_user(clean_host: Host) -> None:
    script = "echo out; echo err >&2; exit 7"
    done = clean_host.run("sh", "-c", script, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    with pytest.raises(HostError, match=r"exit 7\nout\nerr"):
        clean_host.exec("sh", "-c", script)
    assert clean_host.exec("cat", input="in").stdout == "in"
    assert clean_host.out("id", "-un", user="messagebus") == "messagebus"
    with pytest.raises(HostError, match="no end after"):
        clean_host.exec("sleep", "60", timeout_s=0.2)


def test_the_journal_has_what_units_wrote(clean_host: Host) -> None:
    long = "x" * 10_000  # more than journalctl shows unasked
    clean_host.exec("systemd-cat", "-t", "greeter", "echo", long)
    assert clean_host.journal("-t", "greeter")[-1]["MESSAGE"] == long


def test_files_written_stay_in_the_host(clean_host: Host, bookworm_base: Path) -> None:
    clean_host.write("/etc/new/probe", "text\n", mode=0o600)
    assert clean_host.out("stat", "-c", "%a %U", "/etc/new/probe") == "600 root"
    clean_host.exec("rm", "/etc/debian_version")
    assert not (bookworm_base / "etc/new").exists() and (bookworm_base / "etc/debian_version").exists()
    assert not Path("/etc/new").exists()


def test_the_bus_of_the_host_is_reachable_from_outside(clean_host: Host) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"/proc/{clean_host.leader()}/root/run/dbus/system_bus_socket")
        client.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
        assert client.recv(64).startswith(b"DATA")


def test_a_reboot_keeps_the_disk_and_changes_the_boot(bookworm_base: Path, make_host: MakeHost) -> None:
    host = make_host(bookworm_base)
    before = host.out("cat", "/proc/sys/kernel/random/boot_id")
    host.write("/var/lib/kept", "")
    assert host.reboot() == "running"
    assert host.out("cat", "/proc/sys/kernel/random/boot_id") != before
    host.exec("test", "-e", "/var/lib/kept")


def test_an_orderly_end_runs_stop_commands(bookworm_base: Path, make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host(bookworm_base, binds=[f"{tmp_path}:/share"])
    stop = "--property=ExecStop=/bin/sh -c 'echo stopped >/share/end'"
    host.exec("systemd-run", "--quiet", "--unit=late", stop, "sleep", "infinity")
    host.down(graceful_s=20)
    assert (tmp_path / "end").read_text() == "stopped\n"
    assert left_of(host.name) == []


@pytest.mark.parametrize("victim", ["supervisor", "nspawn", "leader"])
def test_nothing_is_left_when_any_part_is_killed(victim: str, bookworm_base: Path, make_host: MakeHost) -> None:
    host = make_host(bookworm_base)
    leader = host.leader()
    assert left_of(host.name) != []
    nspawn = next(pid for pid in host.pids() if Path(f"/proc/{pid}/comm").read_text() == "systemd-nspawn\n")
    supervisor = int(Path(f"/proc/{nspawn}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill({"supervisor": supervisor, "nspawn": nspawn, "leader": leader}[victim], signal.SIGKILL)
    wait_until(lambda: host_cgroups.start_time(leader) is None, "the host ends")
    host.down()
    host.down()
    assert left_of(host.name) == []


def test_a_host_goes_down_with_its_owner(bookworm_base: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(bookworm_base)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(SUPPORT)}
    ) as owner:
        try:
            assert owner.stdout is not None
            name = owner.stdout.readline().strip()
            assert host_cgroups.leader(name)
        finally:
            owner.kill()
    wait_until(lambda: left_of(name) == [], f"nothing is left of {name}")


def test_a_host_that_cannot_boot_says_why_and_leaves_nothing(bookworm_base: Path) -> None:
    host = Host()
    with pytest.raises(HostError, match="/nonexistent"):
        host.up(Path("/nonexistent"))
    with pytest.raises(HostError, match="/nonexistent"):
        host.up(bookworm_base, binds=["/nonexistent"])
    assert left_of(host.name) == []
    with pytest.raises(HostError, match="is not up"):
        host.out("true")


def test_where_hosts_cannot_run_the_reason_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert any("systemd-nspawn" in reason for reason in unmet())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unmet() == ["not root"]
    with pytest.raises(HostError, match="not root"):
        Host().up(tmp_path)
