"""What a kind of collector may be told: the settings it knows, and those that one collector was given.

Pure, and without a dependency: the configuration checks settings against these before any reader exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from urllib.parse import urlsplit

from msgspec import Struct

SECRET_FILE_BYTES_MAX = 4096
SECRET_IN_URL = "must not hold a user name or a password, which would be shown with it"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

Settings = tuple[tuple[str, str | float], ...]
"""The settings of one collector, flat: a list is its name several times, an entry of a table `name.key`."""


class Form(StrEnum):
    """How a setting is written."""

    TEXT = "text"
    WORDS = "words"
    TABLE = "table"


def anything(_: str) -> str:
    return ""


class Setting(Struct, frozen=True):
    """One setting of a kind.

    `wrong` is told the text, or the value of each entry of a table, and says what is wrong with it, in words that
    follow its name ("must be ..."); "" where nothing is. `key_wrong` is told the keys of a table. Neither may repeat
    a text that could be a secret. `empty`: it may be the empty text.
    """

    name: str
    form: Form = Form.TEXT
    required: bool = False
    wrong: Callable[[str], str] = anything
    key_wrong: Callable[[str], str] = anything
    empty: bool = False


class Given:
    """The settings of one collector, as its kind reads them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self._settings)

    def text(self, name: str, default: str = "") -> str:
        return next((str(value) for key, value in self._settings if key == name), default)

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(str(value) for key, value in self._settings if key == name)

    def table(self, name: str) -> dict[str, str]:
        at = f"{name}."
        return {key.removeprefix(at): str(value) for key, value in self._settings if key.startswith(at)}


def url_of(*schemes: str, example: str) -> Callable[[str], str]:
    """The check of an address with one of `schemes`. A password in it would be shown wherever the address is."""
    what = f"must be an address like {example}"

    def wrong(text: str) -> str:
        try:
            parts = urlsplit(text)
            port_fits = parts.port is None or parts.port > 0
        except ValueError:
            return what
        if "@" in parts.netloc:
            return SECRET_IN_URL
        placed = parts.path not in ("", "/") if parts.scheme == "unix" else parts.hostname
        if parts.scheme not in schemes or not placed or not port_fits or not _is_plain(text):
            return what
        return ""

    return wrong


def variable(text: str) -> str:
    """The check of the name of an environment variable."""
    return "" if _VARIABLE.match(text) else "must be the name of an environment variable"


def absolute(text: str) -> str:
    """The check of the path of a file."""
    return "" if text.startswith("/") else "must be an absolute path"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
