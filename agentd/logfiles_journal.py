"""What instances that systemd runs have written: read from the journal, by journalctl.

Owns the call of journalctl and its end. What an instance writes is found by its unit's name, which journald puts on
a line itself: no other program can forge it, as it could a field of its own. The lines of systemd and agentd about
the instance are left out, so the answer is what a log file would hold; `journalctl -u` shows them together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Sequence

from agentd import units
from agentd.core.model import InstanceId, parse_instance_id
from agentd.errors import Refused

CHUNK_BYTES = 64 * 1024
ERROR_BYTES_MAX = 1_000

# Its messages are shown to people, so in one language and without colours or pages.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}


class JournalLogs:
    """The logs of instances in the journal. `program`: how to call journalctl."""

    def __init__(self, program: Sequence[str] = ("journalctl",)) -> None:
        self._program = tuple(program)

    async def has(self, instance: str) -> bool:
        """Whether the journal has a line of `instance`, however old.

        Raises:
            ValueError: `instance` is no instance id.
            Refused: the journal cannot be read.
        """
        try:
            async with contextlib.aclosing(self.read(instance, 1, follow=False)) as pieces:
                await anext(pieces)
        except FileNotFoundError:
            return False
        return True

    async def read(self, instance: str, lines: int, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """The last `lines` lines of `instance`, of all its starts, in pieces of any size; with `follow` what comes
        after them too, until the reader closes it. journalctl ends with it.

        Raises:
            ValueError: `instance` is no instance id.
            FileNotFoundError: there is no line of `instance`, and none is waited for.
            Refused: the journal cannot be read; the text is journalctl's.
        """
        parse_instance_id(instance)
        what = f"_SYSTEMD_UNIT={units.unit_name(InstanceId(instance))}"
        mode = ("--follow",) if follow else ()
        process = await self._start(("--quiet", "--no-pager", "--output=cat", f"--lines={lines}", *mode, what))
        assert process.stdout is not None and process.stderr is not None
        complaint = asyncio.create_task(_beginning(process.stderr))
        missing = lines > 0 and not follow
        try:
            while piece := await process.stdout.read(CHUNK_BYTES):
                missing = False
                yield piece
            status, text = await process.wait(), await complaint
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await complaint
        if status:
            raise Refused("LOGS_UNREADABLE", f"cannot read the journal: {text or f'journalctl ended with {status}'}")
        if missing:
            raise FileNotFoundError(f"the journal has no line of {instance}")

    async def _start(self, arguments: tuple[str, ...]) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | _ENVIRONMENT,
            )
        except OSError as error:
            text = f"cannot read the journal: cannot run {self._program[0]}: {error.strerror}"
            raise Refused("LOGS_UNREADABLE", text) from error


async def _beginning(stream: asyncio.StreamReader) -> str:
    """The first characters of a stream on one line. It is read to its end, or its writer would be held up."""
    kept = b""
    while piece := await stream.read(CHUNK_BYTES):
        kept += piece[: ERROR_BYTES_MAX - len(kept)]
    return "; ".join(kept.decode(errors="replace").strip().splitlines())
