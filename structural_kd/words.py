"""Word features without context: frozen subword vectors, character features, and the table served from.

A word's features do not depend on its sentence, so they are computed once per word type. Training
(`train.models.words`) and serving share the rules of this module.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray

from structural_kd.arrays import read_array, write_array
from structural_kd.files import write_whole
from structural_kd.strict_json import validated

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

LONGEST_SUBWORD = 100
"""Most characters of a subword; a word of n characters has up to n times as many subwords."""

MAX_CHARACTERS = 40
PADDING, UNKNOWN, BEGIN, END = range(4)
FIRST_CHARACTER = 4
CHARACTER_ARRAYS = ("embeddings", "kernel", "bias")


@dataclass(frozen=True)
class _Settings:
    """settings.json beside the arrays of word features: `subwords` says whether there is a file of them."""

    min_n: Annotated[int, Interval(ge=0, le=LONGEST_SUBWORD)]
    max_n: Annotated[int, Interval(ge=0, le=LONGEST_SUBWORD)]
    subwords: bool
    lowercase: bool = False
    alphabet: tuple[str, ...] = ()


def _save(folder: Path, words: "SubwordVectors | WordTable", alphabet: Sequence[str], **arrays: Any) -> None:
    """Writes vocabulary.json, settings.json, subwords.npy if there are any, and a file of each array."""
    write_whole(folder / "vocabulary.json", json.dumps(words.vocabulary))
    if words.subwords is not None:
        arrays["subwords"] = words.subwords
    for name, array in arrays.items():
        write_array(folder / f"{name}.npy", array)
    settings = _Settings(
        words.min_n, words.max_n, words.subwords is not None, words.lowercase, tuple(alphabet)
    )
    given = {name: value for name, value in asdict(settings).items() if value != ()}
    write_whole(folder / "settings.json", json.dumps(given))


def _load(folder: Path) -> tuple[_Settings, dict[str, Any]]:
    """What `_save` wrote: the settings, and the fields that both classes have."""
    path = folder / "settings.json"
    try:
        settings = validated(_Settings, path.read_text(encoding="utf-8"))
        if settings.min_n > settings.max_n:
            raise ValueError(f"min_n {settings.min_n} is above max_n {settings.max_n}")
        path = folder / "vocabulary.json"
        vocabulary = json.loads(path.read_bytes())
        if not isinstance(vocabulary, list) or not all(isinstance(word, str) for word in vocabulary):
            raise ValueError("expected a list of strings")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return settings, {
        "vocabulary": vocabulary,
        "subwords": read_array(folder / "subwords.npy") if settings.subwords else None,
        "min_n": settings.min_n,
        "max_n": settings.max_n,
        "lowercase": settings.lowercase,
    }


# Subwords --------------------------------------------------------------------------------------------


def subword_buckets(word: str, buckets: int, min_n: int, max_n: int) -> list[int]:
    """Bucket of every character n-gram of `<word>`, in fastText's order (Bojanowski et al. 2017).

    N-grams count UTF-8 characters, and the hash is fastText's FNV-1a over their bytes, in which a byte
    is a *signed* char: a byte above 127 flips the upper 24 bits too. A lone `<` or `>` is no n-gram.

    >>> len(subword_buckets("ab", 1000, 3, 6))  # <ab, <ab>, ab>
    3
    """
    characters = [
        [byte if byte < 128 else byte | 0xFFFFFF00 for byte in character.encode("utf-8", "surrogatepass")]
        for character in f"<{word}>"
    ]
    found = []
    last = len(characters) - 1
    for start in range(last + 1):
        value = 2166136261
        for end in range(start, min(start + max_n, last + 1)):
            for byte in characters[end]:
                value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
            size = end - start + 1
            if size >= min_n and not (size == 1 and (start == 0 or end == last)):
                found.append(value % buckets)
    return found


def subword_mean(word: str, subwords: FloatArray, min_n: int, max_n: int) -> FloatArray:
    """Vector [d] of an unknown word: the mean of its subword rows; zeros where it has none."""
    buckets = subword_buckets(word, len(subwords), min_n, max_n) if len(subwords) else []
    if not buckets:
        return np.zeros(subwords.shape[1], np.float32)
    mean: FloatArray = subwords[buckets].mean(axis=0)
    return mean


@dataclass
class SubwordVectors:
    """Frozen word vectors: a row for each known word, and subword rows from which others are composed.

    vectors: [V, d] float32, whole-word vectors as fastText's `get_word_vector` gives them.
    subwords: [buckets, d] float32, or None (GloVe-like vectors).
    lowercase: whether an unknown word has the vector of its lower-cased form, where that is known; so it is
        without subwords. Else it is composed from subwords, or zeros.
    """

    vocabulary: list[str]
    vectors: FloatArray
    subwords: FloatArray | None
    min_n: int
    max_n: int
    lowercase: bool = False
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.lowercase = self.lowercase or self.subwords is None
        if self.vectors.ndim != 2 or len(self.vocabulary) != len(self.vectors):
            raise ValueError(f"{len(self.vocabulary)} words, but vectors of shape {self.vectors.shape}")
        if self.subwords is not None and self.subwords.shape[1:] != self.vectors.shape[1:]:
            raise ValueError(
                f"vectors {self.vectors.shape} and subwords {self.subwords.shape} differ in width"
            )
        self._index = {word: row for row, word in enumerate(self.vocabulary)}
        if len(self._index) != len(self.vocabulary):
            raise ValueError("the vocabulary holds a word twice")

    @property
    def size(self) -> int:
        return int(self.vectors.shape[1])

    def __contains__(self, word: str) -> bool:
        return word in self._index

    def vector(self, word: str) -> FloatArray:
        """Vector [d] of any word."""
        row = self._index.get(word)
        if row is None and self.lowercase:
            row = self._index.get(word.lower())
        if row is not None:
            known: FloatArray = self.vectors[row]
            return known
        return self.composed(word)

    def composed(self, word: str) -> FloatArray:
        """Vector [d] of a word as if neither it nor its lower-cased form were known."""
        if self.subwords is None:
            return np.zeros(self.size, np.float32)
        return subword_mean(word, self.subwords, self.min_n, self.max_n)

    def save(self, folder: Path) -> None:
        """Writes vocabulary.json, vectors.npy, subwords.npy (if there are any) and settings.json."""
        _save(folder, self, (), vectors=self.vectors)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote; the arrays stay on disk and processes share them."""
        _, fields = _load(folder)
        return cls(vectors=read_array(folder / "vectors.npy"), **fields)


