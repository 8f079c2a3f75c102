"""Which marginals of a teacher a student needs: the registry of the paper's cases.

``project(teacher, onto=Family)`` gives the teacher's marginals of the *student's* parts, which is all that
the distillation loss ``A_s − ⟨μ_t, θ_s⟩`` (Wang et al. 2021, Eq. 3) asks of a teacher.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from train.structs import (
    ChainMarginals,
    HeadSelection,
    LinearChain,
    MatrixTree,
    Mixture,
    ProjectiveTree,
    SecondOrderHeads,
    SpanSet,
    StructuredDistribution,
    TokenSoftmax,
)
from train.structs.span import B, E, I, S, before_diagonal, bioes_marginals, ending_beyond

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

    A Mixture goes wherever all its components go, as the weighted sum of their marginals.

    Raises:
        LookupError: no projection is known for this pair; the message lists the known ones.

    >>> chain = LinearChain(torch.zeros(1, 2, 3), torch.zeros(3, 3), torch.zeros(3), torch.zeros(3),
    ...                     torch.tensor([2]))
    >>> project(chain, onto=TokenSoftmax).shape
    torch.Size([1, 2, 3])
    """
    if isinstance(teacher, Mixture):
        return teacher.average([project(component, onto=onto) for component in teacher.components])
    try:
        function = _PROJECTIONS[type(teacher), onto]
    except KeyError:
        known = ", ".join(f"{t.__name__} -> {s.__name__}" for t, s in sorted(_PROJECTIONS, key=str))
        pair = f"{type(teacher).__name__} onto {getattr(onto, '__name__', onto)}"
        raise LookupError(f"no projection from {pair}; known: {known}") from None
    return function(teacher)


def shared_parts(
    teacher: StructuredDistribution, onto: type[StructuredDistribution]
) -> StructuredDistribution:
    """The teacher as a distribution over the student's own parts, which some divergences need.

    Raises:
        LookupError: teacher and student do not share their parts.
    """
    if isinstance(teacher, onto):
        return teacher
    raise LookupError(
        f"a {type(teacher).__name__} and a {onto.__name__} do not share their parts, so that reverse_kl, "
        "jeffreys and renyi are not exact between them; use cross_entropy or kl, which need only marginals"
    )


@projection(LinearChain, LinearChain)  # case 1a, Eq. 4
@projection(TokenSoftmax, TokenSoftmax)  # the Token baseline of the paper
@projection(HeadSelection, HeadSelection)  # case 1b, Eq. 5 with the relation conditioned on the head
@projection(SecondOrderHeads, HeadSelection)  # case 2b: of the mean-field product
@projection(MatrixTree, HeadSelection)  # over all trees with one root child
@projection(ProjectiveTree, HeadSelection)  # over those without crossing arcs
def _own_marginals(teacher: StructuredDistribution) -> Any:
    """The teacher's own marginals, in the shapes of its scores: the student has parts of the same kind."""
    return teacher.marginals()


@projection(LinearChain, TokenSoftmax)
def _token_marginals(teacher: LinearChain) -> Tensor:
    """Case 2a, Eq. 7: [B, n, L]."""
    return teacher.marginals().tokens


@projection(TokenSoftmax, LinearChain)
def _products_of_neighbours(teacher: TokenSoftmax) -> ChainMarginals:
    """Case 3, Eq. 8: P(y_i) P(y_{i+1}).

    They give mass to every pair of labels. A student that forbids some can not match it there: for one,
    condition the teacher first (``train.models.taggers.constrained``), which makes it a chain.
    """
    tokens = teacher.marginals()  # [B, n, L]
    return ChainMarginals(tokens, tokens[:, :-1, :, None] * tokens[:, 1:, None])  # [B, n-1, L, L]


@projection(SpanSet, TokenSoftmax)
def _bioes_marginals(teacher: SpanSet) -> Tensor:
    """Case 4 (appendix A, corrected): O, then B, I, E, S of each type: [B, n, 4L+1]."""
    return bioes_marginals(*teacher.marginals_and_outside())


@projection(SpanSet, LinearChain)
def _bioes_pairs(teacher: SpanSet) -> ChainMarginals:
    """Exact pairs of neighbouring labels, O, then B, I, E, S of each type.

    Two neighbours either lie in one span, or a boundary lies between them; then the two are independent of
    each other given the boundary.
    """
    spans, outside = teacher.marginals_and_outside()  # [B, n, n, L], [B, n]
    tokens = bioes_marginals(spans, outside)  # [B, n, 4L+1]
    label = torch.arange(tokens.shape[-1], device=tokens.device)
    closes = (label == 0) | ((label - 1) % 4 >= E)  # [4L+1] O, E and S end before a boundary
    opens = (label == 0) | ((label - 1) % 4 == B) | ((label - 1) % 4 == S)  # O, B and S begin after one
    left, right = tokens[:, :-1] * closes, tokens[:, 1:] * opens  # [B, n-1, 4L+1] each
    boundary = left.sum(-1, keepdim=True)  # [B, n-1, 1]
    given = left / boundary.clamp_min(torch.finfo(boundary.dtype).tiny)
    pairs = given[..., None] * right[:, :, None]  # [B, n-1, 4L+1, 4L+1]
    beyond = ending_beyond(spans)  # [B, n, n, L]
    b = label[1::4]  # [L] the first label of each type
    pairs[..., b + B, b + I] = beyond.diagonal(1, 1, 2).transpose(1, 2)  # [B, n-1, L]
    pairs[..., b + B, b + E] = spans.diagonal(1, 1, 2).transpose(1, 2)
    pairs[..., b + I, b + I] = before_diagonal(beyond, 1)
    pairs[..., b + I, b + E] = before_diagonal(spans, 1)
    return ChainMarginals(tokens, pairs)
