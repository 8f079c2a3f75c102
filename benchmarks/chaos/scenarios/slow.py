"""Clients that send a byte a second, and silent connections: what the other clients notice of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from gevent import socket
from gevent.pool import Group

from benchmarks.chaos.figures import Findings, ScenarioError, goodput, latency_ms, lateness_ms, outcomes
from benchmarks.chaos.request_streams import uniform
from benchmarks.chaos.setup import Setup, progress
from loadtest.http_client import Address
from loadtest.loads import after, arrivals, closed_loop, open_loop
from loadtest.processes import many_connections, open_files_limit, pinned, split_cores

SLOW, SILENT, KEPT = 200, 500, 500  # the others are idle, from the beginning or after one request
OPENING_SECONDS = 0.005  # between two: those that open at once time out at once, in the wild nobody does
BYTE_SECONDS = 1.0
CHECK_SECONDS = 1.0  # how often connections that the server closed are made again
LOAD = 0.3  # of the capacity, from the other clients
CONNECTIONS = 16
GREETING = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SLOW_HEAD = (
    b"POST /ner HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
)


class SlowConnections:
    """All slow and silent connections, each by how it begins; closed ones are made again."""

    def __init__(self, address: Address) -> None:
        self._address, self._greenlets = address, Group()
        self._closed: list[bytes] = []  # how they began
        self.open = 0
        self.sent_away = 0
        self.timed_out = 0  # of these, with a 408
        self.not_let_in = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Opens all, and keeps them open during the block."""
        try:
            self._open_all([SLOW_HEAD] * SLOW + [b""] * SILENT + [GREETING] * KEPT)
            self._greenlets.spawn(self._open_again)
            yield
        finally:
            self._greenlets.kill()

    def _open_again(self) -> None:
        while True:
            gevent.sleep(CHECK_SECONDS)
            beginnings, self._closed = self._closed, []
            self._open_all(beginnings)

    def _open_all(self, beginnings: list[bytes]) -> None:
        for beginning in beginnings:
            gevent.sleep(OPENING_SECONDS)
            try:
                connection = socket.create_connection(self._address)
            except OSError:
                self.not_let_in += 1
            else:
                self._greenlets.spawn(self._hold, connection, beginning)

    def _hold(self, connection: socket.socket, beginning: bytes) -> None:
        """Sends a beginning, and a slow one then a byte now and then, until the server closes."""
        answer = b""
        self.open += 1
        try:
            connection.settimeout(BYTE_SECONDS if beginning == SLOW_HEAD else None)
            connection.sendall(beginning)
            while True:
                try:
                    data = connection.recv(1 << 16)
                except TimeoutError:
                    connection.sendall(b" ")
                    continue
                if not data:
                    break
                answer += data
        except OSError:
            pass  # it was reset
        finally:
            self.open -= 1
            connection.close()
        self.sent_away += 1
        self.timed_out += answer.startswith(b"HTTP/1.1 408")
        self._closed.append(beginning)


def measure(setup: Setup) -> Findings:
    """The p99 of one-sentence requests at 30 % load, first alone and then among slow connections."""
    seconds, (server_core, own_core) = setup.seconds(30, 10), split_cores()
    with setup.serving(core=server_core) as server, pinned(own_core), many_connections():
        requests = uniform(setup.sentences, 1)
        best = closed_loop(
            server.address, requests, connections=CONNECTIONS, until=after(setup.seconds(5, 2))
        )
        if not goodput(best):
            raise ScenarioError(f"no request was accepted: {outcomes(best.exchanges)}")
        times = arrivals(LOAD * goodput(best), seconds, seed=1)
        alone = open_loop(server.address, requests, times, seconds=seconds)
        progress(f"alone: p99 {latency_ms(alone.exchanges, 99):.1f} ms, {outcomes(alone.exchanges)}")
        slow = SlowConnections(server.address)
        with slow.held():
            among = open_loop(server.address, requests, times, seconds=seconds)
            still_open = slow.open
        p99, late = latency_ms(among.exchanges, 99), lateness_ms(among, 99)
        progress(f"among {still_open} slow ones: p99 {p99:.1f} ms, requests sent {late:.1f} ms late")
        limit = min(open_files_limit(worker) for worker in server.workers())
    figures = {
        "slow_p99_ratio": p99 / latency_ms(alone.exchanges, 99),
        "slow_p99_ms": p99,
        "slow_p99_alone_ms": latency_ms(alone.exchanges, 99),
        "slow_rps": len(times) / seconds,
        "slow_generator_late_p99_ms": late,
        "slow_generator_late_p99_alone_ms": lateness_ms(alone, 99),
        "slow_generator_cpu_share": among.cpu_share,
        "slow_failed": sum(bool(each.error) for each in among.exchanges),
        "slow_outcomes": outcomes(among.exchanges),
        "slow_connections": SLOW + SILENT + KEPT,
        "slow_connections_at_end": still_open,
        "slow_connections_not_let_in": slow.not_let_in,
        "slow_connections_sent_away": slow.sent_away,
        "slow_connections_sent_away_with_408": slow.timed_out,
        "slow_open_files_limit": limit,
    }
    return Findings(figures, [*alone.remarks(), *among.remarks()])
