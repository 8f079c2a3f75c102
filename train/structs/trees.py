"""Dependency trees with exactly one child of the root: all of them, or the projective ones."""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from structural_kd.trees import are_trees, maximum_spanning_trees
from train.structs.base import FORBIDDEN, StructuredDistribution
from train.structs.heads import ArcStatistics, HeadSelection, LabelledHeads
from train.structs.reductions import Reduction, log_sum_exp, maximum


class _LabelledTrees(StructuredDistribution):
    """Head selection under the condition that the heads form a tree."""

    def __init__(self, *scores_and_lengths: Tensor, **parts: Tensor) -> None:
        # The same parts, so that scores of parts are its affair.
        self._selection = HeadSelection(*scores_and_lengths, **parts)
        self.scores = self._selection.scores  # [B, n, n+1, R]
        self.lengths = self._selection.lengths  # [B]
        self.mask = self._selection.mask  # [B, n]

    @abstractmethod
    def contains(self, structure: LabelledHeads) -> Tensor:
        """Whether the heads of each sentence are a tree of this family: [B] bool."""

    def score(self, structure: LabelledHeads) -> Tensor:
        return self._selection.score(structure)

    def expected_score(self, marginals: Tensor | ArcStatistics) -> Tensor:
        return self._selection.expected_score(marginals)

    def log_prob(self, structure: LabelledHeads) -> Tensor:
        """log p(y) of one structure a sentence: [B].

        FORBIDDEN, and without a gradient, where the heads are no tree of the family. Treebanks have such
        sentences, and a sum of scores that is not in the partition could be raised without bound.
        """
        return torch.where(self.contains(structure), super().log_prob(structure), FORBIDDEN)

    def _pack(self, gradients: tuple[Tensor, ...]) -> Tensor:
        (marginals,) = gradients
        return marginals.clamp_min(0.0)  # rounding


class MatrixTree(_LabelledTrees):
    """p(y) ∝ exp Σ_i s(i, h_i, r_i) over all trees, projective or not (Koo et al. 2007).

    Args:
        scores, lengths, arcs, relations: as of ``HeadSelection``.

    Structures are ``LabelledHeads``; marginals are [B, n, n+1, R]. A sentence of n tokens has n^(n−1) Rⁿ
    structures. Inference costs O(n³) in n steps.

    The partition is the determinant of Koo et al.'s single-root Laplacian, which LU would compute by
    subtracting what nearly cancels: on five tokens with scores of ±30 its marginals are wrong by 1e−7, with
    ±100 by anything. Here tokens are eliminated one by one with sums, products and quotients of positive
    numbers only, as Grassmann, Taksar and Heyman (1985) do for Markov chains, in log space and float64. So
    log Z is exact to a few units in the last place of the largest score, whatever the scores. Marginals are
    its gradient, whose terms have both signs: their error is absolute, 1e−14 with scores of ±30, 3e−14 with
    ±300, and up to 1e−11 where a token has no allowed head but the root. A probability below that may come
    out as zero, never as less. Forbidden arcs have a marginal of exactly zero.

    >>> MatrixTree(torch.zeros(1, 3, 4, 1), torch.tensor([3])).log_count().exp().round()
    tensor([9.])
    """

    def _log_partition(self) -> Tensor:
        *steps, last = _eliminations(self._arcs(self.scores.logsumexp(-1)))
        total = last[:, 0, 0] + sum(_leaving(before)[1] for before in steps)  # [B]
        return total.to(self.scores.dtype)

    def argmax(self) -> LabelledHeads:
        """The best tree, by Chu, Liu and Edmonds: heads and relations, 0 in the padding."""
        best, relations = self.scores.detach().max(-1)  # [B, n, n+1] each
        table = self._forbid(best).cpu().numpy()
        heads = maximum_spanning_trees(table, self.lengths.cpu().numpy())  # [B, n]
        chosen = torch.from_numpy(heads).to(relations.device)  # [B, n]
        kinds = relations.gather(2, chosen[..., None]).squeeze(-1)  # [B, n]
        return LabelledHeads(chosen, torch.where(self.mask, kinds, 0))

    def contains(self, structure: LabelledHeads) -> Tensor:
        return _single_root_trees(structure.heads, self.lengths)

    def _arcs(self, arcs: Tensor) -> Tensor:
        """Arc scores in float64; padding hangs on the first token, which is one tree of it: [B, n, n+1]."""
        first = torch.arange(arcs.shape[2], device=arcs.device) == 1  # [n+1]
        return torch.where(~self.mask[..., None] & first, 0.0, self._forbid(arcs).double())

    def _forbid(self, arcs: Tensor) -> Tensor:
        return torch.where(arcs <= FORBIDDEN / 2, FORBIDDEN, arcs)  # a constant: no gradient, no marginal


def _eliminations(arcs: Tensor) -> Iterator[Tensor]:
    """Log arc weights while the last token is eliminated again and again: [B, k, k+1] for k = n, …, 1.

    For tokens i and j before k: a_ij + a_ik a_kj / Σ_j a_kj, the sum over tokens j < k. An arc of k to the
    root is not in that sum, so that only trees with one child of the root are counted: their total weight is
    Π_k Σ_j a_kj times what remains on the arc from the first token to the root.
    """
    yield arcs
    for k in range(arcs.shape[1], 1, -1):
        leaving, out = _leaving(arcs)  # [B, k], [B]
        through = arcs[:, :-1, k, None] + (leaving - out[:, None])[:, None]  # [B, k-1, k]
        # Not logaddexp, whose second derivative is not a number where the terms lie far apart.
        arcs = torch.stack([arcs[:, :-1, :k], through]).logsumexp(0)  # [B, k-1, k]
        yield arcs


