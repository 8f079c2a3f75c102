"""Connections for Locust's users, which speak HTTP/1.1 at little cost: httptools on gevent's sockets.

Locust's own FastHttpUser tops out at one to three thousand requests a second, where a small model does not.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore
from httptools import HttpParserError, HttpResponseParser

from loadtest.outcomes import Outcome
from loadtest.wire import Request, fault

PATIENCE = 300.0  # seconds for one answer
CONNECT_SECONDS = 10.0
FRESH_SECONDS = 30.0  # an idle connection is not used after that: the server may be about to close it
SWEEP_SECONDS = 1.0
RECEIVE_BYTES = 1 << 16


class Connection:
    """A connection with one request at a time; it is made when it is needed, and again when it was lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._parser = HttpResponseParser(self)
        self._body: list[bytes] = []
        self._complete = False
        self._used = 0.0
        self._sent: float | None = None
        self._given_up = False

    def ask(self, request: Request, intended: float | None = None) -> Outcome:
        """Sends a request and waits for its answer; what goes wrong is the outcome's `failure`.

        `intended` is when it should have been sent, from which its latency counts; by default it is now.
        """
        sent = self._sent = time.monotonic()
        failure = self._exchange(request)
        done = self._used = time.monotonic()
        self._sent = None
        return Outcome(
            sent if intended is None else intended, sent, done, request.sentences, request.tokens, failure
        )

    def give_up(self, now: float, patience: float) -> None:
        """Ends the request under way where it was sent more than `patience` seconds ago."""
        if self._sent is not None and now - self._sent > patience and self._socket is not None:
            self._given_up = True
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._complete = True

    def _exchange(self, request: Request) -> str:
        if self._socket is None or time.monotonic() - self._used > FRESH_SECONDS:
            self.close()
            try:
                self._socket = socket.create_connection(("127.0.0.1", self._port), CONNECT_SECONDS)
            except OSError as error:
                return f"no connection: {type(error).__name__}"
            # A timeout for each wait would cost a timer each; whoever waits too long is given up on instead.
            self._socket.settimeout(None)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._parser, self._given_up = HttpResponseParser(self), False
        self._body, self._complete = [], False
        try:
            self._socket.sendall(request.content)
            while not self._complete:
                data = self._socket.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionError("it ended")
                self._parser.feed_data(data)
        except (OSError, HttpParserError) as error:
            self.close()
            if self._given_up:
                return "no answer in time"
            return "no HTTP" if isinstance(error, HttpParserError) else "the connection was lost"
        if not self._parser.should_keep_alive():
            self.close()
        return fault(self._parser.get_status_code(), b"".join(self._body), request.sentences)


def tell(environment: Any, path: str, outcome: Outcome, **more: object) -> None:
    """Tells the listeners of a Locust environment what became of a request, with its `outcome` and more."""
    environment.events.request.fire(
        request_type="POST",
        name=path,
        response_time=1000 * (outcome.done - outcome.intended),
        response_length=0,
        exception=outcome.failure or None,
        context={},
        outcome=outcome,
        **more,
    )


class Pool:
    """Connections for requests that do not wait for one another: as many as are under way, to a bound."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._idle: list[Connection] = []
        self._all: list[Connection] = []
        self._room = BoundedSemaphore(most)

    def ask(self, request: Request, intended: float) -> Outcome:
        """Sends a request over an idle connection or a new one; at the bound it waits for one."""
        with self._room:
            connection = self._idle.pop() if self._idle else self._new()
            try:
                return connection.ask(request, intended)
            finally:
                self._idle.append(connection)

    @property
    def connections(self) -> list[Connection]:
        """All that there are."""
        return self._all

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    def _new(self) -> Connection:
        self._all.append(Connection(self._port))
        return self._all[-1]


@contextmanager
def watched(connections: list[Connection], patience: float) -> Iterator[None]:
    """Ends requests of these connections that wait longer than `patience` seconds; closes them in the end."""

    def sweep() -> None:
        while True:
            gevent.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in list(connections):
                connection.give_up(now, patience)

    watch = gevent.spawn(sweep)
    try:
        yield
    finally:
        watch.kill()
        for connection in connections:
            connection.close()
