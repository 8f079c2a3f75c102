"""One fixed order of sentences, every stretch of which has the same mix of lengths.

A slow system gets through the first few sentences only, a fast one through all of them many times. So that
both are measured on the same mix, the sentences are ranked by length and the ranks are visited in van der
Corput's order: halves, quarters, eighths and so on of the ranks take turns.
"""

from collections.abc import Sequence


def van_der_corput(count: int) -> list[int]:
    """The numbers below `count` in the order of their bits read backwards.

    Of any `2 ** k` that follow one another, each of `2 ** k` equal parts of the whole has one, also across
    the end where the order begins again; where `count` is no power of two, nearly so.

    >>> van_der_corput(8)
    [0, 4, 2, 6, 1, 5, 3, 7]
    >>> van_der_corput(5)
    [0, 4, 2, 1, 3]
    """
    bits = max(count - 1, 0).bit_length()
    backwards = (int(f"{number:0{bits}b}"[::-1], 2) if bits else 0 for number in range(1 << bits))
    return [number for number in backwards if number < count]


def evenly_mixed(sentences: Sequence[list[str]]) -> list[list[str]]:
    """The sentences, each once, so that any of them that follow one another have the mix of lengths of all.

    >>> [len(sentence) for sentence in evenly_mixed([["a"] * length for length in range(1, 9)])]
    [1, 5, 3, 7, 2, 6, 4, 8]
    """
    by_length = sorted(sentences, key=len)
    return [by_length[rank] for rank in van_der_corput(len(by_length))]
