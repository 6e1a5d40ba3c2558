"""What the kinds that ask Redis share: their settings, the connection, and its errors in our words.

A password comes from an environment variable or a file, at every connection anew, so that it may change. It never
stands in an address: that is shown to people.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from agentd.collecting.reading import ReadFailed, cause, one_line
from agentd.collecting.settings import SECRET_FILE_BYTES_MAX, SECRET_IN_URL, Given, Setting, absolute, url_of, variable

if TYPE_CHECKING:
    from redis.asyncio import Redis

MODULE, EXTRA = "redis", "redis"

_ADDRESS = url_of("redis", "rediss", "unix", example="redis://127.0.0.1:6379/0")


def _url_wrong(text: str) -> str:
    if wrong := _ADDRESS(text):
        return wrong
    return SECRET_IN_URL if parse_qs(urlsplit(text).query).keys() & {"username", "password"} else ""


SETTINGS = (
    Setting("url", required=True, wrong=_url_wrong),
    Setting("key", required=True),
    Setting("username"),
    Setting("password_env", wrong=variable),
    Setting("password_file", wrong=absolute),
)


def clash(given: Given) -> tuple[str, str] | None:
    if "password_env" in given and "password_file" in given:
        return "password_file", "does not go together with password_env"
    if "username" in given and "password_env" not in given and "password_file" not in given:
        return "username", "needs password_env or password_file"
    return None


class RedisReader:
    """A connection to one Redis, made when it is needed, and made again after it broke."""

    def __init__(self, given: Given) -> None:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.credentials import CredentialProvider

        class Credentials(CredentialProvider):
            def get_credentials(self) -> tuple[str] | tuple[str, str]:
                username = given.text("username")
                return (username, password(given)) if username else (password(given),)

            # Without it the library writes a warning with each connection.
            async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
                return self.get_credentials()

        self.key = given.text("key")
        secret = "password_env" in given or "password_file" in given
        try:
            self.redis: Redis = Redis.from_url(
                given.text("url"),
                credential_provider=Credentials() if secret else None,
                max_connections=1,
                protocol=2,  # what every Redis and its relatives speak
                # Once more: a connection that has been idle may have been ended by the other side.
                retry=Retry(NoBackoff(), 1),
            )
        except (ValueError, TypeError) as error:  # options in the query of the address are the library's to know
            raise ReadFailed(f"cannot use the address {given.text('url')}: {one_line(str(error))}") from error

    async def ask(self, *words: str) -> object:
        """What Redis answers to a command, its texts as bytes.

        Raises:
            ReadFailed: it does not answer, or with an error.
        """
        from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError

        try:
            return await self.redis.execute_command(*words)  # type: ignore[no-untyped-call]
        except AuthenticationError as error:
            raise ReadFailed(f"Redis does not let us in: {one_line(str(error))}") from error
        except ResponseError as error:
            raise ReadFailed(f"Redis answers {words[0]} {self.key} with an error: {one_line(str(error))}") from error
        except ConnectionError as error:
            raise ReadFailed(f"cannot reach Redis: {cause(error)}") from error
        except RedisError as error:
            raise ReadFailed(f"cannot ask Redis: {one_line(str(error))}") from error

    async def close(self) -> None:
        await self.redis.aclose()


def password(given: Given) -> str:
    """The password as it is now.

    Raises:
        ReadFailed: there is none where it should be.
    """
    if variable_name := given.text("password_env"):
        found = os.environ.get(variable_name)
        if not found:
            raise ReadFailed(f"the environment variable {variable_name} is not set")
        return found
    path = given.text("password_file")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(SECRET_FILE_BYTES_MAX).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ReadFailed(f"cannot read the password in {path}: {(cause or '').lower()}") from error
    if not text:
        raise ReadFailed(f"there is no password in {path}: it is empty")
    return text
