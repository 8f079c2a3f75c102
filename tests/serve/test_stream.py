"""Streams of JSON lines, over a real socket."""

import asyncio
import io
import json
import select
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.formats.jsonl_stream import LINES_AT_ONCE, split
from serve.schemas import LineFault
from structural_kd.annotate.lines import Line, Lines
from structural_kd.annotate.readers import ReaderSettings, read_jsonl
from structural_kd.annotate.stream import annotate
from structural_kd.annotate.writers import RESULT_KEYS, write_jsonl
from tests.serve.conftest import Client, Serve, answer, connect, head, until
from tests.serve.fakes import FakeNer, FakeParser, HeldNer

JSONL = {"Content-Type": "application/jsonl"}
CHUNKED = "Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
ADA = b'{"text": "Ada sleeps."}\n'
SENTENCES = b'{"sentences": [["A"], ["b"]]}\n'


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def lines_of(body: bytes) -> list[dict[str, Any]]:
    *lines, rest = body.split(b"\n")
    assert rest == b"", "the last line does not end"
    return [json.loads(line) for line in lines]


def stream(client: httpx.Client, content: Any, path: str = "/ner/stream") -> list[dict[str, Any]]:
    answer = client.post(path, content=content, headers=JSONL)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/jsonl"
    return lines_of(answer.content)


def error(line: int, code: str) -> dict[str, Any]:
    return {"line": line, "code": code}


def without_message(result: dict[str, Any]) -> dict[str, Any]:
    fault: dict[str, Any] = result["error"]
    assert set(result) == {"error"}
    assert fault.pop("message")
    return fault


def annotated(content: bytes, task: str) -> list[bytes]:
    """The lines that `python -m structural_kd annotate` writes for an input."""
    predictor = FakeParser() if task == "parse" else FakeNer()
    lines = Lines(io.BytesIO(content), max_bytes=1 << 20)
    reading = ReaderSettings("en", sentence_tokens=512, block_bytes=1 << 20, replaced=RESULT_KEYS[task])
    return [
        write_jsonl(item).encode() for item in annotate(list(read_jsonl(lines, reading)), {task: predictor})
    ]


RECORDS = [
    {"text": "Ada Lovelace was born in London. She wrote."},
    {"text": ""},
    {"tokens": ["by", "Ada", "Lovelace"], "id": 7, "from": {"name": "naïve \u2028 ☂"}},
    {"id": "first", "sentences": [["Ada"], ["Bob", "sleeps"]], "entities": "of the input", "heads": None},
    {"tokens": []},
    {"sentences": []},
    {"text": "a " * 600, "long": True},
]


@pytest.mark.parametrize("task", ["ner", "parse"])
def test_each_line_has_the_line_that_bulk_annotation_writes_for_it(client: Client, task: str) -> None:
    content = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in RECORDS)
    answer = client.post(f"/{task}/stream", content=content, headers=JSONL)
    assert answer.content.splitlines(keepends=True) == annotated(content, task)


@pytest.mark.parametrize("task", ["ner", "parse"])
def test_results_are_those_of_single_requests(client: Client, task: str) -> None:
    texts = ["Ada Lovelace was born in London. She wrote.", "", "one two"]
    results = client.post(f"/{task}", json={"texts": texts}).json()["results"]
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    assert stream(client, content, f"/{task}/stream") == results


def test_many_results_come_in_the_order_of_their_lines(client: Client) -> None:
    content = b"".join(b'{"id": %d, "tokens": ["w", "A"]}\n' % number for number in range(3000))
    results = stream(client, content)
    assert [result["id"] for result in results] == list(range(3000))
    assert all(result["entities"] for result in results)


