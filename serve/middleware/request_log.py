"""The request log: count, times, log line and span of each request, and its unexpected failure."""

import logging
import traceback
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import Problem
from serve.telemetry import logs, metrics, tracing
from serve.telemetry.summary import RequestSummary

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = logging.getLogger("serve")


class RequestLog:
    """The outermost layer: counts, times and logs every request, and adds the headers that all answers have.

    It answers an unexpected exception with `internal_error`. The message of such an exception, and of those
    it came from, may hold a user's words, so only types and lines of code are logged.

    Args:
        draining: whether connections shall end with their next answer.
        log_each: whether each request has a line in the log.
        tracer: gives what sends a span for each request, or None where nobody wants them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        draining: Callable[[], bool],
        log_each: bool,
        tracer: Callable[[], "Tracer | None"],
    ) -> None:
        self.app = app
        self._draining = draining
        self._log_each = log_each
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        client = scope.get("client")
        summary = RequestSummary(
            id=logs.request_id(given.decode("latin-1") if given else None),
            method=scope["method"],
            path=metrics.route(scope["path"]),
            client=client[0] if client else None,
        )
        summary.put_into(scope)

        async def counted_receive() -> Message:
            message = await receive()
            summary.bytes_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                summary.status = message["status"]
                headers = message["headers"] = [*message.get("headers", ())]
                headers.append((b"x-request-id", summary.id.encode()))
                if summary.stages:
                    headers.append((b"server-timing", summary.server_timing().encode()))
                if self._draining():
                    headers.append((b"connection", b"close"))
            else:
                summary.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, counted_receive, counted_send)
        except ClientDisconnect:
            pass
        except Exception as error:
            frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
            summary.failure = type(error).__name__
            log.error("%s %s failed with %s at\n%s", summary.method, summary.path, summary.failure, frames)
            if summary.status:
                raise RuntimeError("the answer broke off; see the error above") from None
            detail = "An unexpected error; the server's log says where it happened."
            await Problem("internal_error", detail).response(scope)(scope, receive, counted_send)
        finally:
            self._report(summary, scope)

    def _report(self, summary: RequestSummary, scope: Scope) -> None:
        seconds = perf_counter() - summary.began
        metrics.observe_request(summary.path, summary.status, seconds)
        metrics.observe_stages(summary.stages)
        if summary.code:
            metrics.count_refusal(summary.code)
        if tracer := self._tracer():
            tracing.send_span(tracer, summary, scope["headers"], seconds)
        if self._log_each:
            logs.log_request(summary, seconds)
