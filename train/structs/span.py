"""Sets of labelled spans that do not overlap: flat entities, scored as arcs."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from train.structs.base import FORBIDDEN, Best, StructuredDistribution, check_lengths, token_mask
from train.structs.reductions import (
    Reduction,
    check_k,
    log_sum_exp,
    maxima,
    maximum,
    without_forbidden,
)

B, I, E, S = range(4)  # noqa: E741
"""The place of a prefix among the four labels of a type, as in ``structural_kd.labels.bioes_labels``."""

LARGE = 1e100
"""The largest mass whose square, which second derivatives divide by, is well within float64."""


class SpanSet(StructuredDistribution):
    """p(y) ∝ exp(Σ scores[i, j, l]) over the spans (i, j, l) of y, no two of which share a token.

    The teacher of the paper's case 4: entities as arcs from their first to their last token (Yu et al. 2020).

    Args:
        scores: [B, n, n, L] of first token, last token (inclusive) and type, relative to no entity
            (score_l − score_none), so that a token outside all spans scores 0. Where first > last and in the
            padding, any finite number.
        lengths: [B] tokens of each sentence.

    Structures are label ids [B, n] in the order of ``structural_kd.labels.bioes_labels``: O, then B, I, E, S
    of each type; 0 in the padding. A sequence that is not valid BIOES scores FORBIDDEN. Marginals are
    [B, n, n, L].

    Inference sums over types once, in O(n² L), and then counts weighted paths in the graph whose nodes are
    the n+1 places between tokens and whose edges are spans and single tokens outside. Path counts solve a
    unit triangular system, in O(n²) and float64 probability space, all terms positive.

    >>> SpanSet(torch.zeros(1, 3, 3, 1), torch.tensor([3])).log_count().exp().round()
    tensor([13.])
    """

    def __init__(self, scores: Tensor, lengths: Tensor) -> None:
        if scores.dim() != 4 or scores.shape[1] != scores.shape[2]:
            raise ValueError(f"scores must be [sentences, tokens, tokens, types], got {tuple(scores.shape)}")
        self.scores = scores.float() if scores.dtype != torch.float64 else scores  # [B, n, n, L]
        self.lengths = check_lengths(lengths, scores.shape[0], scores.shape[1])
        self.mask = token_mask(self.lengths, scores.shape[1])  # [B, n]
        ordered = torch.ones(scores.shape[1:3], dtype=torch.bool, device=scores.device).triu()  # [n, n]
        self.allowed = self.mask[:, None] & ordered  # [B, n, n]

    def _log_partition(self) -> Tensor:
        return self._paths(self.scores, self.scores.new_zeros(self.mask.shape))

    def marginals_and_outside(self) -> tuple[Tensor, Tensor]:
        """The marginals [B, n, n, L], and the probability of no span at each token [B, n].

        Both by differentiation of the same sum, so that a tiny probability outside is as precise as any.
        """
        differentiable = torch.is_grad_enabled() and self.scores.requires_grad
        with torch.enable_grad():
            scores = self.scores if differentiable else self.scores.detach().requires_grad_()
            outside = self.scores.new_zeros(self.mask.shape, requires_grad=True)
            total = self._paths(scores, outside).sum()
            spans, tokens = torch.autograd.grad(total, (scores, outside), create_graph=differentiable)
        return spans, torch.where(self.mask, tokens, 0.0)

    def argmax(self) -> Tensor:
        """[B, n] label ids, 0 in the padding."""
        return self._best(maximum, self.scores)[0][0]

    def topk(self, k: int) -> Best:
        """k batches of label ids [B, n], 0 in the padding; exact, in O(n² k (L + k log k))."""
        labels, scores = self._best(maxima(check_k(k)), without_forbidden(self.scores))
        found = (scores > -torch.inf).unbind(1)  # k × [B]
        return Best(
            tuple(torch.where(ok[:, None], y, 0) for ok, y in zip(found, labels, strict=True)), scores
        )

    def score(self, structure: Tensor) -> Tensor:
        labels = torch.where(self.mask, structure, 0)  # [B, n]
        types = self.scores.shape[-1]
        if bool(((labels < 0) | (labels > 4 * types)).any()):
            raise ValueError(f"label ids must lie in 0..{4 * types}: O, then B, I, E, S of {types} types")
        kind, type_ = (labels - 1) % 4, (labels - 1).clamp_min(0) // 4  # [B, n] each
        outside = labels == 0
        begins, ends = (~outside & ((kind == edge) | (kind == S)) for edge in (B, E))  # [B, n] each
        position = torch.arange(labels.shape[1], device=labels.device)
        first = torch.where(begins, position, 0).cummax(1).values  # [B, n] where the last span began
        cell = (first * labels.shape[1] + position) * types + type_  # [B, n]
        chosen = self.scores.flatten(1).gather(1, cell)  # [B, n]
        total = torch.where(ends, chosen, 0.0).sum(1)
        return torch.where(self._is_valid(begins | outside, ends | outside, type_), total, FORBIDDEN)

    def _is_valid(self, opens: Tensor, closes: Tensor, type_: Tensor) -> Tensor:
        """Whether labels make a BIOES sequence, given which can follow and precede a boundary: [B]."""
        between = closes[:, :-1] & opens[:, 1:]  # [B, n-1]
        within = ~closes[:, :-1] & ~opens[:, 1:] & (type_[:, :-1] == type_[:, 1:])
        last = closes.gather(1, self.lengths[:, None] - 1)[:, 0]  # [B]
        return opens[:, 0] & last & (between | within | ~self.mask[:, 1:]).all(1)

    def _paths(self, scores: Tensor, outside: Tensor) -> Tensor:
        """The log of the sum over all paths from the first place to the last: [B].

        Args:
            scores: [B, n, n, L] of the spans.
            outside: [B, n] scores of the tokens outside all spans.
        """
        spans = torch.where(self.allowed, _sum_types(scores).double(), -torch.inf)  # [B, n, n]
        outside = outside.double()
        # Places are rescaled by the path to them over single tokens alone, so that no mass is below 1.
        single = torch.logaddexp(spans.diagonal(dim1=1, dim2=2), outside).detach()  # [B, n]
        reached = pad(single.cumsum(1), (1, 0))  # [B, n+1]
        mass = _count_paths(spans, outside, reached)  # [B]
        if not bool((mass.detach() < LARGE).all()):
            # By all that reaches it: no score is too large for this, but it takes a loop over the places.
            reached = _reached(spans.detach()[..., None], outside.detach(), log_sum_exp)[..., 0]
            mass = _count_paths(spans, outside, reached)
        return (mass.log() + reached[:, -1]).to(scores.dtype)

    def _best(self, reduce: Reduction, scores: Tensor) -> tuple[list[Tensor], Tensor]:
        """The structures [B, n] of each rank that a reduction finds, and their scores [B, ranks]."""
        with torch.enable_grad():
            scores = scores.detach().requires_grad_()
            spans = reduce(scores[..., None], 3)  # [B, n, n, ranks]
            spans = torch.where(self.allowed[..., None], spans, -torch.inf)
            total = _reached(spans, scores.new_zeros(self.mask.shape), reduce)[:, -1]  # [B, ranks]
            chosen = [
                torch.autograd.grad(rank.sum(), scores, retain_graph=True)[0] for rank in total.unbind(1)
            ]
        return [bioes_labelled(spans) for spans in chosen], total.detach()


def bioes_labelled(spans: Tensor) -> Tensor:
    """The label ids of sets of spans given as zeros and ones: [B, n, n, L] -> [B, n]."""
    sentence, first, last, type_ = spans.nonzero(as_tuple=True)  # [m] each
    begin = 1 + 4 * type_  # [m] the first label of the type
    labels = torch.zeros(spans.shape[:2], dtype=torch.int64, device=spans.device)  # [B, n]
    width = last - first + 1  # [m]
    step = torch.arange(int(width.sum()), device=spans.device)
    step = step - (width.cumsum(0) - width).repeat_interleave(width)  # 0, 1, ... within each span
    token = first.repeat_interleave(width) + step
    labels[sentence.repeat_interleave(width), token] = (begin + I).repeat_interleave(width)
    labels[sentence, last] = begin + E
    labels[sentence, first] = begin + torch.where(first == last, S, B)
    return labels


def bioes_marginals(spans: Tensor, outside: Tensor) -> Tensor:
    """The probability of each label at each token, O and then B, I, E, S of each type: [B, n, 4L+1].

    Sums of the spans' probabilities, never differences, so that small ones stay precise.

    Args:
        spans: [B, n, n, L] probabilities of first token, last token and type.
        outside: [B, n] probability of no span.
    """
    beyond = ending_beyond(spans)  # [B, n, n, L]
    edges = torch.stack(
        (
            on_diagonal(beyond),  # B: begins here, ends later
            before_diagonal(beyond),  # I: began earlier, ends later
            before_diagonal(spans),  # E: began earlier, ends here
            on_diagonal(spans),  # S
        ),
        -1,
    )  # [B, n, L, 4]
    return torch.cat((outside[..., None], edges.flatten(2)), -1)


def ending_beyond(spans: Tensor) -> Tensor:
    """The sum over spans that begin at i and end after j, for each i and j: [B, n, n, L]."""
    later = spans[:, :, 1:].flip(2).cumsum(2).flip(2)  # [B, n, n-1, L]
    return pad(later, (0, 0, 0, 1))


def on_diagonal(spans: Tensor) -> Tensor:
    """[B, n, n, L] -> [B, n, L]."""
    return spans.diagonal(dim1=1, dim2=2).transpose(1, 2)


def before_diagonal(spans: Tensor, gap: int = 0) -> Tensor:
    """The sum over first tokens i < j − gap for each last token j ≥ gap: [B, n, n, L] -> [B, n−gap, L]."""
    earlier = torch.ones(spans.shape[1:3], dtype=torch.bool, device=spans.device).triu(1 + gap)  # [n, n]
    return torch.where(earlier[..., None], spans, 0.0)[:, :, gap:].sum(1)


def _sum_types(scores: Tensor) -> Tensor:
    """logsumexp over the last dimension, whose backward pass takes no second exponential."""
    top = scores.detach().amax(-1, keepdim=True)  # a constant to autograd, as it cancels
    return (scores - top).exp().sum(-1).log() + top[..., 0]


def _count_paths(spans: Tensor, outside: Tensor, reached: Tensor) -> Tensor:
    """The sum over all paths, divided by exp(reached) of the last place: [B].

    Args:
        spans: [B, n, n] scores of the spans, whatever their type; −∞ where there is none.
        outside: [B, n] scores of the tokens outside all spans.
        reached: [B, n+1] the logarithm of what each place's mass is divided by; a constant to autograd, as it
            cancels in the logarithm of the sum.
    """
    before, after = reached[:, :-1], reached[:, 1:]  # [B, n] each
    edges = (spans + (before[:, :, None] - after[:, None])).exp()  # [B, n, n]
    edges = edges + torch.diag_embed((outside + before - after).exp())
    # mass = first + mass · graph, with a row and a column a place. The diagonal of 1 − graph is implied.
    graph = pad(edges, (1, 0, 0, 1))  # [B, n+1, n+1]
    first = torch.zeros_like(reached)  # [B, n+1]
    first[:, 0] = 1.0
    mass = torch.linalg.solve_triangular(-graph, first[:, None], upper=True, left=False, unitriangular=True)
    return mass[:, 0, -1]


def _reached(spans: Tensor, outside: Tensor, reduce: Reduction) -> Tensor:
    """What reaches each place between tokens, in log space: [B, n+1, ranks].

    Args:
        spans: [B, n, n, alternatives] scores of the spans; −∞ where there is none.
        outside: [B, n] scores of the tokens outside all spans; 0 in the padding.
    """
    reached = reduce(torch.zeros_like(outside)[:, :1, None], 1)[:, None]  # [B, 1, ranks]: one empty path
    for last, (ending, single) in enumerate(zip(spans.unbind(2), outside.unbind(1), strict=True)):
        paths = ending[:, : last + 1, :, None] + reached[:, :, None]  # [B, last+1, alternatives, ranks]
        beside = reached[:, -1:] + single[:, None, None]  # [B, 1, ranks]
        step = reduce(torch.cat((paths.flatten(1, 2), beside), 1), 1)  # [B, ranks]
        reached = torch.cat((reached, step[:, None]), 1)
    return reached
