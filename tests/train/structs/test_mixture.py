import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.train.structs.contract import DistributionContract, label_sequences
from tests.train.structs.test_span_families import bioes_sequences, random
from train.distill.projection import project
from train.structs import (
    ChainMarginals,
    HeadSelection,
    LinearChain,
    Mixture,
    SpanSet,
    StructuredDistribution,
    TokenSoftmax,
)

LABELS = 5  # O and one type


def components(
    lengths: tuple[int, ...], seed: int, scale: float
) -> tuple[LinearChain, SpanSet, TokenSoftmax]:
    batch, n, sizes = len(lengths), max(lengths), torch.tensor(lengths)
    return (
        LinearChain(
            random((batch, n, LABELS), seed, scale),
            random((LABELS, LABELS), seed + 1, scale),
            random((LABELS,), seed + 2, scale),
            random((LABELS,), seed + 3, scale),
            sizes,
        ),
        SpanSet(random((batch, n, n, 1), seed + 4, scale), sizes),
        TokenSoftmax(random((batch, n, LABELS), seed + 5, scale), sizes),
    )


def many(mixture: Mixture, sentence: int, count: int) -> Mixture:
    """One sentence of a mixture many times over, without padding."""
    n = int(mixture.lengths[sentence])
    chain, spans, softmax = mixture.components
    assert isinstance(chain, LinearChain)
    assert isinstance(spans, SpanSet)
    assert isinstance(softmax, TokenSoftmax)
    lengths, zero = torch.full((count,), n), torch.zeros(LABELS, dtype=torch.float64)
    unary, spans_, tokens = (
        theta[sentence : sentence + 1, :n].expand(count, *[-1] * (theta.dim() - 1))
        for theta in (chain.unary, spans.scores[:, :, :n], softmax.scores)
    )
    return Mixture(
        (
            LinearChain(unary, chain.transitions, zero, zero, lengths),
            SpanSet(spans_, lengths),
            TokenSoftmax(tokens, lengths),
        ),
        mixture.weights[sentence].expand(count, -1),
    )


