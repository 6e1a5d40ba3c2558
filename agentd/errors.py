"""The errors of agentd, by whose fault they are.

`ConfigError` is the person's who wrote the file, `Refused` the caller's, `StartError` the host's. A broken
invariant is none of these: it is an AssertionError, it ends the process, and the service manager restarts it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from agentd.core.model import StartFailure


class AgentdError(Exception):
    """Any error that agentd explains to a person instead of crashing."""


class Problem(Struct, frozen=True):
    """One thing wrong in a configuration file. `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class ConfigError(AgentdError):
    """A configuration that cannot be used. Carries every problem, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class StateDirError(AgentdError):
    """The state directory cannot be used, or another agentd uses it."""


class StartError(AgentdError):
    """A driver could not start an instance. `cause` is stable, the text names the value at fault."""

    def __init__(self, cause: StartFailure, text: str) -> None:
        self.cause = cause
        super().__init__(text)


class Refused(AgentdError):
    """A caller's request that cannot be carried out.

    `reason` is a stable UPPER_SNAKE code that travels in google.rpc.ErrorInfo; `status` is the name of the
    gRPC status code that fits, for example `NOT_FOUND`.
    """

    def __init__(self, reason: str, text: str, *, status: str = "FAILED_PRECONDITION") -> None:
        self.reason = reason
        self.status = status
        super().__init__(text)
