"""The client and the loads of chaos against small servers over real sockets."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise, repeat

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from loadtest.clock import Alarm
from loadtest.http_client import Address, Exchange, post
from loadtest.loads import Load, arrivals, closed_loop, in_thread, open_loop, under_load
from loadtest.server import free_port

Handler = Callable[[socket.socket], object]

REQUEST = post("/ner", b'{"sentences": [["a"]]}')
BODY = b'{"results":[{"tokens":["a"]}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@contextmanager
def listening(handler: Handler, ports: list[int] | None = None) -> Iterator[Address]:
    """A server that calls `handler` for each connection; `ports` gets the clients' in their order."""

    def accept(connection: socket.socket, address: Address) -> None:
        if ports is not None:
            ports.append(address[1])
        try:
            handler(connection)
        except OSError:
            pass  # the client left
        finally:
            connection.close()

    server = StreamServer(("127.0.0.1", 0), accept)
    server.start()
    try:
        yield server.address
    finally:
        server.stop(timeout=0)


def read_request(connection: socket.socket) -> None:
    left = len(REQUEST.content)
    while left:
        data = connection.recv(left)
        if not data:
            raise ConnectionError("the client left")
        left -= len(data)


def answering(*answers: bytes) -> Handler:
    """Sends one of `answers` for each request of a connection, and closes it after the last."""

    def handle(connection: socket.socket) -> None:
        for answer in answers:
            read_request(connection)
            connection.sendall(answer)

    return handle


def closed(
    handler: Handler, count: int, *, ports: list[int] | None = None, patience: float = 20.0
) -> list[Exchange]:
    """The exchanges of `count` requests of one client in a closed loop."""
    with listening(handler, ports) as address:
        return closed_loop(address, iter([REQUEST] * count), connections=1, patience=patience).exchanges


def opened(handler: Handler, count: int, *, most_connections: int = 100) -> Load:
    """A load of so many requests that arrive at once."""
    with listening(handler) as address:
        return open_loop(
            address, repeat(REQUEST), [0.0] * count, seconds=0.0, most_connections=most_connections
        )


def test_a_connection_is_kept_for_the_next_request() -> None:
    ports: list[int] = []
    exchanges = closed(answering(*[ANSWER] * 5), 5, ports=ports)
    assert [each.error for each in exchanges] == [""] * 5
    assert [each.port for each in exchanges] == ports * 5


def test_a_connection_that_the_server_ends_with_its_answer_is_followed_by_a_new_one() -> None:
    ports: list[int] = []
    last = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    exchanges = closed(answering(last), 3, ports=ports)
    assert [each.error for each in exchanges] == [""] * 3
    assert [each.port for each in exchanges] == ports
    assert len(ports) == 3


def test_a_connection_that_the_server_ended_while_it_was_idle_is_not_used_again() -> None:
    with listening(answering(ANSWER)) as address:
        load = Load()
        requests = (gevent.sleep(0.05) or REQUEST for _ in range(3))
        closed_loop(address, requests, connections=1, load=load)
    assert [each.error for each in load.exchanges] == [""] * 3


def test_a_chunked_answer_in_pieces_is_one_answer() -> None:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        size = b"%x\r\n" % len(BODY)
        for piece in (b"HTTP/1.1 200 OK\r\nTransfer-Enc", b"oding: chunked\r\n\r\n", size + BODY[:9]):
            connection.sendall(piece)
            gevent.sleep(0.001)
        connection.sendall(BODY[9:] + b"\r\n0\r\n\r\n")
        connection.recv(1)

    [exchange] = closed(handle, 1)
    assert exchange.error == ""


def test_a_refusal_carries_its_code_and_when_to_come_again() -> None:
    body = b'{"code": "overloaded", "status": 429}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: %d\r\n\r\n" % len(body)
    refused, answered = closed(answering(head + body, ANSWER), 2)
    assert (refused.status, refused.code, refused.retry_after) == (429, "overloaded", "3")
    assert refused.error == "status 429, overloaded"
    assert (answered.status, answered.code, answered.retry_after, answered.error) == (200, "", None, "")


def test_an_answer_with_too_few_results_is_an_error() -> None:
    few = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"results":[]}'
    quoted = BODY.replace(b'"a"', b'"\\"tokens\\":"')
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(quoted) + quoted
    errors = [each.error for each in closed(answering(few, whole), 2)]
    assert errors == ["0 results for 1 sentences", ""]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "broken"),
        (ANSWER[:-1], "broken"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "broken"),
    ],
)
def test_an_answer_that_is_cut_off_or_no_http_is_a_failure_and_the_next_request_goes_on(
    answer: bytes, failure: str
) -> None:
    assert [each.failure for each in closed(answering(answer), 2)] == [failure] * 2


