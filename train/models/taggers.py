"""Taggers for entities: a CRF, and a softmax for each token."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from structural_kd.labels import bioes_constraints
from train.models.batch import Batch
from train.models.representation import Representation
from train.structs import FORBIDDEN, LinearChain, TokenSoftmax


@lru_cache(maxsize=32)
def constraint_scores(labels: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Transitions [L, L], start [L] and end [L]: 0 for what BIOES allows, FORBIDDEN for the rest."""
    allowed = bioes_constraints(labels)
    transitions, start, end = (
        torch.where(torch.from_numpy(part), 0.0, FORBIDDEN)
        for part in (allowed.transitions, allowed.start, allowed.end)
    )
    return transitions, start, end


def constrained(distribution: TokenSoftmax, labels: Sequence[str]) -> LinearChain:
    """The product of softmaxes given that the labels are a valid BIOES sequence, as a chain.

    A softmax for each token leaves mass on invalid sequences. A CRF student that forbids them cannot match
    that mass: its divergence from such a teacher has no finite minimum. Conditioning the teacher on valid
    sequences keeps the targets exact, p(y | y valid), and every part of them one that the student has.

    The emissions are log-probabilities, so the chain's log-partition [B] is the log of the mass that is kept,
    log P(y valid), and the score of a valid sequence is its log-probability under the softmaxes.

    >>> half = TokenSoftmax(torch.zeros(1, 1, 5), torch.tensor([1]))
    >>> chain = constrained(half, ["O", "B-PER", "I-PER", "E-PER", "S-PER"])  # one token: O or S-PER
    >>> round(chain.log_partition().exp().item(), 3)
    0.4
    """
    emissions = distribution.scores.log_softmax(-1)  # [B, n, L]
    transitions, start, end = (scores.to(emissions) for scores in constraint_scores(tuple(labels)))
    return LinearChain(emissions, transitions, start, end, distribution.lengths)


class _Constraints(nn.Module):
    """`constraint_scores` on the model's device; derived, so not stored."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        transitions, start, end = constraint_scores(tuple(labels))
        self.transitions = nn.Buffer(transitions.clone(), persistent=False)  # [L, L]
        self.start = nn.Buffer(start.clone(), persistent=False)  # [L]
        self.end = nn.Buffer(end.clone(), persistent=False)  # [L]


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
    """Context -> label scores -> one softmax a token (the paper's MaxEnt model)."""

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
        return constrained(distribution, self.labels).argmax()
