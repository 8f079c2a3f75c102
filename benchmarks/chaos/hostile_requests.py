"""Input over a raw socket that no decent client sends, and what comes back of it."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import gevent
from gevent import socket
from httptools import HttpParserError, HttpResponseParser

from loadtest.http_client import Address

End = Literal["answered", "closed", "hung", "garbage"]

ADA = b'{"texts": ["Ada lives in London."]}'


@dataclass(frozen=True, slots=True)
class Case:
    """Bytes to send, and how many answers they should get.

    `half_close` tells the server that no more will come. `may_close`: the server may also close the
    connection without a word, because what was sent is no whole request.
    """

    name: str
    content: bytes
    answers: int = 1
    half_close: bool = False
    may_close: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers as (status, body), and how it ended."""

    answers: Sequence[tuple[int, bytes]]
    end: End


class _Answers:
    """Collects whole answers from what a socket gives."""

    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self.whole: list[tuple[int, bytes]] = []
        self._body = b""

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.whole.append((self.parser.get_status_code(), self._body))


def send(address: Address, case: Case, patience: float) -> Reply:
    """Sends a case and reads until its answers are there, the server closes, or time is up."""
    found = _Answers()
    with socket.create_connection(address, timeout=patience) as connection, gevent.Timeout(patience, False):
        connection.settimeout(None)
        # An answer may come before everything is sent, and the rest is not wanted any more then.
        sender = gevent.spawn(_send_all, connection, case)
        try:
            while len(found.whole) < case.answers:
                data = connection.recv(1 << 16)
                if not data:
                    return Reply(found.whole, "closed")
                found.parser.feed_data(data)
            return Reply(found.whole, "answered")
        except ConnectionError:
            return Reply(found.whole, "closed")
        except HttpParserError:
            return Reply(found.whole, "garbage")
        finally:
            sender.kill()
    return Reply(found.whole, "hung")


def _send_all(connection: socket.socket, case: Case) -> None:
    with suppress(OSError):  # the reader notices that the server closed
        connection.sendall(case.content)
        if case.half_close:
            connection.shutdown(socket.SHUT_WR)


def fault(case: Case, reply: Reply) -> str | None:
    """What is wrong with a reply: it has to be refusals with 4xx, or right answers; None where it is."""
    if reply.end == "hung":
        return "no answer"
    if reply.end == "garbage":
        return "the answer is no HTTP"
    if reply.end == "closed" and not case.may_close:
        return f"closed after {len(reply.answers)} of {case.answers} answers"
    for status, body in reply.answers:
        if status == 200:
            try:
                results = json.loads(body)["results"]
            except (ValueError, KeyError, TypeError):
                return "status 200 without results"
            if not results:
                return "status 200 with no result"
        elif not 400 <= status < 500:
            return f"status {status}"
    return None


