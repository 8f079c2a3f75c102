"""Entities with exact probabilities, and heads that are trees."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from structural_kd.decoding import RelativeArcs, SpanReader, complete_trees, span_scores
from structural_kd.labels import bioes_constraints, bioes_labels, spans_from_bioes
from structural_kd.trees import is_tree
from train.models.parsers import SequenceLabellingParser
from train.structs import FORBIDDEN, LinearChain

LABELS = bioes_labels(["A", "B"])


def test_spans_of_a_batch_are_those_of_its_tag_sequences():
    rng = np.random.default_rng(0)
    allowed = bioes_constraints(LABELS)
    lengths = np.array([1, 9, 4, 12])
    labels = np.zeros((4, 12), np.int64)
    for row, n in zip(labels, lengths, strict=True):
        while True:
            row[:n] = rng.integers(0, len(LABELS), n)
            for i in range(1, n):
                row[i] = rng.choice(np.flatnonzero(allowed.transitions[row[i - 1]]))
            if allowed.start[row[0]] and allowed.end[row[n - 1]]:
                break
    reader = SpanReader(LABELS)
    spans = reader.spans(labels, lengths)
    found = list(zip(spans.sentence, spans.label, spans.start, spans.end, strict=True))
    for i, n in enumerate(lengths):
        ours = [(reader.types[label], start, end) for s, label, start, end in found if s == i]
        assert ours == [tuple(span) for span in spans_from_bioes([LABELS[y] for y in labels[i, :n]])]


@pytest.mark.parametrize("labels", [[1, 0], [0, 3], [2, 2], [3, 1], [1, 7], [0, 1]])
def test_an_invalid_sequence_is_not_read_as_spans(labels):
    with pytest.raises(ValueError, match="no valid BIOES"):
        SpanReader(LABELS).spans(np.array([labels]), np.array([2]))


def test_a_spans_score_is_the_total_probability_of_all_sequences_with_it():
    torch.manual_seed(0)
    n, size = 4, 5
    labels = bioes_labels(["A"])
    allowed = bioes_constraints(labels)
    transitions, start, end = (
        torch.randn(*shape).double() + torch.where(torch.as_tensor(mask), 0.0, FORBIDDEN)
        for shape, mask in (
            ((size, size), allowed.transitions),
            ((size,), allowed.start),
            ((size,), allowed.end),
        )
    )
    chain = LinearChain(torch.randn(1, n, size).double(), transitions, start, end, torch.tensor([n]))
    sequences = torch.tensor(list(itertools.product(range(size), repeat=n)))
    many = LinearChain(
        (chain.unary - _ends(start, end, n)).expand(len(sequences), -1, -1),
        transitions, start, end, torch.full((len(sequences),), n),
    )  # fmt: skip
    probabilities = many.log_prob(sequences).exp()
    assert float(probabilities.sum()) == pytest.approx(1)
    tokens, pairs = chain.marginals()
    for y in ([1, 2, 2, 3], [0, 1, 3, 4], [4, 0, 1, 3], [1, 2, 3, 0]):
        chosen = tokens[0, range(n), y].log().numpy()[None]
        moves = np.concatenate([[0.0], pairs[0, range(n - 1), y[:-1], y[1:]].log().numpy()])[None]
        spans = SpanReader(labels).spans(np.array([y]), np.array([n]))
        for i, score in enumerate(span_scores(spans, chosen, moves)):
            a, b = spans.start[i], spans.end[i]
            same = (sequences[:, a:b] == torch.tensor(y[a:b])).all(1)
            assert score == pytest.approx(float(probabilities[same].sum()), rel=1e-6)


def _ends(start: torch.Tensor, end: torch.Tensor, n: int) -> torch.Tensor:
    ends = torch.zeros(1, n, len(start)).double()
    ends[0, 0] += start
    ends[0, -1] += end
    return ends


def test_heads_that_are_trees_stay_and_the_others_become_the_best_tree():
    heads = np.array([[2, 0, 2], [2, 1, 0], [0, 0, 7]])
    lengths = np.array([3, 3, 2])
    scores = np.random.default_rng(0).standard_normal((3, 3, 4))
    asked: list[Any] = []

    def arc_scores(broken: Any) -> Any:
        asked.append(broken.tolist())
        return scores[broken]

    repaired, changed = complete_trees(heads, lengths, arc_scores)
    assert asked == [[1, 2]]
    assert changed.tolist() == [1, 2]
    assert heads[1].tolist() == [2, 1, 0], "the caller's heads are not written to"
    assert repaired[0].tolist() == [2, 0, 2]
    assert repaired[2, 2] == 7, "nor is the padding changed"
    assert all(is_tree(row[:n]) for row, n in zip(repaired, lengths, strict=True))


def test_completed_trees_are_the_best_ones_of_their_sentences():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 5, 200)
    scores = rng.integers(-5, 5, (200, 4, 5))
    scores[:, range(4), range(1, 5)] = -100  # a word's arc to itself
    greedy = np.stack(
        [np.argmax(table[:, : n + 1], axis=1) for table, n in zip(scores, lengths, strict=True)]
    )
    completed, changed = complete_trees(greedy, lengths, lambda broken: scores[broken].astype(np.float32))
    assert 50 < len(changed) < 200
    for i, (table, n) in enumerate(zip(scores, lengths.tolist(), strict=True)):
        trees = [heads for heads in itertools.product(range(n + 1), repeat=n) if is_tree(heads)]
        assert is_tree(completed[i, :n])
        assert table[range(n), completed[i, :n]].sum() == max(table[range(n), tree].sum() for tree in trees)
        assert (i in changed) == (not is_tree(greedy[i, :n]))


def test_arc_scores_are_not_asked_for_where_all_heads_are_trees():
    def arc_scores(broken: Any) -> Any:
        raise AssertionError

    heads = np.array([[2, 0], [0, 9]])
    completed, changed = complete_trees(heads, np.array([2, 1]), arc_scores)
    assert completed.tolist() == heads.tolist()
    assert not len(changed)


def test_arcs_of_relative_labels_are_those_of_the_torch_parser():
    relations = ["a", "b", "c"]
    labels = [(2, "b"), (0, "a"), (-1, "c"), (1, "a"), (-1, "a"), (0, "c"), (-4, "b")]
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((2, 5, len(labels))).astype(np.float32)
    arcs = RelativeArcs(labels, relations)

    class Given(torch.nn.Module):
        output_size = len(labels)

        def forward(self, _: Any) -> torch.Tensor:
            return torch.from_numpy(scores)

    parser = SequenceLabellingParser(Given(), relations, labels)  # type: ignore[arg-type]
    parser.label_scores = torch.nn.Identity()  # type: ignore[assignment]

    class Batch:
        lengths = torch.tensor([5, 5])

    distribution = parser(Batch())  # type: ignore[arg-type]
    best, kinds = distribution.scores.max(-1)
    inside = distribution.allowed.numpy()
    np.testing.assert_allclose(arcs.arc_scores(scores)[inside], best.numpy()[inside])
    sentence, token, head = np.nonzero(inside & (best.numpy() > FORBIDDEN))
    found, values = arcs.relations(token, head, scores[sentence, token])
    np.testing.assert_array_equal(found, kinds.numpy()[sentence, token, head])
    np.testing.assert_allclose(values, best.numpy()[sentence, token, head])
