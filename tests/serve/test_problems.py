"""What the server answers to bad input and when it fails, over a real socket."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.app import create_app
from serve.problems import KINDS
from serve.settings import Settings
from tests.serve.conftest import Serve
from tests.serve.fakes import FakeManifest, FakeNer, FakeParser

JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    details: dict[str, Any] = answer.json()
    assert (details["status"], details["code"], details["type"]) == (status, code, f"/docs#{code}")
    assert details["title"] == KINDS[code][1]
    assert details["detail"]
    if pointer is None:
        assert "errors" not in details
    else:
        assert [fault["pointer"] for fault in details["errors"]] == [pointer]
        assert all(fault["detail"] for fault in details["errors"])
    return details


@pytest.fixture(scope="module")
def limited(serve: Serve) -> httpx.Client:
    limits = {
        "body_bytes": 2000,
        "items": 3,
        "text_characters": 50,
        "sentence_tokens": 4,
        "token_characters": 8,
        "request_tokens": 8,
    }
    return serve({"names": FakeNer(), "trees": FakeParser()}, limits=limits)


@pytest.mark.parametrize("path", ["/ner", "/parse"])
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"texts": ["a"], "sentences": [["a"]]}, ""),
        ({"texts": None}, ""),
        ([], ""),
        ("x", ""),
        (None, ""),
        ({"texts": []}, "/texts"),
        ({"sentences": []}, "/sentences"),
        ({"texts": "one"}, "/texts"),
        ({"texts": ["a", 1, 2]}, "/texts/1"),
        ({"texts": ["a", None]}, "/texts/1"),
        ({"sentences": ["a"]}, "/sentences/0"),
        ({"sentences": [["a"], ["b", ""]]}, "/sentences/1/1"),
        ({"sentences": [["a"], ["b", {}]]}, "/sentences/1/1"),
        ({"sentences": [["a"], [" b"]]}, "/sentences/1/0"),
        ({"sentences": [["a", "\u00a0"]]}, "/sentences/0/1"),
        ({"sentences": [["a\tb"]]}, "/sentences/0/0"),
        ({"sentences": [["a\u2028b"]]}, "/sentences/0/0"),
        ({"texts": ["a"], "model": 1}, "/model"),
        ({"texts": ["a"], "model": "m" * 201}, "/model"),
        ({"texts": ["a"], "modle": "x"}, "/modle"),
        ({"texts": ["a"], "a/b~": "x"}, "/a~1b~0"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_and_the_fault_is_pointed_at(
    client: httpx.Client, path: str, body: Any, pointer: str
) -> None:
    problem(client.post(path, content=json.dumps(body), headers=JSON), 422, "invalid_request", pointer)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"texts": ["a"]', b"{'texts': ['a']}", b'{"texts": ["a"],}', b"[" * 100_000,
     b'{"texts": ["a\nb"]}',
     b'{"texts": ["\\ud800"]}', b'{"texts": ["\\udc00\\ud800"]}', b'{"texts": ["\\ud800a"]}',
     b'{"\\udfff": 1}',
     b'{"texts": ["\\x"]}', '{"texts": ["a"]}'.encode("utf-16-le")],
)  # fmt: skip
def test_a_body_that_is_no_json_is_refused(client: httpx.Client, body: bytes) -> None:
    problem(client.post("/ner", content=body, headers=JSON), 400, "malformed_json")


@pytest.mark.parametrize(
    "body", [b'{"texts": ["\xff"]}', b"\xed\xa0\x80", '{"texts": ["é"]}'.encode("latin-1")]
)
def test_a_body_that_is_no_utf8_is_refused(client: httpx.Client, body: bytes) -> None:
    problem(client.post("/ner", content=body, headers=JSON), 400, "invalid_encoding")


def test_a_byte_order_mark_is_no_fault(client: httpx.Client) -> None:
    body = '{"texts": ["a"]}'.encode("utf-8-sig")
    assert client.post("/ner", content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_declared_as_json_is_refused(client: httpx.Client, content_type: str) -> None:
    answer = client.post("/ner", content=b'{"texts": ["a"]}', headers={"Content-Type": content_type})
    details = problem(answer, 415, "unsupported_media_type")
    assert "Content-Type: application/json" in details["detail"]


@settings(max_examples=80, deadline=None)
@given(body=st.binary(max_size=60))
def test_no_body_makes_the_server_fail(client: httpx.Client, body: bytes) -> None:
    for path in ("/ner", "/parse"):
        assert client.post(path, content=body, headers=JSON).status_code < 500


def test_only_the_first_of_very_many_faults_are_listed(client: httpx.Client) -> None:
    answer = client.post("/ner", json={str(number): None for number in range(50_000)})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert len(answer.json()["errors"]) == 20


def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(client: httpx.Client) -> None:
    answer = client.post("/ner", json={"texts": ["a"], "model": "nmaes"})
    details = problem(answer, 404, "unknown_model", "/model")
    assert "'nmaes'" in details["detail"]
    assert "'names'" in details["detail"]


def test_a_model_of_another_task_is_refused(client: httpx.Client) -> None:
    details = problem(
        client.post("/ner", json={"texts": ["a"], "model": "trees"}), 422, "wrong_task", "/model"
    )
    assert "'names'" in details["detail"]


@pytest.mark.parametrize("body", [{"texts": ["a"]}, {"texts": ["a"], "model": "trees"}])
def test_a_task_without_a_bundle_is_an_error_that_names_it(serve: Serve, body: dict[str, Any]) -> None:
    parser_only = serve({"trees": FakeParser()})
    problem(parser_only.post("/ner", json=body), 404, "no_model_for_task")


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"texts": ["a"] * 4}, "too_many_items", "/texts"),
        ({"sentences": [["a"]] * 4}, "too_many_items", "/sentences"),
        ({"texts": ["a", "b" * 51]}, "text_too_long", "/texts/1"),
        ({"sentences": [["a"], ["b"] * 5]}, "sentence_too_long", "/sentences/1"),
        ({"sentences": [["a"], ["b", "c" * 9]]}, "token_too_long", "/sentences/1/1"),
        ({"texts": ["aa aa aa.", "bb bb bb.", "c"]}, "too_many_tokens", "/texts/2"),
        ({"sentences": [["a"] * 4, ["b"] * 4, ["c"]]}, "too_many_tokens", "/sentences/2"),
    ],
)
def test_a_request_over_a_limit_is_refused(
    limited: httpx.Client, body: dict[str, Any], code: str, pointer: str
) -> None:
    for path in ("/ner", "/parse"):
        problem(limited.post(path, json=body), 413, code, pointer)


@pytest.mark.parametrize(
    "body", [{"texts": ["b" * 50] * 3}, {"sentences": [["b"] * 4] * 2}, {"texts": ["aa aa aa.", "bb bb bb."]}]
)
def test_a_request_at_a_limit_is_served(limited: httpx.Client, body: dict[str, Any]) -> None:
    assert limited.post("/ner", json=body).status_code == 200


@pytest.mark.parametrize("size", [2001, 3_000_000])
def test_a_body_over_the_limit_is_refused_with_its_length_or_in_chunks(
    limited: httpx.Client, size: int
) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(size // 1000):
            yield b" " * 1000
        yield b" " * (size % 1000)

    problem(limited.post("/ner", content=b" " * size, headers=JSON), 413, "body_too_large")
    problem(limited.post("/ner", content=chunks(), headers=JSON), 413, "body_too_large")
    assert limited.post("/ner", json={"texts": ["a"]}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_at_the_limit_is_served(limited: httpx.Client, chunked: bool) -> None:
    body = b'{"texts": ["a"]}'.ljust(2000)
    assert limited.post("/ner", content=iter([body]) if chunked else body, headers=JSON).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/ner"), ("PUT", "/parse"), ("POST", "/livez")])
def test_a_wrong_method_is_a_problem_and_the_right_one_is_named(
    client: httpx.Client, method: str, path: str
) -> None:
    answer = client.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] in ("GET", "POST")


@pytest.mark.parametrize("path", ["/page/nothing", "/nre", "/ner/x", "/%ff", "/ner//"])
def test_an_unknown_path_is_a_problem(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 404, "not_found")


@dataclass
class FailingNer(FakeNer):
    """Fails and tells the user's words in its message."""

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        try:
            rows: dict[str, Any] = {}
            return [rows[word] for sentence in sentences for word in sentence]
        except KeyError as error:
            raise ValueError(f"no row for {error}") from error