def request(
    body: bytes,
    *headers: bytes,
    path: bytes = b"/ner",
    version: bytes = b"1.1",
    media_type: bytes = b"application/json",
    length: int | None = None,
) -> bytes:
    """A POST with its length, or a length that is not its own."""
    announced = len(body) if length is None else length
    lines = [b"POST %s HTTP/%s" % (path, version), b"Host: 127.0.0.1", b"Content-Type: %s" % media_type]
    lines += [b"Content-Length: %d" % announced, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    """A POST whose body is given as it goes over the wire, in chunks or what passes for them."""
    head = b"POST /ner HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + body


def _cases() -> tuple[Case, ...]:
    bodies = {
        "malformed UTF-8": b'{"texts": ["\xff\xfe\x80"]}',
        "half a UTF-8 character": b'{"texts": ["\xd7"]}',
        "an overlong UTF-8 slash": b'{"texts": ["\xc0\xaf"]}',
        "UTF-16": '{"texts": ["Ada"]}'.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + ADA,
        "a lone surrogate, escaped": b'{"texts": ["\\ud800"]}',
        "a lone surrogate, encoded": b'{"texts": ["\xed\xa0\x80"]}',
        "surrogates in the wrong order": b'{"texts": ["\\udc00\\ud800"]}',
        "a lone surrogate as a model's name": b'{"texts": ["a"], "model": "\\ud800"}',
        "a lone surrogate as a key": b'{"\\ud800": 1}',
        "control characters, escaped": b'{"texts": ["\\u0000\\u0001\\u001b[2J\\u007f"]}',
        "control characters, raw": b'{"texts": ["\x00\x01\x1b[2J"]}',
        "a null character as a token": b'{"sentences": [["\\u0000"]]}',
        "emoji": '{"texts": ["👩‍👩‍👧‍👦🏳️‍🌈 𝔸𝕕𝕒 🇮🇱"]}'.encode(),
        "emoji as tokens": '{"sentences": [["👩‍👩‍👧‍👦", "🏳️‍🌈"]]}'.encode(),
        "a hundred combining marks": ('{"texts": ["e' + "\u0301" * 100 + '"]}').encode(),
        "marks of direction": '{"texts": ["\u202eAda\u202c \u2066x\u2069"]}'.encode(),
        "non-characters": '{"texts": ["\ufffe\uffff\U0010ffff"]}'.encode(),
        "an empty text": b'{"texts": [""]}',
        "a text of white space": b'{"texts": [" \\t\\n\\u00a0\\u2028"]}',
        "a sentence without tokens": b'{"sentences": [[]]}',
        "10 MB of spaces": b" " * 10_000_000,
        "a text of 900,000 spaces": b'{"texts": ["' + b" " * 900_000 + b'"]}',
        "a word of 90,000 letters": b'{"texts": ["' + b"a" * 90_000 + b'"]}',
        "a text of 90,000 full stops": b'{"texts": ["' + b"." * 90_000 + b'"]}',
        "JSON nested 100,000 deep": b"[" * 100_000,
        "closed JSON nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
        "objects nested 50,000 deep": b'{"texts":' * 50_000,
        "a number of 100,000 digits": b'{"texts": ' + b"9" * 100_000 + b"}",
        "not a number": b'{"texts": [NaN, Infinity]}',
        "a key twice": b'{"texts": ["a"], "texts": ["b"]}',
        "null": b"null",
        "nothing": b"",
        "300 texts": b'{"texts": [' + b",".join([b'"a"'] * 300) + b"]}",
        "100,000 texts": b'{"texts": [' + b",".join([b'"a"'] * 100_000) + b"]}",
        "a model's name of 100,000 letters": b'{"texts": ["a"], "model": "' + b"m" * 100_000 + b'"}',
        "a model's name that climbs": b'{"texts": ["a"], "model": "../../etc/passwd"}',
        "broken off": ADA[:20],
        "rubbish after the end": ADA + b"}}}",
    }
    cases = [Case(name, request(body)) for name, body in bodies.items()]
    cases += [
        Case(f"{name}, to be parsed", request(bodies[name], path=b"/parse"))
        for name in ("a lone surrogate, escaped", "control characters, escaped", "emoji", "an empty text")
    ]
    cases += [
        Case("a body that ends early", request(ADA[:20], length=len(ADA)), half_close=True, may_close=True),
        Case("a body that never comes", request(b"", length=100), may_close=True),
        Case("headers that never end", b"POST /ner HTTP/1.1\r\nHost: 127.0.0.1\r\nX-", may_close=True),
        Case("a request line that never ends", b"POST /ne", may_close=True),
        Case("a silent connection that is half closed", b"", half_close=True, may_close=True),
        Case("a length shorter than the body", request(ADA, length=10)),
        Case("a length of minus one", request(ADA, length=-1)),
        Case("a length beyond 64 bits", request(ADA, length=2**70)),
        Case("a length of a terabyte", request(ADA, length=2**40)),
        Case("a length that is no number", request(ADA).replace(b"Length: 35", b"Length: many")),
        Case("two lengths", request(ADA, b"Content-Length: 3")),
        Case("a length and chunks", request(ADA, b"Transfer-Encoding: chunked")),
        Case("chunks", chunked(b"23\r\n" + ADA + b"\r\n0\r\n\r\n")),
        Case("a chunk's size that is no number", chunked(b"xyz\r\n" + ADA + b"\r\n0\r\n\r\n")),
        Case("a chunk of more than was announced", chunked(b"3\r\n" + ADA + b"\r\n0\r\n\r\n")),
        Case("a chunk beyond 64 bits", chunked(b"f" * 20 + b"\r\n" + ADA)),
        Case("chunks of 3 MB in all", chunked(_megabytes(3))),
        Case("chunks that never end", chunked(b"23\r\n" + ADA + b"\r\n"), may_close=True),
        Case("a header of 1 MB", request(ADA, b"X-Long: " + b"x" * 1_000_000)),
        Case("20,000 headers", request(ADA, *[b"X-%d: x" % number for number in range(20_000)])),
        Case("a path of 1 MB", request(ADA, path=b"/" + b"n" * 1_000_000)),
        Case("a path of 10,000 escapes", request(ADA, path=b"/" + b"%ff" * 10_000)),
        Case("a path that climbs", request(ADA, path=b"/../../etc/passwd")),
        Case("a null byte in a header", request(ADA, b"X-Null: a\x00b")),
        Case("a header that is not ASCII", request(ADA, "X-Name: שלום".encode())),
        Case("a line break inside a header", request(ADA, b"X-Folded: a\r\n b")),
        Case("a request id that is no id", request(ADA, b"X-Request-Id: " + b"<script>" * 100)),
        Case("a timeout that is no number", request(ADA, b"X-Request-Timeout: soon")),
        Case("a timeout below zero", request(ADA, b"X-Request-Timeout: -1")),
        Case("a timeout that is not a number", request(ADA, b"X-Request-Timeout: nan")),
        Case("keys that are not ASCII", request(ADA, "Authorization: Bearer שלום".encode())),
        Case("an Accept of 10,000 kinds", request(ADA, b"Accept: " + b"text/x;q=0.1, " * 4_000)),
        Case("a media type that is none", request(ADA, media_type=b";;;/")),
        Case("a body said to be compressed", request(ADA, b"Content-Encoding: gzip")),
        Case("an expectation", request(ADA, b"Expect: 200-ok")),
        Case("HTTP/1.0", request(ADA, version=b"1.0")),
        Case("HTTP/1.0 that stays", request(ADA, b"Connection: keep-alive", version=b"1.0")),
        Case("HTTP/9.9", request(ADA, version=b"9.9"), may_close=True),
        Case("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, may_close=True),
        Case("a method that is none", request(ADA).replace(b"POST", b"BREW")),
        Case("an upgrade", request(ADA, b"Connection: Upgrade", b"Upgrade: h2c")),
        Case("a websocket", request(ADA, b"Connection: Upgrade", b"Upgrade: websocket", path=b"/ner")),
        Case("ten requests at once", request(ADA) * 10, answers=10),
        Case("ten requests, the last broken off", request(ADA) * 9 + request(ADA[:9]), answers=10),
        Case("a smuggled request", request(ADA, b"Transfer-Encoding : chunked") + request(ADA)),
    ]
    return tuple(cases)


def _megabytes(count: int) -> bytes:
    return (b"10000\r\n" + b" " * 65536 + b"\r\n") * (16 * count) + b"0\r\n\r\n"


CASES = _cases()
