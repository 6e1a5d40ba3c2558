"""`python -m agentd` is `agentd`. Nothing of weight is imported outside `main`, so that control-C ends it quietly."""

from __future__ import annotations

import sys


def main() -> None:
    """Run agentd until it ends."""
    try:
        from agentd.daemon import main as run

        run()
    except KeyboardInterrupt:  # before agentd itself answers the signal: nothing has been started yet
        sys.exit(130)


if __name__ == "__main__":
    main()
