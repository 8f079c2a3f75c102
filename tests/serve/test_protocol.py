"""Connections that are slow, idle or not HTTP, over a real socket."""

import pytest

from tests.serve.conftest import Client, Serve, answer, connect, head, problem, request, until
from tests.serve.fakes import FakeNer


@pytest.fixture(scope="module")
def impatient(serve: Serve) -> Client:
    return serve({"names": FakeNer()}, body_seconds=0.3, head_seconds=0.3, keep_alive_seconds=0.3)


@pytest.mark.parametrize("body", [b"", b'{"texts": ["A'])
def test_a_body_that_comes_too_slowly_is_not_waited_for(impatient: Client, body: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(head("/ner", "Content-Length: 100") + body)
        response = answer(connection)
        assert problem(response) == (408, "body_timeout")
        assert response.headers["Connection"] == "close"
        assert connection.recv(1) == b""


@pytest.mark.parametrize("sent", [b"", b"P", b"POST /ner HTTP/1.1\r\n", head("/ner").removesuffix(b"\r\n")])
def test_a_connection_without_a_whole_head_is_closed(impatient: Client, sent: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_a_head_that_never_ends_is_cut_off_though_it_goes_on(impatient: Client) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"POST /ner HTTP/1.1\r\nX-Long: ")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            until(lambda: connection.sendall(b"a"))


def test_a_head_that_is_too_large_is_cut_off(client: Client) -> None:
    with connect(client) as connection:
        connection.sendall(b"POST /ner HTTP/1.1\r\nX-Long: ")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            connection.sendall(b"a" * 50_000_000)


def test_an_idle_connection_is_closed_after_its_answer(impatient: Client) -> None:
    with connect(impatient) as connection:
        connection.sendall(request(1))
        response = answer(connection)
        assert response.status == 200
        response.read()
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\na b\r\n",
    ],
)
def test_bytes_that_are_no_http_are_answered_with_a_problem(client: Client, sent: bytes) -> None:
    with connect(client) as connection:
        connection.sendall(sent)
        assert problem(answer(connection)) == (400, "invalid_http")
        assert connection.recv(1) == b""
