"""The sentences of a load test, their order, and the requests made of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from loadtest.http_client import Request, post

Input = Literal["tokens", "texts"]


class SentencesError(ValueError):
    """A file of sentences cannot be used; the message names the file."""


def read_sentences(path: Path) -> list[list[str]]:
    """The sentences of a UTF-8 file, one a line, tokens split by white space; empty lines only separate."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SentencesError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    sentences = [tokens for line in lines if (tokens := line.split())]
    if not sentences:
        raise SentencesError(f"{path}: no sentence in it; expected one a line, tokens split by spaces")
    return sentences


def van_der_corput(count: int) -> list[int]:
    """The numbers below `count` in the order of their bits read backwards.

    Of any `2 ** k` that follow one another, each of `2 ** k` equal parts of the whole has one, also across
    the end where the order begins again; where `count` is no power of two, nearly so.

    >>> van_der_corput(8), van_der_corput(5)
    ([0, 4, 2, 6, 1, 5, 3, 7], [0, 4, 2, 1, 3])
    """
    bits = max(count - 1, 0).bit_length()
    backwards = (int(f"{number:0{bits}b}"[::-1], 2) if bits else 0 for number in range(1 << bits))
    return [number for number in backwards if number < count]


def evenly_mixed(sentences: Sequence[list[str]]) -> list[list[str]]:
    """The sentences, each once, so that any of them that follow one another have the mix of lengths of all.

    A slow system gets through the first few only, a fast one through all many times; both are measured on the
    same mix.

    >>> [len(sentence) for sentence in evenly_mixed([["a"] * length for length in range(1, 9)])]
    [1, 5, 3, 7, 2, 6, 4, 8]
    """
    by_length = sorted(sentences, key=len)
    return [by_length[rank] for rank in van_der_corput(len(by_length))]


def request_body(batch: Sequence[Sequence[str]], kind: Input = "tokens") -> bytes:
    """The JSON of one request: `tokens` sends words as they are, `texts` leaves the splitting to the server.

    >>> request_body([["Ada", "runs"]], "texts")
    b'{"texts": ["Ada runs"]}'
    """
    content = {"sentences": batch} if kind == "tokens" else {"texts": [" ".join(words) for words in batch]}
    return json.dumps(content, ensure_ascii=False).encode()


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
    batches = (filled[start : start + size] for start in range(0, len(filled) - size + 1, size))
    return [
        post(path, request_body(batch, kind), sentences=size, tokens=sum(map(len, batch)))
        for batch in batches
    ]
