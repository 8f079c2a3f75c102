"""Raw text as people keep it: plain text, JSON lines and Parquet; a file, a folder or a glob of them.

| file | prose | sentences of tokens |
|---|---|---|
| `.txt` | paragraphs between blank lines | one a line, tokens split by spaces, if the caller says so |
| `.jsonl` | `{"text": …}`, any other keys | `{"tokens": […]}`, as `train.corpora.text.read_jsonl` has it |
| `.parquet` | the column `text` | the column `tokens` |

The first two may be compressed: `.txt.gz`, `.jsonl.gz`.
"""

import glob
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from structural_kd.extras import extra
from structural_kd.strict_json import parse
from train.corpora.sentence import CorpusError, warn_of_file, word_fault
from train.corpora.text import COLUMNS_SHOWN_BY, columns_fault, read_row

TEXT_CHARACTERS = 100_000
"""A paragraph without an end is cut at a line break after so many: what is in memory stays bounded."""

PACKED = ".gz"

Stream = BinaryIO | gzip.GzipFile


class RawText(NamedTuple):
    """One text of a file, and the line or row where it begins.

    `content` is prose, which has yet to be cut into sentences and tokens, or the words of one sentence.
    """

    line: int
    content: str | tuple[str, ...]


def find_files(path: str) -> list[Path]:
    """The files that a path names: itself, those in a folder and below it, or what a glob matches, sorted.

    Files of other kinds in a folder or of a glob are left out with a `CorpusWarning`, hidden ones in silence.

    Raises:
        CorpusError: there is no such file, or none that is raw text.
    """
    if Path(path).is_file():
        return [Path(path)]
    matches = (
        [Path(path)] if Path(path).is_dir() else [Path(name) for name in glob.glob(path, recursive=True)]
    )
    if not matches:
        raise CorpusError(path, None, "no such file; expected a file, a folder or a glob such as raw/*.txt")
    files = sorted({file for match in matches for file in _files_of(match)})
    found = [file for file in files if _kind(file) is not None]
    if not found:
        raise CorpusError(path, None, f"no raw text there; expected files that end in {', '.join(SUFFIXES)}")
    if len(found) < len(files):
        others = [file.name for file in files if _kind(file) is None]
        shown = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        warn_of_file(path, f"{len(others)} files that are no raw text are left out: {shown}")
    return found


def read_raw_text(
    path: Path, *, tokenised: bool = False, report: Callable[[int], object] = lambda size: None
) -> Iterator[RawText]:
    """The texts of a file, one after the other: it need not fit into memory.

    Args:
        tokenised: each line of a `.txt`, and `text` of another file, is a sentence; spaces split its tokens.
        report: is told how many bytes of the file were read since the last call.

    Raises:
        CorpusError: with the line, where something is not as expected.
        MissingExtraError: a Parquet file, and no pyarrow.
    """
    kind = _kind(path)
    if kind is None:
        raise CorpusError(
            path, None, f"no raw text by its name; expected one that ends in {', '.join(SUFFIXES)}"
        )
    read = _sentence_lines if tokenised and kind == ".txt" else _READERS[kind]
    done = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            for text in read(path, gzip.GzipFile(fileobj=file) if path.suffix.lower() == PACKED else file):
                words = text.content
                if isinstance(words, str) and tokenised:
                    words = tuple(word for word in words.split(" ") if word)
                if not isinstance(words, str):
                    _check_words(path, text.line, words)
                yield RawText(text.line, words)
                if file.tell() > done:  # a Parquet file's end is read before its beginning
                    report(file.tell() - done)
                    done = file.tell()
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CorpusError(path, None, f"cannot be read ({reason}); expected a whole file") from error
    report(size - done)


def _kind(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes[-1:] == [PACKED]:
        return suffixes[0] if suffixes[0] in (".txt", ".jsonl") else None
    return suffixes[-1] if suffixes and suffixes[-1] in _READERS else None


def _files_of(match: Path) -> Iterator[Path]:
    """The file itself, or all in a folder and below it that are not hidden."""
    if match.is_file():
        yield match
    for file in match.rglob("*"):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(match).parts):
            yield file


