"""Held-out sentences, recognised in raw text however that was cut into sentences and tokens."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

SHORTEST = 20
"""Characters (white space left out) from which a part of a sentence is taken for that sentence."""


class HeldOut:
    """The sentences of held-out splits.

    Words are compared as the characters they have, without white space and in NFC: corpora cut tokens in
    their own ways. A sentence of raw text is held out if it is one of them, lies within one, or has one of
    them in it; the last two from ``SHORTEST`` characters on. O(characters) time a sentence.

    >>> held_out = HeldOut([("She", "has", "n't", "been", "to", "Haifa", "before", ".")])
    >>> ("She", "hasn't", "been", "to", "Haifa", "before.", "Really", "?") in held_out
    True
    >>> ("She", "has") in held_out
    False
    """

    def __init__(self, sentences: Iterable[Sequence[str]]) -> None:
        self._keys = {_characters(words) for words in sentences}
        longer = sorted(key for key in self._keys if len(key) >= SHORTEST)
        self._all = "\n".join(longer)
        self._windows = {self._all[i : i + SHORTEST] for i in range(len(self._all))}
        self._beginning_with: dict[str, list[str]] = defaultdict(list)
        for key in longer:
            self._beginning_with[key[:SHORTEST]].append(key)

    def __contains__(self, words: Sequence[str]) -> bool:
        key = _characters(words)
        if key in self._keys:
            return True
        if len(key) < SHORTEST:
            return False
        if key[:SHORTEST] in self._windows and key in self._all:
            return True
        return any(
            key.startswith(held, at)
            for at in range(len(key) - SHORTEST + 1)
            for held in self._beginning_with.get(key[at : at + SHORTEST], ())
        )


def _characters(words: Sequence[str]) -> str:
    return unicodedata.normalize("NFC", "".join("".join(words).split()))
