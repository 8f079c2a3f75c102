"""Which marginals of a teacher a student needs: the registry of the paper's cases.

``project(teacher, onto=Family)`` gives the teacher's marginals of the *student's* parts, which is all that
the distillation loss ``A_s − ⟨μ_t, θ_s⟩`` (Wang et al. 2021, Eq. 3) asks of a teacher.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from train.structs import ChainMarginals, HeadSelection, LinearChain, StructuredDistribution, TokenSoftmax

Projection = Callable[[Any], Any]
_PROJECTIONS: dict[tuple[type, type], Projection] = {}


def projection(teacher: type, student: type) -> Callable[[Projection], Projection]:
    """Register a projection from a teacher's family onto a student's."""

    def register(function: Projection) -> Projection:
        _PROJECTIONS[teacher, student] = function
        return function

    return register


def project(teacher: StructuredDistribution, onto: type[StructuredDistribution]) -> Any:
    """Marginals of the student's parts under the teacher, locally consistent.

    Args:
        teacher: the teacher's distribution over a batch, tempered beforehand where a temperature is wanted.
        onto: the student's family.

    Raises:
        LookupError: no projection is known for this pair; the message lists the known ones.

    >>> chain = LinearChain(torch.zeros(1, 2, 3), torch.zeros(3, 3), torch.zeros(3), torch.zeros(3),
    ...                     torch.tensor([2]))
    >>> project(chain, onto=TokenSoftmax).shape
    torch.Size([1, 2, 3])
    """
    try:
        function = _PROJECTIONS[type(teacher), onto]
    except KeyError:
        known = ", ".join(f"{t.__name__} -> {s.__name__}" for t, s in sorted(_PROJECTIONS, key=str))
        pair = f"{type(teacher).__name__} onto {getattr(onto, '__name__', onto)}"
        raise LookupError(f"no projection from {pair}; known: {known}") from None
    return function(teacher)


@projection(LinearChain, LinearChain)
def _pair_marginals(teacher: LinearChain) -> ChainMarginals:
    """Case 1a, Eq. 4."""
    return teacher.marginals()


@projection(LinearChain, TokenSoftmax)
def _token_marginals(teacher: LinearChain) -> Tensor:
    """Case 2a, Eq. 7: [B, n, L]."""
    return teacher.marginals().tokens


@projection(TokenSoftmax, TokenSoftmax)
def _label_probabilities(teacher: TokenSoftmax) -> Tensor:
    """A softmax teacher and a softmax student (the Token baseline of the paper): [B, n, L]."""
    return teacher.marginals()


@projection(HeadSelection, HeadSelection)
def _arc_marginals(teacher: HeadSelection) -> Tensor:
    """Case 1b, Eq. 5 with the relation conditioned on the head: [B, n, n+1, R]."""
    return teacher.marginals()


def restrict(marginals: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Marginals of a student that has only some of the parts of each token, renormalised.

    Args:
        marginals: [B, n, ...] a distribution over the parts of each token; all zero in the padding.
        allowed: the parts the student has, broadcastable to ``marginals``.

    Returns:
        The restricted marginals in the same shape, and the lost mass of each token [B, n]. A token that
        loses everything keeps marginals of zero: there the teacher says nothing the student could say.
    """
    kept = marginals * allowed  # [B, n, ...]
    mass = kept.flatten(2).sum(-1)  # [B, n]
    total = marginals.flatten(2).sum(-1)  # [B, n]
    scale = torch.where(mass > 0, total / mass.clamp_min(torch.finfo(mass.dtype).tiny), 0.0)
    return kept * scale.view(*mass.shape, *[1] * (marginals.dim() - 2)), (total - mass).clamp_min(0)
