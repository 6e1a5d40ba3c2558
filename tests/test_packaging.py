"""What the package is made from agrees with the code: manual pages name everything, versions are one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import click
import pytest

from agentd.agentctl.app import EXIT_CODES, cli
from agentd.config import AUTOSCALING_KEYS, TOP_KEYS
from agentd.config.guards import RATE_KEYS
from agentd.config.pools import POOL_KEYS, RESOURCE_KEYS, RESTART_KEYS
from agentd.config.settings import HISTORY_KEYS, HOST_KEYS, LISTEN_KEYS, RESERVE_KEYS
from agentd.daemon import parser

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The manual pages by name, as a terminal shows their text: without fonts and escapes."""
    out = tmp_path_factory.mktemp("man")
    environ = os.environ | {"SOURCE_DATE_EPOCH": "86400"}
    subprocess.run([sys.executable, ROOT / "packaging" / "man-pages", out], check=True, env=environ, timeout=60)
    found = {}
    for page in out.iterdir():
        text = re.sub(r"\\f[BIR]", "", page.read_text())
        found[page.name] = text.replace("\\-", "-").replace("\\&", "").replace("\\(aq", "'").replace("\\(dq", '"')
    return found


def commands(group: click.Group, path: str) -> list[str]:
    return [
        name
        for word, command in group.commands.items()
        for name in (commands(command, f"{path} {word}") if isinstance(command, click.Group) else [f"{path} {word}"])
    ]


@pytest.mark.host
class TestManualPages:
    def test_there_is_one_for_the_daemon_the_command_and_the_file(self, pages: dict[str, str]) -> None:
        assert sorted(pages) == ["agentctl.1", "agentd.8", "agentd.yaml.5"]
        assert all(".TH" in page and "1970-01-02" in page and "@" not in header(page) for page in pages.values())

    def test_the_daemons_has_every_option(self, pages: dict[str, str]) -> None:
        for action in parser()._actions:
            for option in action.option_strings:
                assert option in pages["agentd.8"]

    def test_the_commands_has_every_command_with_its_options_and_every_exit_code(self, pages: dict[str, str]) -> None:
        sections = pages["agentctl.1"].split(".SS ")
        for name in commands(cli, "agentctl"):
            (section,) = [one for one in sections if one.startswith(f'"{name}"')]
            assert "--output" in section
            assert f"\n{name}" in section.partition("Examples:")[2], "no example"
        assert all(f".TP\n{code}\n{meaning}" in pages["agentctl.1"] for code, meaning in EXIT_CODES)

    def test_the_files_has_every_key(self, pages: dict[str, str]) -> None:
        page = pages["agentd.yaml.5"]
        keys = {
            "": set(TOP_KEYS) - {"autoscaling", "port_ranges"},  # they stand inside multi_agent
            "multi_agent.autoscaling.": set(AUTOSCALING_KEYS) - {"port_ranges"},
            "pools.writing.": set(POOL_KEYS) - {"resources", "restart", "triggers", "collectors", "rate"},
            "pools.writing.resources.": RESOURCE_KEYS,
            "pools.writing.restart.": RESTART_KEYS,
            "pools.writing.rate.": RATE_KEYS,
            "host.": set(HOST_KEYS) - {"reserve"},
            "host.reserve.": RESERVE_KEYS,
        }
        named = set(re.findall(r'(?m)^(?:\.SS ")?([a-z_.]+)(?:"$|: )', page))
        assert {f"{prefix}{key}" for prefix, names in keys.items() for key in names} - named == set()
        for key in ("triggers", "pools.writing.collectors.queue", *LISTEN_KEYS, *HISTORY_KEYS):
            assert f"{key}: " in page


def header(page: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(".TH"))


def test_the_changelog_of_the_package_begins_with_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first = (ROOT / "packaging" / "debian" / "changelog").read_text().partition("\n")[0]
    assert re.fullmatch(rf"agentd \({re.escape(project['version'])}-[1-9][0-9]*\) \w+; urgency=\w+", first)


@pytest.mark.host
@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_shell_that_stops_at_the_first_failure(name: str) -> None:
    script = ROOT / "packaging" / "debian" / name
    if script.exists():
        assert script.read_text().startswith("#!/bin/sh\nset -e\n")
        subprocess.run(["sh", "-n", script], check=True, timeout=10)


@pytest.mark.host
@pytest.mark.timeout(300)
def test_pip_install_gives_an_agentd_that_runs_agents(tmp_path: Path) -> None:
    """As README says, in a fresh environment and from a copy: pip leaves things where it builds."""
    source, programs, state = tmp_path / "source", tmp_path / "venv" / "bin", tmp_path / "state"
    shutil.copytree(ROOT / "agentd", source / "agentd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(programs.parent)], check=True, timeout=60)
    pip = [sys.executable, "-m", "pip", f"--python={programs / 'python'}", "install", "--quiet", str(source)]
    subprocess.run(pip, check=True, timeout=240)

    file = tmp_path / "agentd.yaml"
    file.write_text("multi_agent: {enabled: true}\npools: {mine: {core: {one: 9771}}}\nlisten: {http: 127.0.0.1:0}\n")
    with subprocess.Popen([programs / "agentd", "--config", file, "--state-dir", state], cwd=tmp_path) as agentd:
        try:
            assert seen(programs / "agentctl", state / "run" / "control.sock") == [("mine-9771", "ready")]
            agentd.send_signal(signal.SIGINT)  # stops its agents first
            assert agentd.wait(60) == 0
        finally:
            agentd.kill()


def seen(agentctl: Path, control: Path) -> list[tuple[str, str]]:
    """The instances and their states, once all are ready."""
    command = [str(agentctl), "--address", str(control), "--output", "json", "ps"]
    deadline = time.monotonic() + 60
    rows: list[tuple[str, str]] = []
    while not rows or {state for _, state in rows} != {"ready"}:
        assert time.monotonic() < deadline, rows
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        rows = [(row["id"], row["state"]) for row in json.loads(done.stdout)] if done.returncode == 0 else []
    return rows
