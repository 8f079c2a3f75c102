"""Who may ask: API keys from a file, one a line."""

import hmac
import logging
import re
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from serve.models.discovery import StartError

SHORTEST = 16

log = logging.getLogger("serve")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class ApiKeys:
    """The names of those who may ask, each with its key's digest."""

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
        for number, line in enumerate(text.split("\n"), 1):
            entry = line.strip()
            if not entry or entry.startswith("#"):
                continue
            name, digest = _entry(entry, number, path)
            if digest in lines:
                raise StartError(f"{path}:{number}: the key of line {lines[digest]} again")
            lines[digest] = number
            digests.append((name, digest))
        if not digests:
            raise StartError(f"the file of API keys {path} has no key; add a line NAME:KEY")
        return cls(tuple(digests))

    def name_of(self, authorization: str | None, x_api_key: str | None) -> str | None:
        """Whose key it is that `X-API-Key: KEY` or `Authorization: Bearer KEY` gave; None for none of them.

        A key without a name is called by its line, as `line-3`. Every key is compared, so that the time
        tells nothing about any.
        """
        given = x_api_key if x_api_key is not None else _bearer(authorization or "")
        digest = sha256(given.encode("utf-8", "surrogatepass")).digest()
        names = [name for name, known in self.digests if hmac.compare_digest(known, digest)]
        return names[0] if names else None


def _bearer(authorization: str) -> str:
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _entry(entry: str, number: int, path: Path) -> tuple[str, bytes]:
    name, colon, key = (part.strip() for part in entry.partition(":"))
    if not colon:
        name, key = f"line-{number}", entry
    if not _NAME.fullmatch(name):
        raise StartError(f"{path}:{number}: the name before the colon must be 1 to 64 of A-Z a-z 0-9 . _ -")
    if not _VISIBLE.fullmatch(key):
        raise StartError(f"{path}:{number}: a key must be of visible ASCII characters, without a space")
    if len(key) < SHORTEST:
        raise StartError(
            f"{path}:{number}: a key must have {SHORTEST} characters or more; openssl rand -hex 32 makes one"
        )
    return name, sha256(key.encode()).digest()
