"""Plain text and JSON lines, and the reading and writing of any corpus file line by line."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from structural_kd.files import write_whole
from train.corpora.sentence import CorpusError, Sentence, word_fault
from train.corpora.tags import TagRow, convert_tags


def read_lines(path: Path | str) -> list[str]:
    """The lines of a UTF-8 file, without LF or CRLF and without a byte order mark; line i is at i - 1."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CorpusError(path, None, f"cannot be read ({error.strerror}); expected a file") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorpusError(path, line, f"byte 0x{data[error.start]:02x}; expected UTF-8") from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if not any(line.strip() for line in lines):
        raise CorpusError(path, None, "the file is empty; expected at least one sentence")
    return lines


def write_lines(path: Path | str, lines: Iterable[str]) -> None:
    """Write all the lines or leave the file as it was."""
    write_whole(Path(path), "".join(f"{line}\n" for line in lines))


COLUMNS_SHOWN_BY = 50
"""Lines that are enough to see that a file has columns."""

_TAGGED = re.compile(r"\S+(?:[ \t]+\S+)*[ \t]+(?:O|[BIELSUM]-\S+)\s*")


def columns_fault(lines: Sequence[str]) -> str | None:
    """Why the first lines of a `.txt` are no raw text, where they are columns of a treebank or of tags."""
    rows = [line for line in lines if line.strip() and not line.startswith(("# ", "-DOCSTART-"))]
    if len(rows) >= 3 and all(line.count("\t") == 9 for line in rows):
        return "a .txt is raw text, and this one has the columns of a treebank; name it .conllu"
    if (
        len(rows) >= 3
        and all(map(_TAGGED.fullmatch, rows))
        and len({len(line.split()) for line in rows}) == 1
    ):
        return "a .txt is raw text, and this one has columns, a word a line and tags; name it .conll"
    return None


def read_text(path: Path | str) -> list[Sentence]:
    """One sentence a line, tokens split by spaces (`The jury said so .`), without labels."""
    sentences = []
    lines = read_lines(path)
    if fault := columns_fault(lines[:COLUMNS_SHOWN_BY]):
        raise CorpusError(path, None, fault)
    for number, line in enumerate(lines, start=1):
        words = tuple(word for word in line.split(" ") if word)
        if fault := next(filter(None, map(word_fault, words)), None):
            raise CorpusError(path, number, f"the token {fault}")
        if words:
            sentences.append(Sentence(words))
    return sentences


class Row(BaseModel):
    """An object of a JSON-lines file; `text` is the sentence's own, before it was cut into tokens."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tokens: list[str]
    tags: list[str] | None = None
    heads: list[int] | None = None
    deprels: list[str] | None = None
    text: str | None = None


def read_row(path: Path | str, number: int, line: str) -> Row:
    """A line of `read_jsonl`, its fields of the right types; anything else is a `CorpusError`."""
    try:
        return Row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CorpusError(path, number, f"{field or 'the line'}: {first['msg']}") from error


def read_jsonl(path: Path | str) -> list[Sentence]:
    """A JSON object a line: `tokens` and, where known, `tags`, `heads`, `deprels` and `text`.

    {"tokens": ["Mary", "left"], "tags": ["S-PER", "O"], "heads": [2, 0], "deprels": ["nsubj", "root"]}
    """
    rows: dict[int, Row] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            rows[number] = read_row(path, number, line)
    tagged = {number: row.tags for number, row in rows.items() if row.tags is not None}
    converted = convert_tags(path, [TagRow(tags, [n] * len(tags)) for n, tags in tagged.items()])
    tags_of = dict(zip(tagged, converted, strict=True))
    sentences = []
    for number, row in rows.items():
        heads = None if row.heads is None else tuple(row.heads)
        deprels = None if row.deprels is None else tuple(row.deprels)
        try:
            sentences.append(Sentence(tuple(row.tokens), tags_of.get(number), heads, deprels, row.text))
        except ValueError as error:
            raise CorpusError(path, number, str(error)) from error
    return sentences


def write_jsonl(path: Path | str, sentences: Iterable[Sentence]) -> None:
    """A JSON object a line, without what a sentence lacks; `read_jsonl` gives the same sentences again."""
    lines = []
    for sentence in sentences:
        values = asdict(sentence)
        row = {"tokens": values.pop("words")} | {key: v for key, v in values.items() if v is not None}
        lines.append(json.dumps(row, ensure_ascii=False))
    write_lines(path, lines)
