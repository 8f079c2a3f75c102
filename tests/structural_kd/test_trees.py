import itertools

import networkx  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structural_kd.trees import (
    FORBIDDEN,
    are_trees,
    is_tree,
    maximum_spanning_trees,
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
    trees = heads[are_trees(heads, [n] * len(heads))]
    assert len(trees) == n ** (n - 1)
    return trees


def maximum_spanning_tree(scores):
    """The best tree of one sentence, alone."""
    return maximum_spanning_trees(np.asarray(scores)[None], [len(scores)])[0]


TREES = {n: all_trees(n) for n in range(1, 6)}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_tree_has_one_root_and_every_word_below_it(n):
    for heads in all_heads(n).tolist():
        expected = heads.count(0) == 1 and all(reaches_root(heads, word) for word in range(1, n + 1))
        assert is_tree(heads) == expected


@pytest.mark.parametrize("heads", [[], [1], [0, 3], [-1, 0], [0, -1], [0, 0], [2, 1]])
def test_heads_that_are_no_tree(heads):
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
    """[..., n, n+1], [..., n] -> [...]."""
    return np.take_along_axis(scores, np.asarray(heads)[..., None], axis=-1)[..., 0].sum(axis=-1)


def best_totals(scores):
    """Of all trees, one by one: [k, n, n+1] -> [k]."""
    n = scores.shape[1]
    return np.max([scores[:, np.arange(n), heads].sum(axis=-1) for heads in TREES[n]], axis=0)


def nested_cycles(n):
    """Scores [n, n+1] by which the words 1 and 2 form a cycle, this and 3 another, and so on up to n."""
    scores = np.full((n, n + 1), -9e3)
    scores[np.arange(1, n), np.arange(1, n)] = 0.0  # a word's head is the one before it
    scores[0, 2:] = -np.arange(2.0, n + 1)  # the first one's are the others, the nearer the better
    scores[:, 0] = -5e3
    return scores


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("small integers", lambda rng, shape: rng.integers(-2, 3, shape)),
        ("integers", lambda rng, shape: rng.integers(-50, 50, shape)),
        ("huge integers", lambda rng, shape: rng.integers(-(10**6), 10**6, shape)),
        ("huge and small", lambda rng, shape: rng.choice([-(10**6), -1, 0, 1, 10**6], shape)),
        ("all the same", lambda rng, shape: np.full(shape, 7)),
        ("good roots", lambda rng, shape: rng.integers(0, 10, shape) + 5 * np.eye(1, shape[-1], dtype=int)),
        ("bad roots", lambda rng, shape: rng.integers(0, 10, shape) - 500 * np.eye(1, shape[-1], dtype=int)),
    ],
)
def test_integer_scores_get_exactly_the_best_of_all_trees(n, name, draw):
    # Sums and differences of such integers are exact, so that the totals are equal to the last bit; scores at
    # FORBIDDEN and below are shifted above it, which changes no tree's rank.
    scores = draw(np.random.default_rng(n), (700, n, n + 1)).astype(np.float64)
    scores -= min(scores.min(), 0.0)
    heads = maximum_spanning_trees(scores, [n] * 700)
    assert all(is_tree(row) for row in heads)
    np.testing.assert_array_equal(total(scores, heads), best_totals(scores), err_msg=name)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_scores_get_the_best_of_all_trees(n, scale, dtype):
    scores = np.random.default_rng(n).normal(scale=scale, size=(500, n, n + 1)).astype(dtype)
    heads = maximum_spanning_trees(scores, [n] * 500)
    assert all(is_tree(row) for row in heads)
    exact = scores.astype(np.float64)
    np.testing.assert_allclose(total(exact, heads), best_totals(exact), rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_forbidden_arcs_are_used_as_seldom_as_possible(n, share):
    rng = np.random.default_rng(n)
    scores = rng.integers(-100, 1000, size=(500, n, n + 1)).astype(np.float64)
    banned = rng.random(scores.shape) < share
    forbidden = rng.choice([FORBIDDEN, -1e9, -1e30, -np.inf], scores.shape)
    heads = maximum_spanning_trees(np.where(banned, forbidden, scores), [n] * 500)
    assert all(is_tree(row) for row in heads)
    counts = np.min([banned[:, np.arange(n), tree].sum(axis=-1) for tree in TREES[n]], axis=0)
    np.testing.assert_array_equal(total(banned, heads), counts)
    allowed = np.where(banned, -1e6, scores)  # each costs more than all the others can gain
    np.testing.assert_array_equal(total(allowed, heads), best_totals(allowed))


@pytest.mark.parametrize("value", [FORBIDDEN, -1e30, -np.inf])
def test_a_tree_comes_out_even_if_every_arc_is_forbidden(value):
    heads = maximum_spanning_trees(np.full((2, 6, 7), value), [6, 3])
    assert are_trees(heads, [6, 3]).all()


def networkx_heads(scores):
    """The best tree of integer scores by networkx: every root arc costs more than all other arcs together."""
    graph = networkx.DiGraph()
    penalty = 2 * int(np.abs(scores).sum()) + 1
    for dependent, row in enumerate(scores.astype(int).tolist(), start=1):
        for head, score in enumerate(row):
            if head != dependent:
                graph.add_edge(head, dependent, weight=score - (penalty if head == 0 else 0))
    best = networkx.maximum_spanning_arborescence(graph)
    return [next(iter(best.predecessors(word))) for word in range(1, len(scores) + 1)]


def test_longer_sentences_get_the_total_of_networkx():
    rng = np.random.default_rng(6)
    lengths = rng.integers(6, 26, 60)
    scores = rng.integers(-100, 100, size=(60, 25, 26)).astype(np.float64)
    scores[15:30] = np.round(scores[15:30] / 40)  # ties
    scores[30:45, :, 0] += 150  # many root children
    distance = np.abs(np.arange(1, 26)[:, None] - np.arange(26))
    scores[45:] -= 30 * distance  # cycles of neighbours, within each other
    heads = maximum_spanning_trees(scores, lengths)
    assert are_trees(heads, lengths).all()
    for row, table, n in zip(heads, scores, lengths, strict=True):
        expected = networkx_heads(table[:n, : n + 1])
        assert is_tree(expected)
        assert total(table[:n], row[:n]) == total(table[:n], expected)


@pytest.mark.parametrize("n", [2, 3, 5, 40, 512])
def test_cycles_within_cycles_are_opened_again_at_the_right_arc(n):
    scores = nested_cycles(n)
    chain = list(range(n))
    assert maximum_spanning_tree(scores).tolist() == chain
    # With the last word as root, the first has no other head than this; which costs n points.
    last = [n, *range(1, n - 1), 0]
    scores[-1, 0] += n - 1
    assert maximum_spanning_tree(scores).tolist() == chain
    scores[-1, 0] += 2
    assert maximum_spanning_tree(scores).tolist() == last


@pytest.mark.parametrize(
    "scores",
    [
        np.random.default_rng(4).normal(size=(512, 513)),
        np.random.default_rng(4).normal(size=(512, 513)) + 5 * np.eye(1, 513),
        -1.0 * np.abs(np.arange(1, 513)[:, None] - np.arange(513)),
        np.zeros((512, 513)),
    ],
    ids=["random", "all words root children", "neighbours", "ties"],
)
def test_no_arc_of_a_tree_of_512_words_can_be_exchanged_for_a_better_one(scores):
    heads = maximum_spanning_tree(scores)
    assert heads.dtype == np.int64
    assert is_tree(heads)
    takes = np.ones((512, 513), bool)  # which heads a word could have instead and still be in a tree
    takes[:, 0] = False
    takes[heads == 0] = False
    for word in range(1, 513):
        ancestor = word
        while ancestor:
            takes[ancestor - 1, word] = False
            ancestor = heads[ancestor - 1]
    present = np.take_along_axis(scores, heads[:, None], axis=1)
    assert (np.where(takes, scores, -np.inf) <= present).all()


def test_greedy_heads_that_are_a_tree_are_kept():
    rng = np.random.default_rng(2)
    trees = TREES[5][rng.integers(len(TREES[5]), size=200)]
    scores = rng.normal(size=(200, 5, 6))
    np.put_along_axis(scores, trees[..., None], 20.0, axis=-1)
    np.testing.assert_array_equal(maximum_spanning_trees(scores, [5] * 200), trees)


def test_a_sentences_tree_depends_on_nothing_but_its_own_arcs():
    rng = np.random.default_rng(7)
    lengths = rng.integers(1, 13, 300)
    scores = rng.normal(size=(300, 12, 13))
    scores[::3] = np.round(scores[::3])  # ties
    scores[1::5, :, 0] += 3
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    alone = [maximum_spanning_tree(row[:n, : n + 1]) for row, n in zip(scores, lengths, strict=True)]
    for garbage in (0.0, 1e9, np.nan, np.inf):
        arcs = scores.copy()
        arcs[:, np.arange(12), np.arange(12) + 1] = garbage
        for row, n in zip(arcs, lengths, strict=True):
            row[n:] = garbage
            row[:, n + 1 :] = garbage
        order = rng.permutation(300)
        for part in (order, order[:7], order[7:9]):
            for i, heads in zip(part, maximum_spanning_trees(arcs[part], lengths[part]), strict=True):
                assert heads[: lengths[i]].tolist() == alone[i].tolist()
                assert not heads[lengths[i] :].any()


def test_a_single_word_is_the_root():
    assert maximum_spanning_trees([[[-3.0, np.nan]], [[-np.inf, 5.0]]], [1, 1]).tolist() == [[0], [0]]


def test_no_sentences_get_no_trees():
    assert maximum_spanning_trees(np.zeros((0, 4, 5)), []).shape == (0, 4)


def test_the_argument_is_left_as_it_was():
    scores = np.random.default_rng(5).normal(size=(3, 4, 5))
    before = scores.copy()
    maximum_spanning_trees(scores, [4, 2, 3])
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("shape", [(1, 0, 1), (1, 3, 3), (1, 4), (1, 2, 3, 4)])
def test_scores_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"expected \[k, n, n\+1\]"):
        maximum_spanning_trees(np.zeros(shape), [1])


