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

    Chu-Liu/Edmonds in O(n^2) for dense graphs (Tarjan 1977; path growing as in Gabow et al. 1986). One
    root child: every root arc is made worse by more than any two trees can differ in all their other arcs, so
    that the best tree has as few root children as there can be, which is one (Zmigrod et al. 2020
    discuss this and others). Arcs scored `FORBIDDEN` or lower are used as seldom as possible, but there is
    always a tree. The diagonal `scores[i, i + 1]` is not looked at. NaN or +inf is a `ValueError`.

    >>> maximum_spanning_tree([[1.0, 0.0, 5.0], [2.0, 5.0, 0.0]]).tolist()
    [2, 0]
    """
    given = np.asarray(scores, dtype=np.float64)  # [n, n+1]
    if given.ndim != 2 or given.shape[0] < 1 or given.shape[1] != given.shape[0] + 1:
        raise ValueError(f"arc scores have shape {given.shape}; expected [n, n+1] with n >= 1")
    n = given.shape[0]
    arcs = np.ones_like(given, dtype=np.bool_)  # [n, n+1]
    arcs[np.arange(n), np.arange(n) + 1] = False
    if np.isnan(given[arcs]).any() or np.isposinf(given[arcs]).any():
        raise ValueError("arc scores hold NaN or +inf; expected numbers, or -inf for a forbidden arc")
    allowed = arcs & (given > FORBIDDEN)  # [n, n+1]
    highest = given[allowed].max() if allowed.any() else 0.0
    lowest = given[allowed].min() if allowed.any() else 0.0
    if not allowed[arcs].all():
        lowest -= (n + 1) * (highest - lowest + 1.0)
    penalised = np.where(allowed, given, lowest)  # [n, n+1]
    penalised[:, 0] -= (n + 1) * (highest - lowest + 1.0)
    return _best_arborescence(np.concatenate([np.zeros((1, n + 1)), penalised]))[1:]


def _best_arborescence(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The best heads [m] of the nodes 1, ..., m - 1; scores [m, m] (dependent, head); node 0 is the root."""
    m = len(scores)
    size = 2 * m  # a contraction of at least two nodes adds one, so there are fewer than m of them
    best = np.full((size, size), -np.inf)  # (dependent, head), of nodes that are not part of another
    best[:m, :m] = scores
    np.fill_diagonal(best, -np.inf)
    # The arc between words that an arc between nodes stands for.
    dependent_of, head_of = np.indices((size, size))
    part_of = [-1] * size
    parts: list[list[int]] = [[] for _ in range(size)]
    chosen = [(0, 0)] * size  # the arc (dependent, head) into a node
    chosen_score = np.zeros(size)
    finished = [True] + [False] * (size - 1)  # connected to the root
    nodes = m
    for word in range(1, m):
        if finished[_outermost(word, part_of)]:
            continue
        path = [_outermost(word, part_of)]  # each node's best head follows it
        while True:
            node = path[-1]
            head = int(best[node].argmax())
            chosen[node] = int(dependent_of[node, head]), int(head_of[node, head])
            chosen_score[node] = best[node, head]
            if finished[head]:
                for connected in path:
                    finished[connected] = True
                break
            if head not in path:
                path.append(head)
                continue
            cycle = path[path.index(head) :]
            path[-len(cycle) :] = [nodes]
            into = best[cycle] - chosen_score[cycle][:, None]  # [cycle, size]: the gain if broken there
            breaks = np.array(cycle)[into.argmax(axis=0)]  # [size]
            best[nodes] = into.max(axis=0)
            dependent_of[nodes] = dependent_of[breaks, np.arange(size)]
            head_of[nodes] = head_of[breaks, np.arange(size)]
            out = best[:, cycle]  # [size, cycle]
            leaves = np.array(cycle)[out.argmax(axis=1)]  # [size]
            best[:, nodes] = out.max(axis=1)
            dependent_of[:, nodes] = dependent_of[np.arange(size), leaves]
            head_of[:, nodes] = head_of[np.arange(size), leaves]
            best[cycle, :] = -np.inf
            best[:, cycle] = -np.inf
            best[nodes, nodes] = -np.inf
            parts[nodes] = cycle
            for member in cycle:
                part_of[member] = nodes
            nodes += 1
    heads = np.zeros(m, dtype=np.int64)
    open_nodes = [node for node in range(1, nodes) if part_of[node] == -1]
    while open_nodes:
        node = open_nodes.pop()
        dependent, heads[dependent] = chosen[node]
        while dependent != node:
            open_nodes.extend(part for part in parts[part_of[dependent]] if part != dependent)
            dependent = part_of[dependent]
    return heads


def _outermost(node: int, part_of: list[int]) -> int:
    while part_of[node] != -1:
        node = part_of[node]
    return node


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