def _lines(path: Path, stream: Stream) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their ends, counted from 1, without a byte order mark."""
    for number, data in enumerate(stream, start=1):
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(path, number, f"byte 0x{data[error.start]:02x}; expected UTF-8") from error
        if "\0" in line:
            raise CorpusError(path, number, "a NUL character; expected UTF-8 (UTF-16 is full of them)")
        yield number, line


def _plain_lines(path: Path, stream: Stream) -> Iterator[tuple[int, str]]:
    """The lines of a `.txt`, which must not be columns."""
    lines = _lines(path, stream)
    first = list(islice(lines, COLUMNS_SHOWN_BY))
    if fault := columns_fault([line for _, line in first]):
        raise CorpusError(path, None, fault)
    return chain(first, lines)


def _paragraphs(path: Path, stream: Stream) -> Iterator[RawText]:
    """Lines up to each blank one, just as they are: a blank line ends a sentence, so none is torn."""
    block: list[str] = []
    begin = size = 0
    for number, line in _plain_lines(path, stream):
        if block and (not line.strip() or size >= TEXT_CHARACTERS):
            yield RawText(begin, "".join(block))
            block, size = [], 0
        if line.strip():
            begin = begin if block else number
            block.append(line)
            size += len(line)
    if block:
        yield RawText(begin, "".join(block))


def _sentence_lines(path: Path, stream: Stream) -> Iterator[RawText]:
    for number, line in _plain_lines(path, stream):
        sentence = line.removesuffix("\n").removesuffix("\r")
        if sentence.strip(" "):
            yield RawText(number, sentence)


def _json_lines(path: Path, stream: Stream) -> Iterator[RawText]:
    for number, line in _lines(path, stream):
        if not line.strip():
            continue
        try:
            fields = parse(line)
        except json.JSONDecodeError as error:
            message = f"no JSON ({error.msg}, column {error.colno}); expected an object a line"
            raise CorpusError(path, number, message) from None
        except (ValueError, RecursionError) as error:
            raise CorpusError(
                path, number, f"no JSON that can be read ({error}); expected an object"
            ) from None
        if not isinstance(fields, dict) or not fields.keys() & {"text", "tokens"}:
            raise CorpusError(path, number, 'expected an object with "text" (prose) or "tokens" (a list)')
        if "tokens" in fields:
            yield RawText(number, tuple(read_row(path, number, line).tokens))
        else:
            yield RawText(number, _content(path, number, fields["text"]))


def _parquet_rows(path: Path, stream: Stream) -> Iterator[RawText]:
    with extra("parquet", f"{path}"):
        import pyarrow
        from pyarrow.parquet import ParquetFile
    number = 0
    try:
        file = ParquetFile(stream)
        columns = file.schema_arrow.names
        wanted = next((name for name in ("tokens", "text") if name in columns), None)
        if wanted is None:
            raise CorpusError(path, None, f"the columns {', '.join(columns)}; expected text or tokens")
        for batch in file.iter_batches(batch_size=1024, columns=[wanted]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield RawText(number, _content(path, number, value))
    except pyarrow.ArrowException as error:
        raise CorpusError(path, number + 1, f"cannot be read as Parquet ({error})") from error


def _content(path: Path, number: int, value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise CorpusError(path, number, "half of a surrogate pair; expected Unicode characters") from None
        return value
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise CorpusError(path, number, f"the text is {value!r:.40}; expected a string")


def _check_words(path: Path, number: int, words: tuple[str, ...]) -> None:
    if not words:
        raise CorpusError(path, number, "a sentence has no words; expected at least one")
    if fault := next(filter(None, map(word_fault, words)), None):
        raise CorpusError(path, number, f"the token {fault}")


_READERS: Mapping[str, Callable[[Path, Stream], Iterator[RawText]]] = {
    ".txt": _paragraphs,
    ".jsonl": _json_lines,
    ".parquet": _parquet_rows,
}

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
