"""Lets nobody past without an API key, where the operator wants keys."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.middleware.request_log import visit_of
from serve.problems import Problem
from serve.requests.keys import ApiKeys

PUBLIC = frozenset({"/", "/livez", "/readyz", "/docs", "/openapi.json"})
PUBLIC_FOLDERS = ("/page/", "/docs/")
"""What asks for no key, since it tells and costs nothing: health, the page, and the documentation."""


class KeyGuard:
    """Refuses requests without a valid key; `keys` gives those in force, or None where none are asked for."""

    def __init__(self, app: ASGIApp, keys: Callable[[], ApiKeys | None]) -> None:
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keys = self._keys() if scope["type"] == "http" else None
        if keys is None or _is_public(scope["path"]):
            await self.app(scope, receive, send)
            return
        given = {name: value.decode("latin-1") for name, value in scope["headers"]}
        name = keys.name_of(given.get(b"authorization"), given.get(b"x-api-key"))
        if name is None:
            detail = "Send a valid key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            problem = Problem("unauthorised", detail, headers={"WWW-Authenticate": "Bearer"})
            await problem.response(scope)(scope, receive, send)
            return
        visit_of(scope).key = name
        await self.app(scope, receive, send)


def _is_public(path: str) -> bool:
    return path in PUBLIC or path.startswith(PUBLIC_FOLDERS)
