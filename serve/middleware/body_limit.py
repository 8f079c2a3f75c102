"""The limit on a request's body."""

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import Problem


class BodyLimit:
    """Refuses a body of more than `limit` bytes, whether its length was announced or it comes in chunks.

    An announced length is refused before the application sees the request; a chunked body is refused from
    inside `receive` as soon as it is too long, so that no more than the limit is ever held. The paths of
    `unlimited` read their bodies piece by piece and are left alone.
    """

    def __init__(self, app: ASGIApp, limit: int, unlimited: Collection[str] = ()) -> None:
        self.app = app
        self.limit = limit
        self.unlimited = unlimited

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.unlimited:
            await self.app(scope, receive, send)
            return
        too_large = Problem(
            "body_too_large", f"A body may have {self.limit} bytes; send the items in several requests."
        )
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self.limit:
            await too_large.response(scope)(scope, receive, send)
            return
        received = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise too_large
            return message

        await self.app(scope, counted_receive, send)
