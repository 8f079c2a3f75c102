"""CoNLL columns: a token a line, a blank line between sentences."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from structural_kd.labels import from_bioes
from train.corpora.sentence import CorpusError, Sentence, word_fault
from train.corpora.tags import TagRow, convert_tags
from train.corpora.text import read_lines, write_lines

DOCUMENT_MARK = "-DOCSTART-"


def read_conll(
    path: Path | str,
    *,
    column: int = -1,
    word_column: int = 0,
    id_column: int | None = None,
    scheme: str = "auto",
    repair: bool = False,
) -> list[Sentence]:
    """Sentences with entity tags from a column file, BIOES whatever the file's scheme.

    - Columns are separated by tabs if any line has a tab, otherwise by runs of spaces; every row has as many.
    - In a file with tabs, a line that begins with `#` and has no tab is a comment (`# text = ` is kept as the
      sentence's text). A file with spaces has no comments: there `#` is a word.
    - A row whose first column is `-DOCSTART-` marks a document: it ends a sentence and is no token.
    - `id_column` (0 for `.iob2`) holds the ids 1, 2, ... of a sentence; ranges (`1-2`) and empty nodes
      (`8.1`) are not tokens and are left out.
    - `scheme`: iob1, iob2, bioes or auto (`train.corpora.tags.detect_scheme`); `repair` as in `convert_tags`.

    A line that is none of this is a `CorpusError` with its number.
    """
    lines = read_lines(path)
    tabs = any("\t" in line for line in lines)
    blocks: list[tuple[list[str], TagRow, str | None]] = []
    columns: int | None = None
    for comments, rows in _blocks(lines, tabs):
        words: list[str] = []
        tags: list[str] = []
        numbers: list[int] = []
        for number, cells in rows:
            columns = columns or len(cells)
            if len(cells) != columns:
                expected = f"{columns} split by {'tabs' if tabs else 'spaces'}"
                raise CorpusError(path, number, f"{len(cells)} columns; expected {expected}")
            if not (-columns <= column < columns and word_column < columns):
                expected = f"words in {word_column} and tags in {column}"
                raise CorpusError(path, number, f"{columns} columns; expected {expected}")
            if id_column is not None and not _is_word_id(path, number, cells[id_column], len(words) + 1):
                continue
            fault = word_fault(cells[word_column])
            if fault:
                raise CorpusError(path, number, f"the word {fault}")
            words.append(cells[word_column])
            tags.append(cells[column])
            numbers.append(number)
        if words:
            text = next((c.removeprefix("# text = ") for c in comments if c.startswith("# text = ")), None)
            blocks.append((words, TagRow(tags, numbers), text))
    if not blocks:
        raise CorpusError(path, None, "the file has no sentence; expected at least one")
    converted = convert_tags(path, [row for _, row, _ in blocks], scheme=scheme, repair=repair)
    return [
        Sentence(words=tuple(words), tags=tags, text=text)
        for (words, _, text), tags in zip(blocks, converted, strict=True)
    ]


def write_conll(path: Path | str, sentences: Iterable[Sentence], *, scheme: str = "bioes") -> None:
    """Word and tag, separated by a tab, in iob1, iob2 or bioes; `read_conll` gives the same sentences again.

    A sentence without tags, or one that the format cannot hold, is a `ValueError`.
    """
    lines: list[str] = []
    for number, sentence in enumerate(sentences, start=1):
        if sentence.tags is None:
            raise ValueError(f"sentence {number} has no tags")
        if DOCUMENT_MARK in sentence.words or sentence.words[0].startswith("\ufeff"):
            raise ValueError(f"sentence {number} holds {DOCUMENT_MARK} or a byte order mark, no word here")
        lines += text_comment(number, sentence.text)
        tags = from_bioes(sentence.tags, scheme)
        lines += [f"{word}\t{tag}" for word, tag in zip(sentence.words, tags, strict=True)]
        lines.append("")
    write_lines(path, lines)


def text_comment(number: int, text: str | None) -> list[str]:
    """The `# text = ` line of the sentence with this number, or nothing."""
    if text is None:
        return []
    if any(character in text for character in "\t\n\r"):
        raise ValueError(f"the text of sentence {number} holds a tab or a line break, as no file can")
    return [f"# text = {text}"]


def _blocks(lines: Sequence[str], tabs: bool) -> Iterator[tuple[list[str], list[tuple[int, list[str]]]]]:
    """Each sentence's comments and its numbered rows, split into cells."""
    comments: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t") if tabs else [cell for cell in line.split(" ") if cell]
        blank = not line.strip()
        if blank or cells[0] == DOCUMENT_MARK:
            if rows:
                yield comments, rows
            comments, rows = [], []
        elif tabs and line.startswith("#") and len(cells) == 1:
            comments.append(line)
        else:
            rows.append((number, cells))
    if rows:
        yield comments, rows


def _is_word_id(path: Path | str, number: int, value: str, expected: int) -> bool:
    """Whether this row is a word; the ids of words must follow one another."""
    parts = value.replace(".", "-").split("-")
    if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):
        return False
    if not (value.isascii() and value.isdigit()) or int(value) != expected:
        raise CorpusError(path, number, f"id {value!r}; expected {expected}")
    return True
