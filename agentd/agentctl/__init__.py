"""agentctl, the command line of agentd.

This module owns the entry point. It imports nothing of weight: whatever a person can interrupt is imported
inside `main`, when control-C already ends it quietly.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run agentctl with the arguments of this process, and exit with its code."""
    try:
        from agentd.agentctl.interrupt import end_on_interrupt

        end_on_interrupt()
    except KeyboardInterrupt:  # before it is in force
        sys.exit(130)
    from agentd.agentctl.app import run

    sys.exit(run(sys.argv[1:]))
