"""Head selection: each token chooses its head and its relation, independently of the others."""

import copy
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from train.structs.base import FORBIDDEN, Best, StructuredDistribution, check_lengths, token_mask
from train.structs.reductions import best_combinations, check_k, without_forbidden


class LabelledHeads(NamedTuple):
    """A labelled choice of heads; in the padding both are 0."""

    heads: Tensor  # [B, n] 0 is the root, otherwise the 1-based token
    relations: Tensor  # [B, n] relation ids


class ArcStatistics(NamedTuple):
    """Marginals of labelled arcs as a list of those that matter, instead of a table [B, n, n+1, R]."""

    sentence: Tensor  # [m] row of the batch
    dependent: Tensor  # [m] 0-based token
    head: Tensor  # [m] 0 is the root, otherwise the 1-based token
    relation: Tensor  # [m]
    probability: Tensor  # [m]


class HeadSelection(StructuredDistribution):
    """p(y) = Π_i P(h_i, r_i), without the tree constraint (Zhang et al. 2017; paper, case 1b).

    Args:
        scores: [B, n, n+1, R] of dependent, head (0 the root, j the j-th token) and relation.
        lengths: [B] tokens of each sentence.
        arcs, relations: instead of ``scores``, [B, n, n+1] and [B, n, n+1, R]; then
            P(h, r) = softmax(arcs)[h] · softmax(relations[h])[r], the paper's Eq. 5 with the relation
            conditioned on the head (Dozat and Manning 2017).

    A token is never its own head. Structures are ``LabelledHeads``; marginals are [B, n, n+1, R]. Inference
    costs O(n² R).

    >>> HeadSelection(torch.zeros(1, 3, 4, 2), torch.tensor([3])).log_count().exp().round()  # (3 heads · 2)³
    tensor([216.])
    """

    def __init__(
        self,
        scores: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        arcs: Tensor | None = None,
        relations: Tensor | None = None,
    ) -> None:
        if lengths is None:
            raise ValueError("lengths [B] are needed")
        if scores is None:
            if arcs is None or relations is None:
                raise ValueError("pass either scores, or arcs and relations")
            scores = arcs.float()[..., None] + relations.float().log_softmax(-1)  # [B, n, n+1, R]
        elif arcs is not None or relations is not None:
            raise ValueError("pass either scores, or arcs and relations, not both")
        if scores.dim() != 4 or scores.shape[2] != scores.shape[1] + 1:
            raise ValueError(f"scores must be [sentences, n, n+1, relations], got {tuple(scores.shape)}")
        if scores.dtype != torch.float64:
            scores = scores.float()
        self.lengths = check_lengths(lengths, scores.shape[0], scores.shape[1])
        self.mask = token_mask(self.lengths, scores.shape[1])  # [B, n]
        self.allowed = allowed_heads(self.lengths, scores.shape[1])  # [B, n, n+1]
        self.scores = scores.masked_fill(~self.allowed[..., None], FORBIDDEN)

    def with_potentials(self, potentials: Sequence[Tensor]) -> Self:
        selection = super().with_potentials(potentials)
        selection.mask = self.mask  # what ``only`` left out stays out
        return selection

    def _log_partition(self) -> Tensor:
        return torch.where(self.mask, self._token_log_partition(), 0.0).sum(1)  # [B, n] -> [B]

    def _token_log_partition(self) -> Tensor:
        """The log of the sum over each token's arcs [B, n]: what ``only`` leaves of it stays the same."""
        if self._kept is not None and "tokens" in self._kept:
            return self._kept["tokens"]
        total = self.scores.flatten(2).logsumexp(-1)
        if self._kept is not None:
            self._kept["tokens"] = total
        return total

    def argmax(self) -> LabelledHeads:
        return self._labelled(self.scores.flatten(2).argmax(-1))

    def topk(self, k: int) -> Best:
        scores = without_forbidden(self.scores.detach()).flatten(2)  # [B, n, (n+1)R]
        arcs, totals = best_combinations(scores, self.mask, check_k(k))  # [B, k, n], [B, k]
        return Best(tuple(map(self._labelled, arcs.unbind(1))), totals)

    def only(self, tokens: Tensor) -> Self:
        """The distribution over the heads of some tokens [B, n] only; the others drop out of every sum."""
        selection = copy.copy(self)
        selection.mask = self.mask & tokens
        if self._kept is not None:
            selection._kept = {"tokens": self._token_log_partition()}
        return selection

    def expected_score(self, marginals: Tensor | ArcStatistics) -> Tensor:
        if not isinstance(marginals, ArcStatistics):
            return super().expected_score(marginals)
        sentence, dependent, head, relation, probability = marginals
        weighted = probability * self.scores[sentence, dependent, head, relation]  # [m]
        return weighted.new_zeros(len(self.lengths)).index_add(0, sentence, weighted)

    def score(self, structure: LabelledHeads) -> Tensor:
        heads, relations = structure
        choice = torch.where(self.mask, heads * self.scores.shape[-1] + relations, 0)  # [B, n]
        chosen = self.scores.flatten(2).gather(-1, choice[..., None]).squeeze(-1)  # [B, n]
        return torch.where(self.mask, chosen, 0.0).sum(1)

    def _labelled(self, arcs: Tensor) -> LabelledHeads:
        """Heads and relations of arcs numbered as in the flattened scores: [B, n]."""
        relations = self.scores.shape[-1]
        arcs = torch.where(self.mask, arcs, 0)
        return LabelledHeads(arcs // relations, arcs % relations)


def allowed_heads(lengths: Tensor, tokens: int) -> Tensor:
    """Which heads a token may take: the root or another token of its sentence: [B, n, n+1]."""
    head = torch.arange(tokens + 1, device=lengths.device)
    inside = (head <= lengths[:, None])[:, None]  # [B, 1, n+1]
    other = (head != torch.arange(1, tokens + 1, device=lengths.device)[:, None])[None]  # [1, n, n+1]
    real = token_mask(lengths, tokens)[..., None]  # [B, n, 1]
    return inside & other & real
