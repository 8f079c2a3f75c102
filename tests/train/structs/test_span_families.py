import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from structural_kd.labels import bioes_labels, spans_from_bioes
from tests.train.structs.contract import FamilyContract
from train.structs import FORBIDDEN, LinearChain, Segmentation, SemiMarkov, SpanSet

TYPES = 2
WIDTHS = 3


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

    def test_what_stands_in_the_padding_and_below_the_diagonal_does_not_matter(self) -> None:
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


def segmentations(labels: int, length: int) -> Iterator[list[tuple[int, int]]]:
    """All divisions into segments of at most WIDTHS tokens, as (width, label)."""
    if length == 0:
        yield []
    for width in range(1, min(WIDTHS, length) + 1):
        for rest in segmentations(labels, length - width):
            for label in range(labels):
                yield [(width, label), *rest]


class TestSemiMarkov(FamilyContract[SemiMarkov]):
    def build(self, lengths: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> SemiMarkov:
        return SemiMarkov(
            random((len(lengths), max(lengths), WIDTHS, TYPES), seed, scale),
            random((TYPES, TYPES), seed + 1, scale),
            random((TYPES,), seed + 2, scale),
            random((TYPES,), seed + 3, scale),
            torch.tensor(lengths),
        )

    def structures(self, distribution: SemiMarkov, sentence: int) -> Iterator[Segmentation]:
        batch, width = distribution.mask.shape
        for segments in segmentations(TYPES, int(distribution.lengths[sentence])):
            labels = [label for size, label in segments for _ in range(size)]
            begins = [i == 0 for size, _ in segments for i in range(size)]
            rest = width - len(labels)
            yield Segmentation(
                torch.tensor([*labels, *[0] * rest]).expand(batch, width),
                torch.tensor([*begins, *[False] * rest]).expand(batch, width),
            )

    def alone(self, distribution: SemiMarkov, sentence: int) -> SemiMarkov:
        n = int(distribution.lengths[sentence])
        segments, tables = (theta[sentence : sentence + 1] for theta in distribution.potentials)
        zero = torch.zeros(TYPES, dtype=torch.float64)
        return SemiMarkov(segments[:, :n], tables[:, : n - 1], zero, zero, torch.tensor([n]))

    def closed_form_count(self, length: int) -> float:
        counts = [1]
        for _ in range(length):
            counts.append(TYPES * sum(counts[-WIDTHS:]))
        return counts[length]

    def with_lengths(self, distribution: SemiMarkov, lengths: Tensor) -> SemiMarkov:
        zero = torch.zeros(TYPES)
        return SemiMarkov(distribution.segments, distribution.transitions, zero, zero, lengths)

    def scores_of_all(self, distribution: SemiMarkov, sentence: int) -> Tensor:
        """By hand from the parts, so that score() is checked as well."""
        segments, tables = (theta[sentence] for theta in distribution.potentials)
        totals = []
        for division, structure in zip(
            segmentations(TYPES, int(distribution.lengths[sentence])),
            self.structures(distribution, sentence),
            strict=True,
        ):
            total, at = torch.zeros((), dtype=torch.float64), 0
            for i, (width, label) in enumerate(division):
                total = total + segments[at, width - 1, label]
                if i:
                    total = total + tables[at - 1, division[i - 1][1], label]
                at += width
            torch.testing.assert_close(distribution.score(structure)[sentence], total)
            totals.append(total)
        return torch.stack(totals)

    def test_start_and_end_count_for_the_first_and_the_last_segment(self) -> None:
        start, end = torch.tensor([1.0, 10.0]), torch.tensor([100.0, 1000.0])
        model = SemiMarkov(torch.zeros(1, 4, 2, 2), torch.zeros(2, 2), start, end, torch.tensor([3]))
        structure = Segmentation(torch.tensor([[0, 1, 1, 0]]), torch.tensor([[True, True, False, False]]))
        assert model.score(structure).tolist() == [1001.0]
        whole = Segmentation(torch.tensor([[1, 0, 0, 0]]), torch.tensor([[True, True, True, False]]))
        assert model.score(whole).tolist() == [110.0]

    def test_a_segment_that_is_too_wide_scores_as_forbidden(self) -> None:
        model = SemiMarkov(
            torch.zeros(1, 4, 2, 1), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.tensor([4])
        )
        wide = Segmentation(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[True, False, False, True]]))
        assert model.score(wide).tolist() == [FORBIDDEN]

    def test_segments_of_one_token_make_it_a_linear_chain(self) -> None:
        scores, table = random((2, 5, 3), 1), random((3, 3), 2)
        start, end, lengths = random((3,), 3), random((3,), 4), torch.tensor([5, 2])
        chain = LinearChain(scores, table, start, end, lengths)
        model = SemiMarkov(scores[:, :, None], table, start, end, lengths)
        torch.testing.assert_close(model.log_partition(), chain.log_partition())
        torch.testing.assert_close(model.marginals().segments[:, :, 0], chain.marginals().tokens)
        torch.testing.assert_close(model.marginals().pairs, chain.marginals().pairs)
        torch.testing.assert_close(model.argmax().labels, chain.argmax())

    def test_every_token_lies_in_exactly_one_segment_and_pairs_agree_with_segments(self) -> None:
        model = self.build((9, 4))
        segments, pairs = model.marginals()
        covering = torch.zeros(2, 9, dtype=torch.float64)
        ending = torch.zeros(2, 9, TYPES, dtype=torch.float64)
        for first, k in itertools.product(range(9), range(WIDTHS)):
            covering[:, first : first + k + 1] += segments[:, first, k].sum(-1, keepdim=True)
            if first + k < 9:
                ending[:, first + k] += segments[:, first, k]
        torch.testing.assert_close(covering, model.mask.double())
        torch.testing.assert_close(pairs.sum(2), segments.sum(2)[:, 1:])
        torch.testing.assert_close(pairs.sum(3), ending[:, :-1] * model.mask[:, 1:, None])

    def test_shapes_that_do_not_fit_are_errors(self) -> None:
        table, zero, one = torch.zeros(2, 2), torch.zeros(2), torch.tensor([2])
        with pytest.raises(ValueError, match=r"\[sentences, tokens, widths, labels\]"):
            SemiMarkov(torch.zeros(1, 2, 2), table, zero, zero, one)
        with pytest.raises(ValueError, match=r"transitions must be \[3, 3\]"):
            SemiMarkov(torch.zeros(1, 2, 2, 3), table, zero, zero, one)
        with pytest.raises(ValueError, match="start and end"):
            SemiMarkov(torch.zeros(1, 2, 2, 2), table, torch.zeros(3), zero, one)
