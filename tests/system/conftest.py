"""What holds for all tests on booted hosts: the mark `host`, and time for the first use of a machine, which builds."""

from __future__ import annotations

from pathlib import Path

import pytest
from testhost import PATIENCE

HERE = Path(__file__).parent
TIMEOUT_S = 400 * PATIENCE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.host)
            item.add_marker(pytest.mark.booted)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))
