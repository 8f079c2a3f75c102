"""Plain text and JSON lines, and the reading and writing of any corpus file line by line."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from structural_kd.files import write_whole
from train.corpora.sentence import CorpusError, Sentence, tree_fault, word_fault
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
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    if not any(line.strip() for line in lines):
        raise CorpusError(path, None, "the file is empty; expected at least one sentence")
    return lines


def write_lines(path: Path | str, lines: Iterable[str]) -> None:
    """Write all the lines or leave the file as it was."""
    write_whole(Path(path), "".join(f"{line}\n" for line in lines))


def read_text(path: Path | str) -> list[Sentence]:
    """One sentence a line, tokens split by spaces (`The jury said so .`), without labels."""
    sentences = []
    for number, line in enumerate(read_lines(path), start=1):
        words = tuple(word for word in line.split(" ") if word)
        if fault := next(filter(None, map(word_fault, words)), None):
            raise CorpusError(path, number, f"the token {fault}")
        if words:
            sentences.append(Sentence(words))
    return sentences


def read_jsonl(path: Path | str) -> list[Sentence]:
    """A JSON object a line: `tokens` and, where known, `tags`, `heads`, `deprels` and `text`.

    {"tokens": ["Mary", "left"], "tags": ["S-PER", "O"], "heads": [2, 0], "deprels": ["nsubj", "root"]}
    """
    lines = enumerate(read_lines(path), start=1)
    rows = {number: _json_row(path, number, line) for number, line in lines if line.strip()}
    tagged = {number: row["tags"] for number, row in rows.items() if row["tags"] is not None}
    converted = convert_tags(path, [TagRow(tags, [n] * len(tags)) for n, tags in tagged.items()])
    tags_of = dict(zip(tagged, converted, strict=True))
    sentences = []
    for number, row in rows.items():
        fault = tree_fault(row["heads"]) if row["heads"] is not None else None
        if fault:
            raise CorpusError(path, number, fault[1])
        words, heads, deprels = (
            None if row[field] is None else tuple(row[field]) for field in ("tokens", "heads", "deprels")
        )
        try:
            sentences.append(Sentence(words or (), tags_of.get(number), heads, deprels, row["text"]))
        except ValueError as error:
            raise CorpusError(path, number, str(error)) from error
    return sentences


_FIELDS: dict[str, type] = {"tokens": str, "tags": str, "heads": int, "deprels": str}


def _json_row(path: Path | str, number: int, line: str) -> dict[str, Any]:
    """The fields of a row, None where it lacks one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(path, number, f"not JSON ({error}); expected one object a line") from error
    if not isinstance(row, dict) or "tokens" not in row:
        raise CorpusError(path, number, 'expected an object with "tokens"')
    unknown = sorted(set(row) - set(_FIELDS) - {"text"})
    if unknown:
        raise CorpusError(path, number, f"unknown fields {unknown}; expected {[*_FIELDS, 'text']}")
    for field, kind in _FIELDS.items():
        values = row.get(field)
        if values is None and field != "tokens":
            continue
        if not isinstance(values, list) or any(type(value) is not kind for value in values):
            raise CorpusError(path, number, f'"{field}" is {values!r}; expected a list of {kind.__name__}')
        if len(values) != len(row["tokens"]):
            wanted = f"{len(row['tokens'])}, one a token"
            raise CorpusError(path, number, f'"{field}" has {len(values)} values; expected {wanted}')
    if not isinstance(row.get("text"), str | None):
        raise CorpusError(path, number, f'"text" is {row["text"]!r}; expected a string')
    return {**dict.fromkeys([*_FIELDS, "text"]), **row}