# Characters ------------------------------------------------------------------------------------------


def character_index(alphabet: Sequence[str]) -> dict[str, int]:
    """Ids of an alphabet's characters; 0 to 3 are padding, unknown, begin and end of a word."""
    if len(set(alphabet)) != len(alphabet) or any(len(character) != 1 for character in alphabet):
        raise ValueError("an alphabet is a list of distinct single characters")
    return {character: number for number, character in enumerate(alphabet, FIRST_CHARACTER)}


def character_ids(word: str, index: dict[str, int]) -> list[int]:
    """Begin, the word's first 40 characters, end.

    >>> character_ids("ba!", character_index(["a", "b"]))
    [2, 5, 4, 1, 3]
    """
    get = index.get
    return [BEGIN, *[get(character, UNKNOWN) for character in word[:MAX_CHARACTERS]], END]


@dataclass
class CharacterConvolution:
    """A word's character features: a convolution over its characters, then the maximum over positions.

    The twin in numpy of `train.models.words.WordFeatures`. Beyond a word's ends stands the padding.

    alphabet: the characters with ids 4, 5, …
    embeddings: [A, c] with A = 4 + len(alphabet).
    kernel: [f, c, width], width odd.     bias: [f].
    """

    alphabet: list[str]
    embeddings: FloatArray
    kernel: FloatArray
    bias: FloatArray
    _index: dict[str, int] = field(init=False, repr=False, compare=False)
    _products: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._index = character_index(self.alphabet)
        rows = FIRST_CHARACTER + len(self.alphabet)
        if self.embeddings.ndim != 2 or len(self.embeddings) != rows:
            raise ValueError(f"embeddings: expected [{rows}, c], found {list(self.embeddings.shape)}")
        if self.kernel.ndim != 3 or self.kernel.shape[1] != self.embeddings.shape[1]:
            raise ValueError(
                f"kernel: expected [f, {self.embeddings.shape[1]}, width], found {list(self.kernel.shape)}"
            )
        if 0 in self.kernel.shape:
            raise ValueError(f"kernel: expected no empty dimension, found {list(self.kernel.shape)}")
        if self.kernel.shape[2] % 2 == 0:
            raise ValueError(f"kernel: the width has to be odd, found {self.kernel.shape[2]}")
        if self.bias.shape != self.kernel.shape[:1]:
            raise ValueError(f"bias: expected [{self.kernel.shape[0]}], found {list(self.bias.shape)}")
        # A character's share in a window depends on nothing but its place there, so that a word costs
        # look-ups and additions, no product.
        self._products = np.einsum("ac,fcw->waf", self.embeddings, self.kernel)  # [width, A, f]

    @property
    def size(self) -> int:
        return len(self.bias)

    def features(self, word: str) -> FloatArray:
        """Character features [f] of a word."""
        width = len(self._products)
        ids = character_ids(word, self._index)
        margin = [PADDING] * (width // 2)
        padded = np.array([*margin, *ids, *margin])  # [m + width - 1]
        sums = self._products[0][padded[: len(ids)]]  # [m, f]
        for place in range(1, width):
            sums += self._products[place][padded[place : place + len(ids)]]
        features: FloatArray = sums.max(axis=0) + self.bias  # [f]
        return features


# The table -------------------------------------------------------------------------------------------


class WordTable:
    """Word rows [D] = vector [d] and character features [f] of any word.

    Rows of the vocabulary are computed once; those of other words are composed from subwords and characters.

    rows: [V, D] float32, the vocabulary's.
    """

    def __init__(
        self,
        vocabulary: list[str],
        rows: FloatArray,
        subwords: FloatArray | None,
        min_n: int,
        max_n: int,
        characters: CharacterConvolution,
        lowercase: bool = False,
    ) -> None:
        if rows.ndim != 2 or len(rows) != len(vocabulary):
            raise ValueError(f"{len(vocabulary)} words, but rows of shape {list(rows.shape)}")
        self.vector_size = rows.shape[1] - characters.size
        if self.vector_size < 0 or (subwords is not None and subwords.shape[1:] != (self.vector_size,)):
            raise ValueError(
                f"rows of {rows.shape[1]} values do not fit character features of "
                f"{characters.size} and the subwords"
            )
        self.vocabulary = vocabulary
        self.rows = rows
        self.subwords = subwords
        self.min_n = min_n
        self.max_n = max_n
        self.characters = characters
        self.lowercase = lowercase or subwords is None
        self._index = {word: row for row, word in enumerate(vocabulary)}
        if len(self._index) != len(vocabulary):
            raise ValueError("the vocabulary holds a word twice")

    @property
    def size(self) -> int:
        """Values in a row, D = d + f."""
        return int(self.rows.shape[1])

    @classmethod
    def fold(
        cls, vectors: SubwordVectors, characters: CharacterConvolution, *, words: Iterable[str] | None = None
    ) -> Self:
        """Computes the rows of `words` (all words of `vectors` if None) once and for all."""
        vocabulary = list(vectors.vocabulary if words is None else dict.fromkeys(words))
        rows = np.zeros((len(vocabulary), vectors.size + characters.size), np.float32)
        for row, word in zip(rows, vocabulary, strict=True):
            row[: vectors.size] = vectors.vector(word)
            row[vectors.size :] = characters.features(word)
        return cls(
            vocabulary,
            rows,
            vectors.subwords,
            vectors.min_n,
            vectors.max_n,
            characters,
            vectors.lowercase,
        )

    def row(self, word: str) -> FloatArray:
        """Row [D] of any word."""
        known = self._index.get(word)
        if known is not None:
            found: FloatArray = self.rows[known]
            return found
        row = np.zeros(self.size, np.float32)
        if self.lowercase and (lower := self._index.get(word.lower())) is not None:
            row[: self.vector_size] = self.rows[lower, : self.vector_size]
        elif self.subwords is not None:
            row[: self.vector_size] = subword_mean(word, self.subwords, self.min_n, self.max_n)
        row[self.vector_size :] = self.characters.features(word)
        return row

    def save(self, folder: Path) -> None:
        """Writes vocabulary.json, rows.npy, subwords.npy, character_*.npy and settings.json."""
        characters = {f"character_{name}": getattr(self.characters, name) for name in CHARACTER_ARRAYS}
        _save(folder, self, self.characters.alphabet, rows=self.rows, **characters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote; the big arrays stay on disk and processes share them."""
        settings, fields = _load(folder)
        arrays = [read_array(folder / f"character_{name}.npy", mmap=False) for name in CHARACTER_ARRAYS]
        characters = CharacterConvolution(list(settings.alphabet), *arrays)
        return cls(rows=read_array(folder / "rows.npy"), characters=characters, **fields)
