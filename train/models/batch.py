"""Sentences as a model reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A few sentences, padded to the longest.

    ``encoded`` holds a teacher's encoder features where they were computed beforehand; a teacher that
    fine-tunes its encoder reads ``sentences`` itself; a student needs neither.
    """

    words: Tensor  # [B, n] word type ids
    lengths: Tensor  # [B]
    sentences: tuple[Sequence[str], ...]
    encoded: Tensor | None = None  # [B, n, E]

    def to(self, device: torch.device) -> "Batch":
        encoded = None if self.encoded is None else self.encoded.to(device)
        return Batch(self.words.to(device), self.lengths.to(device), self.sentences, encoded)


def pad_rows(rows: Sequence[Tensor], fill: float = 0) -> Tensor:
    """Tensors [n_i, …] as one [B, max n_i, …]."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=fill)
