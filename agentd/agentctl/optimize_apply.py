"""Puts a recommendation beside the configuration as a drop-in, and takes it away again where agentd refuses it."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentd.agentctl import interrupt
from agentd.agentctl.command import Failure, Session
from agentd.agentctl.terminal import show, styled
from agentd.agentctl.text import printable

if TYPE_CHECKING:
    from agentd.sim.candidates import Candidate

# What a call ends with that agentd may have heard, and has not answered.
_UNANSWERED = ("DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL")
_NOT_KNOWN = "whether agentd has taken the recommendation is not known"
_STYLES = {"+": "good", "-": "bad", "@": "dim"}


def place(config_file: Path, pool: str) -> Path:
    """The drop-in that holds what is recommended for `pool`."""
    return config_file.with_name(f"{config_file.name}.d") / f"50-optimize-{pool}.yaml"


def dropin(config_file: Path | None, pool: str, candidate: Candidate, why: Sequence[str]) -> str:
    """The text of the drop-in. The readers of the configuration make of it what was simulated.

    Raises:
        Failure: with it the configuration would have errors.
    """
    from agentd import config
    from agentd.errors import ConfigError

    try:
        target = None if config_file is None else place(config_file, pool)
        written = () if config_file is None else config.written(config_file, "pools", pool, without=target)
        listed = () if config_file is None else config.written(config_file, "pools", without=target)
        others = () if listed or config_file is None else tuple(config.load(config_file).fleet.pools)
        lines = [f"# {line}" for line in why]
        lines += ["pools:", f"  {pool}:", *(f"    {line}" for line in candidate.lines(written))]
        lines += [f"  {other}: {{}}" for other in others if other != pool]  # a file that lists none has them all
        text = "\n".join([*lines, ""])
        if config_file is not None and target is not None:
            config.load(config_file, {target: text})
    except ConfigError as error:
        raise Failure(
            f"the recommendation for {pool} does not go with the file", details=str(error).splitlines()
        ) from None
    return text


def apply(session: Session, config_file: Path, texts: dict[str, str], *, yes: bool, reads: bool) -> bool:
    """Write the drop-ins `texts`, by pool, and have agentd read them, after a question; whether that was done.

    `reads`: an agentd runs, and with that file. Without, what is written waits for one that does.

    Raises:
        Failure: a file cannot be written, or agentd refuses them or does not answer: then everything is as it was, or
            the text says what is not, or is not known.
    """
    files = {place(config_file, pool): text for pool, text in texts.items()}
    before = _before(files)
    say: Callable[[Sequence[str]], None] = (lambda _lines: None) if session.json else show
    for path, text in files.items():
        old = before.contents[path] or ""
        diff = difflib.unified_diff(
            old.splitlines(), text.splitlines(), str(path) if old else "/dev/null", str(path), lineterm=""
        )
        say([styled(printable(line), _STYLES.get(line[:1], "")) for line in diff])
    if not yes and not _agreed(f"Write {', '.join(map(str, files))}{' and reload' if reads else ''}?"):
        say(["nothing was changed"])
        return False
    # Control-C in the midst of it would leave files of which agentd knows nothing.
    with interrupt.held() as interrupted:
        try:
            for path, text in files.items():
                _write(path, text, config_file)
            changes = _put_in_force(session, reads=reads) if not interrupted() else None
        except BaseException as error:
            cause = _cause(error)
            _restore(before, config_file, cause)
            if isinstance(error, _Unanswered):
                cause = _read_again(session, error)
            if cause is error:
                raise
            raise cause from error
        if changes is None:
            _restore(before, config_file, Failure("interrupted"))
            interrupt.end("interrupted: nothing was changed")
        say([f"wrote {path}" for path in files])
        say([printable(f"changed: {change}") for change in changes])
        if any(text is not None for text in before.contents.values()):
            say(["what was recommended before is replaced"])
        say([f"to undo: rm {' '.join(map(str, files))}{' && agentctl reload' if reads else ''}"])
    return True


class _Unanswered(Failure):
    """agentd was asked to read the recommendation, and has not said whether it did. `why`: in words."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(_NOT_KNOWN, details=why.splitlines())


@dataclass(frozen=True, slots=True)
class _Before:
    """What there was: the text of each file, None where there was none, and the directories that were not there."""

    contents: dict[Path, str | None]
    folders: frozenset[Path]


def _before(files: Iterable[Path]) -> _Before:
    """
    Raises:
        Failure: a file that is there cannot be read.
    """
    try:
        contents = {path: path.read_text(encoding="utf-8") if path.exists() else None for path in files}
    except (OSError, UnicodeDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Failure(f"cannot read what was recommended before: {text}; nothing was changed") from error
    return _Before(contents, frozenset(path.parent for path in contents if not path.parent.is_dir()))


def _agreed(question: str) -> bool:
    try:
        return click.confirm(question, default=False, err=True)
    except click.Abort:
        return False


def _write(path: Path, text: str, beside: Path) -> None:
    """At once or not at all; whoever may read the configuration may read it."""
    made = beside.stat()
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o755)
        path.parent.chmod(0o755)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if os.geteuid() == 0:
            shutil.chown(fresh, made.st_uid, made.st_gid)
        fresh.chmod(made.st_mode & 0o777)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _put_in_force(session: Session, *, reads: bool) -> Sequence[str]:
    """What has changed.

    Raises:
        _Unanswered: it may have been taken.
        Failure: it was refused.
    """
    if not reads:
        return ("no agentd runs with this file: it holds from the start of one",)
    with session.client() as client:
        from agentd.sdk.control import ControlError

        try:
            return tuple(client.reload().changes)
        except ControlError as error:
            if not error.reason and error.code in _UNANSWERED:
                raise _Unanswered(str(error)) from error
            text = "agentd refused the recommendation; its files are as they were"
            raise Failure(text, details=str(error).splitlines()) from error


def _read_again(session: Session, first: _Unanswered) -> Failure:
    """The files are back: have agentd read these, whatever it has read before, and say what is known then."""
    try:
        with session.client() as client:
            client.reload()
    except Failure as second:
        text = f"{_NOT_KNOWN}; its files are as they were: agentctl reload has them read"
        return Failure(text, details=[*first.why.splitlines(), *_told(second)])
    text = "agentd did not say whether it took the recommendation; its files are as they were, and read again"
    return Failure(text, details=first.why.splitlines())


def _told(error: BaseException) -> list[str]:
    return str(error).removeprefix("agentctl: ").splitlines()


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, OSError):
        return Failure(f"cannot write {error.filename}: {error.strerror}; nothing was changed")
    return error


def _restore(before: _Before, beside: Path, cause: BaseException) -> None:
    """Put everything back as it was.

    Raises:
        Failure: that did not do either. It says what is left, and `cause`.
    """
    left = []
    for path, text in before.contents.items():
        try:
            if text is not None:
                _write(path, text, beside)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            was = "remove it" if text is None else "it had another text"
            left.append(f"{path} is left as recommended ({error.strerror}): {was}")
    for folder in before.folders:
        with contextlib.suppress(OSError):  # it has other files by now, or is not there
            folder.rmdir()
    if left:
        why = _told(cause) or [type(cause).__name__]
        raise Failure("the recommendation could not be taken back", details=[*left, "why it was:", *why]) from cause
