"""The requests that scenarios send."""

import random
from collections.abc import Iterator, Sequence
from itertools import cycle

from loadtest.http_client import Request, post
from loadtest.sentences import Input, request_body, requests_of

SIZES, WEIGHTS = (1, 8, 32), (50, 25, 25)  # sentences a request, and how many of 100 requests have them
MIXED_REQUESTS = 2000  # then they begin again
NEW_WORDS = 0.1  # of the words of varied requests: made up, so that no cache knows them
MALFORMED = 0.05  # of varied requests
MALFORMED_BODIES = (
    b'{"texts": []}',
    b'{"sentences": [[""]]}',
    b'{"model": "none", "texts": ["a"]}',
    b'{"a": 1}',
    b'{"texts": ["broken off',
    b"\xff\xfe",
    None,  # plain text
)


def uniform(
    sentences: Sequence[list[str]], size: int, *, path: str = "/ner", kind: Input = "tokens"
) -> Iterator[Request]:
    """Requests of `size` sentences each, in the file's order, over and over."""
    return cycle(requests_of(sentences, size, path=path, kind=kind))


def mixed(sentences: Sequence[list[str]], *, seed: int) -> Iterator[Request]:
    """Requests of 1, 8 and 32 sentences in an order that the seed decides, over and over."""
    chance = random.Random(seed)
    by_size = {size: uniform(sentences, size) for size in SIZES}
    return cycle([next(by_size[size]) for size in chance.choices(SIZES, WEIGHTS, k=MIXED_REQUESTS)])


def varied(sentences: Sequence[list[str]], *, seed: int) -> Iterator[Request]:
    """An endless stream of requests of all kinds: entities and trees, tokens and texts, some malformed."""
    chance = random.Random(seed)
    while True:
        path = chance.choice(("/ner", "/parse"))
        if chance.random() < MALFORMED:
            body = chance.choice(MALFORMED_BODIES)
            yield post(path, b"a text", media_type="text/plain") if body is None else post(path, body)
            continue
        size = chance.choices(SIZES, (90, 8, 2))[0]
        batch = [[_perhaps_new(chance, word) for word in chance.choice(sentences)] for _ in range(size)]
        yield post(path, request_body(batch, chance.choice(("tokens", "texts"))), sentences=size)


def _perhaps_new(chance: random.Random, word: str) -> str:
    if chance.random() >= NEW_WORDS:
        return word
    return "".join(chance.choices(word, k=len(word) + 3))
