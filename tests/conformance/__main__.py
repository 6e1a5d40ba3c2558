"""Prints how many comparisons with the peers' own tests hold, per table, and fails when one does not.

AGENTD_SHARED=DIRECTORY python -m tests.conformance
"""

from __future__ import annotations

import sys

from tests.conformance.adapters import ADAPTERS, HELD, cases_of, passes
from tests.conformance.cases import directory


def main() -> int:
    place = directory()
    if place is None or not place.is_dir():
        print("AGENTD_SHARED names no directory with conformance tables", file=sys.stderr)
        return 2
    whole = True
    print(f"{'table':<24}{'upstream':>10}{'derived':>10}{'legacy':>10}{'failed':>10}")
    for name in ADAPTERS:
        held, failed = passes(cases_of(name))
        columns = "".join(f"{held[group] or '-':>10}" for group in ("upstream", "derived", "legacy"))
        print(f"{name:<24}{columns}{len(failed):>10}")
        for case, why in failed.items():
            print(f"  {case}: {why}")
        whole = whole and not failed and dict(held) == dict(HELD[name])
    if not whole:
        print("not every comparison that the tables hold was made and held", file=sys.stderr)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
