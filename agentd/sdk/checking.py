"""What a program hands over, looked at when it does: a mistake is told where it was made, not when a drain comes.

Raises TypeError and ValueError that say what would be right.
"""

from __future__ import annotations

import operator

COUNT_MAX = 10**9  # as agentd takes it


def queue_length(tasks: int) -> int:
    """`tasks` as a whole number from 0 to 10⁹.

    Raises:
        TypeError: it is not whole.
        ValueError: it is out of range.
    """
    try:
        whole = operator.index(tasks)
    except TypeError:
        raise TypeError(f"cannot report a queue of {tasks!r} tasks: the length must be a whole number") from None
    if not 0 <= whole <= COUNT_MAX:
        raise ValueError(
            f"cannot report a queue of {whole} tasks: the length must be at least 0 and at most {COUNT_MAX}"
        )
    return whole
