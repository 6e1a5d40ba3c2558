"""The Debian package: what is in it, and its life on a booted host: installed, started, upgraded, removed, purged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from host_bases import BaseError, in_root
from host_fixtures import FindBase, MakeHost
from testhost import Host, wait_until

from agentd import catalog, config, dropins, units
from agentd.core.messages import EventType
from agentd.core.model import instance_id

# Others, where their packages can be had: see CONTRIBUTING.md.
SUITES = tuple(os.environ.get("AGENTD_TEST_SUITES", "bookworm trixie").split())
PYTHON = {"bookworm": "3.11", "trixie": "3.13", "noble": "3.12"}
RELEASE = {"bookworm": "~deb12", "trixie": "~deb13", "noble": "~ubuntu24.04"}
SOCKETS = ("agentd.socket", "agentd-agents.socket")
LIMITS = "agentd-limits.service"
MOUNT = "run-agentd-instances.mount"
CONFIG = "/etc/agentd/agentd.yaml"
READY_S = 60.0
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
ASK_FOR_MISTAKES = """
import pathlib, sys, tempfile
from agentd.dropins import mistakes
with tempfile.TemporaryDirectory() as place:
    file = pathlib.Path(place, "research.conf")
    file.write_text("[Service]\\nSupplementaryGroups=%i\\nPrivteTmp=no\\nPrivateTmp=perhaps\\n")
    for found in mistakes(["research", "planning"], pathlib.Path(place)):
        print(found.removeprefix(f"{file}:"))
"""

each_suite = pytest.mark.parametrize("suite", SUITES)


def fleet() -> list[str]:
    """The units of the agents that agentd runs by its own defaults."""
    pools = config.default().fleet.pools.values()
    return sorted(units.unit_name(instance_id(pool.name, core.port)) for pool in pools for core in pool.core)


def running(host: Host) -> dict[str, tuple[str, str]]:
    """The main process and the invocation of each agent's unit that is active."""
    listed = host.out("systemctl", "list-units", "--plain", "--no-legend", "--state=active", units.PATTERN)
    found = {}
    for line in listed.splitlines():
        unit = line.split()[0]
        shown = host.show(unit, "MainPID", "InvocationID")
        found[unit] = (shown["MainPID"], shown["InvocationID"])
    return found


def start(host: Host) -> dict[str, tuple[str, str]]:
    """Start agentd as the README tells, and wait until all its agents are ready."""
    host.exec("systemctl", "start", "agentd")
    wait_until(lambda: states(host) == {"ready"}, "all agents ready", READY_S)
    return running(host)


def states(host: Host) -> set[str]:
    done = host.exec("agentctl", "--output", "json", "ps", check=False)
    rows = json.loads(done.stdout) if done.returncode == 0 else []
    return {row["state"] for row in rows} if len(rows) == len(fleet()) else set()


def is_active(host: Host, *names: str) -> list[str]:
    return host.out("systemctl", "is-active", *names, check=False).split()


def units_left(host: Host) -> str:
    """The units of agentd and agents that are active or have failed."""
    return host.out("systemctl", "list-units", "--plain", "--no-legend", "*agent*")


def newer(deb: Path, directory: Path) -> Path:
    """The same package as a later version."""
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True, timeout=60)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", r"Version: \1+later", control.read_text()))
    made = directory / "later.deb"
    build = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(made)]
    subprocess.run(build, check=True, timeout=60, capture_output=True)
    shutil.rmtree(tree)
    return made


@pytest.fixture
def installed(suite: str, installed_base: FindBase, make_host: MakeHost, tmp_path: Path) -> Host:
    """A fresh host with the package; `tmp_path` is its /packages."""
    return make_host(installed_base(suite), binds=[f"{tmp_path}:/packages:ro"])


# -- what is in it ----------------------------------------------------------------------------------