@dataclass
class ForgetfulNer(FakeNer):
    """Answers fewer sentences than it was asked."""

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        return list(super().predict(sentences))[:-1]


def test_an_unexpected_error_is_a_problem_and_no_word_of_the_user_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    failing = serve({"names": FailingNer()})
    with caplog.at_level(logging.DEBUG):
        answer = failing.post("/ner", json={"texts": ["SecretWord"]})
        problem(answer, 500, "internal_error")
        assert failing.post("/ner", json={"texts": ["SecretWord"]}).status_code == 500
    assert "SecretWord" not in answer.text + caplog.text
    assert "ValueError" in caplog.text
    assert "predict" in caplog.text


def test_a_model_that_loses_a_sentence_is_an_error_not_a_shorter_answer(serve: Serve) -> None:
    problem(serve({"names": ForgetfulNer()}).post("/ner", json={"texts": ["a", "b"]}), 500, "internal_error")


def test_nothing_is_ready_before_the_bundles_are_loaded(tmp_path: Path) -> None:
    unstarted = TestClient(create_app(Settings(bundles=tmp_path)))  # its lifespan has not begun
    for answer in (
        unstarted.get("/readyz"),
        unstarted.get("/info"),
        unstarted.post("/ner", json={"texts": ["a"]}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert unstarted.get("/livez").status_code == 200


def test_roles_are_free_words(serve: Serve) -> None:
    other = serve({"names": FakeNer(FakeManifest(role="baseline"))})
    assert other.post("/ner", json={"texts": ["a"]}).json()["model"] == "names"
