"""What became of each task, a line of JSON in a file that many agents may share: for tests that count tasks.

A line is one write to a file opened for appending, so that lines of several processes never mix, and what was written
survives a SIGKILL of its writer. It is no log: nobody rotates it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from agentd.sample.work import Job, Step
from agentd.sdk import Agent


class Journal:
    """Notes the tasks of one agent."""

    def __init__(self, path: Path, agent: Agent) -> None:
        """Open or make the file at `path`.

        Raises:
            OSError: it cannot be opened.
        """
        self._agent = agent
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def __call__(self, job: Job, step: Step) -> None:
        """Note that `job` has come to `step`.

        Raises:
            OSError: it cannot be written.
        """
        who = {"instance": self._agent.instance, "incarnation": self._agent.incarnation}
        os.write(self._file, json.dumps({"task": job.id, "step": step, **who}).encode() + b"\n")
