"""Decisions to structures, in numpy: entities with their probabilities, and heads that form trees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structural_kd.labels import bioes_constraints, split_tag
from structural_kd.trees import FORBIDDEN, RelativeLabel, are_trees, maximum_spanning_trees

IntArray = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Spans:
    """Entities of a batch, sentence by sentence from left to right; each field is [S].

    ``end`` is exclusive, ``label`` the id of the entity's first BIOES tag.
    """

    sentence: IntArray
    start: IntArray
    end: IntArray
    label: IntArray


class SpanReader:
    """Reads BIOES label ids as spans.

    >>> spans = SpanReader(["O", "B-A", "I-A", "E-A", "S-A"]).spans(np.array([[1, 3, 0, 4]]), np.array([4]))
    >>> spans.start.tolist(), spans.end.tolist()
    ([0, 3], [2, 4])
    """

    def __init__(self, labels: Sequence[str]) -> None:
        tags = [split_tag(label, position, "bioes") for position, label in enumerate(labels)]
        self.types = [label for _, label in tags]
        self._allowed = bioes_constraints(labels)
        self._opens = np.array([prefix in "BS" for prefix, _ in tags])  # [L]
        self._closes = np.array([prefix in "ES" for prefix, _ in tags])  # [L]

    def spans(self, labels: IntArray, lengths: IntArray) -> Spans:
        """The entities of BIOES sequences: label ids [B, n], lengths [B], at least 1.

        Raises:
            ValueError: a sequence is not valid.
        """
        inside = np.arange(labels.shape[1]) < lengths[:, None]  # [B, n]
        follows = self._allowed.transitions[labels[:, :-1], labels[:, 1:]] | ~inside[:, 1:]  # [B, n-1]
        ends = labels[np.arange(len(labels)), lengths - 1]  # [B]
        valid = follows.all(1) & self._allowed.start[labels[:, 0]] & self._allowed.end[ends]  # [B]
        if not valid.all():
            raise ValueError(f"the labels of sentence {int(valid.argmin())} are no valid BIOES sequence")
        # In a valid sequence every entity that begins is the next one to end.
        sentence, start = np.nonzero(self._opens[labels] & inside)  # [S] each
        last = np.nonzero(self._closes[labels] & inside)[1]  # [S]
        return Spans(sentence, start, last + 1, labels[sentence, start])


def span_scores(spans: Spans, token_log_probs: Scores, pair_log_probs: Scores) -> NDArray[np.float64]:
    """P(the labels of each span) under a chain: [S].

    Π P(y_{i−1}, y_i) over the span's pairs / Π P(y_i) over its inner tokens, which is exact, since the labels
    of a chain are a Markov chain given the sentence.

    Args:
        token_log_probs: [B, n] log P(y_i) of the decision, 0 on padding.
        pair_log_probs: [B, n] log P(y_{i−1}, y_i), 0 on each first token and on padding.
    """
    tokens = np.asarray(token_log_probs, np.float64)  # [B, n]
    pairs = _sums_before(np.asarray(pair_log_probs, np.float64))  # [B, n+1]
    inner = _sums_before(tokens)  # [B, n+1]
    s, start, end = spans.sentence, spans.start, spans.end
    several = pairs[s, end] - pairs[s, start + 1]  # [S]
    several -= inner[s, end - 1] - inner[s, np.minimum(start + 1, end - 1)]
    log_scores = np.where(end - start > 1, several, tokens[s, start])  # [S]
    scores: NDArray[np.float64] = np.exp(np.minimum(log_scores, 0.0))
    return scores


def _sums_before(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At each position the sum of the values before it: [B, n] -> [B, n+1]."""
    return np.pad(values.cumsum(1), ((0, 0), (1, 0)))


def complete_trees(
    heads: IntArray, lengths: IntArray, arc_scores: Callable[[IntArray], Scores]
) -> tuple[IntArray, IntArray]:
    """Greedy heads, and the best tree instead wherever they do not form one with a single root.

    Args:
        heads: [B, n], anything on padding.
        lengths: [B] tokens of each sentence, at least 1.
        arc_scores: from sentence ids [k] to their arc scores [k, n, n+1] (dependent, head with 0 the root);
            called at most once, with the sentences that are no tree.

    Returns:
        heads [B, n], on padding as they were, and the ids [k] of the sentences that were no tree.
    """
    broken = np.flatnonzero(~are_trees(heads, lengths))  # [k]
    if not len(broken):
        return heads, broken
    trees = maximum_spanning_trees(arc_scores(broken), lengths[broken])  # [k, n]
    inside = np.arange(heads.shape[1]) < lengths[broken, None]  # [k, n]
    completed = heads.copy()
    completed[broken] = np.where(inside, trees, heads[broken])
    return completed, broken


class RelativeArcs:
    """Arc scores from the scores of relative labels (Strzyz et al. 2019), for `complete_trees`.

    An arc's score is that of its best label; an arc that no label means is FORBIDDEN, and has relation 0.
    """

    def __init__(self, labels: Sequence[RelativeLabel], relations: Sequence[str]) -> None:
        offsets = np.array([offset for offset, _ in labels], np.int64)  # [K]
        identity = {relation: i for i, relation in enumerate(relations)}
        kinds = np.array([identity[relation] for _, relation in labels], np.int64)  # [K]
        # By offset and then relation, so that an offset's labels lie side by side.
        self._order = np.lexsort((kinds, offsets))  # [K]
        self._sorted_offsets, self._kinds = offsets[self._order], kinds[self._order]  # [K] each
        self._offsets, self._first = np.unique(self._sorted_offsets, return_index=True)  # [O] each

    def arc_scores(self, label_scores: Scores) -> Scores:
        """[k, n, K] -> [k, n, n+1]."""
        sentences, tokens, _ = label_scores.shape
        best = np.maximum.reduceat(label_scores[..., self._order], self._first, axis=2)  # [k, n, O]
        dependent = np.arange(1, tokens + 1)[:, None]  # [n, 1]
        heads = np.where(self._offsets == 0, 0, dependent + self._offsets)  # [n, O]
        token, which = np.nonzero((heads <= tokens) & ((heads > 0) | (self._offsets == 0)))
        scores = np.full((sentences, tokens, tokens + 1), FORBIDDEN, label_scores.dtype)
        scores[:, token, heads[token, which]] = best[:, token, which]
        return scores

    def relations(self, token: IntArray, head: IntArray, label_scores: Scores) -> tuple[IntArray, Scores]:
        """The best relation of single arcs and its label's score.

        Args:
            token: [m] positions of the dependents, from 0.
            head: [m] their heads, 0 the root, else 1-based.
            label_scores: [m, K] of the dependents.
        """
        offset = np.where(head == 0, 0, head - token - 1)  # [m]
        means = offset[:, None] == self._sorted_offsets  # [m, K]
        scores = np.where(means, label_scores[:, self._order], FORBIDDEN)  # [m, K]
        best = scores.argmax(-1)  # [m]
        relations = np.where(means.any(-1), self._kinds[best], 0)
        return relations, scores[np.arange(len(best)), best]
