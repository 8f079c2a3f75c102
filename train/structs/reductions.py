"""How exact searches join alternatives: one dynamic programme, several questions; and the k best.

A programme written with a reduction in place of ``logsumexp`` answers several questions through the gradient
of its result with respect to the part scores: the sum of all alternatives gives marginals, the maximum the
best structure as zeros and ones, the k largest the k best structures (Rush 2020).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from train.structs.base import FORBIDDEN

Reduction = Callable[[Tensor, int], Tensor]
"""(scores, dimension) -> scores without that dimension."""


def log_sum_exp(scores: Tensor, dimension: int) -> Tensor:
    return scores.logsumexp(dimension)


def maximum(scores: Tensor, dimension: int) -> Tensor:
    # Not amax, which shares the gradient between ties: exactly one alternative is chosen.
    return scores.max(dimension).values


def maxima(k: int) -> Reduction:
    """The k best of all alternatives, for programmes whose states have ranks as their last dimension.

    [..., m, ..., r] -> [..., k], −∞ where there are fewer. The gradient of rank r of a programme's result is
    the r-th best structure as zeros and ones.
    """

    def reduce(scores: Tensor, dimension: int) -> Tensor:
        alternatives = scores.movedim(dimension, -2).flatten(-2)  # [..., m·r]
        missing = k - alternatives.shape[-1]
        if missing > 0:
            alternatives = pad(alternatives, (0, missing), value=-math.inf)
        return alternatives.topk(k, -1).values

    return reduce


def check_k(k: int) -> int:
    """k, or a ValueError that says what it must be."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return k


def without_forbidden(theta: Tensor) -> Tensor:
    """Scores in which a forbidden part is −∞, so that no structure among the k best contains one."""
    return torch.where(theta <= FORBIDDEN / 2, -math.inf, theta)


def best_combinations(scores: Tensor, mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best ways to choose one alternative at each position, all choices independent.

    Costs O(n k log k) beside the k best of each position: of two sorted lists, the pair (a, b) counted from 1
    has at least a·b − 1 pairs before it, so that only pairs with a·b ≤ k can be among the k best.

    Args:
        scores: [B, n, m] of each alternative; −∞ where there is none.
        mask: [B, n] False where nothing is chosen.

    Returns:
        The chosen alternatives [B, k, n], 0 where nothing is chosen, and their scores [B, k], −∞ where a
        sentence has fewer than k combinations.
    """
    batch = len(scores)
    kept = min(k, scores.shape[-1])
    values, choices = scores.topk(kept, -1)  # [B, n, k'] each
    # Where nothing is chosen there is one way not to choose, with score 0.
    nothing = torch.full((kept,), -math.inf, dtype=values.dtype, device=values.device)
    nothing[0] = 0.0
    values = torch.where(mask[..., None], values, nothing)
    pairs = [(a, b) for a in range(k) for b in range(kept) if (a + 1) * (b + 1) <= k]
    left, right = torch.tensor(pairs, device=scores.device).unbind(1)  # [pairs] each
    best = values.new_full((batch, k), -math.inf)  # [B, k]
    best[:, 0] = 0.0
    steps = []
    for value in values.unbind(1):
        best, pair = (best[:, left] + value[:, right]).topk(k, -1)  # [B, k] each
        steps.append(pair)
    rank = torch.arange(k, device=scores.device).expand(batch, k)  # [B, k]
    chosen = []
    for pair, choice in zip(reversed(steps), reversed(choices.unbind(1)), strict=True):
        pair = pair.gather(1, rank)  # [B, k]
        chosen.append(choice.gather(1, right[pair]))
        rank = left[pair]
    return torch.where(mask[:, None], torch.stack(chosen[::-1], -1), 0), best
