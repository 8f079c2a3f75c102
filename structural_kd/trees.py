"""Dependency trees as arrays of heads: the check, the best tree, and relative-head labels.

`heads[i]` is the head of word i + 1: 0 for the root, else the 1-based index of a word.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FORBIDDEN = -1e4
"""Arc scores at or below this are forbidden."""

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
RelativeLabel = tuple[int, str]
"""(head - dependent, relation); the offset 0 stands for the root."""


def is_tree(heads: Sequence[int] | NDArray[np.integer]) -> bool:
    """Whether the heads [n] form a tree with exactly one root child; no words form no tree.

    >>> is_tree([2, 0, 2]), is_tree([2, 1, 0]), is_tree([0, 0])
    (True, False, False)
    """
    size = len(heads)
    return all(0 <= head <= size for head in heads) and bool(are_trees(np.array([heads]), [size])[0])


def are_trees(heads: ArrayLike, lengths: ArrayLike) -> NDArray[np.bool_]:
    """`is_tree` of each row: heads [B, n], lengths [B] -> [B]. What lies past a length is not looked at."""
    parents = np.asarray(heads, dtype=np.int64)  # [B, n]
    sizes = np.asarray(lengths, dtype=np.int64)  # [B]
    if parents.ndim != 2 or sizes.shape != parents.shape[:1] or (sizes > parents.shape[1]).any():
        raise ValueError(
            f"heads {parents.shape} and lengths {sizes.shape} do not fit; expected [B, n], [B] <= n"
        )
    batch, n = parents.shape
    inside = np.arange(n) < sizes[:, None]  # [B, n]
    one_root = ((parents == 0) & inside).sum(axis=1) == 1  # [B]
    places = np.arange(batch * (n + 1)).reshape(batch, n + 1)  # [B, n+1] of each row's root and words
    roots = places[:, :1]  # [B, 1]
    ancestors = places.copy()  # [B, n+1]
    # A word whose head is out of range stays its own ancestor, and so never gets to the root.
    in_range = (parents >= 0) & (parents <= sizes[:, None])  # [B, n]
    np.copyto(ancestors[:, 1:], parents + roots, where=in_range)
    np.copyto(ancestors[:, 1:], roots, where=~inside)
    ends = _far_ancestors(ancestors.ravel(), n).reshape(batch, n + 1)
    result: NDArray[np.bool_] = one_root & (ends == roots).all(axis=1)  # [B]
    return result


def _far_ancestors(parents: IntArray, n: int) -> IntArray:
    """Each node's ancestor at least n + 1 arcs up, by pointer doubling: [N] -> [N] in O(N log n)."""
    for _ in range(n.bit_length()):
        parents = parents.take(parents)
    ancestors: IntArray = parents
    return ancestors


def maximum_spanning_trees(scores: ArrayLike, lengths: ArrayLike) -> IntArray:
    """The best tree with exactly one root child of each sentence.

    Chu and Liu (1965) and Edmonds (1967) on all sentences at once: while the nodes' best heads hold cycles,
    each cycle becomes one node. Where no cycle but several root children are left, the child that loses least
    by it takes its best other head. At the end the nodes are opened again, the last one first.

    That is exact. Let the penalty λ on every root arc grow until each sentence has one root child: a root
    child leaves the root when λ reaches its loss, and the heads of all nodes stay best ones. A cycle that it
    closes gains λ by a root arc and nothing by any other, so it becomes a root child. The result is a best
    tree under some λ; every tree with one root child pays this λ once, so none of them is better without it.
    As λ itself is not needed, no score is mixed with a large constant: there are only differences of scores.

    Args:
        scores: [k, n, n+1] (sentence, dependent, head or 0). Arcs at `FORBIDDEN` or lower are used as seldom
            as possible, but there is always a tree. The diagonal ``scores[:, i, i + 1]`` and what lies past a
            length are not looked at.
        lengths: [k] words of each sentence, 1 to n.

    Returns:
        heads [k, n], 0 past the lengths. A sentence's do not depend on the other sentences.

    Raises:
        ValueError: the shapes do not fit, a length is out of range, or a score is NaN or +inf.

    A step takes O(k n log n), and O(n) for each node of a cycle or each of several root children. There are
    at most 2n steps, but one to four where the scores are those of a trained parser.

    >>> maximum_spanning_trees([[[1.0, 0.0, 5.0], [2.0, 5.0, 0.0]]], [2]).tolist()
    [[2, 0]]
    """
    given = np.asarray(scores)  # [k, n, n+1]
    sizes = np.asarray(lengths, dtype=np.int64)  # [k]
    if given.ndim != 3 or given.shape[1] < 1 or given.shape[2] != given.shape[1] + 1:
        raise ValueError(f"arc scores have shape {given.shape}; expected [k, n, n+1] with n >= 1")
    k, n, width = given.shape
    if sizes.shape != (k,) or not all(1 <= size <= n for size in sizes.tolist()):
        raise ValueError(f"lengths {sizes.tolist()} do not fit; expected {k} numbers from 1 to {n}")
    if not k:
        return np.zeros((0, n), np.int64)
    padding = np.arange(width) > sizes[:, None]  # [k, n+1]
    forest = _Forest(_arc_scores(given, sizes, padding), padding)
    while True:
        cycles = forest.cycles()
        if cycles:
            forest.contract(cycles)
        elif forest.has_more_root_children:
            forest.turn_root_children()
        else:
            break
    heads = forest.opened()  # [k, n+1]
    heads[padding] = 0
    return heads[:, 1:]


