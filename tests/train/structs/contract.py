"""What every family of structured distributions promises; each family's test class inherits it."""

import itertools
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import pytest
import torch
from torch import Tensor

from train.structs import StructuredDistribution

TEMPERATURES = (0.5, 1.0, 2.0, 4.0)


D = TypeVar("D", bound=StructuredDistribution)


class FamilyContract(Generic[D]):
    """Inherit, and say how to build a distribution and how to list its structures."""

    lengths = (4, 1, 3)

    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> D:
        """A distribution with random float64 scores over sentences of these lengths."""
        raise NotImplementedError

    def structures(self, distribution: D, sentence: int) -> Iterator[Any]:
        """All structures of one sentence, each as a batch in which the other sentences have any structure."""
        raise NotImplementedError

    def alone(self, distribution: D, sentence: int) -> D:
        """One sentence of the batch by itself, without padding."""
        raise NotImplementedError

    def closed_form_count(self, length: int) -> float:
        """The number of structures of a sentence."""
        raise NotImplementedError

    def part_marginals(self, marginals: Any) -> list[Tensor]:
        """Marginals as a list of tensors in the order of the potentials."""
        return list(marginals) if isinstance(marginals, tuple) else [marginals]

    def scores_of_all(self, distribution: D, sentence: int) -> Tensor:
        return torch.stack([distribution.score(y)[sentence] for y in self.structures(distribution, sentence)])

    def test_the_log_partition_sums_over_every_structure(self) -> None:
        distribution = self.build(self.lengths)
        for i in range(len(self.lengths)):
            expected = self.scores_of_all(distribution, i).logsumexp(0)
            torch.testing.assert_close(distribution.log_partition()[i], expected)

    def test_the_probabilities_of_all_structures_sum_to_one(self) -> None:
        distribution = self.build(self.lengths)
        for i in range(len(self.lengths)):
            total = sum(distribution.log_prob(y)[i].exp() for y in self.structures(distribution, i))
            torch.testing.assert_close(total, torch.tensor(1.0, dtype=torch.float64))

    def test_the_entropy_is_that_of_the_enumeration(self) -> None:
        distribution = self.build(self.lengths)
        for i in range(len(self.lengths)):
            log_probs = self.scores_of_all(distribution, i).log_softmax(0)
            torch.testing.assert_close(distribution.entropy()[i], -(log_probs.exp() * log_probs).sum())

    def test_the_argmax_is_the_best_structure(self) -> None:
        distribution = self.build(self.lengths)
        best = distribution.score(distribution.argmax())
        for i in range(len(self.lengths)):
            torch.testing.assert_close(best[i], self.scores_of_all(distribution, i).max())

    def test_the_count_of_structures_is_the_closed_form(self) -> None:
        lengths = (1, 2, 5, 6)
        counts = self.build(lengths).log_count().exp()
        expected = torch.tensor([self.closed_form_count(n) for n in lengths], dtype=counts.dtype)
        torch.testing.assert_close(counts, expected, rtol=1e-6, atol=1e-6)

    def test_marginals_are_the_finite_differences_of_the_log_partition(self) -> None:
        distribution = self.build((2, 1))
        marginals = self.part_marginals(distribution.marginals())
        step = 1e-5
        for which, theta in enumerate(distribution.potentials):
            for index in itertools.product(*(range(size) for size in theta.shape)):
                moved = []
                for sign in (1, -1):
                    potentials = [t.clone() for t in distribution.potentials]
                    potentials[which][index] += sign * step
                    moved.append(distribution.with_potentials(potentials).log_partition().sum())
                slope = (moved[0] - moved[1]) / (2 * step)
                assert abs(float(slope - marginals[which][index])) < 1e-6

    def test_the_gradient_of_the_entropy_is_its_finite_difference(self) -> None:
        distribution = self.build((2, 1))
        theta = [t.clone().requires_grad_() for t in distribution.potentials]
        distribution.with_potentials(theta).entropy().sum().backward()
        step = 1e-5
        direction = [torch.randn(t.shape, generator=torch.Generator().manual_seed(3)).to(t) for t in theta]
        moved = [
            distribution.with_potentials(
                [t.detach() + sign * step * d for t, d in zip(theta, direction, strict=True)]
            )
            .entropy()
            .sum()
            for sign in (1, -1)
        ]
        slope = (moved[0] - moved[1]) / (2 * step)
        along = sum((t.grad * d).sum() for t, d in zip(theta, direction, strict=True) if t.grad is not None)
        torch.testing.assert_close(along, slope, rtol=1e-5, atol=1e-6)

    def test_a_sentence_alone_gives_what_it_gives_in_a_batch(self) -> None:
        distribution = self.build(self.lengths)
        for i in range(len(self.lengths)):
            alone = self.alone(distribution, i)
            torch.testing.assert_close(alone.log_partition()[0], distribution.log_partition()[i])
            torch.testing.assert_close(alone.entropy()[0], distribution.entropy()[i])
            batch = self.part_marginals(distribution.marginals())
            for mine, theirs in zip(self.part_marginals(alone.marginals()), batch, strict=True):
                window = theirs[i][tuple(slice(size) for size in mine.shape[1:])]
                torch.testing.assert_close(mine[0], window)
                assert abs(float(theirs[i].sum() - mine.sum())) < 1e-9  # nothing in the padding

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_a_tempered_distribution_divides_every_score(self, temperature: float) -> None:
        distribution = self.build(self.lengths)
        tempered = distribution.tempered(temperature)
        for i in range(len(self.lengths)):
            expected = (self.scores_of_all(distribution, i) / temperature).logsumexp(0)
            torch.testing.assert_close(tempered.log_partition()[i], expected)

    def test_a_temperature_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="positive"):
            self.build((1,)).tempered(0)

    @pytest.mark.parametrize("length", [1, 200])
    @pytest.mark.parametrize("scale", [1.0, 50.0])
    def test_long_sentences_and_large_scores_stay_finite(self, length: int, scale: float) -> None:
        distribution = self.build((length, 1), scale=scale)
        theta = [t.float().clone().requires_grad_() for t in distribution.potentials]
        single = distribution.with_potentials(theta)
        single.log_partition().sum().backward()
        assert torch.isfinite(single.log_partition()).all()
        assert all(torch.isfinite(t.grad).all() for t in theta if t.grad is not None)

    @pytest.mark.parametrize("lengths", [(0, 2), (3, 2)])
    def test_a_length_that_does_not_fit_is_an_error_that_names_the_sentence(
        self, lengths: tuple[int, int]
    ) -> None:
        distribution = self.build((2, 2))
        with pytest.raises(ValueError, match="sentence 0"):
            self.with_lengths(distribution, torch.tensor(lengths))

    def with_lengths(self, distribution: D, lengths: Tensor) -> StructuredDistribution:
        family: Any = type(distribution)
        return family(distribution.potentials[0], lengths)


def label_sequences(labels: int, length: int, batch: int, width: int) -> Iterator[Tensor]:
    """All label sequences of a length, repeated for every sentence of a batch: [B, n]."""
    for sequence in itertools.product(range(labels), repeat=length):
        padded = [*sequence, *[0] * (width - length)]
        yield torch.tensor(padded).expand(batch, width)
