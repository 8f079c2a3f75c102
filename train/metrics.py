"""Scores of predictions against gold, in percent, and the counts of each sentence that they come from."""

from collections.abc import Collection, Sequence, Set

import numpy as np

from structural_kd.labels import Span, spans_from_bioes
from train.corpora import Sentence


def entity_scores(sentences: Sequence[Sentence], tags: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 over exact entity spans with their types (CoNLL 2003)."""
    return entity_scores_of(entity_counts(sentences, tags))


def entity_counts(
    sentences: Sequence[Sentence], tags: Sequence[Sequence[str]], *, known: Set[str] = frozenset()
) -> np.ndarray:
    """Of each sentence: entities that are right, found, wanted: [n, 3].

    Entities all of whose words are ``known`` do not count, in gold and prediction alike.
    """

    def spans(sentence: Sentence, of: Sequence[str]) -> set[Span]:
        found = spans_from_bioes(of)
        return {span for span in found if not set(sentence.words[span.start : span.end]) <= known}

    counts = np.zeros((len(sentences), 3), np.int32)
    for row, sentence, predicted in zip(counts, sentences, tags, strict=True):
        if sentence.tags is None:
            raise ValueError("a sentence without gold entities can not be scored")
        gold_spans, predicted_spans = spans(sentence, sentence.tags), spans(sentence, predicted)
        row[:] = len(gold_spans & predicted_spans), len(predicted_spans), len(gold_spans)
    return counts


def entity_scores_of(counts: np.ndarray) -> dict[str, float]:
    """The scores of the sentences of ``entity_counts`` [n, 3] together."""
    right, found, wanted = counts.sum(0).tolist()
    precision = 100 * right / found if found else 0.0
    recall = 100 * right / wanted if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"f1": f1, "precision": precision, "recall": recall}


def attachment_scores(
    sentences: Sequence[Sentence],
    trees: Sequence[tuple[Sequence[int], Sequence[str]]],
    *,
    without: Collection[str] = (),
) -> dict[str, float]:
    """Unlabelled and labelled attachment over all tokens, punctuation and relation subtypes included.

    Tokens whose gold relation is one of ``without`` do not count: spaCy's own scorer leaves out ``punct``.
    """
    return attachment_scores_of(attachment_counts(sentences, trees, without=without))


def attachment_counts(
    sentences: Sequence[Sentence],
    trees: Sequence[tuple[Sequence[int], Sequence[str]]],
    *,
    without: Collection[str] = (),
    known: Set[str] = frozenset(),
) -> np.ndarray:
    """Of each sentence: tokens that count, those with their head, those with head and relation: [n, 3].

    Tokens whose word is ``known``, or whose gold relation is one of ``without``, do not count.
    """
    counts = np.zeros((len(sentences), 3), np.int32)
    for row, sentence, (heads, deprels) in zip(counts, sentences, trees, strict=True):
        if sentence.heads is None or sentence.deprels is None:
            raise ValueError("a sentence without a gold tree can not be scored")
        tokens = attached = labelled = 0
        for word, gold_head, gold_relation, head, relation in zip(
            sentence.words, sentence.heads, sentence.deprels, heads, deprels, strict=True
        ):
            if gold_relation in without or word in known:
                continue
            tokens += 1
            attached += gold_head == head
            labelled += gold_head == head and gold_relation == relation
        row[:] = tokens, attached, labelled
    return counts


def attachment_scores_of(counts: np.ndarray) -> dict[str, float]:
    """The scores of the sentences of ``attachment_counts`` [n, 3] together."""
    tokens, attached, labelled = counts.sum(0).tolist()
    if not tokens:
        return {"uas": 0.0, "las": 0.0}
    return {"uas": 100 * attached / tokens, "las": 100 * labelled / tokens}
