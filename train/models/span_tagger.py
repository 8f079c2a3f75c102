"""Entities as labelled spans: named entity recognition as parsing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from structural_kd.labels import bioes_labels
from train.models.batch import Batch
from train.models.layers import Perceptron
from train.models.representation import Representation
from train.structs import SpanSet

NO_ENTITY_FIRST = -6.0
"""Where a type's bias begins: all n²/2 spans of a sentence together then weigh less than no entity."""


class SpanTagger(nn.Module):
    """Biaffine scores of all spans, decoded to the best set that does not overlap (Yu et al. 2020).

    s(i, j, l) = a_iᵀ U_l b_j + u_l·a_i + v_l·b_j + c_l, with a and b projections of the context at the first
    and the last token, relative to no entity, which scores 0.

    Args:
        labels: BIOES labels as `structural_kd.labels.bioes_labels` orders them.
        size: units of the projections.
        dropout: rate on the projections.

    Raises:
        ValueError: the labels are not in that order, or not all of a type's are there.
    """

    def __init__(
        self, representation: Representation, labels: Sequence[str], *, size: int, dropout: float
    ) -> None:
        super().__init__()
        self.representation = representation
        self.labels = list(labels)
        types = len({label[2:] for label in self.labels if label != "O"})
        if self.labels != bioes_labels(label[2:] for label in self.labels if label != "O"):
            raise ValueError(
                f"labels must be O and then B, I, E, S of each type, types sorted; got {', '.join(labels)}"
            )
        self.first = Perceptron(representation.output_size, size, dropout)
        self.last = Perceptron(representation.output_size, size, dropout)
        self.product = nn.Parameter(torch.zeros(types, size, size))
        self.of_first = nn.Linear(size, types, bias=False)
        self.of_last = nn.Linear(size, types, bias=False)
        self.type_bias = nn.Parameter(torch.full((types,), NO_ENTITY_FIRST))

    def forward(self, batch: Batch) -> SpanSet:
        states = self.representation(batch)  # [B, n, 2H]
        first = self.first(states)  # [B, n, A]
        last = self.last(states)  # [B, n, A]
        scores = torch.einsum("bia,lac,bjc->bijl", first, self.product, last)  # [B, n, n, L]
        scores = scores + self.of_first(first)[:, :, None] + self.of_last(last)[:, None]
        return SpanSet(scores + self.type_bias, batch.lengths)

    def decode(self, distribution: SpanSet) -> Tensor:
        """Label ids [B, n] of the most probable set of entities."""
        return distribution.argmax()
