import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from structural_kd.labels import bioes_labels, spans_from_bioes
from tests.train.structs.contract import FamilyContract
from train.structs import FORBIDDEN, SpanSet

TYPES = 2


def random(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bioes_sequences(types: int, length: int) -> Iterator[list[int]]:
    """All valid BIOES sequences, as label ids."""
    if length == 0:
        yield []
        return
    for rest in bioes_sequences(types, length - 1):
        yield [0, *rest]
    for width in range(1, length + 1):
        for rest in bioes_sequences(types, length - width):
            for type_ in range(types):
                b, i, e, s = range(1 + 4 * type_, 5 + 4 * type_)
                yield [*([s] if width == 1 else [b, *[i] * (width - 2), e]), *rest]


class TestSpanSet(FamilyContract[SpanSet]):
    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> SpanSet:
        n = max(lengths)
        return SpanSet(random((len(lengths), n, n, TYPES), seed, scale), torch.tensor(lengths))

    def structures(self, distribution: SpanSet, sentence: int) -> Iterator[Tensor]:
        batch, width = distribution.mask.shape
        n = int(distribution.lengths[sentence])
        for labels in bioes_sequences(TYPES, n):
            structure = torch.zeros(batch, width, dtype=torch.int64)
            structure[sentence, :n] = torch.tensor(labels)
            yield structure

    def alone(self, distribution: SpanSet, sentence: int) -> SpanSet:
        n = int(distribution.lengths[sentence])
        return SpanSet(distribution.scores[sentence : sentence + 1, :n, :n], torch.tensor([n]))

    def closed_form_count(self, length: int) -> float:
        counts = [1]
        for _ in range(length):  # the last token is outside, or ends a span of some width
            counts.append(counts[-1] + TYPES * sum(counts))
        return counts[length]

    def test_a_sentence_whose_structures_are_all_forbidden_is_an_error_that_names_it(self) -> None:
        """There is none such: the empty set has no part that could be forbidden."""
        nothing = SpanSet(torch.full((1, 3, 3, TYPES), FORBIDDEN), torch.tensor([3]))
        assert nothing.log_partition().item() == nothing.log_count().item() == 0
        assert nothing.argmax().tolist() == nothing.sample().tolist() == [[0, 0, 0]]
        assert not nothing.marginals().any()
        best = nothing.topk(2)
        assert best.scores.tolist() == [[0.0, -math.inf]]

    def test_label_ids_are_those_of_the_label_codec(self) -> None:
        names = bioes_labels(["A", "B"])
        spans = self.build((4,))
        for structure in self.structures(spans, 0):
            found = spans_from_bioes([names[label] for label in structure[0].tolist()])
            expected = sum(
                float(spans.scores[0, span.start, span.end - 1, "AB".index(span.label)]) for span in found
            )
            assert math.isclose(float(spans.score(structure)[0]), expected, abs_tol=1e-12)

    def test_sequences_that_are_not_bioes_score_as_forbidden(self) -> None:
        spans = self.build((3,))
        valid = {tuple(labels) for labels in bioes_sequences(TYPES, 3)}
        for labels in itertools.product(range(4 * TYPES + 1), repeat=3):
            score = spans.score(torch.tensor([labels]))
            assert (score.item() == FORBIDDEN) == (labels not in valid)

    def test_label_ids_out_of_range_are_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"label ids must lie in 0\.\.8"):
            self.build((1,)).score(torch.tensor([[9]]))

    def test_marginals_are_exactly_zero_in_the_padding_and_where_the_last_token_precedes_the_first(
        self,
    ) -> None:
        spans = self.build((4, 2))
        marginals = spans.marginals()
        assert not marginals[~spans.allowed].any()
        assert (marginals[spans.allowed] > 0).all()

    def test_padding_and_scores_below_the_diagonal_do_not_matter(self) -> None:
        spans = self.build((4, 2))
        other = SpanSet(
            torch.where(spans.allowed[..., None], spans.scores, random(spans.scores.shape, 9, 50.0)),
            spans.lengths,
        )
        torch.testing.assert_close(other.log_partition(), spans.log_partition())
        torch.testing.assert_close(other.marginals(), spans.marginals())
        torch.testing.assert_close(other.argmax(), spans.argmax())
        torch.testing.assert_close(other.topk(5).scores, spans.topk(5).scores)

    def test_scores_beyond_the_range_of_float64_are_exact(self) -> None:
        scores = torch.zeros(1, 40, 40, 1)
        scores[0].diagonal()[:] = 1000.0
        scores[0, 0, 39] = 40_000.0
        spans = SpanSet(scores, torch.tensor([40]))
        torch.testing.assert_close(spans.log_partition(), torch.tensor([40_000 + math.log(2)]))
        marginals = spans.marginals()[..., 0]
        torch.testing.assert_close(marginals[0, 0, 39], torch.tensor(0.5))
        torch.testing.assert_close(marginals[0].diagonal(), torch.full((40,), 0.5))

    @pytest.mark.parametrize("top", [30.0, 225.0, 235.0, 600.0, 5000.0])
    def test_first_and_second_derivatives_are_those_of_the_enumeration_however_large_the_scores(
        self, top: float
    ) -> None:
        scores = random((1, 4, 4, 1), 2)
        scores[0, 0, 1] += top
        scores[0, 1, 3] += top  # overlaps with the one before, so that neither is certain
        scores.requires_grad_()
        spans = SpanSet(scores, torch.tensor([4]))
        sequences = torch.tensor(list(bioes_sequences(1, 4)))  # [m, 4]
        log_probs = (
            SpanSet(scores.expand(len(sequences), 4, 4, 1), torch.full((len(sequences),), 4))
            .score(sequences)
            .log_softmax(0)
        )
        entropy = -(log_probs.exp() * log_probs).sum()
        torch.testing.assert_close(spans.entropy()[0], entropy)
        (mine,) = torch.autograd.grad(spans.entropy().sum(), scores)
        (theirs,) = torch.autograd.grad(entropy, scores)
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)

    def test_the_most_probable_set_of_long_sentences_is_a_set_of_spans(self) -> None:
        names = bioes_labels(["A", "B"])
        spans = self.build((60, 1, 37), seed=4, scale=3.0)
        for structure in (spans.argmax(), spans.sample(torch.Generator().manual_seed(1))):
            for labels, length in zip(structure.tolist(), spans.lengths.tolist(), strict=True):
                spans_from_bioes([names[label] for label in labels[:length]])  # raises where invalid
                assert not any(labels[length:])

    def test_scores_of_a_wrong_shape_are_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"\[sentences, tokens, tokens, types\], got \(1, 2, 3, 1\)"):
            SpanSet(torch.zeros(1, 2, 3, 1), torch.tensor([2]))
