"""What holds for all tests: a skipped test is told loudly, and with AGENTD_NO_SKIP it fails the run."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The same examples every time, so that a run says something about the change and not about chance;
# AGENTD_HYPOTHESIS=deep looks for new ones.
settings.register_profile("quick", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("AGENTD_HYPOTHESIS", "quick"))

_skipped: list[str] = []


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