def _leaving(arcs: Tensor) -> tuple[Tensor, Tensor]:
    """The last token's arcs to the root and the tokens before it [B, k], and the sum of the latter [B]."""
    leaving = arcs[:, -1, :-1]
    return leaving, leaving[:, 1:].logsumexp(-1)


class ProjectiveTree(_LabelledTrees):
    """p(y) ∝ exp Σ_i s(i, h_i, r_i) over the projective trees: no two arcs cross (Eisner 1996).

    Args:
        scores, lengths, arcs, relations: as of ``HeadSelection``.

    Structures are ``LabelledHeads``; marginals are [B, n, n+1, R]. A sentence of n tokens has
    binom(3n−2, n−1) / n · Rⁿ structures. Inference costs O(n³) in n steps, in log space and float64.

    >>> ProjectiveTree(torch.zeros(1, 3, 4, 1), torch.tensor([3])).log_count().exp().round()
    tensor([7.])
    """

    def _log_partition(self) -> Tensor:
        return self._programme(self.scores, log_sum_exp)

    def argmax(self) -> LabelledHeads:
        """The best projective tree; of several, one."""
        with torch.enable_grad():
            scores = self.scores.detach().requires_grad_()
            (chosen,) = torch.autograd.grad(self._programme(scores, maximum).sum(), scores)
        labelled = torch.where(self.mask, chosen.flatten(2).argmax(-1), 0)  # [B, n]
        relations = scores.shape[-1]
        return LabelledHeads(labelled // relations, labelled % relations)

    def contains(self, structure: LabelledHeads) -> Tensor:
        heads = torch.where(self.mask, structure.heads, 0)  # [B, n]
        token = torch.arange(1, heads.shape[1] + 1, device=heads.device) * self.mask  # [B, n]
        left, right = torch.minimum(heads, token), torch.maximum(heads, token)  # [B, n] each
        inside = (left[:, :, None] < left[:, None]) & (left[:, None] < right[:, :, None])  # [B, n, n]
        crossing = (inside & (right[:, :, None] < right[:, None])).flatten(1).any(1)  # [B]
        return _single_root_trees(heads, self.lengths) & ~crossing

    def _programme(self, scores: Tensor, reduce: Reduction) -> Tensor:
        arcs = reduce(scores, -1).double()  # [B, n, n+1]
        return _projective(arcs, self.lengths, reduce).to(scores.dtype)


def _projective(arcs: Tensor, lengths: Tensor, reduce: Reduction) -> Tensor:
    """Eisner's programme over arc scores [B, n, n+1]: [B].

    Items are spans whose head is their first token (``right``) or their last (``left``), and which are
    complete or still miss the far side of their outermost dependent (``open``). A table of items by start
    has its widths in the last dimension, and so has one by end: all spans of one width come of one
    ``reduce``.
    """
    tokens = arcs.shape[1]
    root, arcs = arcs[..., 0], arcs[..., 1:]  # [B, n], [B, n, n]
    single = torch.zeros_like(root)[..., None]  # [B, n, 1] a token by itself
    right_by_start = right_by_end = left_by_start = left_by_end = single
    open_right, open_left = single[..., :0], single[..., :0]  # [B, n, 0] by start, by end
    # Spans from a width before the sentence's end up to that end, for the right side of the root's child.
    up_to_end = [torch.zeros_like(root[:, 0])]  # [B]
    for width in range(1, tokens):
        spans = tokens - width
        right_by_start, left_by_start = right_by_start[:, :spans], left_by_start[:, :spans]
        right_by_end, left_by_end = right_by_end[:, -spans:], left_by_end[:, -spans:]
        halves = reduce(right_by_start + left_by_end.flip(-1), -1)  # [B, spans]
        to_right = halves + arcs.diagonal(-width, 1, 2)  # the first token is the last one's head
        to_left = halves + arcs.diagonal(width, 1, 2)
        open_right = torch.cat([open_right[:, :spans], to_right[..., None]], -1)  # [B, spans, width]
        open_left = torch.cat([open_left[:, -spans:], to_left[..., None]], -1)
        right = reduce(open_right + right_by_end.flip(-1), -1)[..., None]  # [B, spans, 1]
        left = reduce(left_by_start + open_left.flip(-1), -1)[..., None]
        right_by_start = torch.cat([right_by_start, right], -1)  # [B, spans, width+1]
        right_by_end = torch.cat([right_by_end, right], -1)
        left_by_start = torch.cat([left_by_start, left], -1)
        left_by_end = torch.cat([left_by_end, left], -1)
        start = (lengths - 1 - width).clamp_min(0)[:, None]  # [B, 1]
        up_to_end.append(right[..., 0].gather(1, start)[:, 0])
    width_of = torch.arange(tokens, device=lengths.device)
    child = lengths[:, None] - 1 - width_of  # [B, n] the root's child, by the width that follows it
    inside = child >= 0
    child = child.clamp_min(0)
    whole = torch.stack(up_to_end, 1) + left_by_start[:, 0].gather(1, child) + root.gather(1, child)  # [B, n]
    return reduce(whole.masked_fill(~inside, -torch.inf), -1)


def _single_root_trees(heads: Tensor, lengths: Tensor) -> Tensor:
    """Which heads [B, n] form a tree with one child of the root: [B] bool."""
    trees = are_trees(heads.cpu().numpy(), lengths.cpu().numpy())
    return torch.from_numpy(trees).to(heads.device)
