"""What all commands share: their class with examples, the session, parameter types, failures and exit codes.

Nothing here imports grpc; a session does when a command asks it for a client.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentd.agentctl.text import printable

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient

DONE, FAILED, USAGE, NO_DAEMON, PARTIAL, PIPE_CLOSED = 0, 1, 2, 3, 4, 141

FOREVER_S = 10 * 365 * 86400.0
COUNT_MAX = 100_000  # as agentd has it

# Where a package puts agentd.service.
_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
# A count on the wrong side of the present one is a mistake in the command, not a failure of agentd.
_USAGE_REASONS = ("TARGET_BELOW_CURRENT", "TARGET_ABOVE_CURRENT")


class Failure(Exception):
    """Trouble of the user's or of agentd's, told in one line on standard error. `code` is the exit code.

    `details` follow on lines of their own.
    """

    def __init__(self, text: str, code: int = FAILED, details: Iterable[str] = ()) -> None:
        self.code = code
        super().__init__("\n".join((f"agentctl: {printable(text)}", *map(printable, details))))


class Command(click.Command):
    """A command with examples, which its help and the reference show.

    What a command function returns is its exit code; None is 0.
    """

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params += [_output_option(), _json_option()]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
            for example in self.examples:
                formatter.write_text(example)


@dataclass
class Session:
    """What the global options say, and the way to agentd. `address` None: look for it."""

    address: str | None = None
    timeout_s: float = 10.0
    output: str = "table"

    @property
    def json(self) -> bool:
        return self.output == "json"

    @contextmanager
    def client(self) -> Iterator[ControlClient]:
        """A connection to agentd.

        Raises:
            Failure: whatever goes wrong with a call inside the block, with the exit code that belongs to it.
        """
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines would mix with ours
        from agentd.sdk.control import ControlClient, ControlError, NoDaemonError

        try:
            with ControlClient(self.address, timeout_s=self.timeout_s) as client:
                yield client
        except NoDaemonError as error:
            packaged = any(Path(place, "agentd.service").exists() for place in _UNITS)
            way = "systemctl start agentd" if packaged else "agentd --config FILE, or: scripts/run"
            text = f"{error}; start one with: {way}"
            raise Failure(text, NO_DAEMON) from error
        except ControlError as error:
            text = f"{error} ({error.reason})" if error.reason else str(error)
            raise Failure(text, USAGE if error.reason in _USAGE_REASONS else FAILED) from error


class Duration(click.ParamType):  # type: ignore[type-arg]  # no generic at run time before click 8.3
    """Seconds above 0 and up to `most_s`, written 30s, 10m, 1h, 1d, 1h30m or as a plain number."""

    name = "duration"
    _UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012
    _WHOLE = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhd])+|[0-9]+(?:\.[0-9]+)?")
    _PART = re.compile(r"([0-9.]+)([smhd]?)")

    def __init__(self, most_s: float = FOREVER_S) -> None:
        self._most_s = most_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        seconds = 0.0
        if self._WHOLE.fullmatch(text):
            seconds = sum(float(number) * self._UNITS[unit] for number, unit in self._PART.findall(text))
        if seconds > self._most_s:
            self.fail(f"{text[:40]!r} is above the maximum of {self._most_s / 86400:.0f}d", param, ctx)
        if seconds <= 0:
            self.fail(f"{text!r} is no duration above 0; write for example 30s, 10m, 1h or 1d", param, ctx)
        return seconds


class Whole(click.IntRange):
    """A whole number within bounds, which errors name as that."""

    name = "integer"


class Count(click.ParamType):  # type: ignore[type-arg]  # no generic at run time before click 8.3
    """A whole number from 0 up to `COUNT_MAX`."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not re.fullmatch(r"[0-9]+", text):
            self.fail(f"{text!r} is no whole number from 0 up; for example: 12", param, ctx)
        digits = text.lstrip("0") or "0"
        # The length first: int() refuses thousands of digits.
        if len(digits) > len(str(COUNT_MAX)) or int(digits) > COUNT_MAX:
            self.fail(f"{text[:40]!r} is above the maximum of {COUNT_MAX}", param, ctx)
        return int(digits)


class Address(click.ParamType):  # type: ignore[type-arg]  # no generic at run time before click 8.3
    """An address in gRPC syntax; a path alone is taken as a socket."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text.startswith("/"):
            text = f"unix:{text}"
        path = text.removeprefix("unix:")
        if path == text and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}", text):
            self.fail(f"{text!r} is no address; write unix:/run/agentd/control.sock or 127.0.0.1:8767", param, ctx)
        if path != text and not 0 < len(os.fsencode(path)) < 108:
            self.fail(f"{text!r}: the path of a socket has 1 to 107 bytes", param, ctx)
        return text


def show_json(value: Any) -> None:
    """One JSON document on standard output. A number that JSON cannot carry is a defect, and raises."""
    print(json.dumps(value, indent=2, allow_nan=False), flush=True)


def show_json_line(value: Any) -> None:
    """One JSON object on one line, at once."""
    print(json.dumps(value, allow_nan=False), flush=True)


def _output_option() -> click.Option:
    return click.Option(
        ["--output", "-o"],
        type=click.Choice(["table", "json"]),
        expose_value=False,
        callback=_set_output,
        help="For people (table, the default) or for programs (json).",
    )


def _json_option() -> click.Option:
    return click.Option(
        ["--json"], is_flag=True, expose_value=False, callback=_set_json, help="The same as --output json."
    )


def _set_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        _set_output(ctx, param, "json")


def _set_output(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    del param
    session = ctx.find_object(Session)
    if value is not None and session is not None:  # none while a shell completes a word
        session.output = value
