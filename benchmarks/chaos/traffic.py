"""The requests that scenarios send, made before any clock runs."""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

from loadtest.sentences import Input, batches, request_body
from loadtest.wire import Request, post

SIZES, WEIGHTS = (1, 8, 32), (50, 25, 25)  # sentences a request, and how many of 100 requests have them
MIXED_REQUESTS = 2000  # then they begin again
NEW_WORDS = 0.1  # of the words of varied requests: made up, so that no cache knows them
MALFORMED = 0.05  # of varied requests


def uniform(
    sentences: Sequence[list[str]], size: int, *, path: str = "/ner", kind: Input = "tokens"
) -> Iterator[Request]:
    """Requests of `size` sentences each, in the file's order, over and over."""
    whole = [batch for batch in batches(sentences, size) if len(batch) == size] or [list(sentences)]
    return cycle([post(path, request_body(batch, kind), sentences=len(batch)) for batch in whole])


def mixed(sentences: Sequence[list[str]], *, seed: int, path: str = "/ner") -> Iterator[Request]:
    """Requests of 1, 8 and 32 sentences in an order that the seed decides, over and over."""
    chance = random.Random(seed)
    by_size = {size: uniform(sentences, size, path=path) for size in SIZES}
    sizes = chance.choices(SIZES, WEIGHTS, k=MIXED_REQUESTS)
    return cycle([next(by_size[size]) for size in sizes])


def varied(sentences: Sequence[list[str]], *, seed: int) -> Iterator[Request]:
    """An endless stream of requests of all kinds: entities and trees, tokens and texts, faulty ones too."""
    chance = random.Random(seed)
    while True:
        path = chance.choice(("/ner", "/parse"))
        if chance.random() < MALFORMED:
            yield _faulty(chance, path)
            continue
        size = chance.choices(SIZES, (90, 8, 2))[0]
        batch = [[_perhaps_new(chance, word) for word in chance.choice(sentences)] for _ in range(size)]
        yield post(path, request_body(batch, chance.choice(("tokens", "texts"))), sentences=size)


def _perhaps_new(chance: random.Random, word: str) -> str:
    if chance.random() >= NEW_WORDS:
        return word
    return "".join(chance.choices(word, k=len(word) + 3))


def _faulty(chance: random.Random, path: str) -> Request:
    bodies: tuple[Any, ...] = (
        {"texts": []},
        {"sentences": [[""]]},
        {"model": "none", "texts": ["a"]},
        {"a": 1},
    )
    kind = chance.randrange(len(bodies) + 3)
    if kind < len(bodies):
        return post(path, json.dumps(bodies[kind]).encode())
    if kind == len(bodies):
        return post(path, b'{"texts": ["broken off')
    if kind == len(bodies) + 1:
        return post(path, b"\xff\xfe")
    return post(path, b"a text", media_type="text/plain")
