"""What holds for all tests: a skipped test is told loudly, and with AGENTD_NO_SKIP it fails the run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Hosts that boot a real systemd, and real servers, for any test that asks for one.
sys.path.insert(0, str(Path(__file__).parent / "support"))
pytest_plugins = ["host_fixtures", "server_fixtures"]

# The same examples every time, so that a run says something about the change and not about chance;
# AGENTD_HYPOTHESIS=deep looks for new ones.
settings.register_profile("quick", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("AGENTD_HYPOTHESIS", "quick"))

# Whoever boots a host asks for one of these, at first or second hand.
_BOOTING = {"clean_base", "make_host", "make_shared_host"}
_skipped: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _BOOTING & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.booted)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _skipped and os.environ.get("AGENTD_NO_SKIP") and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped and os.environ.get("AGENTD_NO_SKIP"):
        terminalreporter.section("skipped where nothing may be skipped (AGENTD_NO_SKIP)")
        for line in _skipped:
            terminalreporter.write_line(line)
