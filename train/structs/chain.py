"""Linear-chain conditional random fields."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from train.structs.base import (
    FORBIDDEN,
    Best,
    StructuredDistribution,
    check_lengths,
    divide_by_temperature,
    token_mask,
)
from train.structs.reductions import check_k, without_forbidden

SCALE_EVERY = 8
"""Positions between two scalings of the forward recursion: float64 has the range for several."""
TOO_SMALL = 1e-200
"""A mass below this leaves too little of float64's range to the labels that are less probable still."""


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
    in probability space, one matrix product a position (Rabiner 1989, scaling), in float64; where scores
    differ by more than its range (hundreds of nats over SCALE_EVERY positions) it falls back to log space.

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
        self._latest: _Forward | None = None

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

    def _log_partition(self) -> Tensor:
        forward = _forward_scaled(self.unary, self.transitions, self.lengths)
        if forward is None:
            return _forward_log(self.unary, self.transitions, self.lengths)
        # Losses that ask for marginals as well need not go forward twice.
        self._latest = forward if self.unary.requires_grad and forward.total.requires_grad else None
        return forward.total

    def _gradient(self) -> tuple[Tensor, ...]:
        # A table enters A through a step only, so the gradient with respect to a position's own table is
        # mass ⊗ (gradient of the step) · table: autograd needs not hold n−1 tables.
        differentiable = torch.is_grad_enabled() and (
            self.unary.requires_grad or self.transitions.requires_grad
        )
        found = self._latest and _gradients(self._latest, self.unary, differentiable)
        if found:
            forward, (tokens, *steps) = self._latest, found
        else:
            unary, transitions = self.unary, self.transitions
            if not differentiable:
                unary, transitions = unary.detach(), transitions.detach()
            if not unary.requires_grad:
                unary = unary.detach().requires_grad_()
            with torch.enable_grad():
                forward = _forward_scaled(unary, transitions, self.lengths)
            if forward is None or bool((forward.total.detach() <= FORBIDDEN / 2).any()):
                return super()._gradient()  # in log space, and with the check for what is impossible
            found = _gradients(forward, unary, differentiable)
            assert found is not None
            tokens, *steps = found
        assert forward is not None
        unary = self.unary
        batch, length, labels = unary.shape
        if length == 1:
            return tokens, tokens.new_zeros(batch, 0, labels, labels)
        with torch.set_grad_enabled(differentiable):
            mass = torch.stack(forward.masses[:-1], 1)  # [B, n-1, L]
            return tokens, _pair_marginals(mass, forward.tables, torch.stack(steps, 1), unary.dtype)

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

    def topk(self, k: int) -> Best:
        """k-best Viterbi, exact, in O(n k L²): k batches of label ids [B, n], 0 in the padding."""
        check_k(k)
        unary = without_forbidden(self.unary.detach())  # [B, n, L]
        tables = _tables(without_forbidden(self.transitions.detach()), unary.shape[1])
        batch, tokens, labels = unary.shape
        # A state is a label and a rank among the paths to it, numbered label · k + rank.
        best = unary.new_full((batch, labels, k), -math.inf)  # [B, L, k]
        best[..., 0] = unary[:, 0]
        stay = torch.arange(labels * k, device=unary.device).expand(batch, labels * k)  # [B, L·k]
        pointers = []
        for i in range(1, tokens):
            paths = (best[..., None] + tables[i - 1][..., :, None, :]).flatten(1, 2)  # [B, L·k, L]
            reached, pointer = paths.transpose(1, 2).topk(k, -1)  # [B, L, k] each
            inside = self.mask[:, i, None]  # [B, 1]
            best = torch.where(inside[..., None], reached + unary[:, i, :, None], best)
            pointers.append(torch.where(inside, pointer.flatten(1), stay))
        scores, state = best.flatten(1).topk(k, -1)  # [B, k] each
        path = [state // k]
        for pointer in reversed(pointers):
            state = pointer.gather(1, state)  # [B, k]
            path.append(state // k)
        labelled = torch.where(self.mask[:, None], torch.stack(path[::-1], -1), 0)  # [B, k, n]
        return Best(labelled.unbind(1), scores)

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


class _Forward(NamedTuple):
    """The forward recursion in probability space: ``mass`` ← (``mass`` @ table) · weight at each position."""

    total: Tensor  # [B] A
    tables: Tensor  # [L, L] or [B, n-1, L, L] exp of the transitions, up to a constant
    masses: list[Tensor]  # n × [B, L] of all paths to a label, up to a constant for each position
    steps: list[Tensor]  # (n-1) × [B, L] the same without the label's own weight


def _forward_scaled(unary: Tensor, transitions: Tensor, lengths: Tensor) -> _Forward | None:
    """A by the scaled forward recursion in float64; None where it comes too near the end of its range."""
    tokens = unary.shape[1]
    mask = token_mask(lengths, tokens)  # [B, n]
    dtype = unary.dtype
    unary, transitions = unary.double(), transitions.double()
    # Shifts and scales are constants to autograd: they cancel in the value, so they must in the gradient too.
    shift = unary.detach().amax(-1)  # [B, n]
    weights = ((unary - shift[..., None]).exp() * mask[..., None]).unbind(1)  # n × [B, L], 0 in the padding
    top = transitions.detach().amax() if transitions.numel() else transitions.new_zeros(())
    tables = (transitions - top).exp()  # [L, L] or [B, n-1, L, L]
    masses, steps, scales = [weights[0]], [], []
    for i, table in enumerate(_tables(tables, tokens), start=1):
        mass = masses[-1]
        step = mass @ table if table.dim() == 2 else torch.bmm(mass[:, None], table)[:, 0]  # [B, L]
        mass = step * weights[i]
        if i % SCALE_EVERY == 0:
            scale = mass.detach().amax(-1, keepdim=True)  # [B, 1]
            mass = mass / scale.clamp_min(TOO_SMALL)
            scales.append(scale)
        steps.append(step)
        masses.append(mass)
    shortest = int(lengths.min())
    ends = torch.stack([mass.sum(-1) for mass in masses[shortest - 1 :]], 1)  # [B, n-shortest+1]
    end = ends.gather(1, (lengths - shortest)[:, None])  # [B, 1]
    scaled = torch.cat([mask[:, :1], mask[:, SCALE_EVERY::SCALE_EVERY]], 1)  # [B, 1 + n/SCALE_EVERY]
    factors = torch.where(scaled, torch.cat([end, *scales], 1), 1.0)
    if bool((factors < TOO_SMALL).any()):
        return None
    shifts = torch.where(mask, shift, 0.0).sum(1) + (lengths - 1) * top  # [B]
    return _Forward((factors.log().sum(1) + shifts).to(dtype), tables, masses, steps)


def _gradients(forward: _Forward, unary: Tensor, differentiable: bool) -> tuple[Tensor, ...] | None:
    """∇A with respect to the emissions and to each step; None where a backward pass has freed the graph."""
    try:
        return torch.autograd.grad(
            forward.total,
            [unary, *forward.steps],
            grad_outputs=torch.ones_like(forward.total),
            create_graph=differentiable,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        return None


def _pair_marginals(mass: Tensor, tables: Tensor, steps: Tensor, dtype: torch.dtype) -> Tensor:
    """mass ⊗ steps · tables, of n−1 positions: [B, n−1, L, L].

    Args:
        mass: [B, n−1, L] before a table.
        tables: [L, L] or [B, n−1, L, L], at most 1.
        steps: [B, n−1, L] gradient of A with respect to the mass after the table.
    """
    size = mass.detach().amax(-1, keepdim=True).clamp_min(TOO_SMALL)  # [B, n-1, 1]
    mass, steps = mass / size, steps * size
    # The largest tensors of all: in float64 only where a float32 underflow could be seen (1e-13).
    if bool(steps.detach().amax() < 1e25):
        mass, tables, steps = mass.to(dtype), tables.to(dtype), steps.to(dtype)
    pairs = steps[:, :, None] * tables  # [B, n-1, L, L]
    return torch.mul(pairs, mass[..., None], out=None if pairs.requires_grad else pairs).to(dtype)


def _forward_log(unary: Tensor, transitions: Tensor, lengths: Tensor) -> Tensor:
    """A by the forward recursion in log space, in float64 too: [B]."""
    emissions, inside = unary.double().unbind(1), token_mask(lengths, unary.shape[1]).unbind(1)
    mass = emissions[0]  # [B, L] the log of the mass of all paths to each label, kept in the padding
    for i, table in enumerate(_tables(transitions.double(), unary.shape[1]), start=1):
        step = (mass[:, :, None] + table).logsumexp(1) + emissions[i]  # [B, L]
        mass = torch.where(inside[i][:, None], step, mass)
    return mass.logsumexp(-1).to(unary.dtype)
