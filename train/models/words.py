"""Word features of a student: frozen vectors and a trained character convolution, once per word type."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from structural_kd.words import (
    FIRST_CHARACTER,
    PADDING,
    CharacterConvolution,
    SubwordVectors,
    character_ids,
    character_index,
)


def alphabet_of(words: Iterable[str], min_count: int = 1) -> list[str]:
    """Sorted characters that occur at least `min_count` times in `words`.

    With 1 no character of the training data is unknown, so that the unknown character stays untrained.
    """
    counts = Counter(character for word in words for character in word)
    return sorted(character for character, count in counts.items() if count >= min_count)


@dataclass
class WordTypes:
    """The distinct words of a training run, with their frozen vectors and their characters.

    Id 0 is padding: a zero vector and no characters.
    """

    words: list[str]
    vectors: Tensor  # [V, d] float32
    characters: Tensor  # [V, m] int64, zero beyond a word's end
    alphabet: list[str]

    def __post_init__(self) -> None:
        self._index = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def build(cls, words: Iterable[str], vectors: SubwordVectors, alphabet: list[str]) -> "WordTypes":
        """Collects the distinct words, in the order in which they first occur."""
        distinct = list(dict.fromkeys(words))
        index = character_index(alphabet)
        spelled = [character_ids(word, index) for word in distinct]
        rows = np.zeros((len(distinct) + 1, vectors.size), np.float32)  # [V, d]
        characters = np.full((len(distinct) + 1, max(map(len, spelled), default=1)), PADDING)  # [V, m]
        for number, (word, ids) in enumerate(zip(distinct, spelled, strict=True), 1):
            rows[number] = vectors.vector(word)
            characters[number, : len(ids)] = ids
        return cls(distinct, torch.from_numpy(rows), torch.from_numpy(characters), alphabet)

    def __len__(self) -> int:
        return len(self.words) + 1

    def ids(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Ids [n] of a sentence's words; a word that was not there at `build` is a KeyError."""
        try:
            return np.array([self._index[word] for word in words], np.int64)
        except KeyError as unknown:
            raise KeyError(
                f"word {unknown} is not among the word types; build them from all sentences"
            ) from None


class WordFeatures(nn.Module):
    """Vector [d] and character features [f] of each word (character CNN as in Ma and Hovy 2016).

    Vectors and characters are buffers outside the state dict: they belong to the data.
    """

    def __init__(
        self, types: WordTypes, *, character_dim: int = 25, character_features: int = 50, width: int = 3
    ) -> None:
        super().__init__()
        if width % 2 == 0:
            raise ValueError(f"the width of the character convolution has to be odd, found {width}")
        self.alphabet = types.alphabet
        self.vectors = nn.Buffer(types.vectors, persistent=False)  # [V, d]
        self.characters = nn.Buffer(types.characters, persistent=False)  # [V, m]
        self.embedding = nn.Embedding(
            FIRST_CHARACTER + len(types.alphabet), character_dim, padding_idx=PADDING
        )
        self.character_convolution = nn.Conv1d(character_dim, character_features, width, padding=width // 2)
        self.output_size = types.vectors.shape[1] + character_features

    def forward(self, ids: Tensor) -> Tensor:
        """Features [B, n, d + f] of word ids [B, n]; zeros where the id is 0 (padding)."""
        distinct, inverse = torch.unique(ids, return_inverse=True)  # [U], [B, n]
        characters = self.characters[distinct]  # [U, m]
        present = characters != PADDING
        longest = max(int(present.sum(1).max()), 1) if len(distinct) else 1
        characters, present = characters[:, :longest], present[:, :longest]
        embedded = self.embedding(characters) * present.unsqueeze(2)  # [U, m, c]
        windows = self.character_convolution(embedded.transpose(1, 2))  # [U, f, m]
        windows = windows.masked_fill(~present.unsqueeze(1), torch.finfo(windows.dtype).min)
        features = windows.amax(2) * (distinct != 0).unsqueeze(1)  # [U, f]
        return torch.cat([self.vectors[distinct], features], 1)[inverse]  # [B, n, d + f]

    def convolution(self) -> CharacterConvolution:
        """The same character features in numpy, with a copy of the present weights."""
        embeddings = self.embedding.weight.detach().float().cpu().numpy().copy()
        embeddings[PADDING] = 0
        convolution = self.character_convolution
        assert convolution.bias is not None
        kernel, bias = (
            weight.detach().float().cpu().numpy().copy() for weight in (convolution.weight, convolution.bias)
        )
        return CharacterConvolution(list(self.alphabet), embeddings, kernel, bias)
