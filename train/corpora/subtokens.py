"""Multiword tokens of CoNLL-U as one token each: their tree and their entities."""

from collections.abc import Iterable, Sequence

from structural_kd.labels import Span, bioes_from_spans, spans_from_bioes
from train.corpora.sentence import Sentence

FUNCTION_RELATIONS = {"aux", "case", "cc", "clf", "cop", "det", "mark", "punct"}
"""Relations of function words and punctuation; subtypes (`det:def`) count as well."""


def merge_subtokens_of(
    sentence: Sentence, ranges: Iterable[tuple[str, int, int]]
) -> tuple[Sentence, list[Span]]:
    """The sentence over its tokens: ranges (form, first, last word, 0-based) become one token each.

    Tree: of a token's words, the one highest in the tree stands for it: its head's token is the token's head,
    its relation the token's relation. Of several that are highest, one with a relation of content words is
    preferred (not `FUNCTION_RELATIONS`), then the first. The head of a highest word is higher still and so
    lies in another token; hence heights rise strictly along the arcs, and the result is a tree with one root.

    Entities: an entity covers all the tokens that it has words in. Where two then share a token, the one over
    more tokens stays (the first of two alike) and the other is dropped and returned.
    """
    first_of = {first: (form, last) for form, first, last in ranges}
    token_of: list[int] = []
    words: list[str] = []
    position = 0
    while position < len(sentence.words):
        form, last = first_of.get(position, (sentence.words[position], position))
        token_of += [len(words)] * (last + 1 - position)
        words.append(form)
        position = last + 1
    heads, deprels = _merge_tree(sentence, token_of, len(words))
    tags, dropped = _merge_entities(sentence, token_of, len(words))
    return Sentence(tuple(words), tags, heads, deprels, sentence.text), dropped


def _merge_tree(
    sentence: Sentence, token_of: Sequence[int], size: int
) -> tuple[tuple[int, ...] | None, tuple[str, ...] | None]:
    if sentence.heads is None:
        return None, None
    relations = sentence.deprels or ("",) * len(sentence.words)
    ranks = [
        (depth, relation.partition(":")[0] in FUNCTION_RELATIONS)
        for depth, relation in zip(_depths(sentence.heads), relations, strict=True)
    ]
    highest: list[int] = [-1] * size
    for word, token in enumerate(token_of):
        if highest[token] == -1 or ranks[word] < ranks[highest[token]]:
            highest[token] = word
    above = (sentence.heads[word] for word in highest)
    heads = tuple(token_of[head - 1] + 1 if head else 0 for head in above)
    return heads, sentence.deprels and tuple(sentence.deprels[word] for word in highest)


def _depths(heads: Sequence[int]) -> list[int]:
    """The number of arcs from the root to each word of a tree."""
    depths = [0] * (len(heads) + 1)
    for word in range(1, len(heads) + 1):
        path = []
        while word and not depths[word]:
            path.append(word)
            word = heads[word - 1]
        for above, step in enumerate(reversed(path), start=1):
            depths[step] = depths[word] + above
    return depths[1:]


def _merge_entities(
    sentence: Sentence, token_of: Sequence[int], size: int
) -> tuple[tuple[str, ...] | None, list[Span]]:
    if sentence.tags is None:
        return None, []
    kept: list[Span] = []
    dropped: list[Span] = []
    taken = [False] * size
    over_tokens = [
        (span, Span(span.label, token_of[span.start], token_of[span.end - 1] + 1))
        for span in spans_from_bioes(sentence.tags)
    ]
    for span, over in sorted(over_tokens, key=lambda pair: pair[1].start - pair[1].end):
        if any(taken[over.start : over.end]):
            dropped.append(span)
            continue
        taken[over.start : over.end] = [True] * (over.end - over.start)
        kept.append(over)
    return tuple(bioes_from_spans(kept, size)), dropped
