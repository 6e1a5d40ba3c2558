"""The life of an instance: which state may follow which.

    pending -> starting -> ready -> draining -> stopping -> stopped
                  |  ^       |
                  v  |       v
                 backoff  <--+        (the driver restarts what exits)
                  |
                  v
                 failed               (the driver gave up)

A drain for a scale-down may be called off: draining -> ready.
`held` is outside: an instance that agentd leaves alone. It runs and its pool is not configured, or an operator has
stopped it. A move that is not in the table is a
broken invariant and crashes.
"""

from __future__ import annotations

from typing import Final

from agentd.core.model import State

MOVES: Final[dict[State, frozenset[State]]] = {
    State.PENDING: frozenset({State.STARTING, State.STOPPING, State.FAILED, State.STOPPED, State.BACKOFF}),
    # To itself: a listing may show the next process before the end of the last one is reported.
    State.STARTING: frozenset(
        {State.READY, State.STARTING, State.BACKOFF, State.FAILED, State.STOPPING, State.PENDING, State.HELD}
    ),
    State.READY: frozenset(
        {State.DRAINING, State.STOPPING, State.BACKOFF, State.FAILED, State.STARTING, State.PENDING, State.HELD}
    ),
    State.DRAINING: frozenset({State.STOPPING, State.STOPPED, State.PENDING, State.READY}),
    State.STOPPING: frozenset({State.STOPPED, State.PENDING}),
    State.STOPPED: frozenset(),
    State.BACKOFF: frozenset({State.STARTING, State.FAILED, State.STOPPING, State.PENDING, State.HELD}),
    State.FAILED: frozenset({State.PENDING, State.STARTING, State.STOPPING, State.STOPPED, State.HELD}),
    State.HELD: frozenset({State.PENDING, State.STARTING, State.STOPPING, State.STOPPED}),
}

# In these states an instance counts as committed capacity of its pool.
COMMITTED: Final = frozenset({State.PENDING, State.STARTING, State.READY, State.BACKOFF, State.FAILED})

# In these states an instance is on its way to ready.
ON_ITS_WAY: Final = frozenset({State.PENDING, State.STARTING})

# In these states a process of the instance is expected on the host.
RUNNING: Final = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.HELD})

LEAVING: Final = frozenset({State.DRAINING, State.STOPPING})


def check_move(old: State, new: State) -> None:
    """Assert that `new` may follow `old`."""
    assert new in MOVES[old], f"broken invariant: an instance cannot go from {old} to {new}"
