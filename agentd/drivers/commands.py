"""What every agent is born with, whichever driver starts it: the words of its command, and what it is told in its
environment.

Owns the names of these variables and the words that may stand in braces. Starts nothing, and looks for no program.
"""

from __future__ import annotations

from agentd.core.model import InstanceSpec


def command_words(spec: InstanceSpec, sample_command: tuple[str, ...]) -> tuple[str, ...]:
    """The command of `spec`, or `sample_command` where it has none, with {port}, {instance} and {pool} filled in."""
    return tuple(_filled_in(word, spec) for word in spec.command or sample_command)


def identity(spec: InstanceSpec, agent_endpoint: str) -> dict[str, str]:
    """Who the agent is, and where it reports. Its incarnation is added by what makes that."""
    return {
        "AGENTD_INSTANCE": spec.id,
        "AGENTD_PORT": str(spec.port),
        "AGENTD_ENDPOINT": agent_endpoint,
        "AGENTD_CONCURRENCY": str(spec.concurrency),
    }


def _filled_in(word: str, spec: InstanceSpec) -> str:
    """`word` with its placeholders replaced; other braces stay (arguments may be JSON)."""
    for name, value in (("port", str(spec.port)), ("instance", spec.id), ("pool", spec.pool)):
        word = word.replace("{" + name + "}", value)
    return word
