"""From a request to its results: sentences for the model, and the model's answers put back on the items."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from serve.problems import Fault, Problem, pointer
from serve.schemas import AnnotationRequest, Entity, NerResult, ParseResult, TokenRange
from serve.settings import Limits
from structural_kd.segment import Segmenter

_BREAK_IN_TOKEN = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Item:
    """A text or a sentence of a request, as tokens. `text` and `places` are None for given tokens."""

    tokens: Sequence[str]
    sentences: Sequence[tuple[int, int]]
    text: str | None = None
    places: Sequence[tuple[int, int]] | None = None
    cuts: Sequence[int] = ()


def check_size(request: AnnotationRequest, limits: Limits) -> None:
    """Raises a `Problem` where a request asks for too much, as far as can be seen before segmentation."""
    items: Sequence[Sequence[str]] = request.texts or request.sentences or ()
    kind, code, limit, unit = (
        ("texts", "text_too_long", limits.text_characters, "characters")
        if request.texts is not None
        else ("sentences", "sentence_too_long", limits.sentence_tokens, "tokens")
    )
    if len(items) > limits.items:
        raise _too_much(
            "too_many_items", pointer(kind), f"{len(items)} items; a request may have {limits.items}."
        )
    for index, item in enumerate(items):
        if len(item) > limit:
            detail = f"{len(item)} {unit}; an item of {kind!r} may have {limit}."
            raise _too_much(code, pointer(kind, index), detail)
    if request.sentences is not None:
        _check_tokens(request.sentences, limits)


def items_of(request: AnnotationRequest, segmenter: Segmenter, limits: Limits) -> list[Item]:
    """The request's items, in order. Raises a `Problem` where they have too many tokens together."""
    items: list[Item] = []
    total = 0
    kind = "sentences" if request.texts is None else "texts"
    for index, item in enumerate(_items(request, segmenter, limits)):
        total += len(item.tokens)
        if total > limits.request_tokens:
            detail = (
                f"{total} tokens up to this item; a request may have {limits.request_tokens}. "
                "Send the items in several requests."
            )
            raise _too_much("too_many_tokens", pointer(kind, index), detail)
        items.append(item)
    return items


def sentences_of(items: Sequence[Item]) -> list[Sequence[str]]:
    """All sentences of the items, in order."""
    return [item.tokens[start:end] for item in items for start, end in item.sentences]


def recognised(items: Sequence[Item], answers: Sequence[Any]) -> list[NerResult]:
    """The entities of each item, from the answers to all sentences."""
    following = iter(answers)
    return [
        NerResult(
            tokens=list(item.tokens),
            entities=[
                _entity(item, found, start)
                for start, _ in item.sentences
                for found in next(following).entities
            ],
            cuts=list(item.cuts),
        )
        for item in items
    ]


def parsed(items: Sequence[Item], answers: Sequence[Any]) -> list[ParseResult]:
    """The trees of each item, from the answers to all sentences; heads count from the item's first token."""
    following = iter(answers)
    results = []
    for item in items:
        heads: list[int] = []
        deprels: list[str] = []
        scores: list[float] = []
        for start, _ in item.sentences:
            tree = next(following)
            heads.extend(head + start if head else 0 for head in tree.heads)
            deprels.extend(tree.deprels)
            scores.extend(tree.scores)
        results.append(
            ParseResult(
                tokens=list(item.tokens),
                heads=heads,
                deprels=deprels,
                scores=scores,
                sentences=[TokenRange(start=start, end=end) for start, end in item.sentences],
                cuts=list(item.cuts),
            )
        )
    return results


def _items(request: AnnotationRequest, segmenter: Segmenter, limits: Limits) -> Iterator[Item]:
    for text in request.texts or ():
        found = segmenter(text, sentence_tokens=limits.sentence_tokens)
        yield Item(found.tokens, found.sentences, text, found.places, found.cuts)
    for tokens in request.sentences or ():
        yield Item(tokens, [(0, len(tokens))] if tokens else [])


def _check_tokens(sentences: Sequence[Sequence[str]], limits: Limits) -> None:
    for index, tokens in enumerate(sentences):
        joined = " ".join(tokens)
        if len(joined) <= limits.token_characters and joined.isprintable() and joined.split() == tokens:
            continue  # nearly always; what follows takes longer
        for position, token in enumerate(tokens):
            if len(token) > limits.token_characters:
                detail = f"{len(token)} characters; a token may have {limits.token_characters}."
                raise _too_much("token_too_long", pointer("sentences", index, position), detail)
            if token.strip() != token or _BREAK_IN_TOKEN.search(token):
                detail = "A token has no white space at its ends, and no tab and no line break inside."
                fault = Fault(pointer=pointer("sentences", index, position), detail=detail)
                raise Problem("invalid_request", f"{fault.pointer}: {detail}", [fault])


def _entity(item: Item, found: Any, sentence_start: int) -> Entity:
    start, end = found.start + sentence_start, found.end + sentence_start
    if item.text is None or item.places is None:
        start_char = end_char = None
        text = " ".join(item.tokens[start:end])
    else:
        start_char, end_char = item.places[start][0], item.places[end - 1][1]
        text = item.text[start_char:end_char]
    return Entity(
        label=found.label,
        start=start,
        end=end,
        start_char=start_char,
        end_char=end_char,
        text=text,
        score=found.score,
    )


def _too_much(code: str, where: str, detail: str) -> Problem:
    return Problem(code, f"{where}: {detail}", [Fault(pointer=where, detail=detail)])