BAD = [
    (b"", "invalid_record"),
    (b" ", "invalid_record"),
    (b"[]", "invalid_record"),
    (b"{", "invalid_record"),
    (b"{'text': 'secret'}", "invalid_record"),
    (b'{"id": 1}', "invalid_record"),
    (b'{"text": "secret", "tokens": []}', "invalid_record"),
    (b'{"text": "secret", "text": ""}', "invalid_record"),
    (b'{"text": 1}', "invalid_record"),
    (b'{"tokens": "secret"}', "invalid_record"),
    (b'{"tokens": ["secret words "]}', "invalid_record"),
    (b'{"tokens": [""]}', "invalid_record"),
    (b'{"sentences": ["secret"]}', "invalid_record"),
    (b'{"text": "secret", "error": 1}', "invalid_record"),
    (b'{"text": "\\ud800 secret"}', "invalid_record"),
    (b'{"id": "\\udc00", "text": "secret"}', "invalid_record"),
    (b'{"text": "secret", "n": NaN}', "invalid_record"),
    (b'{"text": "secret", "n": ' + b"9" * 5000 + b"}", "invalid_record"),
    (b'{"text": "secret", "deep": ' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_record"),
    (b'{"tokens": [' + b'"w",' * 512 + b'"w"]}', "invalid_record"),
    (b'{"text": "secret \xff"}', "invalid_encoding"),
    (b'{"text": "\xed\xa0\x80 secret"}', "invalid_encoding"),
]


@pytest.mark.parametrize("task", ["ner", "parse"])
def test_a_bad_line_is_an_error_with_its_number_and_the_rest_goes_on(client: Client, task: str) -> None:
    content = ADA + b"".join(line + b"\n" + ADA for line, _ in BAD)
    results = stream(client, content, f"/{task}/stream")
    good = json.loads(annotated(ADA, task)[0])
    assert results[0::2] == [good] * (len(BAD) + 1)
    assert "secret" not in json.dumps(results)
    faults = [without_message(result) for result in results[1::2]]
    assert faults == [error(2 * number, code) for number, (_, code) in enumerate(BAD, start=1)]


def test_the_message_of_a_bad_line_is_that_of_bulk_annotation(client: Client) -> None:
    content = b"\n".join(line for line, code in BAD if code == "invalid_record") + b"\n"
    # All but the name of the command's option.
    told = [
        json.loads(line.replace(b" (--sentence-tokens)", b""))["error"] for line in annotated(content, "ner")
    ]
    results = [result["error"] for result in stream(client, content)]
    assert [fault | {"code": "invalid_record"} for fault in told] == results


@pytest.mark.parametrize("size", [7, 1_000_000])
def test_a_line_that_is_too_large_is_an_error_and_the_rest_goes_on(serve: Serve, size: int) -> None:
    limits = {"line_bytes": 100, "request_tokens": 10, "sentence_tokens": 8}
    limited = serve({"names": FakeNer()}, limits=limits)
    fits = b'{"text": "%s"}' % (b"A" * 88)
    too_long = b'{"text": "%s"}' % (b"A" * 89)
    too_many = b'{"sentences": [["a", "b", "c", "d", "e", "f"], ["g", "h", "i", "j", "k"]]}'
    content = b"\n".join([fits, too_long, fits + b"\r", b"x" * 10_000, too_many, fits, too_long])
    parts = (content[start : start + size] for start in range(0, len(content), size))
    results = stream(limited, parts)
    assert all(result["entities"] for result in results[0::2] if "error" not in result)
    assert [without_message(result) for result in results if "error" in result] == [
        error(2, "line_too_long"),
        error(4, "line_too_long"),
        error(5, "too_many_tokens"),
        error(7, "line_too_long"),
    ]


def test_a_line_may_come_byte_by_byte(serve: Serve) -> None:
    limited = serve({"names": FakeNer()}, limits={"line_bytes": 100})
    content = ADA + b'{"text": "' + b"A" * 200 + b'"}\n' + ADA
    with connect(limited) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head("/ner/stream", CHUNKED))
        for number in range(len(content)):
            connection.sendall(chunk(content[number : number + 1]))
        connection.sendall(END)
        first, second, third = lines_of(answer(connection).read())
    assert first == third == json.loads(annotated(ADA, "ner")[0])
    assert without_message(second) == error(2, "line_too_long")


@settings(max_examples=150, deadline=None)
@given(
    content=st.lists(st.sampled_from([b"a", b"bc", "é".encode(), b"\xff", b"\r", b"\n", b"\xef\xbb\xbf"])),
    cuts=st.lists(st.integers(0, 60)),
)
def test_lines_are_those_of_bulk_annotation_wherever_chunks_end(
    content: Sequence[bytes], cuts: list[int]
) -> None:
    whole = b"".join(content)
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]

    async def chunks() -> AsyncIterator[bytes]:
        for start, end in pairwise(places):
            yield whole[start:end]

    async def found() -> list[Line | LineFault]:
        return [line async for lines in split(chunks(), limit=5) for line in lines]

    expected = list(Lines(io.BytesIO(whole), max_bytes=5))
    lines = asyncio.run(found())
    assert [line.number if isinstance(line, Line) else line.line for line in lines] == [
        line.number for line in expected
    ]
    for line, wanted in zip(lines, expected, strict=True):
        if isinstance(line, Line):
            assert line == wanted
        else:
            assert wanted.fault
            assert wanted.fault.startswith(line.message.partition("; expected")[0])


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (b"", 0),
        (ADA.replace(b"\n", b"\r\n") * 2, 2),
        (ADA + ADA.removesuffix(b"\n"), 2),
        (ADA.replace(b"\n", b"\r"), 1),
        (b"\xef\xbb\xbf" + ADA, 1),
    ],
)
def test_line_ends_and_a_byte_order_mark_are_no_faults(client: Client, content: bytes, count: int) -> None:
    assert stream(client, content) == [json.loads(annotated(ADA, "ner")[0])] * count


