"""Dependency trees as arrays of heads: the check, the best tree, and relative-head labels.

`heads[i]` is the head of word i + 1: 0 for the root, else the 1-based index of a word.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FORBIDDEN = -1e4
"""Arc scores at or below this are forbidden."""

RelativeLabel = tuple[int, str]
"""(head - dependent, relation); the offset 0 stands for the root."""


def is_tree(heads: Sequence[int] | NDArray[np.integer]) -> bool:
    """Whether the heads [n] form a tree with exactly one root child; no words form no tree.

    >>> is_tree([2, 0, 2]), is_tree([2, 1, 0]), is_tree([0, 0])
    (True, False, False)
    """
    parents = [0, *(int(head) for head in heads)]
    size = len(parents)
    if parents[1:].count(0) != 1 or any(not 0 <= head < size for head in parents):
        return False
    reaches_root = [True] + [False] * (size - 1)
    for word in range(1, size):
        path: list[int] = []
        while not reaches_root[word]:
            if len(path) >= size:
                return False
            path.append(word)
            word = parents[word]
        for seen in path:
            reaches_root[seen] = True
    return True


def are_trees(heads: ArrayLike, lengths: ArrayLike) -> NDArray[np.bool_]:
    """`is_tree` of each row: heads [B, n], lengths [B] -> [B]. What lies past a length is not looked at.

    Pointer doubling: after k steps each word points to its ancestor 2^k arcs up, so O(B n log n).
    """
    parents = np.asarray(heads, dtype=np.int64)  # [B, n]
    sizes = np.asarray(lengths, dtype=np.int64)  # [B]
    if parents.ndim != 2 or sizes.shape != parents.shape[:1] or (sizes > parents.shape[1]).any():
        raise ValueError(
            f"heads {parents.shape} and lengths {sizes.shape} do not fit; expected [B, n], [B] <= n"
        )
    inside = np.arange(parents.shape[1]) < sizes[:, None]  # [B, n]
    in_range = ((parents >= 0) & (parents <= sizes[:, None])) | ~inside  # [B, n]
    one_root = ((parents == 0) & inside).sum(axis=1) == 1  # [B]
    ancestors = np.where(inside & in_range, parents, 0)  # [B, n]
    # Column 0 is the root, which is its own ancestor.
    ancestors = np.concatenate([np.zeros_like(ancestors[:, :1]), ancestors], axis=1)  # [B, n+1]
    for _ in range(parents.shape[1].bit_length()):
        ancestors = np.take_along_axis(ancestors, ancestors, axis=1)  # [B, n+1]
    result: NDArray[np.bool_] = one_root & in_range.all(axis=1) & (ancestors == 0).all(axis=1)  # [B]
    return result


def maximum_spanning_tree(scores: ArrayLike) -> NDArray[np.int64]:
    """The best tree with exactly one root child: scores [n, n+1] (dependent, head or 0) -> heads [n].

    Chu-Liu/Edmonds in O(n^2) for dense graphs (Tarjan 1977; path growing as in Gabow et al. 1986). Where the
    best tree has several root children, every root arc is made worse by more than any two trees can differ in
    all their other arcs, so that the best one has as few as there can be, which is one (Zmigrod et al. 2020
    discuss this and others). Arcs scored `FORBIDDEN` or lower are used as seldom as possible, but there is
    always a tree. The diagonal `scores[i, i + 1]` is not looked at. NaN or +inf is a `ValueError`.

    >>> maximum_spanning_tree([[1.0, 0.0, 5.0], [2.0, 5.0, 0.0]]).tolist()
    [2, 0]
    """
    given = np.array(scores, dtype=np.float64, order="C")  # [n, n+1], a copy
    if given.ndim != 2 or given.shape[0] < 1 or given.shape[1] != given.shape[0] + 1:
        raise ValueError(f"arc scores have shape {given.shape}; expected [n, n+1] with n >= 1")
    n = given.shape[0]
    diagonal = given.reshape(-1)[1 :: n + 2]  # [n], a view
    diagonal[:] = -np.inf
    highest = float(given.max())
    if not highest < np.inf:
        raise ValueError("arc scores hold NaN or +inf; expected numbers, or -inf for a forbidden arc")
    forbidden = given <= FORBIDDEN  # [n, n+1], the diagonal included
    if highest <= FORBIDDEN:
        highest = lowest = 0.0
    else:
        lowest = float(given.min(where=~forbidden, initial=highest))
    if np.count_nonzero(forbidden) > n:
        lowest -= (n + 1) * (highest - lowest + 1.0)
        given[forbidden] = lowest
        diagonal[:] = -np.inf
    heads = _best_arborescence(given.tolist())
    if heads.count(0) > 1:
        given[:, 0] -= (n + 1) * (highest - lowest + 1.0)
        heads = _best_arborescence(given.tolist())
    return np.array(heads, dtype=np.int64)


def _best_arborescence(scores: list[list[float]]) -> list[int]:
    """The best heads of the words 1, ..., n, whatever the number of root children.

    Args:
        scores: n rows of n + 1 (dependent, head or 0); a word's arc to itself is -inf, root arcs are finite.

    Lists, not arrays: a sentence's rows are so short that numpy's calls would cost more than their work.
    """
    n = len(scores)
    # Nodes are the root 0, the words, and from n + 1 on the cycles that were contracted.
    rows = [[], *scores]  # the score of each word as a node's head, -inf for words of the node itself
    words = [[word] for word in range(n + 1)]  # of a node
    cycles: list[list[int]] = [[] for _ in range(n + 1)]  # the nodes that a node is made of
    outermost = list(range(n + 1))  # the node that a word is part of
    chosen = [0] * (n + 1)  # the word that is a node's best head, and the score of that arc
    chosen_score = [0.0] * (n + 1)
    finished = {0}  # nodes that are connected to the root
    for word in range(1, n + 1):
        path: list[int] = []  # each node's best head follows it
        node = outermost[word]
        while node not in finished:
            path.append(node)
            chosen_score[node] = max(rows[node])
            chosen[node] = rows[node].index(chosen_score[node])
            node = outermost[chosen[node]]
            if node not in path:
                continue
            start = path.index(node)
            cycle, node = path[start:], len(rows)
            del path[start:]
            # What an arc into the cycle gains over the one that it replaces.
            first, *others = cycle
            loss = chosen_score[first]
            row = [score - loss for score in rows[first]]
            for member in others:
                loss = chosen_score[member]
                row = [
                    best if best > (gain := score - loss) else gain
                    for best, score in zip(row, rows[member], strict=True)
                ]
            inside = [part for member in cycle for part in words[member]]
            for part in inside:
                row[part] = -np.inf
                outermost[part] = node
            rows.append(row)
            words.append(inside)
            cycles.append(cycle)
            chosen.append(0)
            chosen_score.append(0.0)
        finished.update(path)
    heads = [0] * (n + 1)
    unresolved = [(node, chosen[node]) for node in set(outermost[1:])]
    while unresolved:
        node, head = unresolved.pop()
        while cycles[node]:
            gains = [rows[member][head] - chosen_score[member] for member in cycles[node]]
            entered = cycles[node][gains.index(max(gains))]
            unresolved.extend((member, chosen[member]) for member in cycles[node] if member != entered)
            node = entered
        heads[node] = head
    return heads[1:]


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


def heads_from_relative(labels: Sequence[RelativeLabel]) -> tuple[list[int], list[str]]:
    """The inverse of `relative_labels`; an offset that points past the sentence is a `ValueError`.

    The heads need not be a tree: labels are chosen word by word.
    """
    heads = []
    for position, (offset, _) in enumerate(labels):
        head = position + 1 + offset if offset else 0
        if offset and not 1 <= head <= len(labels):
            raise ValueError(f"position {position}: offset {offset} points outside of {len(labels)} words")
        heads.append(head)
    return heads, [deprel for _, deprel in labels]
