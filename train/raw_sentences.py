"""Raw text to the sentences that students learn from: cut as the server cuts it, each once, none held out."""

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

from structural_kd.annotate.readers import ReaderSettings
from structural_kd.annotate.records import SENTENCE_TOKENS
from train.corpora.raw_text import TEXT_CHARACTERS, RawText, find_files, read_raw_text
from train.corpora.scripts import script_of, scripts_of
from train.corpora.sentence import CorpusError, CorpusWarning, Sentence
from train.held_out import HeldOut
from train.progress import log, progress_bar
from train.recipe import TextSource

Words = tuple[str, ...]

MANY_LANGUAGES = "mul"
"""ISO 639-2's code for several languages."""

_SENTENCE_END = re.compile(r"[.!?…。！？؟]\s|\n")


@dataclass
class Counts:
    """What became of raw text."""

    texts: int = 0
    sentences: int = 0
    duplicates: int = 0
    held_out: int = 0
    cut: int = 0  # sentences that began only because the one before had become too long
    words: int = 0  # with a letter; counted beside a corpus alone
    other_script: int = 0  # of these, in none of the corpus's scripts

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def other_share(self) -> float:
        return self.other_script / max(self.words, 1)

    def __str__(self) -> str:
        parts = [
            f"{self.texts:,} texts, {self.sentences:,} sentences",
            f"dropped: {self.duplicates:,} duplicates, {self.held_out:,} held-out sentences",
        ]
        if self.words:
            parts.append(f"{self.other_share:.1%} of the words in another script than the corpus's")
        if self.cut:
            parts.append(f"{self.cut:,} cuts in sentences of more than {SENTENCE_TOKENS} tokens")
        return "; ".join(parts)


@dataclass(frozen=True)
class Cutter:
    """Cuts prose of one language into sentences and tokens, as the server and bulk annotation do."""

    language: str

    @cached_property
    def _reading(self) -> ReaderSettings:
        reading = ReaderSettings(self.language, sentence_tokens=SENTENCE_TOKENS, block_bytes=0)
        used = reading.segmenter.language
        if used != self.language and self.language != MANY_LANGUAGES:
            _warn(
                f"raw text: spaCy has no rules for the language {self.language!r} without a further package; "
                "text is cut by those for any language, here and by the server"
            )
        return reading

    def sentences(self, text: RawText, counts: Counts) -> Iterator[Words]:
        """The sentences of a text; given ones as they are."""
        if isinstance(text.content, tuple):
            yield text.content
            return
        for piece in _pieces(text.content):
            record = self._reading.raw(text.line, piece)
            counts.cut += len(record.cuts)
            for start, end in record.sentences:
                yield tuple(record.tokens[start:end])


def raw_sentences(
    sources: Sequence[TextSource],
    language: str,
    *,
    training: Iterable[Words] = (),
    held_out: Iterable[Words] = (),
    quiet: bool = False,
) -> tuple[list[Sentence], Counts]:
    """The sentences of raw text, in its order, without labels.

    Args:
        language: of the students (ISO 639): the one whose rules the server will cut text by.
        training: the words of sentences that are learnt from in any case; one of them is a duplicate. They
            say which scripts the corpus is written in.
        held_out: the words of sentences that must not be learnt from.
        quiet: no progress bar and no line about what was dropped.

    Raises:
        CorpusError: a file cannot be read, or a source has no sentence; the message names it.

    Warns:
        CorpusWarning: most words of a file are in another script than the corpus's; a file among others is
            empty; there are no rules for the language.
    """
    found = [(source, find_files(source.path)) for source in sources]
    known = set(training)
    scripts = scripts_of(word for words in known for word in words)
    held = HeldOut(held_out)
    cutter = Cutter(language)
    kept: list[Sentence] = []
    total = Counts()
    size = sum(file.stat().st_size for _, files in found for file in files)
    with progress_bar(size, "raw text", "B", unit_scale=True, delay=1, disable=quiet, leave=False) as bar:
        for source, files in found:
            empty = []
            for file in files:
                counts = Counts()
                texts = read_raw_text(file, tokenised=source.tokenised, report=bar.update)
                kept += _new_sentences(texts, cutter, counts, known, held, scripts)
                if not counts.sentences:
                    empty.append(file)
                if counts.other_share > 0.5:
                    _warn(
                        f"{file}: {counts.other_share:.0%} of the words are in another script than the "
                        f"corpus's ({', '.join(sorted(scripts)).lower()}); is it text of its language?"
                    )
                total += counts
            if len(empty) == len(files):
                raise CorpusError(source.path, None, "the text is empty; expected at least one sentence")
            if empty:
                _warn(f"{source.path}: {len(empty)} files are empty: {', '.join(map(str, empty[:5]))}")
    if not quiet:
        log(f"raw text: {sum(len(files) for _, files in found):,} files, {total}")
    return kept, total


def _new_sentences(
    texts: Iterable[RawText],
    cutter: Cutter,
    counts: Counts,
    known: set[Words],
    held_out: HeldOut,
    scripts: Collection[str],
) -> Iterator[Sentence]:
    """The sentences that are neither in ``known``, to which they are added, nor held out; counts all."""
    for text in texts:
        counts.texts += 1
        for words in cutter.sentences(text, counts):
            counts.sentences += 1
            if scripts:
                written_in = [script for script in map(script_of, words) if script]
                counts.words += len(written_in)
                counts.other_script += sum(script not in scripts for script in written_in)
            if words in known:
                counts.duplicates += 1
            elif words in held_out:
                counts.held_out += 1
            else:
                known.add(words)
                yield Sentence(words)


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces that the segmenter has memory for, cut after the last sentence of each or a space."""
    start = 0
    while len(text) - start > TEXT_CHARACTERS:
        end = start + TEXT_CHARACTERS
        ends = [match.end() for match in _SENTENCE_END.finditer(text, start, end)]
        cut = ends[-1] if ends else text.rfind(" ", start, end) + 1 or end
        yield text[start:cut]
        start = cut
    yield text[start:]


def _warn(message: str) -> None:
    warnings.warn(message, CorpusWarning, stacklevel=2)
