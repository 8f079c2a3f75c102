"""uvicorn's HTTP protocol, less patient: connections that say nothing, or take nothing, are closed."""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.problems import MEDIA_TYPE, Problem
from serve.settings import Settings

log = logging.getLogger("serve")

LAST_CALL_SECONDS = 1.0
"""Time for the first request of a connection that was made just before the server stops."""


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request's head does not arrive in time, the first one's included, and one
    whose client takes nothing of its answer for `stuck_seconds`.

    uvicorn's own limit, `timeout_keep_alive`, is only for what comes after an answer.
    """

    head_seconds = 10.0
    stuck_seconds = 60.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_began: float | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._close_in(self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_began = None
        elif self.timeout_keep_alive_task is None:  # a part of a head
            now = self.loop.time()
            self._head_began = self._head_began or now
            self._close_in(self._head_began + self.head_seconds - now)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_for_progress(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_looking()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_looking()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Closes an idle connection as the server stops; a new one may still say what it came for."""
        if self.cycle is None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._close_in(min(self.head_seconds, LAST_CALL_SECONDS))
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP with a problem, as all errors are."""
        body = Problem("invalid_http", msg).body()
        head = (
            STATUS_LINE[400],
            b"content-type: " + MEDIA_TYPE.encode() + b"\r\n",
            b"content-length: " + str(len(body)).encode() + b"\r\n",
            b"connection: close\r\n\r\n",
        )
        self.transport.write(b"".join(head) + body)
        self.transport.close()

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


def patient(settings: Settings) -> type[Protocol]:
    """The protocol with the patience of the settings."""

    class Patient(Protocol):
        head_seconds = settings.head_seconds
        stuck_seconds = settings.stream_idle_seconds

    return Patient
