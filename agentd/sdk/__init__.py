"""What agents and programs import to work with agentd: gRPC, the generated messages, nothing else of ours."""

from agentd.sdk.agent import Agent, Task
from agentd.sdk.latch import Latch

__all__ = ["Agent", "Latch", "Task"]
