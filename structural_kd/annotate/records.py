"""What is annotated: a line or a CoNLL-U sentence of the input, as tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

TOKEN_CHARACTERS = 1000
"""Most characters of a given token: an unknown word takes time for each of them."""

SENTENCE_TOKENS = 512
"""Most tokens of a sentence unless another limit is set: a longer one in raw text is cut. One number for the
server, the command and training, so that they cut alike."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Record:
    """One place in the input and in the output.

    Attributes:
        line: where it begins, counted from 1.
        sentences: token ranges that cover `tokens` in order.
        text: the raw text, if it was one; `places[i]` is then the slice of it that is token i.
        cuts: first tokens of sentences that begin only because the one before had become too long.
        carried: what else the input says of it, as the inside of a JSON object: `"id":7`.
        rows: the cells of its lines in a CoNLL-U file; a comment is one cell.
    """

    line: int
    tokens: list[str]
    sentences: Sequence[tuple[int, int]]
    text: str | None = None
    places: Sequence[tuple[int, int]] = ()
    cuts: list[int] = field(default_factory=list)
    carried: str = ""
    rows: Sequence[list[str]] = ()


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A place in the input that cannot be annotated. The message says what was wrong and what is expected,
    and repeats nothing of the input."""

    line: int
    message: str


class RecordError(ValueError):
    """A line is not what its format says it is. `token` is the wrong one, counted from 1, if one is."""

    def __init__(self, message: str, token: int | None = None) -> None:
        super().__init__(message)
        self.token = token


def check_tokens(tokens: Sequence[Any], longest: int) -> None:
    """Raises RecordError unless these are the tokens of a sentence of at most `longest`.

    A token is a string that is not empty, has no white space at its ends and no control character or line
    break inside.
    """
    if len(tokens) > longest:
        limit = f"{longest:,} (--sentence-tokens)"
        raise RecordError(f"a sentence of {len(tokens):,} tokens; expected at most {limit}")
    try:
        joined = " ".join(tokens)
    except TypeError:
        raise RecordError("a token is not a string; expected strings") from None
    if len(joined) <= TOKEN_CHARACTERS and joined.isprintable() and joined.split() == tokens:
        return  # nearly always; what follows takes longer
    for number, token in enumerate(tokens, start=1):
        if fault := _fault(token):
            raise RecordError(f"token {number} {fault}", number)


def _fault(token: str) -> str | None:
    if not token:
        return "is empty; expected at least one character"
    if _CONTROL.search(token):
        return "has a control character or line break; expected none"
    if token.strip() != token:
        return "begins or ends with white space; expected none there"
    if len(token) > TOKEN_CHARACTERS:
        return f"has {len(token):,} characters; expected at most {TOKEN_CHARACTERS:,}"
    return None
