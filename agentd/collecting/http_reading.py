"""What the kinds that ask over HTTP share: headers, one GET with its bounds, and errors in our words.

Only the configuration says whom to ask and as whom: no proxy and no password is taken from the environment behind its
back, and no redirect is followed, which would carry the headers elsewhere.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agentd.collecting.reading import ReadFailed, cause
from agentd.collecting.settings import Form, Given, Setting, url_of

if TYPE_CHECKING:
    import httpx

MODULE, EXTRA = "httpx", "http"
BODY_BYTES_MAX = 1 << 20
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OURS = ("host", "content-length", "transfer-encoding", "connection", "accept-encoding")

URL = Setting("url", required=True, wrong=url_of("http", "https", example="http://127.0.0.1:9090"))


def _name_wrong(name: str) -> str:
    if name.lower() in _OURS:
        return "is set by agentd itself"
    return "" if _NAME.match(name) else "cannot be the name of a header"


def _value_wrong(text: str) -> str:
    if "$" in _VARIABLE.sub("", text):
        return "must name environment variables like ${NAME}, and has no other use for $"
    return "" if _fits_a_header(text) else "must be printable ASCII"


HEADERS = Setting("headers", Form.TABLE, wrong=_value_wrong, key_wrong=_name_wrong)


class HttpReader:
    """Asks one server, over a new connection each time: one that was kept may just be ending when it is used."""

    def __init__(self, given: Given) -> None:
        import httpx

        self.url = given.text("url")
        self._headers = given.table("headers")
        # The host's authorities, which may include one of its own, instead of those that a library brings.
        https = self.url.startswith("https:")
        verify = ssl.create_default_context() if https else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client = httpx.AsyncClient(
            verify=verify,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # the whole reading has one
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={
                "accept": "application/json",
                "accept-encoding": "identity",
                "connection": "close",
                "user-agent": "agentd",
            },
        )

    async def get(self, url: str, params: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """The status and the body that GET `url` answers with.

        Raises:
            ReadFailed: there is no answer, or one that is too long or encoded.
        """
        import httpx

        headers = with_variables(self._headers)
        try:
            async with self._client.stream("GET", url, params=params, headers=headers) as response:
                return response.status_code, await _body(response)
        except httpx.HTTPError as error:
            raise ReadFailed(f"cannot ask {_origin(url)}: {cause(error)}") from error

    async def close(self) -> None:
        await self._client.aclose()


def with_variables(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` with the environment's values in place of ${NAME}.

    Raises:
        ReadFailed: a variable is not set, or holds what no header can; its value is not told.
    """

    def value(found: re.Match[str]) -> str:
        text = os.environ.get(found[1], "").rstrip("\r\n")
        if not text:
            raise ReadFailed(f"the environment variable {found[1]} is not set")
        if not _fits_a_header(text):
            raise ReadFailed(f"the environment variable {found[1]} holds what cannot stand in a header")
        return text

    return {name: _VARIABLE.sub(value, text) for name, text in headers.items()}


def status_text(status: int) -> str:
    """`status` as a trouble tells it."""
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    redirect = "; redirects are not followed, so name the address it leads to" if 300 <= status < 400 else ""
    return f"answered {status}{phrase}{redirect}"


async def _body(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ReadFailed(f"{_origin(str(response.url))} answered with an encoding that was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise ReadFailed(f"{_origin(str(response.url))} answered with more than {BODY_BYTES_MAX} bytes")
    return bytes(body)


def _origin(url: str) -> str:
    """Whom we ask. The rest of an address may hold a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _fits_a_header(text: str) -> bool:
    return text.isascii() and text.isprintable()