def _arc_scores(given: NDArray[Any], sizes: IntArray, padding: NDArray[np.bool_]) -> FloatArray:
    """Finite scores of the arcs within sentences, -inf elsewhere: [k, n, n+1] -> [k, n+1, n+1]."""
    k, _, width = given.shape
    scores = np.empty((k, width, width))
    scores[:, 0] = -np.inf
    scores[:, 1:] = given
    scores.reshape(k, -1)[:, :: width + 1] = -np.inf  # the diagonals
    scores[padding] = -np.inf
    scores.transpose(0, 2, 1)[padding] = -np.inf
    if not scores.max() < np.inf:
        sentence = int((scores.max((1, 2)) < np.inf).argmin())
        raise ValueError(
            f"the arc scores of sentence {sentence} hold NaN or +inf; "
            "expected numbers, or -inf for a forbidden arc"
        )
    allowed = scores > FORBIDDEN  # [k, n+1, n+1]
    if np.count_nonzero(allowed) == sizes @ sizes:
        return scores
    arcs = ~(padding[:, :, None] | padding[:, None, :] | np.eye(width, dtype=bool))  # [k, n+1, n+1]
    highest = scores.max((1, 2))  # [k]
    lowest = np.where(allowed, scores, np.inf).min((1, 2))  # [k]
    highest, lowest = np.where(highest > FORBIDDEN, [highest, lowest], 0.0)  # [k] each
    # Worse than the lowest by more than any two trees can differ in all their other arcs.
    stand_in = lowest - (sizes + 1) * (highest - lowest + 1.0)  # [k]
    np.copyto(scores[:, 1:], stand_in[:, None, None], where=(arcs & ~allowed)[:, 1:])
    return scores


class _Cycles(NamedTuple):
    """Disjoint cycles, one after the other."""

    members: IntArray  # [m] the nodes
    starts: IntArray  # [c] where a cycle begins in `members`
    which: IntArray  # [m] the cycle of a member


class _Contraction(NamedTuple):
    cycles: _Cycles
    heads: IntArray  # [m] of the members before it
    gains: FloatArray  # [m, n+1] of each other head over these


