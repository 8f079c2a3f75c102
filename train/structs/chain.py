"""Linear-chain conditional random fields."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from train.structs.base import StructuredDistribution, check_lengths, divide_by_temperature, token_mask


class ChainStatistics(NamedTuple):
    """Sufficient statistics of a chain whose transitions do not depend on the position.

    They give the same loss and the same gradient as all n−1 pair tables at a fraction of the bytes.
    """

    tokens: Tensor  # [B, n, L] P(y_i = l)
    transitions: Tensor  # [B, L, L] expected number of transitions from k to l


class ChainMarginals(NamedTuple):
    """Probabilities of a chain's parts (paper Eq. 4 and 7)."""

    tokens: Tensor  # [B, n, L] P(y_i = l)
    pairs: Tensor  # [B, n-1, L, L] P(y_i = k, y_{i+1} = l)

    def statistics(self) -> ChainStatistics:
        """What a student with one shared transition table needs of them."""
        return ChainStatistics(self.tokens, self.pairs.sum(1))


class LinearChain(StructuredDistribution):
    """p(y) ∝ exp(start[y_1] + Σ_i emissions_i[y_i] + Σ_i transitions[y_i, y_{i+1}] + end[y_n]).

    Args:
        emissions: [B, n, L].
        transitions: [L, L] from row to column; or one table a sentence and position, [B, n−1, L, L].
        start, end: [L] scores of the first and of the last label.
        lengths: [B] tokens of each sentence.

    Structures are label ids [B, n]; marginals are ``ChainMarginals``. Inference costs O(n L²): a forward pass
    in probability space, one matrix product a position (Rabiner 1989, scaling), in float64, which covers
    score differences of up to 700 nats within a position; beyond them it falls back to log space.

    >>> chain = LinearChain(torch.zeros(1, 4, 3), torch.zeros(3, 3), torch.zeros(3), torch.zeros(3),
    ...                     torch.tensor([4]))
    >>> chain.log_count().exp().round()
    tensor([81.])
    """

    def __init__(self, emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, lengths: Tensor):
        if emissions.dim() != 3:
            raise ValueError(f"emissions must be [sentences, tokens, labels], got {tuple(emissions.shape)}")
        batch, tokens, labels = emissions.shape
        if transitions.shape not in ((labels, labels), (batch, tokens - 1, labels, labels)):
            raise ValueError(
                f"transitions must be [{labels}, {labels}] or [{batch}, {tokens - 1}, {labels}, {labels}], "
                f"got {tuple(transitions.shape)}"
            )
        if start.shape != (labels,) or end.shape != (labels,):
            raise ValueError(
                f"start and end must be [{labels}], got {tuple(start.shape)}, {tuple(end.shape)}"
            )
        if emissions.dtype != torch.float64:
            emissions, transitions, start, end = (t.float() for t in (emissions, transitions, start, end))
        lengths = check_lengths(lengths, batch, tokens)
        # Scores of the first and the last label are part of those positions' emissions from here on.
        position = torch.arange(tokens, device=emissions.device)
        first = (position == 0)[None, :, None]  # [1, n, 1]
        last = (position == lengths[:, None] - 1)[..., None]  # [B, n, 1]
        self._absorb(emissions + first * start + last * end, transitions, lengths)

    def _absorb(self, unary: Tensor, transitions: Tensor, lengths: Tensor) -> None:
        self.unary = unary  # [B, n, L]
        self.transitions = transitions  # [L, L] or [B, n-1, L, L]
        self.lengths = lengths
        self.mask = token_mask(lengths, unary.shape[1])  # [B, n]

    def _like(self, unary: Tensor, transitions: Tensor) -> Self:
        chain = object.__new__(type(self))
        chain._absorb(unary, transitions, self.lengths)
        return chain

    @property
    def potentials(self) -> tuple[Tensor, ...]:
        """Emissions with start and end [B, n, L], and a table a pair of positions [B, n−1, L, L]."""
        return self.unary, self._pairs()

    def with_potentials(self, potentials: Sequence[Tensor]) -> Self:
        unary, pairs = potentials
        return self._like(unary, pairs)

    def tempered(self, temperature: float) -> Self:
        # One shared table stays one shared table: it is what makes the statistics below sufficient.
        return self._like(
            divide_by_temperature(self.unary, temperature),
            divide_by_temperature(self.transitions, temperature),
        )

    def expected_score(self, marginals: ChainMarginals | ChainStatistics) -> Tensor:
        unary = (marginals.tokens * self.unary).sum((1, 2))  # [B]
        if isinstance(marginals, ChainStatistics):
            if self.transitions.dim() != 2:
                raise ValueError(
                    "expected transition counts suffice only for a chain with one shared [L, L] table; "
                    "pass ChainMarginals for tables that depend on the position"
                )
            return unary + (marginals.transitions * self.transitions).sum((1, 2))
        return unary + (marginals.pairs * self._pairs()).sum((1, 2, 3))

    def log_partition(self) -> Tensor:
        scaled = _forward_scaled(self.unary, self.transitions, self.lengths)  # [B]
        if bool(torch.isfinite(scaled).all()):
            return scaled
        return _forward_log(self.unary, self.transitions, self.lengths)

    def argmax(self) -> Tensor:
        """The Viterbi path: [B, n] label ids, 0 in the padding."""
        batch, tokens, labels = self.unary.shape
        tables = _tables(self.transitions, tokens)
        best = self.unary[:, 0]  # [B, L]
        pointers = []
        for i in range(1, tokens):
            reached, pointer = (best[:, :, None] + tables[i - 1]).max(1)  # [B, L] each
            inside = self.mask[:, i, None]  # [B, 1]
            best = torch.where(inside, reached + self.unary[:, i], best)
            # Behind the end a path stays where it is, so that backtracking from the last column works.
            stay = torch.arange(labels, device=best.device).expand(batch, labels)
            pointers.append(torch.where(inside, pointer, stay))
        label = best.argmax(-1)  # [B]
        path = [label]
        for pointer in reversed(pointers):
            label = pointer.gather(1, label[:, None]).squeeze(1)
            path.append(label)
        return torch.where(self.mask, torch.stack(path[::-1], 1), 0)  # [B, n]

    def score(self, structure: Tensor) -> Tensor:
        labels = torch.where(self.mask, structure, 0)  # [B, n]
        unary = self.unary.gather(-1, labels[..., None]).squeeze(-1)  # [B, n]
        total = torch.where(self.mask, unary, 0.0).sum(1)
        if self.unary.shape[1] == 1:
            return total
        previous, following = labels[:, :-1], labels[:, 1:]  # [B, n-1]
        if self.transitions.dim() == 2:
            pairs = self.transitions[previous, following]  # [B, n-1]
        else:
            rows = self._pairs().gather(2, previous[..., None, None].expand(-1, -1, 1, self.unary.shape[2]))
            pairs = rows.squeeze(2).gather(-1, following[..., None]).squeeze(-1)  # [B, n-1]
        return total + torch.where(self.mask[:, 1:], pairs, 0.0).sum(1)

    def _pairs(self) -> Tensor:
        batch, tokens, labels = self.unary.shape
        return self.transitions.expand(batch, tokens - 1, labels, labels)  # [B, n-1, L, L]

    def _pack(self, gradients: tuple[Tensor, ...]) -> ChainMarginals:
        return ChainMarginals(*gradients)

    def _unpack(self, marginals: ChainMarginals) -> Sequence[Tensor]:
        return marginals


