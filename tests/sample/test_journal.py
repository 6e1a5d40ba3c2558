"""The journal of the sample agent: one line for each step, also where several agents share the file."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from agentd.sample.journal import Journal
from agentd.sample.work import Answer, Job, TaskQueue
from agentd.sdk import Agent


def lines(file: Path) -> list[tuple[str, str, str]]:
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [(one["task"], one["step"], one["incarnation"]) for one in found]


def test_each_step_of_a_task_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "journal"

    async def hand_over(job: Job) -> Answer | None:
        return Answer(b"{}") if job.id == "2" else None

    async def program(incarnation: str) -> None:
        agent = Agent(instance="research-9101", incarnation=incarnation)
        queue = TaskQueue(agent, 4, hand_over=hand_over, note=Journal(file, agent))
        tasks = [asyncio.create_task(queue.run(Job(0.001, id=str(number)))) for number in (1, 2)]
        await asyncio.sleep(0)
        queue.offer()
        await asyncio.gather(*tasks)

    for incarnation in ("a", "b"):
        asyncio.run(program(incarnation))
    expected = [("1", "accepted"), ("1", "begun"), ("2", "accepted"), ("2", "handed_over"), ("1", "done")]
    assert lines(file) == [(*step, incarnation) for incarnation in ("a", "b") for step in expected]


def test_a_journal_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "agentd.sample", "--journal", str(tmp_path / "nowhere" / "journal")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot write" in done.stderr and "nowhere/journal: No such file or directory" in done.stderr
