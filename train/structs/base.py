"""What every family of structured distributions has in common.

A distribution over structures ``y`` is given by scores ``θ_u`` of parts ``u``:
``p(y) = exp(Σ_{u∈y} θ_u − A(θ))`` with the log-partition ``A``. Everything else follows from ``A``:
marginals are its gradient, the entropy is ``A − ⟨μ, θ⟩``, and the distillation loss of a student against
a teacher's marginals is ``A_s − ⟨μ_t, θ_s⟩`` (Wang et al. 2021, Eq. 3).
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

FORBIDDEN = -1e4
"""The score of a forbidden part: finite, so that a marginal of zero times it is zero and not NaN."""


class Best(NamedTuple):
    """The k most probable structures of each sentence, best first."""

    structures: tuple[Any, ...]  # k batches of structures
    scores: Tensor  # [B, k] their scores; −inf where a sentence has fewer than k structures

    def weights(self, *, by_probability: bool) -> Tensor:
        """What each structure counts, of sum 1 a sentence: by its probability, or all the same: [B, k]."""
        if by_probability:
            return self.scores.softmax(1)
        exists = torch.isfinite(self.scores)
        return exists / exists.sum(1, keepdim=True)


class StructuredDistribution(ABC):
    """A batch of distributions over structures, one for each sentence.

    Args:
        lengths: [B] tokens of each sentence, at least 1.

    A family says how to sum over its structures; the rest is shared. One with several kinds of parts, or with
    none of its own, says what its ``potentials`` are.
    """

    scores: Tensor  # [B, …] of the parts, where all are of one kind
    lengths: Tensor  # [B] int64
    _kept: dict[str, Tensor] | None = None  # sums that several losses share; None keeps nothing

    def kept(self) -> Self:
        """The same distribution, whose log-partition is computed once for all that ask for it.

        For several losses of one backward pass: what is kept can not be differentiated a second time.
        """
        same = copy.copy(self)
        same._kept = {}
        return same

    @property
    def potentials(self) -> tuple[Tensor, ...]:
        """The part scores θ, as tensors whose first dimension is the sentence."""
        return (self.scores,)

    def with_potentials(self, potentials: Sequence[Tensor]) -> Self:
        """The same structures under other part scores."""
        return type(self)(*potentials, self.lengths)  # type: ignore[call-arg]

    @abstractmethod
    def _log_partition(self) -> Tensor:
        """A(θ) of each sentence: [B]."""

    def log_partition(self) -> Tensor:
        """A(θ), the log of the sum over all structures: [B].

        Raises:
            ValueError: every structure of a sentence is forbidden; says of which.
        """
        kept = self._kept
        if kept is not None and "total" in kept:
            return kept["total"]
        total = self._log_partition()
        if kept is not None:
            kept["total"] = total
        # Counting costs a second pass, so it is done only where the sum is as low as a forbidden structure.
        if bool((total.detach() <= FORBIDDEN / 2).any()):
            with torch.no_grad():
                impossible = (self.log_count() <= FORBIDDEN / 2).nonzero().flatten()
            if len(impossible):
                raise ValueError(f"sentence {int(impossible[0])}: every structure is forbidden")
        return total

    @abstractmethod
    def argmax(self) -> Any:
        """The most probable structure of each sentence."""

    def sample(self, generator: torch.Generator | None = None) -> Any:
        """One structure a sentence, drawn with its probability, in float64: as many passes as tokens.

        A token's parts, which exclude each other, are its row of the first potential [B, n, …]. One is drawn
        by their marginals given the parts of the tokens before; it may be none, as in a ``SpanSet``.
        """
        theta, *others = (t.detach().double() for t in self.potentials)  # [B, n, …]
        theta = theta.clone()
        for i in range(theta.shape[1]):
            marginals = self.with_potentials([theta, *others])._gradient()[0]  # [B, n, …]
            parts = marginals[:, i].flatten(1).clamp_min(0)  # [B, m]
            none = 1 - parts.sum(1, keepdim=True)  # [B, 1]
            none = torch.where(none > 1e-9, none, 0)  # below it is rounding
            chosen = torch.multinomial(torch.cat([parts, none], 1), 1, generator=generator)  # [B, 1]
            taken = torch.arange(parts.shape[1], device=parts.device) == chosen  # [B, m]
            theta[:, i] = torch.where(taken, -FORBIDDEN, FORBIDDEN).view_as(theta[:, i])
        return self.with_potentials([theta, *others]).argmax()

    def topk(self, k: int) -> Best:
        """The k most probable structures of each sentence."""
        raise NotImplementedError(
            f"the k best structures of a {type(self).__name__} are not offered; use sample(), or argmax()"
        )

    @abstractmethod
    def score(self, structure: Any) -> Tensor:
        """Σ_{u∈y} θ_u of one structure a sentence: [B]."""

    def marginals(self) -> Any:
        """μ_u = P(u ∈ y), in the shapes of the scores; zero in the padding.

        Computed as ∇A(θ) by automatic differentiation. Differentiable itself where the scores require a
        gradient and gradients are enabled.
        """
        return self._pack(self._gradient())

    def expected_score(self, marginals: Any) -> Tensor:
        """⟨μ, θ⟩ for marginals of this family's parts: [B]."""
        total = torch.zeros_like(self.lengths, dtype=self.potentials[0].dtype)
        for weight, theta in zip(self._unpack(marginals), self.potentials, strict=True):
            total = total + (weight * theta).flatten(1).sum(1)  # [B]
        return total

    def log_prob(self, structure: Any) -> Tensor:
        """log p(y) of one structure a sentence: [B]."""
        return self.score(structure) - self.log_partition()

    def entropy(self) -> Tensor:
        """H(p) = A(θ) − ⟨μ, θ⟩, in nats: [B]."""
        return self.log_partition() - self.expected_score(self.marginals())

    def tempered(self, temperature: float) -> Self:
        """The distribution with every potential divided by the temperature.

        Dividing potentials (not marginals) keeps the marginals consistent with one another. What is
        forbidden stays forbidden at any temperature.

        Raises:
            ValueError: the temperature is not positive.
        """
        return self.with_potentials([divide_by_temperature(theta, temperature) for theta in self.potentials])

    def log_count(self) -> Tensor:
        """The log of the number of structures that are not forbidden, A at zero scores: [B]."""
        return self.with_potentials(
            [torch.where(theta <= FORBIDDEN / 2, FORBIDDEN, 0.0).to(theta.dtype) for theta in self.potentials]
        )._log_partition()

    def _pack(self, gradients: tuple[Tensor, ...]) -> Any:
        """Marginals as the caller sees them; a family with one kind of part needs no more than this."""
        (marginals,) = gradients
        return marginals

    def _unpack(self, marginals: Any) -> Sequence[Tensor]:
        """The marginals in the order and shapes of ``potentials``."""
        return (marginals,)

    def _gradient(self) -> tuple[Tensor, ...]:
        differentiable = torch.is_grad_enabled() and any(theta.requires_grad for theta in self.potentials)
        with torch.enable_grad():
            if differentiable:
                theta = [t if t.requires_grad else t.detach().requires_grad_() for t in self.potentials]
            else:
                theta = [t.detach().requires_grad_() for t in self.potentials]
            total = self.with_potentials(theta).log_partition().sum()
            return torch.autograd.grad(
                total, theta, create_graph=differentiable, allow_unused=True, materialize_grads=True
            )


def divide_by_temperature(theta: Tensor, temperature: float) -> Tensor:
    """θ / T, with forbidden parts left as they are."""
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    return torch.where(theta <= FORBIDDEN / 2, theta, theta / temperature)


def check_lengths(lengths: Tensor, batch: int, tokens: int) -> Tensor:
    """Lengths as int64 [B], or an error that says which sentence does not fit the scores."""
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must have shape [{batch}] like the scores, got {tuple(lengths.shape)}")
    lengths = lengths.to(torch.int64)
    wrong = ((lengths < 1) | (lengths > tokens)).nonzero().flatten()
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"lengths must lie in 1..{tokens}, the scores' tokens; sentence {i} has {int(lengths[i])}"
        )
    return lengths


def token_mask(lengths: Tensor, tokens: int) -> Tensor:
    """True on real tokens, False on padding: [B, n]."""
    return torch.arange(tokens, device=lengths.device) < lengths[:, None]