class _Forest:
    """Nodes of k sentences and their heads, each the best one for its node.

    Words are numbered through the batch, N = k (n+1), each sentence's from its root on. A node is a word or a
    contracted cycle, which bears the number of one of its words; other numbers have a row and a head, but no
    node has them for its head.
    """

    def __init__(self, scores: FloatArray, padding: NDArray[np.bool_]) -> None:
        self._sentences, self._width = padding.shape  # k, n+1
        self._numbers = np.arange(padding.size)  # [N]
        self._roots = self._numbers[:: self._width]  # [k]
        self._root = self._roots.repeat(self._width)  # [N] of the word's sentence
        self._rows = scores.reshape(-1, self._width)  # [N, n+1] a node's score of each word as its head
        self._heads = self._rows.argmax(1) + self._root  # [N] words; each root is its own head
        # So that no word of the padding is a root child.
        np.copyto(self._heads.reshape(padding.shape), self._roots[:, None] + 1, where=padding)
        self._nodes = self._numbers  # [N] the node that a word is part of
        self._contractions: list[_Contraction] = []

    def cycles(self) -> _Cycles | None:
        """All cycles, each from its lowest number on."""
        parents = self._nodes.take(self._heads)  # [N]
        on_cycle = np.zeros(len(parents), bool)
        on_cycle[_far_ancestors(parents, self._width - 1)] = True
        on_cycle[self._roots] = False
        nodes = on_cycle.nonzero()[0]  # [m]
        if not len(nodes):
            return None
        following = dict(zip(nodes.tolist(), parents.take(nodes).tolist(), strict=True))
        members: list[int] = []
        starts: list[int] = []
        which: list[int] = []
        for node in nodes.tolist():
            if node in following:
                starts.append(len(members))
            while node in following:
                members.append(node)
                which.append(len(starts) - 1)
                node = following.pop(node)
        return _Cycles(np.array(members), np.array(starts), np.array(which))

    def contract(self, cycles: _Cycles) -> None:
        """Makes a node of each cycle: an arc into it scores what it gains over the arc that it replaces."""
        members = cycles.members  # [m]
        merged = members.take(cycles.starts)  # [c] the new nodes
        merged_of = merged.take(cycles.which)  # [m]
        heads = self._heads.take(members)  # [m]
        gains = self._rows.take(members, 0)  # [m, n+1]
        gains -= gains[np.arange(len(members)), heads - self._root.take(members)][:, None]
        self._contractions.append(_Contraction(cycles, heads, gains))
        renamed = self._numbers.copy()  # [N]
        renamed[members] = merged_of
        self._nodes = renamed.take(self._nodes)
        best = np.maximum.reduceat(gains, cycles.starts, axis=0)  # [c, n+1]
        words = self._nodes.reshape(self._sentences, -1).take(merged // self._width, 0)  # [c, n+1]
        np.putmask(best, words == merged[:, None], -np.inf)
        self._rows[merged] = best
        # The numbers that are given up must be nobody's root child.
        self._heads[members] = merged_of
        self._heads[merged] = best.argmax(1) + self._root.take(merged)

    @property
    def has_more_root_children(self) -> bool:
        """Whether, when there are no cycles, some sentence has more than one root child."""
        # Each root is its own head, and has at least one child.
        return bool(np.count_nonzero(self._heads == self._root) > 2 * self._sentences)

    def turn_root_children(self) -> None:
        """In each sentence with several, the root child that loses least by it takes its best other head."""
        children = ((self._heads == self._root) & (self._numbers != self._root)).nonzero()[0]
        sentence = children // self._width
        children = children[(np.bincount(sentence) > 1).take(sentence)]  # [r]
        others = self._rows.take(children, 0)  # [r, n+1]
        loss = np.full(len(self._heads), np.inf)  # [N]
        loss[children] = others[:, 0]
        others[:, 0] = -np.inf
        best = others.argmax(1)  # [r]
        loss[children] -= others[np.arange(len(children)), best]
        turned = self._heads.copy()  # [N]
        turned[children] = best + self._root.take(children)
        # Of a sentence with one root child this is the root, whose head stays.
        least = loss.reshape(self._sentences, -1).argmin(1) + self._roots  # [k]
        self._heads[least] = turned[least]

    def opened(self) -> IntArray:
        """The heads of all words, [k, n+1] from 0 for the root on: an arc into a cycle replaces another."""
        heads = self._heads.copy()  # [N]
        for contraction in reversed(self._contractions):
            cycles, gains = contraction.cycles, contraction.gains
            entering = heads.take(cycles.members.take(cycles.starts))  # [c]
            columns = (entering % self._width).take(cycles.which)  # [m]
            gain = gains[np.arange(len(gains)), columns]  # [m]
            is_best = gain == np.maximum.reduceat(gain, cycles.starts).take(cycles.which)  # [m]
            candidates = np.where(is_best, self._numbers[: len(gain)], len(gain))  # [m]
            entered = np.minimum.reduceat(candidates, cycles.starts)  # [c] into `members`
            heads[cycles.members] = contraction.heads
            heads[cycles.members.take(entered)] = entering
        local: IntArray = heads - self._root  # [N]
        return local.reshape(self._sentences, -1)


def relative_labels(heads: Sequence[int], deprels: Sequence[str]) -> list[RelativeLabel]:
    """Each word's label in a sequence labeller: the offset of its head, and its relation.

    >>> relative_labels([2, 0], ["det", "root"])
    [(1, 'det'), (0, 'root')]
    """
    if len(heads) != len(deprels):
        raise ValueError(f"{len(heads)} heads but {len(deprels)} relations")
    for position, head in enumerate(heads):
        if not 0 <= head <= len(heads) or head == position + 1:
            raise ValueError(f"position {position}: head {head} is not 0 or another of {len(heads)} words")
    return [
        (head and head - dependent, deprel)
        for dependent, (head, deprel) in enumerate(zip(heads, deprels, strict=True), start=1)
    ]
