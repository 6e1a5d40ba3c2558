"""`agentctl status` as a cold process: from the start of the process to its end.

Against an agentd with 6 and one with 500 instances (`sleep infinity`), in turns with the interpreter alone
(`python -c pass`) and with the one import that it cannot do without (`python -c "import grpc"`).
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from harness import Report, environment, free_ports, interleaved, parser, positive
from own_agentd import fleet_settings, own_agentd

HOLD_MS = 300.0
AGENTCTL = "from agentd.agentctl import main; main()"


def cold(*words: str) -> float:
    """Seconds that a Python process with these arguments takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, check=True, env=environment())
    return time.perf_counter() - began


def main() -> int:
    made = parser(__doc__, rounds=9)
    made.add_argument("--instances", type=positive, nargs="+", default=[6, 500], metavar="N", help="6 and 500")
    options = made.parse_args()
    report = Report(options)
    measures: dict[str, Callable[[], float]] = {
        "python -c pass": functools.partial(cold, "-c", "pass"),
        'python -c "import grpc"': functools.partial(cold, "-c", "import grpc"),
    }
    with ExitStack() as stack:
        for count in options.instances:
            first, last = free_ports(count)
            core = {f"a{port}": port for port in range(first, last + 1)}
            pool = {"command": ["sleep", "infinity"], "health": "none", "core": core}
            daemon = stack.enter_context(own_agentd(fleet_settings({"bench": pool})))
            daemon.wait_ready(count, 120.0)
            words = ("-c", AGENTCTL, "--address", daemon.control_address, "status")
            measures[f"agentctl status, {count} instances"] = functools.partial(cold, *words)
        interleaved(1, measures)  # what is read from the disk is in memory now
        results = interleaved(options.rounds, measures)
    bare, grpc = (statistics.median(results[name]) for name in list(measures)[:2])
    for name, values in results.items():
        ours = name.startswith("agentctl")
        report.add(name, [value * 1e3 for value in values], "ms", at_most=HOLD_MS if ours else None)
        if ours:
            report.add("  / python -c pass", [value / bare for value in values])
            report.add('  / python -c "import grpc"', [value / grpc for value in values])
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
