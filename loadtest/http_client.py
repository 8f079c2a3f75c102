"""The HTTP/1.1 client of all measurements: httptools on gevent's sockets, little work a request.

Locust's own FastHttpUser reaches one to three thousand requests a second on a core, which a small model
exceeds. Nothing here imports Locust or patches sockets.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore
from httptools import HttpParserError, HttpResponseParser

Address = tuple[str, int]
Failure = Literal["", "refused", "reset", "broken", "timeout"]

CONNECT_SECONDS = 10.0
SWEEP_SECONDS = 0.1  # how often requests are looked through for those that take too long
RECEIVE_BYTES = 1 << 16
RESULT_KEY = b'"tokens":'  # once in every result; inside a string its quotes would be escaped


@dataclass(frozen=True, slots=True)
class Request:
    """One request, byte for byte, and how many sentences and tokens it asks for."""

    content: bytes
    sentences: int = 1
    tokens: int = 0


def post(
    path: str, body: bytes, *, sentences: int = 1, tokens: int = 0, media_type: str = "application/json"
) -> Request:
    """A POST on a connection that stays open."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media_type}\r\n"
    return Request(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, sentences, tokens)


@dataclass(slots=True)
class Exchange:
    """A request and what became of it. Times are seconds of `time.monotonic()`.

    `intended` is when it should have been sent, `sent` when it was (0: never), `done` when its answer was
    complete or given up. `failure` is empty where a whole answer came; "refused": no connection; "reset": the
    connection ended before a byte of the answer; "broken": it ended amid the answer, or that was no HTTP;
    "timeout": no answer in time. `results` counts the results of a 200, `code` is that of a problem+json,
    `port` the client's end of the connection.
    """

    request: Request
    intended: float
    sent: float = 0.0
    done: float = 0.0
    status: int = 0
    results: int = 0
    code: str = ""
    retry_after: str | None = None
    failure: Failure = ""
    port: int = 0

    @property
    def error(self) -> str:
        """Why the answer does not count; empty where it is a result for each sentence.

        >>> Exchange(Request(b""), 0.0, status=429, code="overloaded").error
        'status 429, overloaded'
        """
        if self.failure:
            return self.failure
        if self.status != 200:
            return f"status {self.status}, {self.code}" if self.code else f"status {self.status}"
        expected = self.request.sentences
        return "" if self.results == expected else f"{self.results} results for {expected} sentences"

    @property
    def latency(self) -> float:
        """Seconds from the intended time of sending to the last byte of the answer."""
        return self.done - self.intended


class Connection:
    """A connection with one request at a time; it is made when it is needed, and again when it was lost."""

    def __init__(self, address: Address, patience: float) -> None:
        self._address, self._patience = address, patience
        self._socket: socket.socket | None = None
        self._parser = HttpResponseParser(self)
        self._body: list[bytes] = []
        self._retry_after: str | None = None
        self._complete = self._stays_open = False
        self._sent: float | None = None
        self._timed_out = False
        self._port = 0
        self.requests = 0  # sent over the present connection

    def send(self, request: Request, intended: float | None = None) -> Exchange:
        """Sends a request and waits for its answer; failures are fields of the exchange, never raised.

        `intended` is by default the time of sending.
        """
        try:
            if not self._is_usable():
                self._connect()
        except OSError as error:
            self.close()
            now = time.monotonic()
            failure: Failure = "timeout" if isinstance(error, TimeoutError) else "refused"
            return Exchange(request, now if intended is None else intended, done=now, failure=failure)
        assert self._socket is not None
        self._body, self._retry_after, self._complete, self._timed_out = [], None, False, False
        self.requests += 1
        sent = self._sent = time.monotonic()
        exchange = Exchange(request, sent if intended is None else intended, sent, port=self._port)
        begun = False
        try:
            self._socket.sendall(request.content)
            while not self._complete:
                data = self._socket.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionError("it ended")
                begun = True
                self._parser.feed_data(data)
        except HttpParserError:
            exchange.failure = "broken"
        except OSError:
            exchange.failure = "timeout" if self._timed_out else "broken" if begun else "reset"
        else:
            exchange.status, exchange.retry_after = self._parser.get_status_code(), self._retry_after
            body = b"".join(self._body)
            if exchange.status == 200:
                exchange.results = body.count(RESULT_KEY)
            else:
                exchange.code = _problem_code(body)
        exchange.done, self._sent = time.monotonic(), None
        if exchange.failure or not self._stays_open:
            self.close()
        return exchange

    def end_if_late(self, now: float) -> None:
        """Ends the request under way where it was sent longer ago than the connection's patience."""
        if self._sent is not None and now - self._sent > self._patience and self._socket is not None:
            self._timed_out = True
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._complete, self._stays_open = True, self._parser.should_keep_alive()  # it forgets afterwards

    def _is_usable(self) -> bool:
        """Whether it is open and idle: not ended by the server, nor with an answer to no request."""
        if self._socket is None:
            return False
        self._socket.settimeout(0.0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(None)
        return False

    def _connect(self) -> None:
        self.close()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.settimeout(min(CONNECT_SECONDS, self._patience))
        self._socket.connect(self._address)
        # A timeout for each wait would cost a timer each; a client looks for late requests instead.
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = self._socket.getsockname()[1]
        self._parser, self.requests = HttpResponseParser(self), 0


class Client:
    """All connections to one address, while a `with` block lasts; requests that take too long are ended.

    `most_open` is how many connections were open at once; `waited` counts requests that had to wait because
    `most_connections` were busy.
    """

    def __init__(self, address: Address, *, most_connections: int, patience: float) -> None:
        self._address, self._patience = address, patience
        self._connections: list[Connection] = []
        self._idle: list[Connection] = []
        self._room = BoundedSemaphore(most_connections)
        self.waited = 0

    def __enter__(self) -> Self:
        self._sweeper = gevent.spawn(self._sweep)
        return self

    def __exit__(self, *error: object) -> None:
        self._sweeper.kill()
        for connection in self._connections:
            connection.close()

    @property
    def most_open(self) -> int:
        return len(self._connections)

    def connection(self) -> Connection:
        """A connection for one user, who sends one request after the other."""
        connection = Connection(self._address, self._patience)
        self._connections.append(connection)
        return connection

    def send(self, request: Request, intended: float) -> Exchange:
        """Sends a request over an idle connection or a new one; at the bound it waits for one."""
        self.waited += self._room.locked()
        with self._room:
            connection = self._idle.pop() if self._idle else self.connection()
            try:
                return connection.send(request, intended)
            finally:
                self._idle.append(connection)

    def _sweep(self) -> None:
        while True:
            gevent.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in self._connections:
                connection.end_if_late(now)


def _problem_code(body: bytes) -> str:
    """The `code` of a problem+json; empty for any other body."""
    with suppress(ValueError):
        problem = json.loads(body)
        code = problem.get("code") if isinstance(problem, dict) else None
        return code if isinstance(code, str) else ""
    return ""
