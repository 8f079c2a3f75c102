"""CoNLL-U (universaldependencies.org/format.html): trees, and entities as a key of MISC."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from train.corpora.conll import text_comment
from train.corpora.sentence import CorpusError, Sentence, tree_fault, warn, word_fault
from train.corpora.subtokens import merge_subtokens_of
from train.corpora.tags import TagRow, convert_tags
from train.corpora.text import read_lines, write_lines

_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
_EMPTY_NODE = re.compile(r"[0-9]+\.[0-9]+")
_NUMBER = re.compile(r"[0-9]+")


class _NoTreeError(CorpusError):
    """The heads of a sentence are integers, but no tree."""


class _Word(NamedTuple):
    line: int
    form: str
    head: str
    deprel: str
    tag: str


class _Range(NamedTuple):
    """A multiword token, from its first to its last word, 0-based."""

    line: int
    form: str
    first: int
    last: int


@dataclass
class _Block:
    """A sentence as the file has it."""

    comments: dict[str, str] = field(default_factory=dict)
    words: list[_Word] = field(default_factory=list)
    ranges: list[_Range] = field(default_factory=list)


def read_conllu(
    path: Path | str, *, entities: str | None = None, merge_subtokens: bool = False, repair: bool = False
) -> list[Sentence]:
    """Sentences with trees and, where `entities` names a key of MISC, entity tags.

    - A sentence has heads for all of its words or `_` for all of them; then it has no tree.
    - Empty nodes (`8.1`) belong to the enhanced graph, not to the tree, and are left out.
    - `entities="NER"` reads `NER=B-PER`; every word needs the key. The scheme is found out; `repair` as in
      `convert_tags`.
    - `repair` also leaves out sentences whose heads are no tree, counted in a `CorpusWarning`.
    - `merge_subtokens`: one token for each multiword token (`merge_subtokens_of`); otherwise its words.

    A line that is not as the format wants it is a `CorpusError` with its number.
    """
    read = read_conllu_with_comments(path, entities=entities, merge_subtokens=merge_subtokens, repair=repair)
    return [sentence for sentence, _ in read]


def read_conllu_with_comments(
    path: Path | str, *, entities: str | None = None, merge_subtokens: bool = False, repair: bool = False
) -> list[tuple[Sentence, dict[str, str]]]:
    """As `read_conllu`, each sentence with its comments `# key = value`."""
    blocks = _read_blocks(path, entities)
    tags: Sequence[tuple[str, ...] | None] = [None] * len(blocks)
    if entities is not None:
        rows = [TagRow([w.tag for w in block.words], [w.line for w in block.words]) for block in blocks]
        tags = convert_tags(path, rows, repair=repair)
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
        words, deprels = tuple(w.form for w in block.words), tuple(w.deprel for w in block.words)
        related = heads is not None and set(deprels) != {"_"}
        text = block.comments.get("text")
        sentence = Sentence(words, block_tags, heads, deprels if related else None, text)
        if merge_subtokens:
            sentence, lost = merge_subtokens_of(sentence, [word_range[1:] for word_range in block.ranges])
            dropped += [block.words[span.start].line for span in lost]
        result.append((sentence, block.comments))
    if no_tree:
        warn(path, no_tree, "sentences whose heads are no tree were left out")
    if dropped:
        warn(path, dropped, "entities share a token with another after merging and were dropped")
    return result


def write_conllu(path: Path | str, sentences: Iterable[Sentence], *, entities: str = "NER") -> None:
    """Words, trees and, as a key of MISC, BIOES tags; `read_conllu` gives the same sentences again.

    A sentence that the format cannot hold is a `ValueError`.
    """
    lines: list[str] = []
    for number, sentence in enumerate(sentences, start=1):
        lines += text_comment(number, sentence.text)
        nothing = ("_",) * len(sentence.words)
        columns = sentence.words, sentence.heads or nothing, sentence.deprels or nothing
        for index, (word, head, deprel) in enumerate(zip(*columns, strict=True)):
            misc = f"{entities}={sentence.tags[index]}" if sentence.tags else "_"
            if "|" in misc or any(character in deprel + misc for character in "\t\n\r"):
                raise ValueError(f"sentence {number}, word {index + 1}: cannot write {deprel!r}, {misc!r}")
            lines.append(f"{index + 1}\t{word}\t_\t_\t_\t_\t{head}\t{deprel}\t_\t{misc}")
        lines.append("")
    write_lines(path, lines)


def _read_blocks(path: Path | str, entities: str | None) -> list[_Block]:
    blocks = []
    block = _Block()
    for number, line in enumerate([*read_lines(path), ""], start=1):
        if line.startswith("#"):
            if block.words:
                raise CorpusError(path, number, "a comment inside a sentence; expected it before the words")
            key, equals, value = line[1:].partition("=")
            if equals:
                block.comments[key.strip()] = value.removeprefix(" ")
        elif line.strip():
            _add_row(path, number, line, entities, block)
        else:
            # Only the last range can reach beyond the words: the others end before it.
            if block.ranges and block.ranges[-1].last >= len(block.words):
                message = (
                    f"the range ends at {block.ranges[-1].last + 1}; expected at most {len(block.words)}"
                )
                raise CorpusError(path, block.ranges[-1].line, message)
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
    expected = len(block.words) + 1
    if fault := word_fault(form):
        raise CorpusError(path, number, f"the form {fault}")
    if covered := _RANGE.fullmatch(identifier):
        first, last = int(covered[1]), int(covered[2])
        after = block.ranges[-1].last + 1 if block.ranges else 0
        if first != expected or last < first or first <= after:
            message = f"range {identifier!r}; expected it to begin with {expected} and overlap no other"
            raise CorpusError(path, number, message)
        block.ranges.append(_Range(number, form, first - 1, last - 1))
        return
    if not _NUMBER.fullmatch(identifier):
        raise CorpusError(path, number, f"id {identifier!r}; expected an integer, or a range 1-2, or 1.1")
    if int(identifier) != expected:
        raise CorpusError(path, number, f"id {identifier}; expected {expected}")
    if not deprel:
        raise CorpusError(path, number, "the relation is empty; expected one, or _")
    tag = ""
    if entities is not None:
        values = [item[len(entities) + 1 :] for item in misc.split("|") if item.startswith(f"{entities}=")]
        if len(values) != 1:
            raise CorpusError(path, number, f"MISC {misc!r}; expected {entities}= in it once")
        tag = values[0]
    block.words.append(_Word(number, form, head, deprel, tag))


def _heads(path: Path | str, block: _Block) -> tuple[int, ...] | None:
    if all(word.head == "_" for word in block.words):
        return None
    for word in block.words:
        if not _NUMBER.fullmatch(word.head):
            raise CorpusError(path, word.line, f"head {word.head!r}; expected an integer, 0 for the root")
    heads = tuple(int(word.head) for word in block.words)
    if fault := tree_fault(heads):
        raise _NoTreeError(path, block.words[fault[0]].line, fault[1])
    return heads
