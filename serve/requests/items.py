"""The texts or sentences of a request: checked, cut into sentences, and put together with their answers."""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any

from serve.models.selection import Model
from serve.problems import Fault, Problem, pointer
from serve.schemas import AnnotationRequest
from serve.settings import Limits
from serve.telemetry.summary import RequestSummary
from structural_kd.annotate.readers import ReaderSettings
from structural_kd.annotate.records import Record

INLINE_TOKENS = 2000
"""Answers of up to so many tokens are written in the event loop: it takes a few milliseconds at most."""

_BREAK_IN_TOKEN = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """A request's items as records, with the answers to all their sentences, in order."""

    model: Model
    records: Sequence[Record]
    answers: Sequence[Any]
    summary: RequestSummary

    def __iter__(self) -> Iterator[tuple[Record, list[Any]]]:
        """Each item with the answers to its sentences."""
        following = iter(self.answers)
        for record in self.records:
            yield record, list(islice(following, len(record.sentences)))

    async def written(self, write: Callable[["AnsweredRequest"], str]) -> str:
        """The body of the answer; written in a thread where others would have to wait for it."""
        began = perf_counter()
        if self.summary.tokens <= INLINE_TOKENS:
            body = write(self)
        else:
            body = await asyncio.to_thread(write, self)
        self.summary.stages["write"] = perf_counter() - began
        return body


def check_size(request: AnnotationRequest, limits: Limits) -> None:
    """Raises a `Problem` where a request asks for too much, as far as can be seen before segmentation."""
    items: Sequence[Sequence[str]] = request.texts or request.sentences or ()
    kind, code, limit, unit = (
        ("texts", "text_too_long", limits.text_characters, "characters")
        if request.texts is not None
        else ("sentences", "sentence_too_long", limits.sentence_tokens, "tokens")
    )
    if len(items) > limits.items:
        detail = f"{len(items)} items; a request may have {limits.items}."
        raise _at_fault("too_many_items", pointer(kind), detail)
    for index, item in enumerate(items):
        if len(item) > limit:
            detail = f"{len(item)} {unit}; an item of {kind!r} may have {limit}."
            raise _at_fault(code, pointer(kind, index), detail)
    for index, tokens in enumerate(request.sentences or ()):
        _check_tokens(tokens, index, limits)


def records_of(request: AnnotationRequest, reading: ReaderSettings, limits: Limits) -> list[Record]:
    """The request's items, in order; `line` is an item's index. Raises a `Problem` at too many tokens."""
    records: list[Record] = []
    total = 0
    items: Sequence[str | list[str]] = request.texts or request.sentences or ()
    for index, item in enumerate(items):
        if isinstance(item, str):
            record = reading.raw(index, item)
        else:
            record = Record(index, item, [(0, len(item))] if item else [])
        total += len(record.tokens)
        if total > limits.request_tokens:
            detail = (
                f"{total} tokens up to this item; a request may have {limits.request_tokens}. "
                "Send the items in several requests."
            )
            kind = "sentences" if request.texts is None else "texts"
            raise _at_fault("too_many_tokens", pointer(kind, index), detail)
        records.append(record)
    return records


def sentences_of(records: Sequence[Record]) -> list[Sequence[str]]:
    """All sentences of the items, in order."""
    return [record.tokens[start:end] for record in records for start, end in record.sentences]


def _check_tokens(tokens: Sequence[str], index: int, limits: Limits) -> None:
    joined = " ".join(tokens)
    if len(joined) <= limits.token_characters and joined.isprintable() and joined.split() == tokens:
        return  # nearly always; what follows takes longer
    for position, token in enumerate(tokens):
        where = pointer("sentences", index, position)
        if len(token) > limits.token_characters:
            detail = f"{len(token)} characters; a token may have {limits.token_characters}."
            raise _at_fault("token_too_long", where, detail)
        if token.strip() != token or _BREAK_IN_TOKEN.search(token):
            detail = "A token has no white space at its ends, and no tab and no line break inside."
            raise _at_fault("invalid_request", where, detail)


def _at_fault(code: str, where: str, detail: str) -> Problem:
    return Problem(code, f"{where}: {detail}", [Fault(pointer=where, detail=detail)])
