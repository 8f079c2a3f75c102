"""API keys: read from a file, one a line, and asked of every request, where the operator wants keys."""

import hmac
import logging
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.models.discovery import StartError
from serve.problems import Problem
from serve.telemetry.summary import summary_of

PUBLIC = frozenset({"/", "/livez", "/readyz", "/docs", "/openapi.json"})
PUBLIC_FOLDERS = ("/page/", "/docs/")
"""Paths that ask for no key, since they cost nothing: health, the page, and the documentation."""

SHORTEST = 16

log = logging.getLogger("serve")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class ApiKeys:
    """The names of the clients, each with its key's digest."""

    digests: tuple[tuple[str, bytes], ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads lines `NAME:KEY` or `KEY`; `#` begins a comment. Raises StartError that shows no key."""
        try:
            text = path.read_text(encoding="utf-8-sig")
            mode = path.stat().st_mode
        except OSError as error:
            raise StartError(f"the file of API keys {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise StartError(f"the file of API keys {path} is not UTF-8") from None
        if mode & stat.S_IROTH:
            log.warning("any user of this machine can read the API keys in %s; run chmod o-r %s", path, path)
        lines: dict[bytes, int] = {}
        digests = []
        for number, line in enumerate(map(str.strip, text.split("\n")), 1):
            if not line or line.startswith("#"):
                continue
            name, digest = _read_line(line, number, path)
            if digest in lines:
                raise StartError(f"{path}:{number}: the key of line {lines[digest]} again")
            lines[digest] = number
            digests.append((name, digest))
        if not digests:
            raise StartError(f"the file of API keys {path} has no key; add a line NAME:KEY")
        return cls(tuple(digests))

    def name_of(self, authorization: str | None, x_api_key: str | None) -> str | None:
        """The client whose key `X-API-Key: KEY` or `Authorization: Bearer KEY` gave; None for no client.

        A key without a name is called by its line, as `line-3`. Every key is compared, so that the time
        depends on none.
        """
        scheme, _, key = (authorization or "").partition(" ")
        bearer = key.strip() if scheme.lower() == "bearer" else ""
        given = x_api_key if x_api_key is not None else bearer
        digest = sha256(given.encode("utf-8", "surrogatepass")).digest()
        names = [name for name, known in self.digests if hmac.compare_digest(known, digest)]
        return names[0] if names else None


class ApiKeyCheck:
    """Refuses requests without a valid key; `keys` gives those in force, or None before they are read."""

    def __init__(self, app: ASGIApp, keys: Callable[[], ApiKeys | None]) -> None:
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC or scope["path"].startswith(PUBLIC_FOLDERS):
            await self.app(scope, receive, send)
            return
        keys = self._keys()
        given = {name: value.decode("latin-1") for name, value in scope["headers"]}
        name = keys.name_of(given.get(b"authorization"), given.get(b"x-api-key")) if keys else None
        if name is None:
            detail = "Send a valid key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            problem = Problem("unauthorised", detail, headers={"WWW-Authenticate": "Bearer"})
            await problem.response(scope)(scope, receive, send)
            return
        summary_of(scope).key = name
        await self.app(scope, receive, send)


def _read_line(line: str, number: int, path: Path) -> tuple[str, bytes]:
    """The name and the key's digest."""
    name, colon, key = (part.strip() for part in line.partition(":"))
    if not colon:
        name, key = f"line-{number}", line
    if not _NAME.fullmatch(name):
        raise StartError(f"{path}:{number}: the name before the colon must be 1 to 64 of A-Z a-z 0-9 . _ -")
    if not _VISIBLE.fullmatch(key):
        raise StartError(f"{path}:{number}: a key must be of visible ASCII characters, without a space")
    if len(key) < SHORTEST:
        raise StartError(
            f"{path}:{number}: a key must have {SHORTEST} characters or more; openssl rand -hex 32 makes one"
        )
    return name, sha256(key.encode()).digest()
