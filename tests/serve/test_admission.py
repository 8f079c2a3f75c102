"""Who is let in, who is refused, and what becomes of those who are slow or go away; over a real socket."""

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from serve.batcher import Batcher, Bounds
from serve.requests.admission import Admission, ClientConnection
from tests.serve.conftest import ADA, Client, Serve, answer, connect, head, problem, request, until
from tests.serve.fakes import FakeNer, FakeParser, HeldNer

Held = tuple[HeldNer, Client]


def look(client: Client) -> None:
    """Keeps the event loop going for a few rounds, so that it handles what happened before."""
    for _ in range(5):
        assert client.get("/livez").status_code == 200


def ran(engine: HeldNer) -> int:
    """The sentences that the engine was given."""
    return sum(map(len, engine.runs))


def test_a_full_queue_refuses_whole_requests_and_says_when_to_come_again(held: Held) -> None:
    engine, client = held
    with connect(client) as first, connect(client) as second, connect(client) as third:
        first.sendall(request(1))
        until(lambda: engine.runs)
        second.sendall(request(29))
        until(lambda: client.waiting() == 29)
        refused = client.post("/ner", json={"sentences": [["w"]] * 12})
        assert problem(refused) == (429, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["Retry-After"] in refused.json()["detail"]
        third.sendall(request(11))
        until(lambda: client.waiting() == 40)
        assert problem(client.post("/ner", json={"sentences": [["w"]]})) == (429, "overloaded")
        engine.gate.set()
        assert [answer(each).status for each in (first, second, third)] == [200, 200, 200]
    assert ran(engine) == 41


def test_a_full_queue_refuses_before_the_body_is_sent(held: Held) -> None:
    engine, client = held
    with connect(client) as first, connect(client) as second:
        first.sendall(request(1))
        until(lambda: engine.runs)
        first.sendall(request(1))
        second.sendall(request(40))
        until(lambda: client.waiting() == 40)
        with connect(client) as third:
            third.sendall(head("/ner", "Content-Length: 1000000", "Expect: 100-continue"))
            assert problem(answer(third)) == (429, "overloaded")
        engine.gate.set()
        assert [answer(each).status for each in (first, second)] == [200, 200]


def test_a_flood_is_refused_before_the_first_of_it_has_reached_the_queue() -> None:
    model: Any = SimpleNamespace(batcher=Batcher(FakeNer(), Bounds(10, 50, 100)))
    admission = Admission(lambda _: [model])
    admission._mean_tokens["ner"] = 50
    connections = [ClientConnection() for _ in range(5)]

    def refused(connection: ClientConnection, method: bytes = b"POST", url: bytes = b"/ner") -> bool:
        return admission.refusal(connection, method, url) is not None

    assert [refused(connection) for connection in connections] == [False] * 4 + [True]
    assert not refused(connections[4], b"GET")
    assert not refused(connections[4], b"POST", b"/ner?x=1")
    assert not refused(connections[4], b"POST", b"/parse")
    admission.left(connections[0])
    admission.left(connections[0])
    assert not refused(connections[4])
    assert refused(connections[0])


def test_requests_count_as_on_their_way_until_they_end_however_they_end(client: Client) -> None:
    admission = client.app.state.service.admission
    body = json.dumps(ADA).encode()
    with connect(client) as connection:
        connection.sendall(head("/ner", f"Content-Length: {len(body)}"))
        until(lambda: len(admission._arriving["ner"]) == 1)
        connection.sendall(body)
        assert answer(connection).status == 200
    with connect(client) as connection:
        connection.sendall(head("/ner", "Content-Length: 9"))
        until(lambda: len(admission._arriving["ner"]) == 1)
    until(lambda: not admission._arriving["ner"])  # the client went away
    for path in ("/ner?x=1", "http://test/ner"):
        with connect(client) as connection:
            connection.sendall(head(path, f"Content-Length: {len(body)}") + body)
            assert answer(connection).status == 200
    assert client.get("/ner").status_code == 405
    assert client.post("/ner", content=b"").status_code == 415
    assert admission._arriving == {"ner": set(), "parse": set()}


def test_other_tasks_and_pages_are_answered_while_one_model_is_full(serve: Serve) -> None:
    engine = HeldNer()
    client = serve({"names": engine, "trees": FakeParser()}, max_queue_sentences=1)
    with connect(client) as first, connect(client) as second:
        first.sendall(request(1))
        until(lambda: engine.runs)
        second.sendall(request(1))
        until(lambda: client.waiting() == 1)
        assert problem(client.post("/ner", json=ADA)) == (429, "overloaded")
        assert client.post("/parse", json=ADA).status_code == 200
        for path in ("/livez", "/readyz", "/models", "/metrics"):
            assert client.get(path).status_code == 200
        engine.gate.set()
        assert [answer(each).status for each in (first, second)] == [200, 200]


def test_a_sentence_that_is_too_long_is_refused_even_when_the_engine_is_held(held: Held) -> None:
    engine, client = held
    refused = client.post("/ner", json={"sentences": [["w"], ["w"] * 513]})
    assert problem(refused) == (413, "sentence_too_long")
    assert not engine.runs


def test_a_request_whose_time_is_up_gets_504_and_gives_its_places_to_others(held: Held) -> None:
    engine, client = held
    with connect(client) as first, connect(client) as late, connect(client) as other:
        first.sendall(request(1))
        until(lambda: engine.runs)
        late.sendall(request(40, "X-Request-Timeout: 0.3", word="late"))
        assert problem(answer(late)) == (504, "deadline_exceeded")
        other.sendall(request(40))
        until(lambda: client.waiting() == 40)
        engine.gate.set()
        assert [answer(each).status for each in (first, other)] == [200, 200]
    assert ["late"] not in [words for sentences in engine.runs for words in sentences]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "-inf", "abc", "", "1e999", "1 s"])
