"""Hostile input over raw sockets, the requests that scenarios send, and what is known of processes."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest

from benchmarks.chaos.hostile_requests import CASES, Case, Reply, fault, request, send
from benchmarks.chaos.request_streams import SIZES, mixed, uniform, varied
from loadtest import processes
from loadtest.http_client import Address, Request

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"results": [1]}'
SENTENCES = [[f"word{number}", "runs"] for number in range(64)]


@contextmanager
def listening(handle: Callable[[socket.socket], object]) -> Iterator[Address]:
    """A server for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[:2]
        thread.join(20)
        assert not thread.is_alive()


def read_to_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_several_answers_on_one_connection_are_separate() -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(ANSWER * 2 + ANSWER.replace(b"200 OK", b"400 No"))
        read_to_end(connection)

    with listening(handle) as address:
        reply = send(address, Case("three", b"x", answers=3), 20)
    assert [status for status, _ in reply.answers] == [200, 200, 400]
    assert reply.end == "answered"
    assert fault(Case("three", b"x", answers=3), reply) is None


def test_a_refusal_before_the_whole_body_was_sent_is_read() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(refusal)
        read_to_end(connection)

    with listening(handle) as address:
        reply = send(address, Case("large", request(b" " * 20_000_000)), 20)
    assert [status for status, _ in reply.answers] == [413]


def test_a_server_that_says_nothing_hangs_and_one_that_closes_closes() -> None:
    with listening(read_to_end) as address:
        assert send(address, Case("silent", b"x"), 0.1).end == "hung"
    with listening(lambda connection: None) as address:
        assert send(address, Case("closing", b""), 20).end == "closed"


def test_a_case_that_is_half_closed_tells_the_server_so() -> None:
    seen: list[bytes] = []
    for content in (b"POST", b""):
        with listening(lambda connection: seen.append(read_to_end(connection))) as address:
            case = Case("half", content, half_close=True, may_close=True)
            assert fault(case, send(address, case, 20)) is None
    assert seen == [b"POST", b""]


@pytest.mark.parametrize(
    ("reply", "wrong"),
    [
        (Reply([(422, b"")], "answered"), None),
        (Reply([(200, b'{"results": [{}]}')], "answered"), None),
        (Reply([(200, b'{"results": []}')], "answered"), "status 200 with no result"),
        (Reply([(200, b"Traceback")], "answered"), "status 200 without results"),
        (Reply([(500, b"")], "answered"), "status 500"),
        (Reply([(302, b"")], "answered"), "status 302"),
        (Reply([], "hung"), "no answer"),
        (Reply([], "garbage"), "the answer is no HTTP"),
        (Reply([], "closed"), "closed after 0 of 1 answers"),
    ],
)
def test_a_reply_is_right_where_it_is_a_refusal_or_has_results(reply: Reply, wrong: str | None) -> None:
    assert fault(Case("any", b""), reply) == wrong


def test_a_server_error_is_a_fault_also_where_the_connection_may_close() -> None:
    case = Case("any", b"", may_close=True)
    assert fault(case, Reply([], "closed")) is None
    assert fault(case, Reply([(500, b"")], "closed")) == "status 500"


def test_hostile_cases_have_names_of_their_own() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) > 60


def body_of(sent: Request) -> dict[str, Any]:
    head, _, body = sent.content.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    result: dict[str, Any] = json.loads(body)
    return result


def test_requests_of_one_size_carry_the_sentences_in_their_order_again_and_again() -> None:
    requests = list(islice(uniform(SENTENCES, 32), 4))
    assert [body_of(each)["sentences"] for each in requests] == [SENTENCES[:32], SENTENCES[32:]] * 2
    assert [each.sentences for each in requests] == [32] * 4


def test_mixed_requests_have_the_sizes_in_their_shares_and_the_same_order_for_the_same_seed() -> None:
    requests = list(islice(mixed(SENTENCES, seed=1), 2000))
    assert requests == list(islice(mixed(SENTENCES, seed=1), 2000))
    assert requests != list(islice(mixed(SENTENCES, seed=2), 2000))
    shares = [sum(each.sentences == size for each in requests) / 2000 for size in SIZES]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.03)
    assert all(len(body_of(each)["sentences"]) == each.sentences for each in requests)


def test_varied_requests_are_of_both_tasks_and_kinds_with_new_words_and_some_faulty() -> None:
    requests = list(islice(varied(SENTENCES, seed=1), 2000))
    assert requests == list(islice(varied(SENTENCES, seed=1), 2000))
    text = b"".join(each.content for each in requests)
    for part in (b"POST /ner ", b"POST /parse ", b'"texts"', b'"sentences"', b"text/plain", b"broken off"):
        assert text.count(part) > 10, part
    known = {word for sentence in SENTENCES for word in sentence}
    texts = [body_of(each)["texts"] for each in requests if each.content.endswith(b' runs"]}')]
    words = {word for each in texts for text in each for word in text.split()}
    assert len(words - known) > 50


def test_children_of_a_process_are_found_and_ended_ones_are_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in processes.children(os.getpid())
        child.communicate(b"\n")
    assert child.pid not in processes.children(os.getpid())


def test_connections_of_a_process_are_known_by_the_clients_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            with accepted:
                assert processes.client_ports(os.getpid(), port) == {client.getsockname()[1]}


def test_memory_and_limits_of_a_process_are_read() -> None:
    assert 1 < processes.resident_mb(os.getpid()) < 100_000
    assert processes.open_files_limit(os.getpid()) >= 64


def test_the_machine_is_as_busy_as_it_has_cores_at_most() -> None:
    assert 0 <= processes.busy_cores(0.05) <= (os.cpu_count() or 1) + 1


def test_pinning_ends_with_its_block() -> None:
    before = os.sched_getaffinity(0)
    with processes.pinned(max(before)):
        assert os.sched_getaffinity(0) == {max(before)}
    assert os.sched_getaffinity(0) == before
