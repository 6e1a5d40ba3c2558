"""When an agent's next heartbeat is due, and how long its answer may take. Pure: no clock and no chance of its own.

Beats follow the interval that agentd tells, a change of the numbers comes sooner, an acknowledgement at once. What
agentd does not take is tried again after a wait that grows and is spread.
"""

from __future__ import annotations

INTERVAL_DEFAULT_S = 5.0  # until agentd has told one
INTERVAL_MAX_S = 3600.0
CHANGE_INTERVAL_S = 1.0  # the soonest that a change is told after the last beat
ANSWER_S = 5.0
ANSWER_MAX_S = 10.0  # agentd wants to hear of an agent at least that often
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0


class Pace:
    """`now` is monotonic time in seconds, `chance` a random number in [0, 1). Not for several threads at once."""

    def __init__(self, answer_max_s: float = ANSWER_MAX_S) -> None:
        """`answer_max_s`: no answer is waited for any longer, whatever the interval."""
        self.interval_s = INTERVAL_DEFAULT_S
        self._answer_max_s = min(answer_max_s, ANSWER_MAX_S)
        self._last: float | None = None
        self._wait_s = 0.0
        self._failures = 0
        self._changed = False
        self._urgent = False

    @property
    def answer_s(self) -> float:
        """How long an answer may take."""
        return min(max(ANSWER_S, self.interval_s), self._answer_max_s)

    def change(self) -> bool:
        """The agent's numbers changed. Whether that is news since the last beat."""
        news = not self._changed
        self._changed = True
        return news

    def urge(self) -> None:
        """The next beat is due at once, for it carries an acknowledgement."""
        self._urgent = True

    def due_in_s(self, now: float) -> float:
        if self._last is None or self._urgent:
            return 0.0
        wait_s = self._wait_s
        if self._changed and self._failures == 0:
            wait_s = min(wait_s, CHANGE_INTERVAL_S)
        return self._last + wait_s - now

    def begin(self, now: float) -> None:
        """A beat is being sent; later changes are news again."""
        self._last = now
        self._changed = self._urgent = False

    def succeed(self, interval_s: float, chance: float) -> None:
        """agentd answered. The wait is up to a tenth shorter than the interval: many agents stay spread."""
        self.retime(interval_s)
        self._failures = 0
        self._wait_s = self.interval_s * (1.0 - 0.1 * chance)

    def retime(self, interval_s: float) -> None:
        """agentd wants a beat that often from now on. What is no interval is ignored."""
        if 0.0 < interval_s < INTERVAL_MAX_S:
            self.interval_s = interval_s
            self._wait_s = min(self._wait_s, interval_s)

    def fail(self, chance: float) -> None:
        """agentd did not take the beat: try again after a wait that grows and is spread."""
        self._failures += 1
        base_s = min(RETRY_MAX_S, self.interval_s, RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 10))
        self._wait_s = base_s * (0.5 + 0.5 * chance)

    def lose(self, now: float, chance: float) -> None:
        """A session that worked has ended. All the others' have too, perhaps: they come back spread over seconds."""
        self._last = now
        self._wait_s = min(RETRY_MAX_S, self.interval_s / 2.0) * chance
