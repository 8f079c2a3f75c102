import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.trees import (
    FORBIDDEN,
    are_trees,
    heads_from_relative,
    is_tree,
    maximum_spanning_tree,
    relative_labels,
)


def reaches_root(heads, word):
    for _ in heads:
        word = heads[word - 1]
        if word == 0:
            return True
    return False


def all_heads(n):
    return np.array(list(itertools.product(range(n + 1), repeat=n)))


def all_trees(n):
    """Every tree with one root child: n^(n-1) of them by Cayley's formula."""
    heads = all_heads(n)
    trees = heads[[is_tree(row) for row in heads]]
    assert len(trees) == n ** (n - 1)
    return trees


TREES = {n: all_trees(n) for n in range(1, 6)}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_tree_has_one_root_and_every_word_below_it(n):
    for heads in all_heads(n).tolist():
        expected = heads.count(0) == 1 and all(reaches_root(heads, word) for word in range(1, n + 1))
        assert is_tree(heads) == expected


@pytest.mark.parametrize("heads", [[], [1], [0, 3], [-1, 0], [0, -1], [0, 0], [2, 1]])
def test_what_is_no_tree(heads):
    assert not is_tree(heads)


def test_are_trees_agrees_with_is_tree_whatever_lies_in_the_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 6, size=4000)
    heads = rng.integers(-1, 7, size=(4000, 5))
    for row, length in zip(heads[:3000], lengths[:3000], strict=True):
        if length:
            row[:length] = TREES[length][rng.integers(len(TREES[length]))]
    expected = [is_tree(row[:length]) for row, length in zip(heads, lengths, strict=True)]
    assert 2000 < sum(expected) < 3900
    assert are_trees(heads, lengths).tolist() == expected


def test_are_trees_follows_long_chains():
    chain = np.arange(100)
    circle = np.r_[0, 100, np.arange(2, 100)]
    assert are_trees(np.stack([chain, chain[::-1] + 2, circle]), np.array([100, 99, 100])).tolist() == [
        True,
        False,
        False,
    ]


def test_are_trees_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected \[B, n\]"):
        are_trees(np.zeros((2, 3)), np.array([1, 2, 3]))
    with pytest.raises(ValueError, match=r"expected \[B, n\]"):
        are_trees(np.zeros((2, 3)), np.array([1, 4]))


def total(scores, heads):
    return scores[np.arange(len(scores)), heads].sum(axis=-1)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_maximum_spanning_tree_is_the_best_of_all_trees(n, scale):
    rng = np.random.default_rng(n)
    for trial in range(60):
        scores = rng.normal(scale=scale, size=(n, n + 1))
        if trial % 3 == 1:
            scores = np.round(scores / scale)
        if trial % 3 == 2:
            scores[:, 0] += 5 * scale
        heads = maximum_spanning_tree(scores)
        assert is_tree(heads)
        assert total(scores, heads) == pytest.approx(
            total(scores, TREES[n]).max(), rel=1e-9, abs=1e-9 * scale
        )


@pytest.mark.parametrize("forbidden", [FORBIDDEN, -1e9, -np.inf])
def test_forbidden_arcs_are_used_as_seldom_as_possible(forbidden):
    rng = np.random.default_rng(1)
    for _ in range(150):
        n = int(rng.integers(2, 6))
        scores = rng.normal(scale=100.0, size=(n, n + 1))
        banned = rng.random(scores.shape) < 0.5
        heads = maximum_spanning_tree(np.where(banned, forbidden, scores))
        assert is_tree(heads)
        counts = total(banned, TREES[n])
        best = total(np.where(banned, 0.0, scores), TREES[n])[counts == counts.min()].max()
        assert total(banned, heads) == counts.min()
        assert total(np.where(banned, 0.0, scores), heads) == pytest.approx(best)


def test_a_tree_comes_out_even_if_every_arc_is_forbidden():
    assert is_tree(maximum_spanning_tree(np.full((6, 7), -np.inf)))
    assert is_tree(maximum_spanning_tree(np.full((6, 7), -1e30)))


def test_greedy_heads_that_are_a_tree_are_kept():
    rng = np.random.default_rng(2)
    for heads in TREES[5][rng.integers(len(TREES[5]), size=50)]:
        scores = rng.normal(size=(5, 6))
        scores[np.arange(5), heads] += 20.0
        assert maximum_spanning_tree(scores).tolist() == heads.tolist()


def test_the_diagonal_is_not_looked_at():
    scores = np.random.default_rng(3).normal(size=(5, 6))
    expected = maximum_spanning_tree(scores).tolist()
    for value in (1e6, np.nan, np.inf):
        scores[np.arange(5), np.arange(5) + 1] = value
        assert maximum_spanning_tree(scores).tolist() == expected


def test_long_sentences_with_nested_cycles_get_a_tree():
    rng = np.random.default_rng(4)
    n = 300
    distance = np.abs(np.arange(1, n + 1)[:, None] - np.arange(n + 1)[None, :])
    for scores in (rng.normal(size=(n, n + 1)), -1.0 * distance, rng.normal(size=(n, n + 1)) - distance):
        heads = maximum_spanning_tree(scores)
        assert heads.dtype == np.int64
        assert is_tree(heads)
        greedy = np.where(np.eye(n, n + 1, 1, dtype=bool), -np.inf, scores).max(axis=1)
        assert total(scores, heads) <= greedy.sum()


def test_the_argument_is_left_as_it_was():
    scores = np.random.default_rng(5).normal(size=(4, 5))
    before = scores.copy()
    maximum_spanning_tree(scores)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("shape", [(0, 1), (3, 3), (4,), (2, 3, 4)])
def test_scores_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"expected \[n, n\+1\]"):
        maximum_spanning_tree(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_an_error(value):
    scores = np.zeros((3, 4))
    scores[1, 0] = value
    with pytest.raises(ValueError, match="NaN or \\+inf"):
        maximum_spanning_tree(scores)


@given(st.integers(1, 5).flatmap(lambda n: st.sampled_from(TREES[n].tolist())))
def test_relative_labels_round_trip(heads):
    deprels = [f"r{index}" for index in range(len(heads))]
    labels = relative_labels(heads, deprels)
    assert [offset for offset, _ in labels].count(0) == 1
    assert heads_from_relative(labels) == (heads, deprels)


def test_relative_labels_are_offsets_from_the_dependent():
    assert relative_labels([2, 0, 2], ["det", "root", "obj"]) == [(1, "det"), (0, "root"), (-1, "obj")]


@pytest.mark.parametrize("heads", [[3, 0], [1, 0], [-1, 0]])
def test_relative_labels_refuse_heads_that_point_nowhere(heads):
    with pytest.raises(ValueError, match="position 0"):
        relative_labels(heads, ["a", "b"])


def test_relative_labels_refuse_another_number_of_relations():
    with pytest.raises(ValueError, match="2 heads but 1 relations"):
        relative_labels([0, 1], ["a"])


@pytest.mark.parametrize("labels", [[(2, "a"), (0, "b")], [(0, "a"), (-2, "b")], [(0, "a"), (1, "b")]])
def test_offsets_that_leave_the_sentence_are_an_error(labels):
    with pytest.raises(ValueError, match="outside of 2 words"):
        heads_from_relative(labels)
