"""Second-order head selection: pairs of arcs that share a token, by mean-field inference."""

from typing import Self

import torch
from torch import Tensor

from train.structs.base import FORBIDDEN, divide_by_temperature
from train.structs.heads import HeadSelection


class SecondOrderHeads(HeadSelection):
    """The mean-field approximation of a second-order head selection (Wang and Tu 2020; paper, case 2b).

    Each token i takes one head h_i and one relation r_i, and pairs of arcs are scored too:

        p(y) ∝ exp( Σ_i s(i, h_i, r_i) + Σ_{i<k} sib(i, k, h) [h_i = h_k = h]
                    + Σ_{i,j} gp(i, j, h_j) [h_i = j] )

    This p is intractable. The distribution here is the product q = Π_i q_i found by ``iterations`` rounds of
    mean-field updates of all tokens at once, from q_i = softmax(s_i):

        q_i(h, r) ∝ exp( s(i, h, r) + Σ_k sib(i, k, h) q_k(h)
                         + Σ_g gp(i, h, g) q_h(g) + Σ_d gp(d, i, h) q_d(i) )

    So ``scores`` are these exponents, and all that a ``HeadSelection`` offers is exact for q, ``potentials``
    included: ``with_potentials`` gives a product of independent tokens. Each round costs O(n³); gradients go
    through all rounds, as in the end-to-end training of Wang and Tu.

    Args:
        scores, lengths, arcs, relations: the first-order part s, as of ``HeadSelection``.
        siblings: [B, n, n, n+1] score of two dependents i < k with the same head (0 the root). Entries with
            i ≥ k are not read: each pair counts once.
        grandparents: [B, n, n, n+1] score of a dependent i with head j, a token, that has the head g (0 the
            root). Entries where g is i or j are not read.
        iterations: rounds of updates; with 0 of them, or without second-order parts, this is a
            ``HeadSelection`` over s.

    >>> arcs, relations, lengths = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, 1), torch.tensor([2])
    >>> siblings = torch.zeros(1, 2, 2, 3)
    >>> siblings[0, 0, 1, 0] = 4.0  # both tokens under the root
    >>> heads = SecondOrderHeads(arcs=arcs, relations=relations, lengths=lengths, siblings=siblings)
    >>> bool((heads.marginals()[0, :, 0, 0] > 0.9).all())
    True
    """

    def __init__(
        self,
        *scores_and_lengths: Tensor,
        siblings: Tensor | None = None,
        grandparents: Tensor | None = None,
        iterations: int = 3,
        **first_order: Tensor,
    ) -> None:
        super().__init__(*scores_and_lengths, **first_order)
        if iterations < 0:
            raise ValueError(f"iterations must not be negative, got {iterations}")
        batch, n = self.mask.shape
        for name, parts in (("siblings", siblings), ("grandparents", grandparents)):
            if parts is not None and parts.shape != (batch, n, n, n + 1):
                raise ValueError(f"{name} must be {[batch, n, n, n + 1]}, got {list(parts.shape)}")
        self.iterations = iterations
        self.first_order = self.scores  # [B, n, n+1, R]
        self.siblings = None if siblings is None else self._each_pair_once(siblings)
        self.grandparents = None if grandparents is None else self._without_cycles(grandparents)
        if siblings is None and grandparents is None:
            return
        arcs = self.first_order.logsumexp(-1)  # [B, n, n+1]
        message = torch.zeros_like(arcs)
        for _ in range(iterations):
            message = self._messages(self._heads(arcs + message))
        # What is forbidden keeps its score, so that tempering knows it.
        free = self.first_order > FORBIDDEN / 2
        self.scores = torch.where(free, self.first_order + message[..., None], self.first_order)

    def tempered(self, temperature: float) -> Self:
        """Mean-field inference in p with every potential, of whatever order, divided by the temperature."""
        heads = type(self)(
            divide_by_temperature(self.first_order, temperature),
            self.lengths,
            siblings=None if self.siblings is None else divide_by_temperature(self.siblings, temperature),
            grandparents=(
                None if self.grandparents is None else divide_by_temperature(self.grandparents, temperature)
            ),
            iterations=self.iterations,
        )
        heads.mask = self.mask
        return heads

    def _messages(self, heads: Tensor) -> Tensor:
        """The expected score of the pairs that each arc would be part of: [B, n, n+1] from q's heads."""
        message = torch.zeros_like(heads)
        # In the precision of the scores also under autocast, which teachers may run in.
        with torch.autocast(heads.device.type, enabled=False):
            if self.siblings is not None:
                message = message + torch.einsum("bikh,bkh->bih", self.siblings, heads)
                message = message + torch.einsum("bikh,bih->bkh", self.siblings, heads)
            if self.grandparents is not None:
                below = torch.einsum("bijg,bjg->bij", self.grandparents, heads)  # [B, n, n] of the arc j -> i
                message = message + torch.nn.functional.pad(below, (1, 0))
                message = message + torch.einsum("bijg,bij->bjg", self.grandparents, heads[..., 1:])
        return message

    def _heads(self, arcs: Tensor) -> Tensor:
        """q_i(h), zero where it is not allowed and in the padding: [B, n, n+1]."""
        return arcs.masked_fill(~self.allowed, FORBIDDEN).softmax(-1).masked_fill(~self.allowed, 0.0)

    def _each_pair_once(self, siblings: Tensor) -> Tensor:
        n = siblings.shape[1]
        ordered = torch.ones(n, n, dtype=torch.bool, device=siblings.device).triu(1)[..., None]  # [n, n, 1]
        return torch.where(ordered, siblings, 0.0).to(self.first_order.dtype)

    def _without_cycles(self, grandparents: Tensor) -> Tensor:
        n = grandparents.shape[1]
        own = torch.eye(n, n + 1, dtype=torch.bool, device=grandparents.device).roll(1, 1)  # [n, n+1]
        return torch.where(own[:, None] | own, 0.0, grandparents).to(self.first_order.dtype)
