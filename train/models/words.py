"""Word features of a student: frozen vectors and a trained character convolution, once per word type."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from structural_kd.words import (
    FIRST_CHARACTER,
    PADDING,
    CharacterConvolution,
    SubwordVectors,
    character_ids,
    character_index,
)

NEVER = -1e30
"""The feature of a place beyond a word's end."""


def alphabet_of(words: Iterable[str], min_count: int = 1) -> list[str]:
    """Sorted characters that occur at least `min_count` times in `words`.

    With 1 no character of the training data is unknown, so that the unknown character stays untrained.
    """
    counts = Counter(character for word in words for character in word)
    return sorted(character for character, count in counts.items() if count >= min_count)


@dataclass
class WordTypes:
    """The distinct words of a training run, with their frozen vectors and their characters.

    Id 0 is padding: a zero vector and no characters. ``composed`` are the vectors that the words would have
    if the table lacked them.
    """

    words: list[str]
    vectors: Tensor  # [V, d] float32
    characters: Tensor  # [V, m] int64, zero beyond a word's end
    alphabet: list[str]
    composed: Tensor | None = None  # [V, d] float32

    def __post_init__(self) -> None:
        self._index = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def build(cls, words: Iterable[str], vectors: SubwordVectors, alphabet: list[str]) -> "WordTypes":
        """Collects the distinct words, in the order in which they first occur."""
        distinct = list(dict.fromkeys(words))
        index = character_index(alphabet)
        spelled = [character_ids(word, index) for word in distinct]
        rows = np.zeros((len(distinct) + 1, vectors.size), np.float32)  # [V, d]
        composed = np.zeros_like(rows)  # [V, d]
        characters = np.full((len(distinct) + 1, max(map(len, spelled), default=1)), PADDING)  # [V, m]
        for number, (word, ids) in enumerate(zip(distinct, spelled, strict=True), 1):
            rows[number] = vectors.vector(word)
            composed[number] = vectors.composed(word)
            characters[number, : len(ids)] = ids
        return cls(
            distinct,
            torch.from_numpy(rows),
            torch.from_numpy(characters),
            alphabet,
            torch.from_numpy(composed),
        )

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

    Vectors and characters are buffers outside the state dict: they belong to the data. In training a share
    of a batch's word types, ``word_dropout``, has the vectors of words that the table lacks, so that a model
    learns what these are worth.
    """

    def __init__(
        self,
        types: WordTypes,
        *,
        character_dim: int = 25,
        character_features: int = 50,
        width: int = 3,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % 2 == 0:
            raise ValueError(f"the width of the character convolution has to be odd, found {width}")
        self.alphabet = types.alphabet
        self.vectors = nn.Buffer(types.vectors, persistent=False)  # [V, d]
        self.characters = nn.Buffer(types.characters, persistent=False)  # [V, m]
        self.word_dropout = word_dropout if types.composed is not None else 0.0
        if types.composed is not None:
            self.composed = nn.Buffer(types.composed, persistent=False)  # [V, d]
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
        windows = self._convolved(characters).masked_fill(~present.unsqueeze(2), NEVER)  # [U, m, f]
        features = windows.amax(1) * (distinct != 0).unsqueeze(1)  # [U, f]
        vectors = self.vectors[distinct]  # [U, d]
        if self.training and self.word_dropout:
            replaced = torch.rand(len(distinct), 1, device=ids.device) < self.word_dropout  # [U, 1]
            vectors = torch.where(replaced, self.composed[distinct], vectors)
        return torch.cat([vectors, features], 1)[inverse]  # [B, n, d + f]

    def _convolved(self, characters: Tensor) -> Tensor:
        """The convolution at each character: [U, m] -> [U, m, f].

        There are few characters, so each one's product with each place of the kernel is computed once and
        looked up. Beyond a word's ends stands the padding, whose embedding is learnt too.
        """
        kernel, bias = self.character_convolution.weight, self.character_convolution.bias
        assert bias is not None
        width = kernel.shape[2]
        known = self.embedding.weight  # [A, c]
        products = (known @ kernel.permute(2, 1, 0)).flatten(0, 1)  # [w, A, f] -> [w · A, f]
        padded = functional.pad(characters, (width // 2, width // 2), value=PADDING)  # [U, m + w - 1]
        places = padded.unfold(1, width, 1) + len(known) * torch.arange(width, device=characters.device)
        sums = functional.embedding_bag(places.flatten(0, 1), products, mode="sum")  # [U · m, f]
        return sums.view(*characters.shape, len(kernel)) + bias

    def convolution(self) -> CharacterConvolution:
        """The same character features in numpy, with a copy of the present weights."""
        embeddings = self.embedding.weight.detach().float().cpu().numpy().copy()
        convolution = self.character_convolution
        assert convolution.bias is not None
        kernel, bias = (
            weight.detach().float().cpu().numpy().copy() for weight in (convolution.weight, convolution.bias)
        )
        return CharacterConvolution(list(self.alphabet), embeddings, kernel, bias)
