"""Scores of predictions against gold, in percent."""

from collections.abc import Collection, Sequence

from bundle.labels import spans_from_bioes
from train.corpora import Sentence


def entity_scores(sentences: Sequence[Sentence], tags: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 over exact entity spans with their types (CoNLL 2003)."""
    right = found = wanted = 0
    for sentence, predicted in zip(sentences, tags, strict=True):
        if sentence.tags is None:
            raise ValueError("a sentence without gold entities can not be scored")
        gold_spans = set(spans_from_bioes(sentence.tags))
        predicted_spans = set(spans_from_bioes(predicted))
        right += len(gold_spans & predicted_spans)
        found += len(predicted_spans)
        wanted += len(gold_spans)
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
    attached = labelled = tokens = 0
    for sentence, (heads, deprels) in zip(sentences, trees, strict=True):
        if sentence.heads is None or sentence.deprels is None:
            raise ValueError("a sentence without a gold tree can not be scored")
        for gold_head, gold_relation, head, relation in zip(
            sentence.heads, sentence.deprels, heads, deprels, strict=True
        ):
            if gold_relation in without:
                continue
            tokens += 1
            attached += gold_head == head
            labelled += gold_head == head and gold_relation == relation
    if not tokens:
        return {"uas": 0.0, "las": 0.0}
    return {"uas": 100 * attached / tokens, "las": 100 * labelled / tokens}
