"""What a program hands over, looked at when it does: a mistake is told where it was made, not when a drain comes.

Raises TypeError and ValueError that say what would be right. What cannot be told of a callable is accepted.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import partial
from typing import TypeVar

COUNT_MAX = 10**9  # as agentd takes it
LABEL_BYTES_MAX = 128

T = TypeVar("T")

_PLAIN = "within `with` pass a plain function, or use `async with`"
_COROUTINE = "within `async with` pass an `async def`, or use `with`"


def check_callback(where: str, callback: Callable[..., object], *arguments: object) -> None:
    """`where` (`on_drain`) will call `callback` with as many arguments as these.

    Raises:
        TypeError: it cannot be called, or not like that.
    """
    if inspect.isawaitable(callback):
        raise TypeError(f"{where} needs a function, not what calling one gave ({callback!r}): pass it without ()")
    if not callable(callback):
        raise TypeError(f"{where} needs a function or a coroutine function to call, not {callback!r}")
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):
        return  # some that are written in C do not say
    try:
        signature.bind(*arguments)
    except TypeError as error:
        how = f"with {len(arguments)} argument" if arguments else "without arguments"
        raise TypeError(f"{where} calls its callback {how}, and {callback!r} does not take that: {error}") from None


def check_work(work: Callable[..., object], *, asynchronous: bool) -> None:
    """`work` is for `async with` if `asynchronous`, otherwise for `with`. Of a lambda only its answer can tell.

    Raises:
        TypeError: it is for the other one, or nothing to call.
    """
    if not callable(work):
        raise TypeError(f"call needs a function that takes an endpoint, not {work!r}")
    what = _innermost(work)
    if inspect.iscoroutinefunction(what) or inspect.iscoroutinefunction(type(what).__call__):
        if not asynchronous:
            raise TypeError(f"{work!r} is a coroutine function: {_PLAIN}")
    elif asynchronous and inspect.isroutine(what) and getattr(what, "__name__", "") != "<lambda>":
        raise TypeError(f"{work!r} is no coroutine function: {_COROUTINE}")


def check_answer(work: Callable[..., object], answer: T, *, asynchronous: bool) -> T:
    """`answer` is what `work` gave, and `check_work` could not tell: to be awaited if `asynchronous`, otherwise not.

    Raises:
        TypeError: it is the other way round. A coroutine has not begun then.
    """
    if inspect.isawaitable(answer) is asynchronous:
        return answer
    if asynchronous:
        raise TypeError(f"{work!r} gave nothing to await: {_COROUTINE}")
    if inspect.iscoroutine(answer):
        answer.close()
    raise TypeError(f"{work!r} gave something to await: {_PLAIN}")


def queue_length(tasks: int) -> int:
    """`tasks` as a whole number from 0 to 10⁹.

    Raises:
        TypeError: it is not whole.
        ValueError: it is out of range.
    """
    try:
        whole = operator.index(tasks)
    except TypeError:
        raise TypeError(f"cannot report a queue of {tasks!r} tasks: the length must be a whole number") from None
    if not 0 <= whole <= COUNT_MAX:
        raise ValueError(
            f"cannot report a queue of {whole} tasks: the length must be at least 0 and at most {COUNT_MAX}"
        )
    return whole


def check_label(name: str, value: str) -> None:
    """A label that agentd can show.

    Raises:
        TypeError: one of them is no text.
        ValueError: too long, no name, or characters that cannot be sent.
    """
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"cannot set label {name!r} to {value!r}: name and value must be text")
    try:
        longest = max(len(text.encode()) for text in (name, value))
    except UnicodeEncodeError as error:
        raise ValueError(f"cannot set label {name!r} to {value!r}: it is no valid Unicode: {error.reason}") from None
    if not name or longest > LABEL_BYTES_MAX:
        raise ValueError(f"cannot set label {name!r}: name and value may have 128 bytes, the name at least one")


def _innermost(work: Callable[..., object]) -> Callable[..., object]:
    """What `work` calls in the end, where it is a partial or decorated."""
    while isinstance(work, partial):
        work = work.func
    innermost: Callable[..., object] = inspect.unwrap(work)
    return innermost
