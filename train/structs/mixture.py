"""Mixtures: several distributions over the same structures, of any families, as one."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from train.structs.base import Best, StructuredDistribution
from train.structs.reductions import check_k


class Mixture(StructuredDistribution):
    """p(y) = Σ_k w_k p_k(y): an ensemble of teachers, exact where it matters for distillation.

    Its marginals of any student's parts are the weighted sum of the components' own
    (``train.distill.projection.project``), so that it costs what distilling each component costs.

    Args:
        components: distributions over the same structures of the same sentences; their families may differ,
            as those of LinearChain, SpanSet and TokenSoftmax, whose structures are all label ids.
        weights: [K] or [B, K], each row not negative and of sum 1.

    It is normalised and has no part scores of its own: ``potentials`` is empty, ``log_partition`` is 0 and
    ``score`` is ``log_prob``. Marginals, which need a family's parts, come from ``project`` alone.

    >>> from train.structs import TokenSoftmax
    >>> one, other = (TokenSoftmax(torch.tensor([[[s, -s]]]), torch.tensor([1])) for s in (50.0, -50.0))
    >>> Mixture([one, other], torch.tensor([0.25, 0.75])).log_prob(torch.tensor([[0]])).exp()
    tensor([0.2500])
    """

    def __init__(self, components: Sequence[StructuredDistribution], weights: Tensor) -> None:
        if not components:
            raise ValueError("a mixture needs at least one component")
        self.components = tuple(components)
        self.lengths = self.components[0].lengths
        for i, component in enumerate(self.components):
            if not torch.equal(component.lengths, self.lengths):
                raise ValueError(
                    f"component {i} has sentences of lengths {component.lengths.tolist()}, "
                    f"component 0 of {self.lengths.tolist()}"
                )
        batch, k = len(self.lengths), len(self.components)
        if weights.shape not in ((k,), (batch, k)):
            raise ValueError(f"weights must be [{k}] or [{batch}, {k}], got {tuple(weights.shape)}")
        if bool((weights < 0).any()) or bool(((weights.sum(-1) - 1).abs() > 1e-4).any()):
            raise ValueError("weights must not be negative and must sum to 1")
        self.weights = weights

    @property
    def potentials(self) -> tuple[Tensor, ...]:
        return ()

    def with_potentials(self, potentials: Sequence[Tensor]) -> Self:
        return type(self)(self.components, self.weights)

    def tempered(self, temperature: float) -> Self:
        """The mixture of the tempered components, which is not the tempered mixture.

        Powers of a sum have no closed form; this keeps every projection exact, and softens as much.
        """
        return type(self)([c.tempered(temperature) for c in self.components], self.weights)

    def _log_partition(self) -> Tensor:
        """0, for a mixture of distributions is normalised: [B]."""
        dtypes = [theta.dtype for component in self.components for theta in component.potentials]
        dtype = functools.reduce(torch.promote_types, dtypes, self.weights.dtype)
        return torch.zeros(len(self.lengths), dtype=dtype, device=self.lengths.device)

    def log_count(self) -> Tensor:
        """Of the first component, as the components are over the same structures: [B]."""
        return self.components[0].log_count()

    def log_prob(self, structure: Any) -> Tensor:
        each = torch.stack([c.log_prob(structure) for c in self.components], -1)  # [B, K]
        return (each + self._log_weights()).logsumexp(-1)

    def score(self, structure: Any) -> Tensor:
        """log p(y): [B]."""
        return self.log_prob(structure)

    def argmax(self) -> Any:
        """The best under the mixture among the components' own best structures.

        Not the exact maximum, which is NP-hard to find, as a mixture does not factorise (so is the most
        probable string of a hidden Markov model, Lyngsø and Pedersen 2002): another structure, best for no
        component, may be more probable.
        """
        candidates = [c.argmax() for c in self.components]
        with torch.no_grad():
            scores = torch.stack([self.log_prob(y) for y in candidates], -1)  # [B, K]
        return _choose(candidates, scores.argmax(-1))

    def topk(self, k: int) -> Best:
        """The best under the mixture among the k best of every component, each structure once.

        Not the exact k best, for the same reason as ``argmax``.

        Raises:
            NotImplementedError: a component does not offer its k best.
        """
        check_k(k)
        with torch.no_grad():
            found = [c.topk(k) for c in self.components]
            candidates = [y for best in found for y in best.structures]  # K·k batches
            exists = torch.cat([best.scores > -math.inf for best in found], -1)  # [B, K·k]
            scores = torch.stack([self.log_prob(y) for y in candidates], -1)  # [B, K·k]
            flat = torch.stack([torch.cat(_tensors(y), -1) for y in candidates], 1)  # [B, K·k, F]
            same = (flat[:, :, None] == flat[:, None]).all(-1)  # [B, K·k, K·k]
            repeated = (same & exists[:, None]).tril(-1).any(-1)  # [B, K·k] as one before it
            scores = torch.where(exists & ~repeated, scores, -math.inf)
            best, which = scores.topk(k, -1)  # [B, k] each
        return Best(tuple(_choose(candidates, rank) for rank in which.unbind(-1)), best)

    def sample(self, generator: torch.Generator | None = None) -> Any:
        """A component drawn by its weight, and a structure drawn from it."""
        weights = self.weights.detach().expand(len(self.lengths), -1)  # [B, K]
        which = torch.multinomial(weights, 1, generator=generator)[:, 0]  # [B]
        return _choose([c.sample(generator) for c in self.components], which)

    def marginals(self) -> NoReturn:
        raise NotImplementedError(
            "a Mixture has no parts of its own; project(mixture, onto=Family) gives a family's marginals"
        )

    def expected_score(self, marginals: Any) -> NoReturn:
        raise NotImplementedError("a Mixture has no part scores of its own")

    def entropy(self) -> NoReturn:
        raise NotImplementedError(
            "the entropy of a Mixture has no closed form, so that kl from a Mixture has none; use "
            "cross_entropy, whose gradient for the student is the same"
        )

    def average(self, marginals: Sequence[Any]) -> Any:
        """Σ_k w_k μ_k of one set of marginals a component: a tensor, or a named tuple of tensors."""
        totals = [self._weighted(parts) for parts in zip(*map(_tensors, marginals), strict=True)]
        return _like(marginals[0], totals)

    def _weighted(self, parts: Sequence[Tensor]) -> Tensor:
        weights = self.weights.expand(len(self.lengths), -1).to(parts[0])  # [B, K]
        total = torch.zeros_like(parts[0])
        for weight, part in zip(weights.unbind(-1), parts, strict=True):
            total = total + weight.view(-1, *[1] * (part.dim() - 1)) * part
        return total

    def _log_weights(self) -> Tensor:
        positive = self.weights.clamp_min(torch.finfo(self.weights.dtype).tiny)
        return torch.where(self.weights > 0, positive.log(), -math.inf)  # [K] or [B, K]


def _tensors(value: Any) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def _like(value: Any, tensors: Sequence[Tensor]) -> Any:
    """The tensors in the named tuple that a value is, or the single one if it is a tensor."""
    return type(value)(*tensors) if isinstance(value, tuple) else tensors[0]


def _choose(structures: Sequence[Any], which: Tensor) -> Any:
    """One of several structures for each sentence: m batches and [B] -> one batch."""
    sentence = torch.arange(len(which), device=which.device)
    columns = zip(*map(_tensors, structures), strict=True)
    return _like(structures[0], [torch.stack(column)[which, sentence] for column in columns])
