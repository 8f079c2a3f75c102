"""uvicorn's HTTP protocol with timeouts for heads and answers, and with early refusals."""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.problems import MEDIA_TYPE, Problem
from serve.requests.admission import CONNECTION, Admission, ClientConnection
from serve.requests.http_input import BODY_COMPLETE
from serve.settings import Settings

log = logging.getLogger("serve")

HEAD_BYTES = 1 << 16
"""About the longest head of a request."""

LAST_CALL_SECONDS = 1.0
"""Time for the first request of a connection that was made just before the server stops."""


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request's head does not arrive in time, the first one's included, and one
    whose client takes nothing of its answer for `stream_idle_seconds`.

    uvicorn's own limit, `timeout_keep_alive`, is only for what comes after an answer.

    Requests that admission refuses are answered from here, and their bodies are read past: a refusal that
    went through the application would cost half of an answer, so that a flood of requests could drown the
    server in refusals.
    """

    def __init__(self, *uvicorn: Any, settings: Settings, admission: Admission, **options: Any) -> None:
        super().__init__(*uvicorn, **options)
        self._head_seconds = settings.head_seconds
        self._stuck_seconds = settings.stream_idle_seconds
        self._admission = admission
        self._connection = ClientConnection()
        self._head_began: float | None = None
        self._in_head = False
        self._head_bytes = 0
        self._stuck: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._close_in(self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        super().data_received(data)
        if self.transport.is_closing():
            return
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"The request's head is longer than {HEAD_BYTES} bytes.")
                return
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_began = None
        elif self.timeout_keep_alive_task is None:  # a part of a head, or of a body that was refused
            now = self.loop.time()
            self._head_began = self._head_began or now
            self._close_in(self._head_began + self._head_seconds - now)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self._connection  # type: ignore[literal-required]
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        problem = None
        if self.cycle is None or self.cycle.response_complete:
            problem = self._admission.refusal(self._connection, self.parser.get_method(), self.url)
        self._refused = problem is not None
        if problem is None:
            super().on_headers_complete()
        else:
            self._write(problem, keep_alive=self.parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()
            self.scope[BODY_COMPLETE] = True  # type: ignore[literal-required]
        # Not before: a connection that is closed with unread bytes is reset, and the answer with it.
        elif self.parser.should_keep_alive():
            self._close_in(self.timeout_keep_alive)
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        self._admission.left(self._connection)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_for_progress(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_looking()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_looking()
        super().connection_lost(exc)
        self._admission.left(self._connection)
        self._connection.lost()

    def shutdown(self) -> None:
        """Closes an idle connection as the server stops; the first request of a new one may still come."""
        if self.cycle is None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._close_in(min(self._head_seconds, LAST_CALL_SECONDS))
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answers bytes that are not HTTP with a problem, as all errors are."""
        self._write(Problem("invalid_http", msg), keep_alive=False)
        self.transport.close()

    def _write(self, problem: Problem, *, keep_alive: bool) -> None:
        """Answers without the application."""
        body = problem.body()
        headers = {"content-type": MEDIA_TYPE, "content-length": len(body), **(problem.headers or {})}
        if not keep_alive:
            headers["connection"] = "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[problem.status] + head.encode() + b"\r\n" + body)

    def _close_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            max(0.0, seconds), self.timeout_keep_alive_handler
        )

    def _look_for_progress(self, before: int) -> None:
        """Aborts the connection, which may be closing already, unless its client takes something in time."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left < before:
                self._look_for_progress(left)
            else:
                seconds = self._stuck_seconds
                log.warning("a client took nothing of its answer for %g s; it is cut off", seconds)
                self.transport.abort()

        self._stuck = self.loop.call_later(self._stuck_seconds, look)

    def _stop_looking(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