def test_each_result_comes_before_the_next_line_is_sent(client: Client) -> None:
    with connect(client) as connection:
        connection.sendall(head("/ner/stream", CHUNKED))
        response = answer(connection)
        assert response.status == 200
        for number in range(20):
            connection.sendall(chunk(b'{"tokens": ["Ada"], "id": %d}\n' % number))
            assert json.loads(response.readline())["id"] == number
        connection.sendall(chunk(b"{\n"))
        assert without_message(json.loads(response.readline())) == error(21, "invalid_record")
        connection.sendall(END)
        assert response.read() == b""


def test_a_client_that_expects_100_continue_gets_it(client: Client) -> None:
    with connect(client) as connection:
        connection.sendall(head("/ner/stream", CHUNKED, "Expect: 100-continue"))
        told = connection.recv(25, socket.MSG_WAITALL)
        assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(chunk(ADA) + END)
        assert len(lines_of(answer(connection).read())) == 1


def test_a_line_that_the_model_cannot_answer_harms_no_other(
    held: tuple[HeldNer, Client], caplog: pytest.LogCaptureFixture
) -> None:
    engine, client = held
    engine.gate.set()
    content = ADA + b'{"tokens": ["very", "poison"]}\n' + ADA
    first, second, third = stream(client, content)
    assert first == third == json.loads(annotated(ADA, "ner")[0])
    assert without_message(second) == error(2, "internal_error")
    assert "line 2 of a stream failed with ValueError" in caplog.text
    assert "very" not in caplog.text


def test_lines_fill_at_most_half_of_the_queue_and_a_request_is_admitted_beside_them(
    held: tuple[HeldNer, Client],
) -> None:
    engine, client = held
    with connect(client) as connection, connect(client) as other:
        connection.sendall(head("/ner/stream", CHUNKED) + chunk(SENTENCES))
        until(lambda: engine.runs)
        connection.sendall(chunk(SENTENCES * 100) + END)
        until(lambda: client.waiting() == 20)
        body = b'{"texts": ["Ada."]}'
        other.sendall(head("/ner", f"Content-Length: {len(body)}") + body)
        until(lambda: client.waiting() == 21)
        engine.gate.set()
        assert answer(other).status == 200
        assert len(lines_of(answer(connection).read())) == 101


def test_lines_on_their_way_are_bounded(serve: Serve) -> None:
    engine = HeldNer()
    client = serve({"names": engine})
    with connect(client) as connection:
        connection.sendall(head("/ner/stream", CHUNKED) + chunk(b'{"tokens": ["Ada"]}\n' * 1000) + END)
        until(lambda: client.waiting() + sum(map(len, engine.runs)) >= LINES_AT_ONCE)
        # A second stream has been read when its line waits too; the first one had its turn by then.
        with connect(client) as second:
            second.sendall(head("/ner/stream", CHUNKED) + chunk(b'{"sentences": [["w"], ["w"]]}\n') + END)
            until(lambda: client.waiting() + sum(map(len, engine.runs)) >= LINES_AT_ONCE + 4)
            assert client.waiting() + sum(map(len, engine.runs)) <= LINES_AT_ONCE + 4
            engine.gate.set()
            assert len(lines_of(answer(second).read())) == 1
        assert len(lines_of(answer(connection).read())) == 1000


def send_until_blocked(connection: socket.socket, content: bytes, repeat: int) -> int:
    """Sends as often as the other side takes it; returns how many were begun."""
    connection.setblocking(False)
    for number in range(repeat):
        left = memoryview(content)
        while left:
            if not select.select([], [connection], [], 0.7)[1]:
                connection.setblocking(True)
                connection.settimeout(30)
                threading.Thread(target=connection.sendall, args=(bytes(left),)).start()
                return number + 1
            left = left[connection.send(left) :]
    raise AssertionError("all of it was taken")


