"""Requests as they go over the wire, made before any clock runs, and what is wrong with an answer."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from loadtest.sentences import Input, request_body

RESULT_KEY = b'"tokens":'  # once in every result; inside a string its quotes would be escaped


@dataclass(frozen=True, slots=True)
class Request:
    """One request, byte for byte, and how many sentences and tokens it asks for."""

    content: bytes
    sentences: int = 1
    tokens: int = 0


def post(
    path: str, body: bytes, *, sentences: int = 1, tokens: int = 0, media_type: str = "application/json"
) -> Request:
    """A POST on a connection that stays open."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media_type}\r\n"
    return Request(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, sentences, tokens)


def requests_of(
    sentences: Sequence[list[str]], size: int, *, path: str, kind: Input = "tokens"
) -> list[Request]:
    """All sentences in their order, `size` a request.

    Every request has exactly `size` sentences: a remainder at the end is left out, and fewer sentences than
    one request needs are repeated to fill it. Raises ValueError where there is no sentence.
    """
    if not sentences:
        raise ValueError("no sentence to make a request of")
    filled = list(sentences)
    while len(filled) < size:
        filled += sentences
    whole = range(0, len(filled) - size + 1, size)
    return [
        post(path, request_body(batch, kind), sentences=size, tokens=sum(map(len, batch)))
        for batch in (filled[start : start + size] for start in whole)
    ]


def fault(status: int, body: bytes, sentences: int) -> str:
    """Why an answer does not count; empty where it does.

    >>> fault(200, b'{"results":[{"tokens":["a"]}]}', 1)
    ''
    >>> fault(429, b'{"code": "overloaded"}', 1)
    'status 429, overloaded'
    """
    if status != 200:
        code = None
        with suppress(ValueError):
            problem = json.loads(body)
            code = problem.get("code") if isinstance(problem, dict) else None
        return f"status {status}, {code}" if isinstance(code, str) else f"status {status}"
    results = body.count(RESULT_KEY)
    return "" if results == sentences else f"{results} results for {sentences} sentences"