@pytest.mark.parametrize("lengths", [[0, 3], [4, 3], [3], [[3, 3]]])
def test_lengths_that_do_not_fit_are_an_error(lengths):
    with pytest.raises(ValueError, match="expected 2 numbers from 1 to 3"):
        maximum_spanning_trees(np.zeros((2, 3, 4)), lengths)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("other", [0.0, -np.inf])
def test_scores_that_are_no_numbers_are_an_error(value, other):
    scores = np.full((2, 3, 4), other)
    scores[1, 1, 0] = value
    with pytest.raises(ValueError, match="sentence 1 hold NaN or \\+inf"):
        maximum_spanning_trees(scores, [3, 2])


@given(st.integers(1, 5).flatmap(lambda n: st.sampled_from(TREES[n].tolist())))
def test_relative_labels_round_trip(heads):
    deprels = [f"r{index}" for index in range(len(heads))]
    labels = relative_labels(heads, deprels)
    assert [offset for offset, _ in labels].count(0) == 1
    restored = [word + offset if offset else 0 for word, (offset, _) in enumerate(labels, start=1)]
    assert (restored, [deprel for _, deprel in labels]) == (heads, deprels)


def test_relative_labels_are_offsets_from_the_dependent():
    assert relative_labels([2, 0, 2], ["det", "root", "obj"]) == [(1, "det"), (0, "root"), (-1, "obj")]


@pytest.mark.parametrize("heads", [[3, 0], [1, 0], [-1, 0]])
def test_relative_labels_refuse_heads_that_point_nowhere(heads):
    with pytest.raises(ValueError, match="position 0"):
        relative_labels(heads, ["a", "b"])


def test_relative_labels_refuse_another_number_of_relations():
    with pytest.raises(ValueError, match="2 heads but 1 relations"):
        relative_labels([0, 1], ["a"])