def test_nothing_more_is_read_while_the_engine_is_busy(held: tuple[HeldNer, Client]) -> None:
    engine, client = held
    line = b'{"tokens": ["Ada"], "padding": "%s"}\n' % (b"x" * 100_000)
    with connect(client) as connection:
        connection.sendall(head("/ner/stream", CHUNKED))
        sent = send_until_blocked(connection, chunk(line), 1000)
        assert client.waiting() + sum(map(len, engine.runs)) <= LINES_AT_ONCE + 4
        engine.gate.set()
        response = answer(connection)
        for _ in range(sent):
            assert json.loads(response.readline())["entities"]
        connection.sendall(END)
        assert response.read() == b""


def test_nothing_more_is_read_while_the_client_takes_no_results(held: tuple[HeldNer, Client]) -> None:
    engine, client = held
    engine.gate.set()
    line = b'{"tokens": ["Ada"], "padding": "%s"}\n' % (b"x" * 100_000)
    with connect(client) as connection:
        connection.sendall(head("/ner/stream", CHUNKED))
        sent = send_until_blocked(connection, chunk(line), 1000)
        response = answer(connection)
        for _ in range(sent):
            assert json.loads(response.readline())["entities"]
        connection.sendall(END)
        assert response.read() == b""


def test_a_client_that_takes_no_results_is_cut_off(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = serve({"names": FakeNer()}, stream_idle_seconds=0.3)
    line = b'{"tokens": ["Ada"], "padding": "%s"}\n' % (b"x" * 100_000)
    with connect(client) as connection:
        connection.sendall(head("/ner/stream", CHUNKED))
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            connection.sendall(chunk(line) * 1000)
    until(lambda: "took nothing of its answer for 0.3 s" in caplog.text)
    assert stream(client, ADA)


def test_a_client_that_goes_away_gives_its_places_to_others(held: tuple[HeldNer, Client]) -> None:
    engine, client = held
    with connect(client) as first, connect(client) as second:
        first.sendall(head("/ner/stream", CHUNKED) + chunk(SENTENCES))
        until(lambda: engine.runs)
        second.sendall(head("/ner/stream", CHUNKED) + chunk(SENTENCES * 10))
        until(lambda: client.waiting() == 20)
        second.close()
        until(lambda: client.waiting() == 0)
        first.close()
        with connect(client) as other:
            body = json.dumps({"sentences": [["w"]] * 40}).encode()
            other.sendall(head("/ner", f"Content-Length: {len(body)}") + body)
            until(lambda: client.waiting() == 40)
            engine.gate.set()
            assert answer(other).status == 200
    assert sum(map(len, engine.runs)) == 42


def test_a_stream_whose_client_sends_nothing_ends_and_says_so(serve: Serve) -> None:
    client = serve({"names": FakeNer()}, stream_idle_seconds=0.2)
    with connect(client) as connection:
        connection.sendall(head("/ner/stream", CHUNKED) + chunk(ADA + b'{"text": "half of a'))
        result, last = lines_of(answer(connection).read())
    assert result["entities"]
    assert without_message(last) == error(2, "stream_idle")


def test_a_stream_that_cannot_begin_is_a_problem_before_anything_is_sent(client: Client) -> None:
    for path, content_type, status, code in (
        ("/ner/stream?model=absent", "application/jsonl", 404, "unknown_model"),
        ("/ner/stream?model=trees", "application/jsonl", 422, "wrong_task"),
        ("/parse/stream", "text/plain", 415, "unsupported_media_type"),
        ("/parse/stream", "", 415, "unsupported_media_type"),
    ):
        with connect(client) as connection:
            connection.sendall(head(path, CHUNKED, content_type=content_type))
            response = answer(connection)
            problem = json.loads(response.read())
        assert (response.status, problem["code"]) == (status, code)
        assert response.headers["Content-Type"] == "application/problem+json"


def test_a_stream_may_name_its_model(client: Client) -> None:
    assert stream(client, ADA, "/ner/stream?model=names") == stream(client, ADA)


def test_a_stream_may_be_larger_than_a_request(serve: Serve) -> None:
    limited = serve({"names": FakeNer()}, limits={"body_bytes": 1000})
    assert len(stream(limited, ADA * 1000)) == 1000
    assert len(stream(limited, iter([ADA] * 100))) == 100