def test_a_time_that_is_none_is_refused(client: Client, seconds: str) -> None:
    refused = client.post("/ner", json=ADA, headers={"X-Request-Timeout": seconds})
    assert problem(refused) == (400, "invalid_timeout")


@pytest.mark.parametrize("seconds", ["7.5", "1e1", "1e300"])
def test_a_time_that_is_enough_changes_nothing(client: Client, seconds: str) -> None:
    assert client.post("/ner", json=ADA, headers={"X-Request-Timeout": seconds}).status_code == 200


def test_no_request_takes_longer_than_the_server_allows(serve: Serve) -> None:
    engine = HeldNer()
    client = serve({"names": engine}, request_seconds=0.3)
    for headers in ([], ["X-Request-Timeout: 1000"]):
        with connect(client) as connection:
            connection.sendall(request(1, *headers))
            assert problem(answer(connection)) == (504, "deadline_exceeded")
    engine.gate.set()


def test_a_client_that_goes_away_gives_its_places_to_others(held: Held) -> None:
    engine, client = held
    with connect(client) as first, connect(client) as other:
        with connect(client) as gone:
            first.sendall(request(1))
            until(lambda: engine.runs)
            gone.sendall(request(40, word="gone"))
            until(lambda: client.waiting() == 40)
        until(lambda: client.waiting() == 0)
        other.sendall(request(40))
        until(lambda: client.waiting() == 40)
        engine.gate.set()
        assert [answer(each).status for each in (first, other)] == [200, 200]
    assert ["gone"] not in [words for sentences in engine.runs for words in sentences]


def test_a_client_that_goes_away_before_its_text_is_split_takes_no_place(held: Held) -> None:
    engine, client = held
    segmenting = client.app.state.service._segmenting
    go = threading.Event()
    with connect(client) as first:
        first.sendall(request(1))
        until(lambda: engine.runs)
        segmenting.submit(go.wait, 30)
        with connect(client) as gone:
            body = json.dumps(ADA).encode()
            gone.sendall(head("/ner", f"Content-Length: {len(body)}") + body)
            until(lambda: segmenting._work_queue.qsize() == 1)
        look(client)  # by now it is known that the client is gone
        go.set()
        segmenting.submit(int).result(30)
        look(client)  # and by now its text has been split
        assert client.waiting() == 0
        engine.gate.set()
        assert answer(first).status == 200
    assert ran(engine) == 1
