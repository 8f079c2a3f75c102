"""What every structured distribution promises; each family's test class inherits it."""

import itertools
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import pytest
import torch
from torch import Tensor

from train.structs import FORBIDDEN, StructuredDistribution

TEMPERATURES = (0.5, 1.0, 2.0, 4.0)


D = TypeVar("D", bound=StructuredDistribution)


class DistributionContract(Generic[D]):
    """Inherit, and say how to build a distribution and how to list its structures."""

    lengths: tuple[int, ...] = (4, 1, 3)

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

    def scores_of_all(self, distribution: D, sentence: int) -> Tensor:
        return torch.stack([distribution.score(y)[sentence] for y in self.structures(distribution, sentence)])

    def repeated(self, length: int, copies: int) -> D:
        """One random distribution over a sentence of this length, many times over."""
        distribution = self.build((length,) * copies)
        return distribution.with_potentials([t[:1].expand_as(t) for t in distribution.potentials])

    def test_the_log_partition_sums_over_every_structure(self) -> None:
        distribution = self.build(self.lengths)
        for i in range(len(self.lengths)):
            expected = self.scores_of_all(distribution, i).logsumexp(0)
            torch.testing.assert_close(distribution.log_partition()[i], expected)

    @pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6])
    def test_every_length_up_to_six_agrees_with_its_enumeration(self, length: int) -> None:
        distribution = self.build((length,), seed=length)
        scores = self.scores_of_all(distribution, 0)
        torch.testing.assert_close(distribution.log_partition()[0], scores.logsumexp(0))

    def test_the_probabilities_of_all_structures_sum_to_one(self) -> None:
        distribution = self.build(self.lengths)
        for i in range(len(self.lengths)):
            total = sum(distribution.log_prob(y)[i].exp() for y in self.structures(distribution, i))
            torch.testing.assert_close(total, torch.tensor(1.0, dtype=torch.float64))

    def test_the_count_of_structures_is_the_closed_form(self) -> None:
        lengths = (1, 2, 5, 6)
        counts = self.build(lengths).log_count().exp()
        expected = torch.tensor([self.closed_form_count(n) for n in lengths], dtype=counts.dtype)
        torch.testing.assert_close(counts, expected, rtol=1e-6, atol=1e-6)

    def test_a_temperature_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="positive"):
            self.build((1,)).tempered(0)

    def test_samples_are_as_probable_as_the_structures_of_the_distribution(self) -> None:
        distribution = self.repeated(3, copies=4000)
        surprise = -distribution.log_prob(distribution.sample(torch.Generator().manual_seed(7)))
        log_probs = self.scores_of_all(self.alone(distribution, 0), 0).log_softmax(0)
        entropy = -(log_probs.exp() * log_probs).sum()
        error = surprise.std() / len(surprise) ** 0.5
        assert abs(float(surprise.mean() - entropy)) < 5 * float(error)


