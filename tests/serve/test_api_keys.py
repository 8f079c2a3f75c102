"""Which API keys open the server, and which files of keys it refuses."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from serve.middleware.api_keys import ApiKeys
from serve.models.discovery import StartError
from tests.serve.conftest import ADA, Client, Serve, answer, connect, head, problem
from tests.serve.fakes import FakeNer, FakeParser

KEY = "0123456789abcdef"
OTHER = "p:th~!$%^&*()_+={}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    return path


def load(file: Path, text: str) -> ApiKeys:
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return ApiKeys.load(file)


def test_a_key_opens_as_bearer_or_in_its_own_header_and_names_its_client(file: Path) -> None:
    keys = load(file, f"\ufeff# the clients\n\nshop:{KEY}\r\n desk : {OTHER}  \nnameless-key-of-line-5\n")
    assert keys.name_of(f"Bearer {KEY}", None) == "shop"
    assert keys.name_of(f"bearer  {KEY} ", None) == "shop"
    assert keys.name_of(None, OTHER) == "desk"
    assert keys.name_of("Bearer of-another-server", OTHER) == "desk"
    assert keys.name_of(None, "nameless-key-of-line-5") == "line-5"


@pytest.mark.parametrize(
    ("authorization", "x_api_key"),
    [
        (None, None),
        ("", ""),
        ("Bearer", None),
        ("Bearer ", None),
        (KEY, None),
        (f"Basic {KEY}", None),
        (f"Bearer {KEY}x", None),
        (f"Bearer {KEY[:-1]}", None),
        (f"Bearer shop:{KEY}", None),
        (f"Bearer {KEY}", "wrong"),
        ("Bearer ключ", None),
        (None, "\xff\ud800"),
    ],
)
def test_no_key_a_wrong_key_and_a_malformed_key_open_nothing(
    file: Path, authorization: str | None, x_api_key: str | None
) -> None:
    assert load(file, f"shop:{KEY}").name_of(authorization, x_api_key) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"\nshop:{KEY[1:]}", ":2: a key must have 16 characters"),
        (KEY[1:], ":1: a key must have 16 characters"),
        ("shop:", ":1: a key must be of visible ASCII"),
        (f"shop:{KEY}é", ":1: a key must be of visible ASCII"),
        (f"shop:{KEY} {KEY}", ":1: a key must be of visible ASCII"),
        (f":{KEY}", ":1: the name before the colon"),
        (f"my shop:{KEY}", ":1: the name before the colon"),
        (f"a:{KEY}\n#\nb:{KEY}", ":3: the key of line 1 again"),
        ("# none\n\n", "has no key"),
        ("", "has no key"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line_but_no_key_is_shown(
    file: Path, text: str, said: str
) -> None:
    with pytest.raises(StartError, match=said) as raised:
        load(file, text)
    assert str(file) in str(raised.value)
    assert KEY[1:] not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"absent.* cannot be read: No such file"):
        ApiKeys.load(tmp_path / "absent")


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_file_that_any_user_can_read_is_warned_of(
    file: Path, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    file.write_text(KEY)
    file.chmod(mode)
    with caplog.at_level(logging.WARNING):
        ApiKeys.load(file)
    assert len(caplog.records) == warnings
    assert KEY not in caplog.text


def test_the_keys_themselves_are_not_kept(file: Path) -> None:
    assert KEY not in repr(load(file, f"shop:{KEY}"))


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
def test_without_a_valid_key_an_answer_has_no_information(guarded: Client, headers: dict[str, Any]) -> None:
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