def test_a_server_that_never_answers_is_given_up_on() -> None:
    exchanges = closed(lambda connection: connection.recv(1 << 16) and connection.recv(1), 2, patience=0.2)
    assert [each.failure for each in exchanges] == ["timeout"] * 2


def test_a_closed_port_refuses_and_the_loop_ends_when_asked() -> None:
    requests = iter([REQUEST] * 3)
    address = ("127.0.0.1", free_port())
    [exchange] = closed_loop(address, requests, connections=1, until=lambda: True).exchanges
    assert exchange.failure == "refused"
    assert not exchange.sent


def test_a_client_makes_a_new_connection_after_its_number_of_requests() -> None:
    ports: list[int] = []
    with listening(answering(*[ANSWER] * 10), ports) as address:
        load = closed_loop(address, iter([REQUEST] * 6), connections=1, requests_a_connection=2)
    assert not any(each.error for each in load.exchanges)
    assert [each.port for each in load.exchanges] == [port for port in ports for _ in range(2)]
    assert len(ports) == 3


def test_a_load_goes_on_during_a_block_that_waits_for_a_thread() -> None:
    with (
        listening(answering(*[ANSWER] * 1_000_000)) as address,
        under_load(address, repeat(REQUEST), connections=2, requests_a_connection=None, before=0.0) as load,
    ):

        def more_than(count: int) -> bool:
            give_up = time.monotonic() + 20
            while len(load.exchanges) <= count and time.monotonic() < give_up:
                time.sleep(0.01)
            return len(load.exchanges) > count

        assert in_thread(more_than, 0)
        assert in_thread(more_than, len(load.exchanges))
    assert load.ended > load.started
    assert not any(each.error for each in load.exchanges)


def test_an_open_loop_sends_on_while_nothing_is_answered() -> None:
    """A server that answers nobody before all have asked: a loop that waits would wait for ever."""
    arrived, everyone = [0], Event()

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        arrived[0] += 1
        if arrived[0] == 20:
            everyone.set()
        everyone.wait()
        connection.sendall(ANSWER)

    load = opened(handle, 20)
    assert [each.error for each in load.exchanges] == [""] * 20
    assert (load.most_open, load.waited) == (20, 0)


def test_a_latency_counts_from_the_intended_time_when_connections_are_the_bottleneck_and_it_says_so() -> None:
    load = opened(answering(*[ANSWER] * 10), 5, most_connections=1)
    assert [each.error for each in load.exchanges] == [""] * 5
    assert {each.intended for each in load.exchanges} == {load.started}
    for before, each in pairwise(load.exchanges):
        assert each.sent >= before.done  # it had to wait for the connection
        assert each.latency == each.done - load.started
    assert load.waited == 4
    assert "4 requests waited for one of 1 connections" in load.remarks()


def test_requests_that_wait_for_a_connection_go_on_when_it_breaks() -> None:
    load = opened(answering(b""), 4, most_connections=1)
    assert [each.failure for each in load.exchanges] == ["reset"] * 4


def test_requests_that_wait_for_a_connection_end_when_the_port_is_closed() -> None:
    address = ("127.0.0.1", free_port())
    load = open_loop(address, repeat(REQUEST), [0.0] * 4, seconds=0.0, most_connections=1)
    assert [each.failure for each in load.exchanges] == ["refused"] * 4


def test_a_busy_generator_makes_its_figures_invalid() -> None:
    assert Load(cpu_share=0.84).remarks() == []
    assert Load(cpu_share=0.9).remarks() == ["not valid: the generator used 90% of its core"]


def test_arrivals_are_those_of_a_poisson_process_and_the_same_for_the_same_seed() -> None:
    times = arrivals(1000.0, 20.0, seed=1)
    assert times == arrivals(1000.0, 20.0, seed=1)
    assert times != arrivals(1000.0, 20.0, seed=2)
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 20.0
    gaps = [after - before for before, after in pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(0.001, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.001, rel=0.03)  # an exponential's is its mean


def test_an_alarm_never_rings_early_and_a_past_one_rings_at_once() -> None:
    with Alarm() as alarm:
        for delay in (-1.0, 0.0, 0.0003, 0.002):
            when = time.monotonic() + delay
            alarm.sleep_until(when)
            # It does not set a timer for less than it takes to set one.
            assert time.monotonic() >= when - 50e-6
