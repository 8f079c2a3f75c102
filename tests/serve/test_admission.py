"""Who is let in, who is refused, and what becomes of those who are slow or go away; over a real socket."""

import json
import threading
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.batcher import Batcher, Bounds
from serve.requests.admission import Admission, ClientConnection
from tests.serve.conftest import Client, Serve, answer, connect, head, until
from tests.serve.fakes import FakeNer, FakeParser, HeldNer

Held = tuple[HeldNer, Client]
ADA = {"texts": ["Ada sleeps."]}


def request(sentences: int, *headers: str, word: str = "w") -> bytes:
    """A request of so many sentences of one word each."""
    body = json.dumps({"sentences": [[word]] * sentences}).encode()
    return head("/ner", f"Content-Length: {len(body)}", *headers) + body


def problem(response: HTTPResponse | httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that is a problem."""
    assert response.headers["Content-Type"] == "application/problem+json"
    if isinstance(response, httpx.Response):
        return response.status_code, response.json()["code"]
    return response.status, json.loads(response.read())["code"]


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


def test_a_request_whose_time_is_up_is_told_and_gives_its_places_to_others(held: Held) -> None:
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


def test_a_sentence_that_the_model_cannot_bear_fails_its_own_request_alone(
    held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    engine, client = held
    with connect(client) as first, connect(client) as bad, connect(client) as good:
        first.sendall(request(1))
        until(lambda: engine.runs)
        bad.sendall(request(2, word="poison"))
        good.sendall(request(3))
        until(lambda: client.waiting() == 5)
        engine.gate.set()
        assert problem(answer(bad)) == (500, "internal_error")
        assert [answer(each).status for each in (first, good)] == [200, 200]
    assert "ValueError" in caplog.text
    assert "poison" not in caplog.text


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
def test_a_connection_that_never_says_what_it_wants_is_closed(impatient: Client, sent: bytes) -> None:
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
def test_what_is_not_http_is_answered_with_a_problem(client: Client, sent: bytes) -> None:
    with connect(client) as connection:
        connection.sendall(sent)
        assert problem(answer(connection)) == (400, "invalid_http")
        assert connection.recv(1) == b""


def test_an_answer_says_where_its_time_went(client: Client) -> None:
    def stages(body: dict[str, Any]) -> list[str]:
        timing = client.post("/ner", json=body).headers["Server-Timing"]
        names, durations = zip(*(entry.split(";dur=") for entry in timing.split(", ")), strict=True)
        assert all(float(duration) >= 0 for duration in durations)
        return list(names)

    assert stages({"texts": ["Ada."]}) == ["read", "segment", "queue", "engine", "write"]
    assert stages({"sentences": [["Ada"]]}) == ["read", "queue", "engine", "write"]
    assert "Server-Timing" not in client.get("/livez").headers


def test_every_answer_has_an_id_which_a_client_may_choose(client: Client) -> None:
    for path, method in (("/ner", "POST"), ("/nowhere", "GET"), ("/livez", "GET"), ("/ner", "PUT")):
        chosen = client.request(method, path, headers={"X-Request-Id": "of-the.client_7"})
        assert chosen.headers["X-Request-Id"] == "of-the.client_7"
        ids = {client.request(method, path).headers["X-Request-Id"] for _ in range(3)}
        assert len(ids) == 3
    unfit = client.get("/livez", headers={"X-Request-Id": "with spaces"}).headers["X-Request-Id"]
    assert unfit
    assert " " not in unfit


KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def guarded(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Client:
    file: Path = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.touch(mode=0o600)
    file.write_text(f"# of the test\nreader: {KEY}\n")
    return serve({"names": FakeNer(), "trees": FakeParser()}, api_keys=file)


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_a_valid_key_lets_in(guarded: Client, headers: dict[str, str]) -> None:
    assert guarded.post("/ner", json=ADA, headers=headers).status_code == 200
    assert guarded.get("/metrics", headers=headers).status_code == 200
    content = b'{"tokens": ["Ada"]}\n'
    headers = headers | {"Content-Type": "application/jsonl"}
    assert guarded.post("/ner/stream", content=content, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY}0"},
        {"X-API-Key": ""},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": "ключ".encode()},
    ],
)
def test_without_a_valid_key_nothing_is_told(guarded: Client, headers: dict[str, Any]) -> None:
    for method, path in (
        ("POST", "/ner"), ("POST", "/parse"), ("POST", "/ner/stream"), ("GET", "/models"), ("GET", "/info"),
        ("GET", "/metrics"), ("GET", "/nowhere"), ("DELETE", "/ner"),
    ):  # fmt: skip
        refused = guarded.request(method, path, headers=headers)
        assert problem(refused) == (401, "unauthorised"), path
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert KEY not in refused.text
        assert "X-Request-Id" in refused.headers


@pytest.mark.parametrize(
    "path", ["//ner", "/docs/../ner", "/page/../ner", "/page/%2e%2e/ner", "/%6eer", "/ner/"]
)
def test_no_other_spelling_of_a_path_is_a_way_past_the_keys(guarded: Client, path: str) -> None:
    body = json.dumps(ADA).encode()
    with connect(guarded) as connection:
        connection.sendall(head(path, f"Content-Length: {len(body)}") + body)
        assert answer(connection).status in (401, 404, 405)


def test_a_refusal_for_a_key_does_not_wait_for_the_body(guarded: Client) -> None:
    with connect(guarded) as connection:
        connection.sendall(head("/ner", "Content-Length: 1000000", "Expect: 100-continue"))
        assert problem(answer(connection)) == (401, "unauthorised")


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/docs", "/openapi.json", "/page/page.js"])
def test_public_paths_ask_for_no_key(guarded: Client, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_a_server_that_stops_says_so_and_still_answers_what_comes(serve: Serve) -> None:
    client = serve({"names": FakeNer()})
    assert client.get("/readyz").status_code == 200
    assert "Connection" not in client.post("/ner", json=ADA).headers
    client.app.state.service.draining = True
    unready = client.get("/readyz")
    assert problem(unready) == (503, "not_ready")
    assert unready.headers["Connection"] == "close"
    served = client.post("/ner", json=ADA)
    assert (served.status_code, served.headers["Connection"]) == (200, "close")
    assert client.get("/livez").status_code == 200


def figures(client: Client) -> dict[frozenset[str], float]:
    """The samples of /metrics by name and values of labels."""
    return {
        frozenset([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_metrics_tell_of_requests_refusals_batches_and_models(serve: Serve) -> None:
    engine = HeldNer()
    client = serve({"counted": engine}, max_queue_sentences=3)
    before = figures(client)
    with connect(client) as first, connect(client) as second:
        first.sendall(request(1))
        until(lambda: engine.runs)
        second.sendall(request(3))
        until(lambda: client.waiting() == 3)
        client.post("/ner", json=ADA)
        engine.gate.set()
        assert [answer(each).status for each in (first, second)] == [200, 200]
    client.post("/ner", json=ADA, headers={"X-Request-Timeout": "never"})
    after = figures(client)

    def more(*name: str) -> float:
        return after[frozenset(name)] - before.get(frozenset(name), 0)

    assert more("serve_requests_total", "/ner", "200") == 2
    assert more("serve_requests_total", "/ner", "429") == 1
    assert more("serve_refusals_total", "overloaded") == 1
    assert more("serve_refusals_total", "invalid_timeout") == 1
    assert more("serve_sentences_total", "counted", "0123456789ab") == 4
    assert more("serve_batch_sentences_count", "counted") == 2
    assert more("serve_stage_seconds_count", "queue") == 2
    assert after[frozenset(["serve_queue_sentences", "counted"])] == 0
    assert after[frozenset(["serve_model_info", "ner", "counted", "0123456789ab", "true"])] == 1
