"""The sentences of a load test and the request bodies made of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

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


def batches(sentences: Sequence[list[str]], size: int) -> list[list[list[str]]]:
    """The sentences in their own order, `size` at a time; the last batch may be smaller.

    >>> [len(batch) for batch in batches([["a"], ["b"], ["c"]], 2)]
    [2, 1]
    """
    if size < 1:
        raise ValueError(f"a batch needs at least one sentence, not {size}")
    return [list(sentences[start : start + size]) for start in range(0, len(sentences), size)]


def request_body(batch: Sequence[Sequence[str]], kind: Input) -> bytes:
    """The JSON of one request: `tokens` sends words as they are, `texts` leaves the splitting to the server.

    >>> request_body([["Ada", "runs"]], "texts")
    b'{"texts": ["Ada runs"]}'
    """
    if kind == "tokens":
        return json.dumps({"sentences": batch}, ensure_ascii=False).encode()
    return json.dumps({"texts": [" ".join(tokens) for tokens in batch]}, ensure_ascii=False).encode()
