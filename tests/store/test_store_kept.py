"""What waits for the file stays small: decisions forget what they were made from, the oldest first."""

from __future__ import annotations

from msgspec.structs import replace
from store_samples import decision

from agentd.store import Batch
from agentd.store_kept import BASES_MAX, Kept


def test_of_many_decisions_that_wait_only_the_newest_keep_what_they_were_made_from() -> None:
    kept = Kept(pending_max=10_000)
    for number in range(BASES_MAX + 30):
        kept.take(Batch(decisions=(replace(decision(number), basis="{}"),)), ())
    bases = [made.basis for made in kept.unwritten_decisions("")]
    assert bases == [""] * 30 + ["{}"] * BASES_MAX