@each_suite
class TestContents:
    @pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
    def test_lintian_finds_nothing_that_is_not_explained(self, suite: str, agentd_deb: FindBase) -> None:
        command = ["lintian", "--allow-root", "--fail-on=error", "--tag-display-limit=0", str(agentd_deb(suite))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_it_needs_the_python_of_its_release_and_no_other(self, suite: str, agentd_deb: FindBase) -> None:
        asked = subprocess.run(["dpkg-deb", "-f", agentd_deb(suite)], capture_output=True, text=True, check=True)
        fields = dict(line.split(": ", 1) for line in asked.stdout.splitlines() if ": " in line and line[0] != " ")
        this, following = PYTHON[suite], f"3.{int(PYTHON[suite].removeprefix('3.')) + 1}"
        assert {f"python3 (>= {this})", f"python3 (<< {following})"} < set(fields["Depends"].split(", "))
        assert fields["Version"].endswith(RELEASE[suite])

    def test_everything_is_roots_and_nothing_gives_rights_away(self, suite: str, agentd_deb: FindBase) -> None:
        listed = subprocess.run(["dpkg-deb", "-c", agentd_deb(suite)], capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            mode, owner, _, _, _, path = line.split(maxsplit=5)
            assert owner == "root/root", line
            assert mode[0] == "l" or (mode[5], mode[8]) == ("-", "-"), line
            assert not set(mode) & set("sStT"), line
            assert re.match(r"\./($|etc/($|agentd/)|usr/(lib|share|bin)?/?)", path), line

    def test_what_only_a_newer_systemd_knows_is_not_given_to_an_older(
        self, suite: str, installed_base: FindBase
    ) -> None:
        place = installed_base(suite) / "usr/lib/systemd/system"
        texts = [path.read_text() for path in place.rglob("agent*") if path.is_file()]
        texts += [path.read_text() for path in place.glob("agent*.d/*.conf")]
        assert any("RestartSteps=" in text for text in texts) == (suite != "bookworm")

    def test_units_are_as_systemd_wants_them(self, suite: str, installed_base: FindBase) -> None:
        names = ["agentd.service", *SOCKETS, "agentd.target", "agentd-agents.slice", "agent@research-9101.service"]
        in_root(installed_base(suite), "systemd-analyze", "verify", "--man=no", *names)

    def test_the_programs_run_with_what_the_package_brings(self, suite: str, installed_base: FindBase) -> None:
        root = installed_base(suite)
        for program in ("agentd", "agentctl"):
            assert in_root(root, program, "--version").startswith(f"{program} ")
        loads = "import agentd.daemon, agentd.drivers.systemd, agentd.sample.__main__, yaml; yaml.CSafeLoader"
        in_root(root, "/usr/lib/agentd/venv/bin/python", "-c", loads)
        assert in_root(root, "agentctl", "config", "check", CONFIG).endswith(": OK\n")

    def test_the_configuration_is_for_agentd_and_root_alone(self, suite: str, installed_base: FindBase) -> None:
        root = installed_base(suite)
        assert in_root(root, "stat", "--format=%A %U %G", CONFIG) == "-rw-r----- root agentd\n"
        refused = pytest.raises(BaseError, match="permission denied; it is for root and the group agentd\n")
        with refused:
            in_root(root, *AS_NOBODY, "agentctl", "config", "check", CONFIG)

    def test_nothing_is_compiled_at_run_time(self, suite: str, installed_base: FindBase) -> None:
        site = next((installed_base(suite) / "usr/lib/agentd/venv/lib").glob("python3.*/site-packages"))
        sources = set(site.rglob("*.py"))
        compiled = {path.parent.parent / f"{path.name.split('.')[0]}.py" for path in site.rglob("*.pyc")}
        assert sources == compiled
        assert {path.name for path in site.iterdir()} & {"pip", "setuptools", "pytest", "mypy"} == set()

    def test_it_brings_what_an_agent_in_any_language_is_made_from(self, suite: str, installed_base: FindBase) -> None:
        root = installed_base(suite)
        messages = {path.name for path in (root / "usr/share/agentd/proto/agentd/v1").iterdir()}
        assert messages >= {"agent.proto", "common.proto"}
        assert (root / "usr/share/doc/agentd/protocol.md").is_file()
        assert (root / "usr/share/doc/agentd/examples/ruby_agent.rb").is_file()

    def test_shells_complete_its_commands(self, suite: str, installed_base: FindBase) -> None:
        root = installed_base(suite)
        script = (
            ". /usr/share/bash-completion/completions/agentctl;"
            " COMP_WORDS=(agentctl st) COMP_CWORD=1; _agentctl_completion agentctl; echo ${COMPREPLY[@]}"
        )
        assert in_root(root, "bash", "-c", script).split() == ["status"]
        assert "#compdef agentctl" in (root / "usr/share/zsh/vendor-completions/_agentctl").read_text()
        assert "complete " in (root / "usr/share/fish/vendor_completions.d/agentctl.fish").read_text()


# -- its life ---------------------------------------------------------------------------------------


@each_suite
def test_on_a_clean_host_one_start_after_the_installation_brings_the_fleet(
    suite: str, clean_base: FindBase, agentd_deb: FindBase, make_host: MakeHost
) -> None:
    deb = agentd_deb(suite)
    host = make_host(clean_base(suite), binds=[f"{deb.parent}:/packages:ro"])
    host.exec("dpkg", "--install", f"/packages/{deb.name}")
    assert host.out("systemctl", "is-enabled", "agentd", check=False) == "disabled"
    assert set(is_active(host, "agentd", "agentd.target", *SOCKETS)) == {"inactive"}

    agents = start(host)
    assert sorted(agents) == fleet()
    assert set(is_active(host, "agentd", "agentd.target", *SOCKETS)) == {"active"}
    pid = host.show("agentd", "MainPID")["MainPID"]
    assert host.out("ps", "-o", "user=", "-p", pid) == "agentd"
    assert host.out("systemctl", "--failed", "--plain", "--no-legend") == ""

    # Anybody can ask what is wrong in an exception from the sandbox.
    python = ("/usr/lib/agentd/venv/bin/python", "-I", "-c", ASK_FOR_MISTAKES)
    key, value = host.out(*AS_NOBODY, *python).splitlines()
    assert re.match(r"3: Unknown key (name )?'PrivteTmp' in section ", key)
    assert value.startswith("4: Failed to parse ")


@each_suite
def test_an_upgrade_restarts_agentd_and_no_agent(
    suite: str, installed: Host, agentd_deb: FindBase, tmp_path: Path
) -> None:
    newer(agentd_deb(suite), tmp_path)
    agents = start(installed)
    before = installed.show("agentd", "MainPID", "InvocationID")
    sockets = {name: installed.show(name, "InvocationID") for name in SOCKETS}
    installed.exec("systemctl", "start", LIMITS)
    limits = installed.show(LIMITS, "InvocationID")

    done = installed.exec("dpkg", "--install", "/packages/later.deb")
    assert done.stderr == ""
    assert installed.show(LIMITS, "InvocationID") != limits, "it runs the old code"
    now = installed.show("agentd", "MainPID", "InvocationID")
    assert now["InvocationID"] != before["InvocationID"]
    wait_until(lambda: states(installed) == {"ready"}, "all agents ready again", READY_S)
    assert running(installed) == agents
    assert {name: installed.show(name, "InvocationID") for name in SOCKETS} == sockets

    told = installed.journal(f"_SYSTEMD_INVOCATION_ID={now['InvocationID']}")
    kinds = [entry["AGENTD_EVENT"] for entry in told if "AGENTD_EVENT" in entry]
    adopted = catalog.MESSAGE_IDS[EventType.ADOPT]
    assert sum(entry.get("MESSAGE_ID") == adopted for entry in told) == len(fleet())
    assert not {"start", "restart", "replace", "stop", "exit"} & set(kinds), kinds

    installed.write(CONFIG, "pools: {research: {min: -1}}\n")
    done = installed.exec("dpkg", "--install", "/packages/later.deb")
    assert "agentd has not come up again; see: systemctl status agentd\n" in done.stderr
    assert running(installed) == agents


def test_an_upgrade_does_not_start_what_was_stopped(
    installed_base: FindBase, make_host: MakeHost, agentd_deb: FindBase, tmp_path: Path
) -> None:
    newer(agentd_deb("bookworm"), tmp_path)
    host = make_host(installed_base("bookworm"), binds=[f"{tmp_path}:/packages:ro"])
    host.exec("chmod", "0644", CONFIG)
    host.exec("dpkg", "--install", "/packages/later.deb")
    assert host.out("stat", "--format=%a", CONFIG) == "644", "what an administrator made of it"
    assert set(is_active(host, "agentd", "agentd.target", *SOCKETS)) == {"inactive"}
    assert host.out("systemctl", "is-enabled", "agentd", check=False) == "disabled"


@each_suite
def test_removal_stops_everything_and_purging_forgets_it(suite: str, installed: Host) -> None:
    start(installed)
    installed.exec("systemctl", "enable", "agentd")
    installed.write(CONFIG, installed.out("cat", CONFIG) + "\n# ours\n")
    link = dropins.UNITS_DIR / f"{fleet()[0]}.d" / dropins.LINK
    installed.write(str(link), "[Service]\nProtectHome=no\n")

    installed.exec("dpkg", "--remove", "agentd", timeout_s=200)
    assert running(installed) == {}
    assert set(is_active(installed, "agentd", "agentd.target", *SOCKETS)) == {"inactive"}
    assert units_left(installed) == ""
    assert installed.out("sh", "-c", "ls -d /usr/lib/agentd /run/agentd 2>/dev/null", check=False) == ""
    assert installed.out("tail", "-n1", CONFIG) == "# ours"
    assert "agentd.db" in installed.out("ls", "/var/lib/agentd").split()

    installed.exec("dpkg", "--purge", "agentd")
    assert installed.out("find", "/etc", "/usr", "/var/lib", "/run", "-xdev", "-name", "*agentd*") == ""
    # The user stays, as Debian has it: nobody else is to get its number.
    assert installed.out("id", "-un", "agentd") == "agentd", suite


def test_an_administrators_choices_outlive_a_removal_and_failures_do_not(
    installed_base: FindBase, make_host: MakeHost, agentd_deb: FindBase
) -> None:
    deb = agentd_deb("bookworm")
    host = make_host(installed_base("bookworm"), binds=[f"{deb.parent}:/packages:ro"])
    host.exec("systemctl", "enable", "agentd")
    host.exec("dpkg", "--remove", "agentd")
    host.exec("dpkg", "--install", f"/packages/{deb.name}")
    assert host.out("systemctl", "is-enabled", "agentd") == "enabled"
    assert set(is_active(host, "agentd")) == {"inactive"}

    # A unit that has failed is remembered by its name, and must not be by the time the package is gone.
    host.write("/run/systemd/system/run-agentd-instances.mount.d/broken.conf", "[Mount]\nOptions=nonsense\n")
    host.exec("systemctl", "daemon-reload")
    host.exec("systemctl", "start", MOUNT, check=False)
    assert host.out("systemctl", "is-failed", MOUNT) == "failed"
    host.exec("rm", "-r", "/run/systemd/system/run-agentd-instances.mount.d")
    host.exec("dpkg", "--purge", "agentd")
    assert units_left(host) == ""

    host.exec("dpkg-statoverride", "--add", "root", "daemon", "0604", CONFIG)
    host.exec("dpkg", "--install", f"/packages/{deb.name}")
    assert host.out("stat", "--format=%a %U %G", CONFIG) == "604 root daemon", "an administrator's word counts"
