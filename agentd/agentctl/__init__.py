"""agentctl, the command line of agentd.

This module owns the entry point. It imports nothing of weight: whatever a person can interrupt is imported
inside `main`, so that control-C ends quietly at any moment.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run agentctl with the arguments of this process, and exit with its code."""
    try:
        from agentd.agentctl.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
