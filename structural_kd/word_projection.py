"""The first layer's input projection, folded into the words.

What a context's first layer does with a word before it looks at the sentence depends on the word alone:
W x + b for all gates of both directions of a BiLSTM, or for each position in the first window of
convolutions. It is computed once for each word type: at export for the most frequent ones, in a memory-mapped
table that all processes share, and at the first meeting for the rest.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np

from structural_kd.arrays import read_array, write_array
from structural_kd.graph_io import GraphInputs
from structural_kd.words import FloatArray, IntArray, WordTable

CACHE_BYTES = 32 * 2**20
"""Most memory for the projected rows of words outside of the table."""

LONGEST_CACHED_WORD = 100


class ProjectedWords:
    """Word rows after the first layer's input projection: W x + b, [G].

    Safe for use by several threads. A table that belongs to another projection is refused.

    Args:
        table: the rows x [D] of any word.
        weight: W as [D, G].
        bias: b [G].
        rows: [P, G], the projected rows of the first P words of the table's vocabulary.
    """

    def __init__(
        self,
        table: WordTable,
        weight: FloatArray,
        bias: FloatArray,
        rows: FloatArray,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if weight.ndim != 2 or bias.shape != weight.shape[1:] or weight.shape[0] != table.size:
            raise ValueError(
                f"a projection of shape {list(weight.shape)} and a bias of {list(bias.shape)} do not fit "
                f"rows of {table.size} values"
            )
        if rows.ndim != 2 or rows.shape[1] != len(bias) or len(rows) > len(table.vocabulary):
            raise ValueError(
                f"projected rows of shape {list(rows.shape)} do not fit {len(table.vocabulary)} words and "
                f"{len(bias)} values a word"
            )
        for row in {0, len(rows) // 2, len(rows) - 1} if len(rows) else ():
            if not np.allclose(rows[row], projected_row(table.rows[row], weight, bias), rtol=1e-3, atol=1e-3):
                raise ValueError(f"row {row} of the projected rows is not the projection of the word's row")
        self.table = table
        self.weight = weight
        self.bias = bias
        self.rows = rows
        self._index = {word: row for row, word in enumerate(table.vocabulary[: len(rows)])}
        self._cached = lru_cache(maxsize=max(1, cache_bytes // (4 * len(bias))))(self._project_word)

    @property
    def size(self) -> int:
        """Values in a projected row, G."""
        return len(self.bias)

    @classmethod
    def fold(
        cls, table: WordTable, weight: FloatArray, bias: FloatArray, *, table_bytes: int | None = None
    ) -> Self:
        """Projects the first words of the vocabulary, as many as fit into `table_bytes` (all if None)."""
        words = len(table.vocabulary)
        if table_bytes is not None:
            words = min(words, table_bytes // (4 * len(bias)))
        rows = np.empty((words, len(bias)), np.float32)  # [P, G]
        for row, features in zip(rows, table.rows, strict=False):
            row[:] = projected_row(features, weight, bias)
        return cls(table, weight, bias, rows)

    def row(self, word: str) -> FloatArray:
        """Projected row [G] of any word."""
        known = self._index.get(word)
        if known is not None:
            row: FloatArray = self.rows[known]
            return row
        return self._cached(word) if len(word) <= LONGEST_CACHED_WORD else self._project_word(word)

    def _project_word(self, word: str) -> FloatArray:
        row = projected_row(self.table.row(word), self.weight, self.bias)
        row.setflags(write=False)
        return row

    def batch(self, sentences: Sequence[Sequence[str]]) -> GraphInputs:
        """The distinct words of a batch, projected, and where they stand; at least one word in all."""
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))  # [B]
        get = self._index.get
        found = [get(word, -1) for word in chain.from_iterable(sentences)]
        ids = np.array(found, np.int64)  # [T]
        unknown = self._number_unknown(sentences, ids)
        distinct, places = np.unique(ids, return_inverse=True)  # [W], [T]
        rows = np.empty((len(distinct), self.size), np.float32)  # [W, G]
        known = len(distinct) - len(unknown)
        self.rows.take(distinct[:known], axis=0, out=rows[:known], mode="clip")
        for row, word in zip(rows[known:], unknown, strict=True):
            row[:] = self.row(word)
        words = np.zeros((len(lengths), int(lengths.max())), np.int64)  # [B, n]
        words[np.arange(words.shape[1]) < lengths[:, None]] = places
        return GraphInputs(rows, words, lengths)

    def _number_unknown(self, sentences: Sequence[Sequence[str]], ids: IntArray) -> dict[str, int]:
        """Numbers distinct words outside of the table, in place of −1 in ids [T], after those inside."""
        places = np.flatnonzero(ids < 0).tolist()
        numbers: dict[str, int] = {}
        if places:
            words = list(chain.from_iterable(sentences))
            first = len(self.rows)
            ids[places] = [numbers.setdefault(words[place], first + len(numbers)) for place in places]
        return numbers

    def save(self, folder: Path) -> None:
        """Writes the table's files, projection_weight.npy, projection_bias.npy and projected.npy."""
        self.table.save(folder)
        write_array(folder / "projection_weight.npy", self.weight)
        write_array(folder / "projection_bias.npy", self.bias)
        write_array(folder / "projected.npy", self.rows)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote; the big arrays stay on disk and processes share them."""
        return cls(
            WordTable.load(folder),
            read_array(folder / "projection_weight.npy", mmap=False),
            read_array(folder / "projection_bias.npy", mmap=False),
            read_array(folder / "projected.npy"),
        )


def projected_row(row: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """W x + b of one word: row [D], weight [D, G], bias [G] -> [G].

    Not a BLAS product: its threads would be more than a predictor was given, and its last bit depends on
    their number, so that a word's row in a table and one computed later would differ.
    """
    projected: FloatArray = np.einsum("d,dg->g", row, weight)
    projected += bias
    return projected
