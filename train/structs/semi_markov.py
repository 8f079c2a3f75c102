"""Semi-Markov conditional random fields: every token in one labelled segment of bounded width."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from train.structs.base import FORBIDDEN, Best, StructuredDistribution, check_lengths, token_mask
from train.structs.chain import check_tables
from train.structs.kbest import check_k, maxima, without_forbidden
from train.structs.reductions import Reduction, log_sum_exp, maximum, sampled


class Segmentation(NamedTuple):
    """A division into labelled segments; both are 0 in the padding."""

    labels: Tensor  # [B, n] label of the segment that a token lies in
    begins: Tensor  # [B, n] bool, whether a segment begins at a token


class SemiMarkovMarginals(NamedTuple):
    """Probabilities of a semi-Markov model's parts."""

    segments: Tensor  # [B, n, K, L] P(a segment of label l begins at i and has k+1 tokens)
    pairs: Tensor  # [B, n-1, L, L] P(a segment of label k ends at i and one of label l begins at i+1)


class SemiMarkov(StructuredDistribution):
    """p(y) ∝ exp(start[l_1] + Σ scores of segments + Σ transitions[l_s, l_{s+1}] + end[l_last]).

    Every token belongs to exactly one segment (Sarawagi and Cohen 2004). Features of whole segments fit in,
    and a label may follow itself in a segment of its own.

    Args:
        scores: [B, n, K, L] of the segment that begins at token i, has k+1 tokens and label l. Segments that
            reach beyond the sentence do not count, whatever their score.
        transitions: [L, L] from row to column, between neighbouring segments; or one table a sentence and
            place between tokens, [B, n−1, L, L].
        start, end: [L] scores of the first and of the last segment's label.
        lengths: [B] tokens of each sentence.

    Structures are ``Segmentation``; marginals are ``SemiMarkovMarginals``. Inference costs O(n K L + n L²),
    in log space and float64.

    >>> SemiMarkov(torch.zeros(1, 3, 2, 1), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1),
    ...            torch.tensor([3])).log_count().exp().round()  # 1+1+1, 1+2, 2+1
    tensor([3.])
    """

    def __init__(self, scores: Tensor, transitions: Tensor, start: Tensor, end: Tensor, lengths: Tensor):
        if scores.dim() != 4:
            raise ValueError(f"scores must be [sentences, tokens, widths, labels], got {tuple(scores.shape)}")
        batch, tokens, widths, labels = scores.shape
        check_tables(transitions, start, end, batch, tokens, labels)
        if scores.dtype != torch.float64:
            scores, transitions, start, end = (t.float() for t in (scores, transitions, start, end))
        lengths = check_lengths(lengths, batch, tokens)
        # Scores of the first and the last label are part of those segments' scores from here on.
        position = torch.arange(tokens, device=scores.device)
        last = position[:, None] + torch.arange(widths, device=scores.device)  # [n, K]
        is_first = (position == 0)[:, None, None]  # [n, 1, 1]
        is_last = (last == lengths[:, None, None] - 1)[..., None]  # [B, n, K, 1]
        self._absorb(scores + is_first * start + is_last * end, transitions, lengths)

    def _absorb(self, segments: Tensor, transitions: Tensor, lengths: Tensor) -> None:
        self.segments = segments  # [B, n, K, L]
        self.transitions = transitions  # [L, L] or [B, n-1, L, L]
        self.lengths = lengths
        self.mask = token_mask(lengths, segments.shape[1])  # [B, n]

    @property
    def potentials(self) -> tuple[Tensor, ...]:
        """Segments with start and end [B, n, K, L], and a table a pair of positions [B, n−1, L, L]."""
        batch, tokens, _, labels = self.segments.shape
        return self.segments, self.transitions.expand(batch, tokens - 1, labels, labels)

    def with_potentials(self, potentials: Sequence[Tensor]) -> Self:
        segments, transitions = potentials
        model = object.__new__(type(self))
        model._absorb(segments, transitions, self.lengths)
        return model

    def _log_partition(self) -> Tensor:
        segments, tables = self.potentials
        return self._total(segments, tables, log_sum_exp)[:, 0].to(segments.dtype)

    def argmax(self) -> Segmentation:
        return self._best(maximum, self.potentials)[0][0]

    def sample(self, generator: torch.Generator | None = None) -> Segmentation:
        return self._best(sampled(generator), self.potentials)[0][0]

    def topk(self, k: int) -> Best:
        """The k best divisions, exact, in O(n L k (K + L)) and k backward passes."""
        allowed = [without_forbidden(theta) for theta in self.potentials]
        structures, scores = self._best(maxima(check_k(k)), allowed)
        return Best(tuple(structures), scores)

    def score(self, structure: Segmentation) -> Tensor:
        """[B]; a segment wider than K scores FORBIDDEN."""
        tokens, widths, labels = self.segments.shape[1:]
        begins = structure.begins.bool() & self.mask  # [B, n]
        label = torch.where(self.mask, structure.labels, 0)  # [B, n]
        # A segment reaches to the token before the next begin, or before the padding.
        position = torch.arange(tokens, device=label.device)
        place = torch.where(begins | ~self.mask, position, tokens)  # [B, n]
        following = pad(place.flip(1).cummin(1).values.flip(1)[:, 1:], (0, 1), value=tokens)  # [B, n]
        width = following - position - 1  # [B, n] one less than the number of tokens
        cell = (position * widths + width.clamp_max(widths - 1)) * labels + label  # [B, n]
        chosen = self.segments.flatten(1).gather(1, cell)  # [B, n]
        chosen = torch.where(width < widths, chosen, FORBIDDEN)
        total = torch.where(begins, chosen, 0.0).sum(1)
        if tokens == 1:
            return total
        tables = self.potentials[1].flatten(2)  # [B, n-1, L²]
        pair = label[:, :-1] * labels + label[:, 1:]  # [B, n-1]
        joined = tables.gather(2, pair[..., None])[..., 0]  # [B, n-1]
        return total + torch.where(begins[:, 1:], joined, 0.0).sum(1)

    def _pack(self, gradients: tuple[Tensor, ...]) -> SemiMarkovMarginals:
        return SemiMarkovMarginals(*gradients)

    def _unpack(self, marginals: SemiMarkovMarginals) -> Sequence[Tensor]:
        return marginals

    def _total(self, segments: Tensor, tables: Tensor, reduce: Reduction) -> Tensor:
        """The reduction over all divisions: [B, ranks] float64."""
        tokens = segments.shape[1]
        closing = _by_last_token(segments.double()).unbind(1)  # n × [B, K, L]
        between = tables.double().unbind(1)  # (n-1) × [B, L, L]
        # What can stand before a segment of each label that begins at a token, the transition included.
        empty = torch.zeros_like(closing[0][:, :1])[..., None]  # [B, 1, L, 1]
        before = [reduce(empty, 1)]  # [B, L, ranks] each, the latest first
        ended = []  # the same up to a segment of each label that ends at a token
        for i in range(tokens):
            window = torch.stack(before, 1)  # [B, w, L, ranks], widths 1..w
            ended.append(reduce(closing[i][:, : len(before), :, None] + window, 1))  # [B, L, ranks]
            if i + 1 < tokens:
                step = ended[-1][:, :, None] + between[i][..., None]  # [B, L, L, ranks]
                before = [reduce(step, 1), *before][: segments.shape[2]]
        sentence = torch.arange(len(self.lengths), device=segments.device)
        return reduce(torch.stack(ended, 1)[sentence, self.lengths - 1], 1)  # [B, L, ranks] -> [B, ranks]

    def _best(self, reduce: Reduction, potentials: Sequence[Tensor]) -> tuple[list[Segmentation], Tensor]:
        """The structures of each rank that a reduction finds, and their scores [B, ranks]."""
        segments, tables = potentials
        with torch.enable_grad():
            segments = segments.detach().requires_grad_()
            total = self._total(segments, tables.detach(), reduce)  # [B, ranks]
            chosen = [
                torch.autograd.grad(rank.sum(), segments, retain_graph=True)[0] for rank in total.unbind(1)
            ]
        return [self._segmentation(c) for c in chosen], total.detach().to(segments.dtype)

    def _segmentation(self, chosen: Tensor) -> Segmentation:
        """The structure whose segments are the ones among zeros: [B, n, K, L] -> [B, n] each."""
        starting = chosen.sum(2)  # [B, n, L]
        begins = (starting.sum(-1) > 0.5) & self.mask  # [B, n]
        position = torch.arange(begins.shape[1], device=begins.device)
        first = torch.where(begins, position, 0).cummax(1).values  # [B, n] where the token's segment began
        labels = starting.argmax(-1).gather(1, first)
        return Segmentation(torch.where(self.mask, labels, 0), begins)


def _by_last_token(segments: Tensor) -> Tensor:
    """From first token and width to last token and width: [B, n, K, L] -> [B, n, K, L].

    A segment that would begin before the sentence is 0 there, and never read.
    """
    tokens, widths = segments.shape[1:3]
    return torch.stack(
        [
            pad(segments[:, : max(tokens - k, 0), k], (0, 0, min(k, tokens), 0))  # [B, n, L]
            for k in range(widths)
        ],
        2,
    )
