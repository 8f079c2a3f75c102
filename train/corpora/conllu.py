"""CoNLL-U (universaldependencies.org/format.html): trees, and entities as a key of MISC."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from structural_kd.labels import Span, bioes_from_spans, spans_from_bioes
from train.corpora.conll import text_comment
from train.corpora.sentence import CorpusError, Sentence, tree_fault, warn, word_fault
from train.corpora.tags import TagRow, convert_tags
from train.corpora.text import read_lines, write_lines

_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
_EMPTY_NODE = re.compile(r"[0-9]+\.[0-9]+")
_NUMBER = re.compile(r"[0-9]+")

FUNCTION_RELATIONS = {"aux", "case", "cc", "clf", "cop", "det", "mark", "punct"}
"""Relations of function words and punctuation; subtypes (`det:def`) count as well."""


class _NoTreeError(CorpusError):
    """The heads of a sentence are integers, but no tree."""


@dataclass
class _Block:
    """A sentence as the file has it; `ranges` are the multiword tokens (form, first, last), 0-based words."""

    comments: dict[str, str] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    deprels: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    range_lines: list[int] = field(default_factory=list)


def read_conllu(
    path: Path | str,
    *,
    entities: str | None = None,
    scheme: str = "auto",
    allowed_types: Collection[str] | None = None,
    merge_subtokens: bool = False,
    repair: bool = False,
) -> list[Sentence]:
    """Sentences with trees and, where `entities` names a key of MISC, entity tags.

    - A sentence has heads for all of its words or `_` for all of them; then it has no tree.
    - Empty nodes (`8.1`) belong to the enhanced graph, not to the tree, and are left out.
    - `entities="NER"` reads `NER=B-PER`; every word needs the key. Scheme and repair as in `convert_tags`.
    - `repair` also leaves out sentences whose heads are no tree, counted in a `CorpusWarning`.
    - `merge_subtokens`: one token for each multiword token (`merge_subtokens_of`); otherwise its words.

    A line that is not as the format wants it is a `CorpusError` with its number.
    """
    return [
        sentence
        for sentence, _ in read_conllu_with_comments(
            path,
            entities=entities,
            scheme=scheme,
            allowed_types=allowed_types,
            merge_subtokens=merge_subtokens,
            repair=repair,
        )
    ]


def read_conllu_with_comments(
    path: Path | str,
    *,
    entities: str | None = None,
    scheme: str = "auto",
    allowed_types: Collection[str] | None = None,
    merge_subtokens: bool = False,
    repair: bool = False,
) -> list[tuple[Sentence, dict[str, str]]]:
    """As `read_conllu`, each sentence with its comments `# key = value`."""
    blocks = _read_blocks(path, entities)
    tags: Sequence[tuple[str, ...] | None] = [None] * len(blocks)
    if entities is not None:
        rows = [TagRow(block.tags, block.numbers) for block in blocks]
        tags = convert_tags(path, rows, scheme=scheme, allowed_types=allowed_types, repair=repair)
    result = []
    dropped: list[int] = []
    no_tree: list[int] = []
    for block, block_tags in zip(blocks, tags, strict=True):
        try:
            heads = _heads(path, block)
        except _NoTreeError as error:
            if not repair:
                raise
            no_tree.append(error.line or 0)
            continue
        sentence = Sentence(
            words=tuple(block.words),
            tags=block_tags,
            heads=heads,
            deprels=None if heads is None or set(block.deprels) == {"_"} else tuple(block.deprels),
            text=block.comments.get("text"),
        )
        if merge_subtokens:
            sentence, lost = merge_subtokens_of(sentence, block.ranges)
            dropped += [block.numbers[span.start] for span in lost]
        result.append((sentence, block.comments))
    if no_tree:
        warn(path, no_tree, "sentences whose heads are no tree were left out")
    if dropped:
        warn(path, dropped, "entities share a token with another after merging and were dropped")
    return result


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


def write_conllu(path: Path | str, sentences: Iterable[Sentence], *, entities: str = "NER") -> None:
    """Words, trees and, as a key of MISC, BIOES tags; `read_conllu` gives the same sentences again.

    What the format cannot hold is a `ValueError`.
    """
    lines: list[str] = []
    for number, sentence in enumerate(sentences, start=1):
        lines += text_comment(number, sentence.text)
        nothing = ("_",) * len(sentence.words)
        for index, word in enumerate(sentence.words):
            head = (sentence.heads or nothing)[index]
            deprel = (sentence.deprels or nothing)[index]
            misc = f"{entities}={sentence.tags[index]}" if sentence.tags else "_"
            if "|" in misc or any(character in deprel + misc for character in "\t\n\r"):
                raise ValueError(f"sentence {number}, word {index + 1}: cannot write {deprel!r}, {misc!r}")
            lines.append(f"{index + 1}\t{word}\t_\t_\t_\t_\t{head}\t{deprel}\t_\t{misc}")
        lines.append("")
    write_lines(path, lines)


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
    heads = [sentence.heads[word] for word in highest]
    deprels = sentence.deprels
    return (
        tuple(token_of[head - 1] + 1 if head else 0 for head in heads),
        None if deprels is None else tuple(deprels[word] for word in highest),
    )


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


def _heads(path: Path | str, block: _Block) -> tuple[int, ...] | None:
    if set(block.heads) == {"_"}:
        return None
    heads = []
    for head, number in zip(block.heads, block.numbers, strict=True):
        if not _NUMBER.fullmatch(head):
            raise CorpusError(path, number, f"head {head!r}; expected an integer, 0 for the root")
        heads.append(int(head))
    fault = tree_fault(heads)
    if fault:
        raise _NoTreeError(path, block.numbers[fault[0]], fault[1])
    return tuple(heads)


def _read_blocks(path: Path | str, entities: str | None) -> list[_Block]:
    blocks = []
    block = _Block()
    lines = read_lines(path)
    for number, line in enumerate([*lines, ""], start=1):
        if line.startswith("#"):
            if block.words:
                raise CorpusError(path, number, "a comment inside a sentence; expected it before the words")
            key, equals, value = line[1:].partition("=")
            if equals:
                block.comments[key.strip()] = value.removeprefix(" ")
        elif line.strip():
            _add_row(path, number, line, entities, block)
        else:
            _check_ranges(path, block)
            if block.words:
                blocks.append(block)
            block = _Block()
    if not blocks:
        raise CorpusError(path, None, "the file has no sentence; expected at least one")
    return blocks


def _add_row(path: Path | str, number: int, line: str, entities: str | None, block: _Block) -> None:
    cells = line.split("\t")
    if len(cells) != 10:
        raise CorpusError(path, number, f"{len(cells)} columns; expected 10, separated by tabs")
    identifier, form, *_, head, deprel, _, misc = cells
    if _EMPTY_NODE.fullmatch(identifier):
        return
    covered = _RANGE.fullmatch(identifier)
    expected = len(block.words) + 1
    fault = word_fault(form)
    if fault:
        raise CorpusError(path, number, f"the form {fault}")
    if covered:
        first, last = int(covered[1]), int(covered[2])
        after = block.ranges[-1][2] + 1 if block.ranges else 0
        if first != expected or last < first or first <= after:
            raise CorpusError(
                path,
                number,
                f"range {identifier!r}; expected it to begin with {expected} and overlap no other",
            )
        block.ranges.append((form, first - 1, last - 1))
        block.range_lines.append(number)
        return
    if not _NUMBER.fullmatch(identifier):
        raise CorpusError(path, number, f"id {identifier!r}; expected an integer, or a range 1-2, or 1.1")
    if int(identifier) != expected:
        raise CorpusError(path, number, f"id {identifier}; expected {expected}")
    if not deprel:
        raise CorpusError(path, number, "the relation is empty; expected one, or _")
    block.numbers.append(number)
    block.words.append(form)
    block.heads.append(head)
    block.deprels.append(deprel)
    if entities is not None:
        values = [item[len(entities) + 1 :] for item in misc.split("|") if item.startswith(f"{entities}=")]
        if len(values) != 1:
            raise CorpusError(path, number, f"MISC {misc!r}; expected {entities}= in it once")
        block.tags.append(values[0])


def _check_ranges(path: Path | str, block: _Block) -> None:
    for (_, _, last), number in zip(block.ranges, block.range_lines, strict=True):
        if last >= len(block.words):
            raise CorpusError(
                path, number, f"the range ends at {last + 1}; expected at most {len(block.words)}"
            )