class FamilyContract(DistributionContract[D]):
    """What a family with part scores promises beyond that, exact search included."""

    has_topk = True

    def part_marginals(self, marginals: Any) -> list[Tensor]:
        """Marginals as a list of tensors in the order of the potentials."""
        return list(marginals) if isinstance(marginals, tuple) else [marginals]

    def test_the_argmax_is_the_best_structure(self) -> None:
        distribution = self.build(self.lengths)
        best = distribution.score(distribution.argmax())
        for i in range(len(self.lengths)):
            torch.testing.assert_close(best[i], self.scores_of_all(distribution, i).max())
        for length in range(1, 7):
            distribution = self.build((length,), seed=length)
            best = distribution.score(distribution.argmax())
            torch.testing.assert_close(best[0], self.scores_of_all(distribution, 0).max())

    def test_the_k_best_are_the_first_of_the_enumeration_and_missing_ones_score_minus_infinity(self) -> None:
        if not self.has_topk:
            with pytest.raises(NotImplementedError, match="not offered"):
                self.build((2,)).topk(2)
            return
        distribution = self.build(self.lengths)
        k = 7
        best = distribution.topk(k)
        assert best.scores.shape == (len(self.lengths), k)
        assert len(best.structures) == k
        for i in range(len(self.lengths)):
            expected = self.scores_of_all(distribution, i).sort(descending=True).values[:k]
            found = best.scores[i]
            torch.testing.assert_close(found[: len(expected)], expected)
            assert (found[len(expected) :] == -torch.inf).all()
            for rank in range(len(expected)):
                torch.testing.assert_close(distribution.score(best.structures[rank])[i], expected[rank])
        torch.testing.assert_close(
            distribution.score(distribution.topk(1).structures[0]), distribution.score(distribution.argmax())
        )

    def test_marginals_are_those_of_the_enumeration(self) -> None:
        distribution = self.build(self.lengths)
        marginals = self.part_marginals(distribution.marginals())
        for i in range(len(self.lengths)):
            weights = self.scores_of_all(distribution, i).softmax(0)
            expected = [torch.zeros_like(theta[i]) for theta in distribution.potentials]
            for weight, y in zip(weights, self.structures(distribution, i), strict=True):
                for total, parts in zip(expected, indicators(distribution, y), strict=True):
                    total += weight * parts[i]
            for mine, theirs in zip(marginals, expected, strict=True):
                torch.testing.assert_close(mine[i], theirs)

    def test_samples_have_the_frequencies_of_the_marginals(self) -> None:
        copies = 4000
        distribution = self.repeated(3, copies)
        drawn = distribution.sample(torch.Generator().manual_seed(7))
        for found, expected in zip(
            indicators(distribution, drawn),
            self.part_marginals(self.alone(distribution, 0).marginals()),
            strict=True,
        ):
            assert (found.mean(0) - expected[0]).abs().max() < 5 * (0.25 / copies) ** 0.5

    def test_a_sentence_whose_structures_are_all_forbidden_is_an_error_that_names_it(self) -> None:
        distribution = self.build((2, 3))
        potentials = [theta.clone() for theta in distribution.potentials]
        for theta in potentials:
            theta[1] = FORBIDDEN
        impossible = distribution.with_potentials(potentials)
        for question in (impossible.log_partition, impossible.marginals, impossible.entropy):
            with pytest.raises(ValueError, match="sentence 1: every structure is forbidden"):
                question()

    def test_the_entropy_is_that_of_the_enumeration(self) -> None:
        distribution = self.build(self.lengths)
        for i in range(len(self.lengths)):
            log_probs = self.scores_of_all(distribution, i).log_softmax(0)
            torch.testing.assert_close(distribution.entropy()[i], -(log_probs.exp() * log_probs).sum())

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

    def test_a_kept_log_partition_is_the_same_for_all_losses_and_so_is_their_gradient(self) -> None:
        distribution = self.build(self.lengths)
        gradients = []
        for keep in (False, True):
            theta = [t.clone().requires_grad_() for t in distribution.potentials]
            student = distribution.with_potentials(theta)
            student = student.kept() if keep else student
            loss = student.entropy() - 2 * student.log_prob(distribution.argmax()) + student.log_partition()
            loss.sum().backward()
            gradients.append([loss, *(t.grad for t in theta if t.grad is not None)])
        torch.testing.assert_close(gradients[1], gradients[0])

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

    def test_a_sentence_has_the_same_values_alone_and_in_a_batch(self) -> None:
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

    @pytest.mark.parametrize("length", [1, 100])
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


def indicators(distribution: StructuredDistribution, structure: Any) -> list[Tensor]:
    """Which parts a structure has, in the shapes of the potentials: the gradient of its score."""
    theta = [t.detach().clone().requires_grad_() for t in distribution.potentials]
    with torch.enable_grad():
        total = distribution.with_potentials(theta).score(structure).sum()
    found = torch.autograd.grad(total, theta, allow_unused=True, materialize_grads=True)
    return list(found)


def label_sequences(labels: int, length: int, batch: int, width: int) -> Iterator[Tensor]:
    """All label sequences of a length, repeated for every sentence of a batch: [B, n]."""
    for sequence in itertools.product(range(labels), repeat=length):
        padded = [*sequence, *[0] * (width - length)]
        yield torch.tensor(padded).expand(batch, width)
