"""uvicorn's HTTP protocol, less patient: connections that say nothing, or say it for ever, are closed."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.problems import MEDIA_TYPE, Problem


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request's head does not arrive in `head_seconds`, the first one's included.

    uvicorn's own limit, `timeout_keep_alive`, is only for what comes after an answer.
    """

    head_seconds = 10.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_began: float | None = None
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
