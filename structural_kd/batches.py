"""Sentences of similar length, together in one run of a graph."""

from collections.abc import Iterator, Sequence

PADDED_A_TOKEN = 3
"""Most padded places in a batch for each token of its budget. Contexts skip padding, the rest does not."""


def length_batches(
    lengths: Sequence[int], batch_tokens: int, *, padded_a_token: int = PADDED_A_TOKEN
) -> Iterator[list[int]]:
    """Places of the non-empty sentences, shortest first, in batches of at most ``batch_tokens`` tokens.

    A batch is cut earlier where padding would make it larger than ``padded_a_token`` times that. A sentence
    that is longer than the budget alone is a batch of its own.

    >>> list(length_batches([3, 0, 1, 2], 4))
    [[2, 3], [0]]
    """
    batch: list[int] = []
    tokens = 0
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lengths.__getitem__):
        length = lengths[i]
        padded = (len(batch) + 1) * length
        if batch and (tokens + length > batch_tokens or padded > padded_a_token * batch_tokens):
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += length
    if batch:
        yield batch
