"""Taggers: the softmax teacher given that its labels are valid, and entities as spans."""

import itertools

import pytest
import torch
from torch import nn

from structural_kd.labels import bioes_constraints, bioes_labels, spans_from_bioes
from train.models.batch import Batch
from train.models.span_tagger import SpanTagger
from train.models.taggers import CRFTagger, SoftmaxTagger, constrained
from train.structs import SpanSet, TokenSoftmax

LABELS = bioes_labels(["A", "B"])


class Given(nn.Module):
    """A representation that is the batch's encoder features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.output_size = size

    def forward(self, batch: Batch) -> torch.Tensor:
        assert batch.encoded is not None
        return batch.encoded


def batch_of(encoded: torch.Tensor, lengths: list[int]) -> Batch:
    words = torch.zeros(encoded.shape[:2], dtype=torch.int64)
    return Batch(words, torch.tensor(lengths), tuple(("w",) * length for length in lengths), encoded)


def valid_sequences(length: int) -> list[tuple[int, ...]]:
    allowed = bioes_constraints(LABELS)
    return [
        path
        for path in itertools.product(range(len(LABELS)), repeat=length)
        if allowed.start[path[0]]
        and allowed.end[path[-1]]
        and all(allowed.transitions[a, b] for a, b in itertools.pairwise(path))
    ]


def test_a_constrained_softmax_is_its_product_over_the_valid_sequences():
    torch.manual_seed(0)
    scores = torch.randn(3, 4, len(LABELS), dtype=torch.float64)
    softmax = TokenSoftmax(scores, torch.tensor([4, 1, 3]))
    chain = constrained(softmax, LABELS)
    marginals = chain.marginals()
    for sentence, length in enumerate([4, 1, 3]):
        logs = scores[sentence].log_softmax(-1)
        paths = torch.tensor(valid_sequences(length))  # [S, n]
        weights = logs[torch.arange(length), paths].sum(1)  # [S]
        torch.testing.assert_close(chain.log_partition()[sentence], weights.logsumexp(0))
        best = paths[weights.argmax()].tolist()
        assert chain.argmax()[sentence, :length].tolist() == best
        expected = torch.zeros(length, len(LABELS), dtype=torch.float64)
        for path, weight in zip(paths, weights.softmax(0), strict=True):
            expected[torch.arange(length), path] += weight
        torch.testing.assert_close(marginals.tokens[sentence, :length], expected)


def test_the_log_partition_is_the_log_of_the_mass_that_is_kept():
    certain = torch.full((1, 2, len(LABELS)), -50.0)
    certain[0, 0, LABELS.index("B-A")] = certain[0, 1, LABELS.index("E-A")] = 50.0
    kept = constrained(TokenSoftmax(certain, torch.tensor([2])), LABELS).log_partition()
    torch.testing.assert_close(kept, torch.zeros(1), atol=1e-5, rtol=0)
    even = TokenSoftmax(torch.zeros(1, 2, len(LABELS)), torch.tensor([2]))
    share = len(valid_sequences(2)) / len(LABELS) ** 2
    torch.testing.assert_close(constrained(even, LABELS).log_partition().exp(), torch.tensor([share]))


def test_a_crf_student_can_match_a_constrained_softmax_teacher_and_not_a_bare_one():
    torch.manual_seed(0)
    softmax = TokenSoftmax(torch.randn(1, 3, len(LABELS)), torch.tensor([3]))
    teacher = constrained(softmax, LABELS)
    student = CRFTagger(Given(4), LABELS)(batch_of(torch.randn(1, 3, 4), [3]))  # type: ignore[arg-type]
    assert (student.log_partition() - student.expected_score(teacher.marginals())).item() < 100
    tokens = softmax.marginals()  # [1, n, L]
    bare = teacher.marginals()._replace(tokens=tokens, pairs=tokens[:, :-1, :, None] * tokens[:, 1:, None])
    assert (student.log_partition() - student.expected_score(bare)).item() > 1000


def test_a_softmax_tagger_decodes_valid_sequences_only():
    torch.manual_seed(0)
    tagger = SoftmaxTagger(Given(4), LABELS)  # type: ignore[arg-type]
    distribution = tagger(batch_of(torch.randn(20, 6, 4) * 5, [6, 1, 3, 5] * 5))
    for row, length in zip(tagger.decode(distribution), distribution.lengths, strict=True):
        spans_from_bioes([LABELS[label] for label in row[:length]])


def span_tagger(size: int = 3) -> SpanTagger:
    torch.manual_seed(0)
    tagger = SpanTagger(Given(4), LABELS, size=size, dropout=0.0)  # type: ignore[arg-type]
    return tagger.eval()


def test_span_scores_are_biaffine_in_the_first_and_the_last_token():
    tagger = span_tagger()
    nn.init.normal_(tagger.product)
    nn.init.normal_(tagger.type_bias)
    encoded = torch.randn(2, 5, 4)
    distribution = tagger(batch_of(encoded, [5, 2]))
    assert isinstance(distribution, SpanSet)
    assert distribution.scores.shape == (2, 5, 5, 2)

    def perceptron(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu(nn.functional.linear(x, layer.weight, layer.bias), 0.1)

    for sentence, i, j, label in [(0, 0, 0, 0), (0, 1, 4, 1), (1, 0, 1, 0)]:
        first = perceptron(tagger.first, encoded[sentence, i])
        last = perceptron(tagger.last, encoded[sentence, j])
        expected = first @ tagger.product[label] @ last + tagger.type_bias[label]
        expected = expected + tagger.of_first(first)[label] + tagger.of_last(last)[label]
        torch.testing.assert_close(distribution.scores[sentence, i, j, label], expected)


def test_an_untrained_span_tagger_prefers_no_entity():
    tagger = span_tagger(64)
    distribution = tagger(batch_of(torch.randn(4, 20, 4), [20, 1, 7, 12]))
    assert not tagger.decode(distribution).any()
    _, outside = distribution.marginals_and_outside()
    assert (outside[distribution.mask] > 0.5).all()


def test_a_span_tagger_decodes_valid_sequences_and_a_sentence_alone_as_in_a_batch():
    tagger = span_tagger()
    nn.init.normal_(tagger.product, std=3)
    tagger.type_bias.data.fill_(1.0)
    encoded = torch.randn(6, 7, 4)
    lengths = [7, 1, 2, 4, 6, 5]
    together = tagger.decode(tagger(batch_of(encoded, lengths)))
    assert together.any()
    for sentence, length in enumerate(lengths):
        labels = together[sentence, :length]
        spans_from_bioes([LABELS[label] for label in labels])
        alone = tagger(batch_of(encoded[sentence : sentence + 1, :length], [length]))
        assert tagger.decode(alone)[0].tolist() == labels.tolist()
        assert not together[sentence, length:].any()


def test_a_span_tagger_refuses_labels_that_are_not_all_of_bioes_in_order():
    for labels in (LABELS[:-1], LABELS[1:], [LABELS[0], *LABELS[5:], *LABELS[1:5]]):
        with pytest.raises(ValueError, match="O and then B, I, E, S of each type"):
            SpanTagger(Given(4), labels, size=3, dropout=0.0)  # type: ignore[arg-type]
