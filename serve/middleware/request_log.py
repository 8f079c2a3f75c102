"""One request as it is watched: its id, its stages and its model, and what is told of it in the end."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.telemetry import logs, metrics, tracing

STAGES = ("read", "segment", "queue", "engine", "write")
"""Parts of a request's time: body and JSON, tokens of raw texts, waiting, the model, making the answer."""

_KEY = "serve.middleware.request_log"


@dataclass(slots=True)
class Visit:
    """What is known of a request so far; `stages` are seconds by the names of STAGES."""

    id: str = "-"
    began: float = field(default_factory=perf_counter)
    key: str | None = None
    model: str | None = None
    version: str | None = None
    items: int = 0
    sentences: int = 0
    tokens: int = 0
    code: str | None = None
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    def server_timing(self) -> str:
        """The header `Server-Timing` (https://www.w3.org/TR/server-timing/): milliseconds of each stage."""
        return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in self.stages.items())


def visit_of(scope: MutableMapping[str, Any]) -> Visit:
    """The visit of a request; a new one where nobody watches."""
    visit: Visit = scope.setdefault(_KEY, Visit())
    return visit


class Watch:
    """The outermost layer: counts, times and logs every request, and adds the headers that all answers have.

    Args:
        draining: whether connections shall end with their next answer.
        ended: is told of each request's end.
        log_each: whether each request has a line in the log.
        trace_each: whether each request has a span, which is told of its stages.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        draining: Callable[[], bool],
        ended: Callable[[Scope], None],
        log_each: bool,
        trace_each: bool,
    ) -> None:
        self.app = app
        self._draining = draining
        self._ended = ended
        self._log_each = log_each
        self._trace_each = trace_each

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        visit = Visit(logs.request_id(given.decode("latin-1") if given else None))
        scope[_KEY] = visit

        async def watched_receive() -> Message:
            message = await receive()
            visit.bytes_in += len(message.get("body", b""))
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                headers = message["headers"] = [*message.get("headers", ())]
                headers.append((b"x-request-id", visit.id.encode()))
                if visit.stages:
                    headers.append((b"server-timing", visit.server_timing().encode()))
                if self._draining():
                    headers.append((b"connection", b"close"))
            else:
                visit.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            self._ended(scope)
            self._tell(scope, visit)

    def _tell(self, scope: Scope, visit: Visit) -> None:
        seconds = perf_counter() - visit.began
        path = metrics.route(scope["path"])
        metrics.observe_request(path, visit.status, seconds)
        if visit.stages:
            metrics.observe_stages(visit.stages)
        if visit.code:
            metrics.count_refusal(visit.code)
        if self._trace_each and visit.model is not None:
            tracing.describe_request(
                visit.stages,
                model=visit.model,
                version=visit.version or "",
                sentences=visit.sentences,
                tokens=visit.tokens,
            )
        if self._log_each:
            client = scope.get("client")
            logs.access(
                method=scope["method"],
                path=path,
                status=visit.status,
                seconds=seconds,
                bytes_in=visit.bytes_in,
                bytes_out=visit.bytes_out,
                request_id=visit.id,
                client=client[0] if client else None,
                key=visit.key,
                model=visit.model,
                version=visit.version,
                items=visit.items if visit.model else None,
                sentences=visit.sentences if visit.model else None,
                tokens=visit.tokens if visit.model else None,
            )
