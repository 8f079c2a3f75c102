"""Which script a word is written in."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache

OWN_SHARE = 0.05
"""A corpus's scripts are those of at least such a share of its words."""


def script_of(word: str) -> str | None:
    """The script of a word's first letter, as Unicode names it; None for a word without letters.

    >>> [script_of(word) for word in ("Haifa", "חיפה", "(Хайфа", "東京", "1999")]
    ['LATIN', 'HEBREW', 'CYRILLIC', 'CJK', None]
    """
    return next(filter(None, map(_script_of_letter, word)), None)


def scripts_of(words: Iterable[str]) -> frozenset[str]:
    """The scripts that a text is written in."""
    counts = Counter(filter(None, map(script_of, words)))
    return frozenset(script for script, count in counts.items() if count >= OWN_SHARE * counts.total())


@cache
def _script_of_letter(character: str) -> str | None:
    return unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else None
