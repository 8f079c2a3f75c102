"""Lines to records: raw text, tokens, JSON lines and CoNLL-U."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from structural_kd.annotate.lines import Line, Lines
from structural_kd.annotate.records import BadRecord, Record, RecordError, check_tokens
from structural_kd.strict_json import RepeatedKeyError, parse

if TYPE_CHECKING:
    from structural_kd.segment import Segmenter

Records = Iterator[Record | BadRecord]

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_RANGE = re.compile(r"([1-9][0-9]{0,8})-([1-9][0-9]{0,8})")
_LINE_BYTES = 100  # what a line takes in memory beside its characters
_TOO_DEEP = "JSON nested too deep; expected an object with few levels"
_EMPTY_NODE = re.compile(r"(?:0|[1-9][0-9]*)\.[1-9][0-9]*")


@dataclass(frozen=True)
class ReaderSettings:
    """What readers have to know.

    Attributes:
        language: whose rules find tokens and sentences in raw text.
        sentence_tokens: the longest sentence. In raw text a longer one is cut, among tokens it is an error.
        block_bytes: the longest CoNLL-U sentence, about; beyond it memory would not be bounded.
        replaced: keys of a JSON object that the output has its own values for.
        shared: a segmenter of the language that others use too; without one there is a new one.
    """

    language: str
    sentence_tokens: int
    block_bytes: int
    replaced: frozenset[str] = frozenset()
    shared: "Segmenter | None" = None

    @cached_property
    def segmenter(self) -> "Segmenter":
        if self.shared is not None:
            return self.shared
        # spaCy takes a second to import, and only raw text needs it.
        from structural_kd.segment import Segmenter

        return Segmenter(self.language)

    def raw(self, line: int, text: str, carried: str = "") -> Record:
        """The record of a raw text."""
        found = self.segmenter(text, sentence_tokens=self.sentence_tokens)
        return Record(line, found.tokens, found.sentences, text, found.places, found.cuts, carried)


def read_text(lines: Lines, reading: ReaderSettings) -> Records:
    """A raw text a line, of one sentence or several."""
    return _line_by_line(lines, lambda line: reading.raw(line.number, line.text))


def read_tokens(lines: Lines, reading: ReaderSettings) -> Records:
    """A sentence a line, its tokens separated by blanks or tabs."""

    def sentence(line: Line) -> Record:
        tokens = [token for token in line.text.replace("\t", " ").split(" ") if token]
        check_tokens(tokens, reading.sentence_tokens)
        return Record(line.number, tokens, [(0, len(tokens))] if tokens else [])

    return _line_by_line(lines, sentence)


def read_jsonl(lines: Lines, reading: ReaderSettings) -> Records:
    """A JSON object a line with exactly one of "text", "tokens" and "sentences"; other keys are carried."""
    return _line_by_line(lines, lambda line: json_record(line, reading))


def read_conllu(lines: Lines, reading: ReaderSettings) -> Records:
    """A sentence with its comments up to each blank line (https://universaldependencies.org/format.html).

    Of the ten columns the first two are checked, as nothing else is read. Comments without a sentence are a
    record without tokens.
    """
    for block in _blocks(lines, reading.block_bytes):
        yield block if isinstance(block, BadRecord) else _conllu_record(block, reading)


READERS: Mapping[str, Callable[[Lines, ReaderSettings], Records]] = {
    "text": read_text,
    "tokens": read_tokens,
    "jsonl": read_jsonl,
    "conllu": read_conllu,
}


def _line_by_line(lines: Iterable[Line], record: Callable[[Line], Record]) -> Records:
    for line in lines:
        if line.fault:
            yield BadRecord(line.number, line.fault)
            continue
        try:
            yield record(line)
        except RecordError as error:
            yield BadRecord(line.number, str(error))


def json_record(line: Line, reading: ReaderSettings) -> Record:
    """The record of a line of `read_jsonl`. Raises RecordError where it is none."""
    fields = _json_object(line.text)
    given = [key for key in ("text", "tokens", "sentences") if key in fields]
    if len(given) != 1:
        raise RecordError(f"{len(given)} of the keys text, tokens and sentences; expected exactly one")
    key = given[0]
    value = fields.pop(key)
    carried = _carried(fields, reading.replaced)
    if key == "text":
        if not isinstance(value, str):
            raise RecordError("the value of text is no string; expected one")
        return reading.raw(line.number, value, carried)
    sentences = [value] if key == "tokens" else value
    if not isinstance(sentences, list) or not all(isinstance(each, list) for each in sentences):
        wanted = "a list of strings" if key == "tokens" else "a list of lists of strings"
        raise RecordError(f"the value of {key} has another form; expected {wanted}")
    tokens: list[str] = []
    ranges = []
    for sentence in sentences:
        check_tokens(sentence, reading.sentence_tokens)
        if sentence or key == "sentences":
            ranges.append((len(tokens), len(tokens) + len(sentence)))
        tokens += sentence
    return Record(line.number, tokens, ranges, carried=carried)


def _json_object(text: str) -> dict[str, Any]:
    try:
        fields = parse(text)
        if _SURROGATE.search(text):
            _json(fields).encode()
    except RepeatedKeyError:
        raise RecordError("a key of an object is there twice; expected it once") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON ({error.msg}, column {error.colno}); expected an object") from None
    except UnicodeEncodeError:
        raise RecordError("half of a surrogate pair; expected Unicode characters") from None
    except RecursionError:
        raise RecordError(_TOO_DEEP) from None
    except ValueError:
        raise RecordError("a number that is too large, or none; expected finite numbers") from None
    if not isinstance(fields, dict):
        raise RecordError("JSON, but no object; expected one")
    if "error" in fields:
        raise RecordError("the key error, by which the output marks bad lines; expected another name")
    return fields


def _carried(fields: Mapping[str, Any], replaced: frozenset[str]) -> str:
    others = {name: value for name, value in fields.items() if name not in replaced}
    try:
        return _json(others)[1:-1] if others else ""
    except RecursionError:
        raise RecordError(_TOO_DEEP) from None


def _blocks(lines: Iterable[Line], block_bytes: int) -> Iterator[list[Line] | BadRecord]:
    """The lines between blank lines. Of a block that is too long nothing is kept but its first line."""
    block: list[Line] = []
    size = 0
    for line in chain(lines, [Line(0, "")]):  # the last block ends too
        if line.text.strip() or line.fault:
            block.append(line)
            size += len(line.text) + _LINE_BYTES
            if size > block_bytes:
                del block[1:]
            continue
        if size > block_bytes:
            limit = f"{block_bytes:,} bytes (--max-line-bytes)"
            message = f"the sentence is too long; expected a blank line within {limit}"
            yield BadRecord(block[0].number, message)
        elif block:
            yield block
        block, size = [], 0


def _conllu_record(block: list[Line], reading: ReaderSettings) -> Record | BadRecord:
    rows: list[list[str]] = []
    tokens: list[str] = []
    covered = 0  # words up to the end of the multiword ranges so far
    number = block[0].number
    try:
        for line in block:
            number = line.number
            if line.fault:
                raise RecordError(line.fault)
            if line.text.startswith("#"):
                if tokens:
                    raise RecordError("a comment inside a sentence; expected it before the words")
                rows.append([line.text])
                continue
            cells = line.text.split("\t")
            if len(cells) == 10 and cells[0] == str(len(tokens) + 1):
                tokens.append(cells[1])
            else:
                covered = _check_other_row(cells, len(tokens), covered)
            rows.append(cells)
        if covered > len(tokens):
            raise RecordError(f"the sentence has {len(tokens)} words; expected {covered}, as a range says")
        check_tokens(tokens, reading.sentence_tokens)
    except RecordError as error:
        if error.token is not None:
            identifiers = [cells[0] for cells in rows]
            number = block[identifiers.index(str(error.token))].number
        return BadRecord(number, str(error))
    comments = [cells[0] for cells in rows if len(cells) == 1]
    carried = _json({"comments": comments})[1:-1] if comments else ""
    sentences = [(0, len(tokens))] if tokens else []
    return Record(block[0].number, tokens, sentences, carried=carried, rows=rows)


def _check_other_row(cells: list[str], words: int, covered: int) -> int:
    """Checks a row that is not the next word; returns up to which word the multiword ranges reach."""
    if len(cells) != 10:
        raise RecordError(f"{len(cells)} columns; expected 10, separated by tabs")
    if found := _RANGE.fullmatch(cells[0]):
        first, end = int(found[1]), int(found[2])
        if first != words + 1 or end < first or covered >= first:
            raise RecordError(
                f"a range that does not fit; expected one from {words + 1} that overlaps no other"
            )
        return end
    if not _EMPTY_NODE.fullmatch(cells[0]):
        raise RecordError(f"the id is not the next; expected {words + 1}, or a range 1-2, or 1.1")
    return covered


_json: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