def _tables(transitions: Tensor, tokens: int) -> Sequence[Tensor]:
    """The tables between neighbouring positions, each broadcastable to [B, L, L].

    Unbound at once: the backward pass of an index would fill a tensor of the whole chain at every position.
    """
    if transitions.dim() == 2:
        return [transitions] * (tokens - 1)
    return transitions.unbind(1)


def _forward_scaled(unary: Tensor, transitions: Tensor, lengths: Tensor) -> Tensor:
    """A by the scaled forward recursion; −inf where a position's whole mass underflows: [B]."""
    tokens = unary.shape[1]
    mask = token_mask(lengths, tokens)  # [B, n]
    dtype = unary.dtype
    unary, transitions = unary.double(), transitions.double()
    # The shifts are constants to autograd: they cancel in the value, so they must in the gradient too.
    shift = unary.detach().amax(-1)  # [B, n]
    weights = (unary - shift[..., None]).exp().unbind(1)  # n × [B, L]
    top = transitions.detach().amax() if transitions.numel() else transitions.new_zeros(())
    tables = _tables((transitions - top).exp(), tokens)  # (n-1) × [L, L] or [B, L, L]
    inside = mask.unbind(1)  # n × [B]
    mass = weights[0]  # [B, L]
    scales = []
    for i in range(tokens):
        if i:
            table = tables[i - 1]
            step = mass @ table if table.dim() == 2 else torch.bmm(mass[:, None], table)[:, 0]  # [B, L]
            mass = torch.where(inside[i][:, None], step * weights[i], mass)
        scale = mass.sum(-1, keepdim=True)  # [B, 1]
        mass = mass / scale
        scales.append(scale)
    shifts = torch.where(mask, shift, 0.0).sum(1) + (lengths - 1) * top  # [B]
    return (torch.cat(scales, 1).log().sum(1) + shifts).to(dtype)


def _forward_log(unary: Tensor, transitions: Tensor, lengths: Tensor) -> Tensor:
    """A by the forward recursion in log space: [B]."""
    emissions, inside = unary.unbind(1), token_mask(lengths, unary.shape[1]).unbind(1)
    mass = emissions[0]  # [B, L]
    for i, table in enumerate(_tables(transitions, unary.shape[1]), start=1):
        step = (mass[:, :, None] + table).logsumexp(1) + emissions[i]  # [B, L]
        mass = torch.where(inside[i][:, None], step, mass)
    return mass.logsumexp(-1)
