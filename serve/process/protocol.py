"""uvicorn's HTTP protocol, less patient: connections that say nothing, or take nothing, are closed."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.problems import MEDIA_TYPE, Problem
from serve.settings import Settings

log = logging.getLogger("serve")

ON_LOST = "serve.on_lost"
"""The key of a request's scope that holds its connection's `OnLost`.

Waiting for `http.disconnect` instead would take a task for each request, a tenth of what it costs in all.
"""

BODY_IS_THERE = "serve.body_is_there"
"""The key of a request's scope that is there once the whole body is: then nothing has to be timed."""

LET_THROUGH = "serve.let_through"
"""The key of a request's scope that is there if the gate let it through, until it has reached a queue."""

HEAD_BYTES = 1 << 16
"""About the longest head of a request."""

LAST_CALL_SECONDS = 1.0
"""Time for the first request of a connection that was made just before the server stops."""


Gate = Callable[[bytes, bytes], Problem | None]
"""From a request's method and URL to why it is refused before it is read; None lets it through."""


class OnLost:
    """What is called when a client goes away; at once, where it already has."""

    def __init__(self) -> None:
        self._lost = False
        self._callbacks: set[Callable[[], None]] = set()

    def add(self, callback: Callable[[], None]) -> None:
        if self._lost:
            callback()
        else:
            self._callbacks.add(callback)

    def discard(self, callback: Callable[[], None]) -> None:
        self._callbacks.discard(callback)

    def call(self) -> None:
        self._lost = True
        for callback in tuple(self._callbacks):
            callback()


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request's head does not arrive in time, the first one's included, and one
    whose client takes nothing of its answer for `stuck_seconds`.

    uvicorn's own limit, `timeout_keep_alive`, is only for what comes after an answer.

    What the `gate` refuses is answered from here, and its body is read past: a refusal that went through the
    application would cost half of what an answer does, so that a flood of requests could drown the server in
    refusals.
    """

    head_seconds = 10.0
    stuck_seconds = 60.0

    def gate(self, method: bytes, url: bytes) -> Problem | None:
        """Why a request is refused before it is read; None lets it through."""
        return None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_began: float | None = None
        self._in_head = False
        self._head_bytes = 0
        self._stuck: asyncio.TimerHandle | None = None
        self._on_lost = OnLost()
        self._refused = False
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
            self._close_in(self._head_began + self.head_seconds - now)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[ON_LOST] = self._on_lost  # type: ignore[literal-required]
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        idle = self.cycle is None or self.cycle.response_complete
        problem = self.gate(self.parser.get_method(), self.url) if idle else None
        self._refused = problem is not None
        if problem is None:
            if idle:
                self.scope[LET_THROUGH] = True  # type: ignore[literal-required]
            super().on_headers_complete()
        else:
            self._write(problem, keep_alive=self.parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            # Not before: a connection that is closed with unread bytes is reset, and the answer with it.
            if self.parser.should_keep_alive():
                self._close_in(self.timeout_keep_alive)
            else:
                self.transport.close()
            return
        super().on_message_complete()
        self.scope[BODY_IS_THERE] = True  # type: ignore[literal-required]

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_for_progress(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_looking()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_looking()
        super().connection_lost(exc)
        self._on_lost.call()

    def shutdown(self) -> None:
        """Closes an idle connection as the server stops; a new one may still say what it came for."""
        if self.cycle is None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._close_in(min(self.head_seconds, LAST_CALL_SECONDS))
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP with a problem, as all errors are."""
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
                log.warning("a client took nothing of its answer for %g s; it is cut off", self.stuck_seconds)
                self.transport.abort()

        self._stuck = self.loop.call_later(self.stuck_seconds, look)

    def _stop_looking(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def protocol_of(settings: Settings, gate: Gate) -> type[Protocol]:
    """The protocol with the patience of the settings, and a gate."""

    class Settled(Protocol):
        head_seconds = settings.head_seconds
        stuck_seconds = settings.stream_idle_seconds

        def gate(self, method: bytes, url: bytes) -> Problem | None:
            return gate(method, url)

    return Settled
