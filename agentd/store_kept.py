"""What the state file has to hold, kept in memory, and what of it the file does not hold yet.

Owns no file and no thread: `agentd.store` changes it and brings the file up to it.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from agentd.core.effects import Effect
from agentd.core.messages import EventType, Record, StoredRecord
from agentd.core.model import Decision
from agentd.store_schema import Intent

WRITTEN_MAX = 1_000  # records that stay in memory though they are written, should the file be damaged
CONFIGURATIONS_MAX = 8  # of this run that stay in memory, should the file be damaged
BASES_MAX = 100  # decisions that keep what they were made from while they wait for the file: that can be large


class Batch(Struct, frozen=True):
    """What one step of the controller leaves to be stored, all or nothing.

    `records` carry their wall time. `rows` is changed state, key -> JSON text, None deletes. `intents` are driver
    calls about to be made, `done` the ids of those whose result is known.
    """

    records: tuple[tuple[float, Record], ...] = ()
    decisions: tuple[Decision, ...] = ()
    rows: Mapping[str, str | None] = field(default_factory=dict)
    intents: tuple[Intent, ...] = ()
    done: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()  # of these decisions or of earlier ones


class Kept:
    """The state in full and the newest records: all that the file lacks, up to `pending_max`.

    Changed by the writer thread alone.

    Invariant: a row or intent whose key is in no `changed_*` set, a record with an id up to `stored_id` and a
    decision or effect that is not in `decisions` or `effects` is in the file as it is here.
    """

    def __init__(self, pending_max: int) -> None:
        self.rows: dict[str, str] = {}
        self.intents: dict[str, Intent] = {}
        self.changed_rows: set[str] = set()
        self.changed_intents: set[str] = set()
        self.records: deque[StoredRecord] = deque(maxlen=pending_max)
        self.stored_id = 0
        self.decisions: deque[tuple[int, Decision]] = deque(maxlen=pending_max)
        self.decision_seq = 0
        self.effects: deque[Effect] = deque(maxlen=pending_max)
        self.lost = 0
        self.configurations: dict[str, bytes] = {}  # by fingerprint, compressed; the newest last
        self.knows_configurations = True  # the file has them

    def take(self, batch: Batch, records: Sequence[StoredRecord]) -> None:
        for key, value in batch.rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
            self.changed_rows.add(key)
        for intent in batch.intents:
            self.intents[intent.id] = intent
            self.changed_intents.add(intent.id)
        for done in batch.done:
            self.intents.pop(done, None)
            self.changed_intents.add(done)
        for stored in records:
            if len(self.records) == self.records.maxlen and self.records[0].id > self.stored_id:
                self.lost += 1
            self.records.append(stored)
        for decision in batch.decisions:
            self.decision_seq += 1
            self.decisions.append((self.decision_seq, decision))
        for place in range(len(self.decisions) - 1 - BASES_MAX, -1, -1):
            seq, decision = self.decisions[place]
            if not decision.basis:
                break  # and none of those before it has one
            self.decisions[place] = seq, replace(decision, basis="")
        self.effects.extend(batch.effects)

    def configured(self, fingerprint: str, text: str) -> None:
        """Decisions to come are made under this configuration."""
        self.configurations.pop(fingerprint, None)
        self.configurations[fingerprint] = zlib.compress(text.encode())
        for old in list(self.configurations)[:-CONFIGURATIONS_MAX]:
            del self.configurations[old]
        self.knows_configurations = False

    def unwritten(self) -> Iterator[StoredRecord]:
        """Records that are not in the file, newest first."""
        for stored in reversed(self.records):
            if stored.id <= self.stored_id:
                return
            yield stored

    def unwritten_decisions(self, pool: str) -> list[Decision]:
        """Decisions of `pool` ("" = all pools) that are not in the file, oldest first."""
        return [made for _, made in self.decisions if not pool or made.pool == pool]

    def told(self, decision: Decision) -> Decision:
        """`decision` with its effect, where that is not in the file yet."""
        found = (effect for effect in self.effects if (effect.decision, effect.pool) == (decision.id, decision.pool))
        effect = next(found, None)
        return decision if effect is None else replace(decision, effect=effect)

    def written(self) -> None:
        self.changed_rows.clear()
        self.changed_intents.clear()
        self.decisions.clear()
        self.effects.clear()
        self.knows_configurations = True
        self.stored_id = max(self.stored_id, self.records[-1].id if self.records else 0)
        while len(self.records) > WRITTEN_MAX:
            self.records.popleft()

    def forget_file(self) -> None:
        """The file is a new one: everything here has to be written to it."""
        self.stored_id = 0
        self.knows_configurations = False


def matches(stored: StoredRecord, *, pool: str, instance: str, types: Collection[EventType]) -> bool:
    """Whether a record passes these filters; empty filters let everything pass."""
    record = stored.record
    return (
        (not pool or record.pool == pool)
        and (not instance or record.instance == instance)
        and (not types or record.type in types)
    )
