"""Fixtures of the core's tests, and how long hypothesis looks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

_unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", _unhurried, derandomize=True, database=None, max_examples=40)
settings.register_profile("deep", _unhurried, max_examples=5_000, print_blob=True)
settings.load_profile(os.environ.get("AGENTD_HYPOTHESIS", "quick"))