class TestMixture(DistributionContract[Mixture]):
    """A chain, a span set and independent labels: different families, the same structures."""

    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> Mixture:
        weights = random((len(lengths), 3), seed + 6).softmax(-1)
        return Mixture(components(lengths, seed, scale), weights)

    def repeated(self, length: int, copies: int) -> Mixture:
        return many(self.build((length,)), 0, copies)

    def structures(self, distribution: Mixture, sentence: int) -> Iterator[Tensor]:
        lengths = distribution.lengths
        return label_sequences(LABELS, int(lengths[sentence]), len(lengths), int(lengths.max()))

    def scores_of_all(self, distribution: Mixture, sentence: int) -> Tensor:
        alone = many(distribution, sentence, 1)
        sequences = torch.cat(list(self.structures(alone, 0)))  # [m, n]
        return many(distribution, sentence, len(sequences)).score(sequences)

    def alone(self, distribution: Mixture, sentence: int) -> Mixture:
        return many(distribution, sentence, 1)

    def closed_form_count(self, length: int) -> float:
        return LABELS**length

    def test_the_probability_is_the_weighted_sum_of_the_components_own(self) -> None:
        mixture = self.build(self.lengths)
        for structure in ([0, 1, 3, 0], [1, 2, 2, 3], [3, 3, 3, 3]):
            y = torch.tensor([structure] * 3)
            each = [component.log_prob(y).exp() for component in mixture.components]
            expected = (torch.stack(each, -1) * mixture.weights).sum(-1)
            torch.testing.assert_close(mixture.log_prob(y).exp(), expected)

    def test_a_sentence_alone_has_the_probabilities_it_has_in_a_batch(self) -> None:
        mixture = self.build(self.lengths)
        for i, length in enumerate(self.lengths):
            alone = self.alone(mixture, i)
            for sequence in bioes_sequences(1, length):
                padded = torch.tensor([*sequence, *[0] * (4 - length)]).expand(3, 4)
                torch.testing.assert_close(
                    alone.log_prob(torch.tensor([sequence]))[0], mixture.log_prob(padded)[i]
                )

    def test_the_argmax_is_the_best_of_the_components_own(self) -> None:
        for seed in range(5):
            mixture = self.build(self.lengths, seed=seed, scale=2.0)
            each = torch.stack([mixture.score(c.argmax()) for c in mixture.components])  # [K, B]
            torch.testing.assert_close(mixture.score(mixture.argmax()), each.max(0).values)

    def test_the_k_best_are_those_of_the_union_of_the_components_k_best_each_once(self) -> None:
        mixture, k = self.build(self.lengths), 6
        best = mixture.topk(k)
        own = [component.topk(k) for component in mixture.components]
        for i, length in enumerate(self.lengths):
            union = {
                tuple(y[i, :length].tolist())
                for structures, scores in own
                for rank, y in enumerate(structures)
                if scores[i, rank] > -math.inf
            }
            alone = self.alone(mixture, i)
            expected = sorted((float(alone.score(torch.tensor([y]))[0]) for y in union), reverse=True)[:k]
            assert best.scores[i, : len(expected)].tolist() == pytest.approx(expected)
            assert (best.scores[i, len(expected) :] == -math.inf).all()
            listed = [tuple(y[i, :length].tolist()) for y in best.structures][: len(expected)]
            assert len(set(listed)) == len(expected)

    def test_the_k_best_are_not_offered_where_a_component_offers_none(self) -> None:
        class Unlisted(TokenSoftmax):
            topk = StructuredDistribution.topk

        softmax = Unlisted(random((1, 2, 3), 0), torch.tensor([2]))
        with pytest.raises(NotImplementedError, match="k best structures of a Unlisted are not offered"):
            Mixture([softmax, softmax], torch.tensor([0.5, 0.5])).topk(2)

    def test_samples_have_the_frequencies_of_the_weighted_marginals(self) -> None:
        count = 4000
        mixture = self.repeated(3, count)
        drawn = mixture.sample(torch.Generator().manual_seed(5))  # [4000, 3]
        found = torch.nn.functional.one_hot(drawn, LABELS).double().mean(0)
        expected = project(mixture, onto=TokenSoftmax)[0]
        assert (found - expected).abs().max() < 5 * (0.25 / count) ** 0.5

    def test_projections_are_those_of_the_enumeration(self) -> None:
        mixture = self.build((3,))
        sequences = torch.cat(list(self.structures(mixture, 0)))  # [m, 3]
        weights = self.scores_of_all(mixture, 0).exp()  # [m]
        one_hot = torch.nn.functional.one_hot(sequences, LABELS).double()  # [m, 3, L]
        tokens = torch.einsum("m,mnk->nk", weights, one_hot)
        torch.testing.assert_close(project(mixture, onto=TokenSoftmax)[0], tokens)
        chain, spans, _ = mixture.components
        two = Mixture([chain, spans], torch.tensor([0.3, 0.7], dtype=torch.float64))
        weights = torch.stack([two.score(y[None])[0] for y in sequences]).exp()
        pairs = torch.einsum("m,mnk,mnl->nkl", weights, one_hot[:, :-1], one_hot[:, 1:])
        marginals = project(two, onto=LinearChain)
        assert isinstance(marginals, ChainMarginals)
        torch.testing.assert_close(marginals.pairs[0], pairs)
        torch.testing.assert_close(marginals.tokens[0], torch.einsum("m,mnk->nk", weights, one_hot))

    def test_projections_are_locally_consistent_and_empty_in_the_padding(self) -> None:
        chain, spans, _ = components((6, 1, 4), seed=3, scale=2.0)
        mixture = Mixture([chain, spans], random((3, 2), 1).softmax(-1))
        tokens, pairs = project(mixture, onto=LinearChain)
        torch.testing.assert_close(tokens.sum(-1), chain.mask.double())
        torch.testing.assert_close(pairs.sum(2), tokens[:, 1:])
        torch.testing.assert_close(pairs.sum(3), tokens[:, :-1] * chain.mask[:, 1:, None])

    def test_a_projection_that_a_component_lacks_is_an_error_that_names_the_component(self) -> None:
        with pytest.raises(LookupError, match="no projection from LinearChain onto HeadSelection"):
            project(self.build((2,)), onto=HeadSelection)

    def test_tempering_tempers_each_component(self) -> None:
        mixture = self.build((3,))
        expected = Mixture([c.tempered(2.0) for c in mixture.components], mixture.weights)
        y = torch.tensor([[1, 2, 3]])
        torch.testing.assert_close(mixture.tempered(2.0).log_prob(y), expected.log_prob(y))

    def test_methods_that_a_mixture_lacks_are_errors_that_name_others(self) -> None:
        mixture = self.build((2,))
        with pytest.raises(NotImplementedError, match="cross_entropy"):
            mixture.entropy()
        with pytest.raises(NotImplementedError, match="project"):
            mixture.marginals()

    def test_a_weight_of_zero_leaves_a_component_out_and_has_a_finite_gradient(self) -> None:
        parts = components((3,), seed=0, scale=1.0)
        weights = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
        y = torch.tensor([[1, 1, 1]])
        log_prob = Mixture(parts, weights).log_prob(y)
        torch.testing.assert_close(log_prob, parts[0].log_prob(y))
        log_prob.sum().backward()
        assert weights.grad is not None
        assert weights.grad.isfinite().all()

    def test_heads_mix_as_labels_do(self) -> None:
        lengths = torch.tensor([3, 2])
        parts = [HeadSelection(random((2, 3, 4, 2), seed), lengths) for seed in range(3)]
        mixture = Mixture(parts, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))
        expected = sum(w * part.marginals() for w, part in zip((0.2, 0.3, 0.5), parts, strict=True))
        torch.testing.assert_close(project(mixture, onto=HeadSelection), expected)
        best = mixture.topk(4)
        torch.testing.assert_close(best.scores[:, 0], mixture.score(best.structures[0]))
        assert (mixture.score(mixture.argmax()) <= best.scores[:, 0] + 1e-9).all()
        drawn = mixture.sample(torch.Generator().manual_seed(0))
        assert mixture.log_prob(drawn).isfinite().all()

    def test_arguments_that_do_not_fit_are_errors(self) -> None:
        one = TokenSoftmax(torch.zeros(1, 2, 3), torch.tensor([2]))
        short = TokenSoftmax(torch.zeros(1, 2, 3), torch.tensor([1]))
        with pytest.raises(ValueError, match="at least one component"):
            Mixture([], torch.ones(0))
        with pytest.raises(ValueError, match=r"component 1 has sentences of lengths \[1\]"):
            Mixture([one, short], torch.tensor([0.5, 0.5]))
        with pytest.raises(ValueError, match=r"weights must be \[2\] or \[1, 2\]"):
            Mixture([one, one], torch.tensor([1.0]))
        for weights in ([0.5, 0.6], [1.5, -0.5]):
            with pytest.raises(ValueError, match="sum to 1"):
                Mixture([one, one], torch.tensor(weights))
