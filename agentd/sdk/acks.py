"""What has become of the directives that an agent was told: remembered, and told to agentd until it has answered.

A directive that comes again is known by its id: it is acknowledged again and not followed twice. Bounded: of the
oldest directives nothing is remembered.
"""

from __future__ import annotations

from agentd.sdk.drain import Stage
from agentd.v1 import agent_pb2

ACKS_MAX = 32  # directives remembered, and acknowledgements in one beat
ACK_TEXT_MAX = 200

_STAGES = {
    Stage.ACCEPTED: agent_pb2.Acknowledgement.STAGE_ACCEPTED,
    Stage.DONE: agent_pb2.Acknowledgement.STAGE_DONE,
    Stage.FAILED: agent_pb2.Acknowledgement.STAGE_FAILED,
}
Told = dict[int, agent_pb2.Acknowledgement]


class Acks:
    """The acknowledgements of one agent. Not for several threads at once."""

    def __init__(self) -> None:
        # What became of the last directives by id (None: nothing to say yet), and those that agentd has yet to hear.
        self._acks: dict[int, agent_pb2.Acknowledgement | None] = {}
        self._owed: set[int] = set()

    def say(self, directive: int, stage: Stage, text: str, *, done_follows: bool) -> None:
        """Tell agentd with the next beat how far the agent has come with `directive`."""
        text = "".join(mark if mark.isprintable() else " " for mark in text)[:ACK_TEXT_MAX]
        ack = agent_pb2.Acknowledgement(id=directive, stage=_STAGES[stage], text=text, done_follows=done_follows)
        self.note(directive, ack)
        self._owed.add(directive)

    def note(self, directive: int, ack: agent_pb2.Acknowledgement | None = None) -> None:
        """Remember `directive`, of which there may be nothing to say yet."""
        self._acks[directive] = ack
        while len(self._acks) > ACKS_MAX:
            oldest = min(self._acks)  # ids count up
            del self._acks[oldest]
            self._owed.discard(oldest)

    def knows(self, directive: int) -> bool:
        """Whether a directive came before. Then its acknowledgement was lost, and the next beat repeats it."""
        if directive not in self._acks:
            return False
        self._owed.add(directive)
        return True

    def to_tell(self, *, busy: bool) -> Told:
        """The acknowledgements for the next beat, by id. A busy agent is not done, though it was a moment ago.

        A program takes a task off its queue a moment before it begins it, and may have accepted one at the last.
        """
        told = {ident: ack for ident in sorted(self._owed) if (ack := self._acks[ident]) is not None}
        for ident, ack in told.items():
            if busy and ack.stage == agent_pb2.Acknowledgement.STAGE_DONE:
                accepted = agent_pb2.Acknowledgement.STAGE_ACCEPTED
                told[ident] = agent_pb2.Acknowledgement(id=ident, stage=accepted, done_follows=True)
        return told

    def answered(self, told: Told) -> None:
        """agentd has heard `told`; what has changed since is still owed."""
        self._owed -= {ident for ident, ack in told.items() if self._acks.get(ident) is ack}
