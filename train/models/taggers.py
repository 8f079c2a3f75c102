"""Taggers for entities: a CRF, and a softmax for each token."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bundle.labels import bioes_constraints
from train.models.batch import Batch
from train.models.representation import Representation
from train.structs import FORBIDDEN, LinearChain, TokenSoftmax


class _Constraints(nn.Module):
    """Scores of 0 for what the BIOES scheme allows, FORBIDDEN for the rest; derived, so not stored."""

    transitions: Tensor  # [L, L]
    start: Tensor  # [L]
    end: Tensor  # [L]

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        allowed = bioes_constraints(labels)
        for name in ("transitions", "start", "end"):
            scores = torch.where(torch.as_tensor(getattr(allowed, name)), 0.0, FORBIDDEN)
            self.register_buffer(name, scores, persistent=False)


class CRFTagger(nn.Module):
    """Context -> emissions -> linear-chain CRF whose invalid BIOES transitions are forbidden."""

    def __init__(self, representation: Representation, labels: Sequence[str]) -> None:
        super().__init__()
        self.representation = representation
        self.labels = list(labels)
        size = len(self.labels)
        self.emissions = nn.Linear(representation.output_size, size)
        self.transitions = nn.Parameter(torch.empty(size, size).uniform_(-0.1, 0.1))
        self.start = nn.Parameter(torch.empty(size).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(size).uniform_(-0.1, 0.1))
        self.constraints = _Constraints(labels)

    def forward(self, batch: Batch) -> LinearChain:
        emissions = self.emissions(self.representation(batch))  # [B, n, L]
        c = self.constraints
        return LinearChain(
            emissions,
            self.transitions + c.transitions,
            self.start + c.start,
            self.end + c.end,
            batch.lengths,
        )

    def decode(self, distribution: LinearChain) -> Tensor:
        """Label ids [B, n] of the most probable valid sequence."""
        return distribution.argmax()


class SoftmaxTagger(nn.Module):
    """Context -> label scores -> one softmax a token (the paper's MaxEnt student)."""

    def __init__(self, representation: Representation, labels: Sequence[str]) -> None:
        super().__init__()
        self.representation = representation
        self.labels = list(labels)
        self.emissions = nn.Linear(representation.output_size, len(self.labels))
        self.constraints = _Constraints(labels)

    def forward(self, batch: Batch) -> TokenSoftmax:
        return TokenSoftmax(self.emissions(self.representation(batch)), batch.lengths)  # [B, n, L]

    def decode(self, distribution: TokenSoftmax) -> Tensor:
        """Label ids [B, n] of the most probable valid BIOES sequence under the product of the softmaxes."""
        c = self.constraints
        scores = distribution.scores.log_softmax(-1)
        return LinearChain(scores, c.transitions, c.start, c.end, distribution.lengths).argmax()
