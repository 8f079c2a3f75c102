"""How a dynamic programme joins its alternatives: one programme, several questions.

A programme written with a reduction in place of ``logsumexp`` answers three questions through the gradient of
its result with respect to the part scores: the sum of all alternatives gives marginals, the maximum gives the
best structure as zeros and ones, a sampled sum gives one exact sample as zeros and ones (Rush 2020).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Reduction = Callable[[Tensor, int], Tensor]
"""(scores, dimension) -> scores without that dimension."""


def log_sum_exp(scores: Tensor, dimension: int) -> Tensor:
    return scores.logsumexp(dimension)


def maximum(scores: Tensor, dimension: int) -> Tensor:
    # Not amax, which shares the gradient between ties: exactly one alternative is chosen.
    return scores.max(dimension).values


def sampled(generator: torch.Generator | None = None) -> Reduction:
    """A sum whose gradient goes to one alternative, drawn with its probability."""

    def reduce(scores: Tensor, dimension: int) -> Tensor:
        return _SampledSum.apply(scores.movedim(dimension, -1), generator)  # type: ignore[no-any-return]

    return reduce


class _SampledSum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, scores: Tensor, generator: torch.Generator | None) -> Tensor:  # [..., m]
        context.save_for_backward(scores)
        context.generator = generator
        return scores.logsumexp(-1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scores,) = context.saved_tensors
        passed = torch.zeros_like(scores)
        on_path = gradients[0] != 0  # only what the sample goes through is drawn
        if bool(on_path.any()):
            weights = scores[on_path].double().softmax(-1)  # [rows, m]
            chosen = torch.multinomial(weights, 1, generator=context.generator)  # [rows, 1]
            one_hot = torch.zeros_like(weights).scatter(1, chosen, 1).to(scores.dtype)
            passed[on_path] = gradients[0][on_path][:, None] * one_hot
        return passed, None
