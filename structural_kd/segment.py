"""Raw text to sentences of tokens, with the place of every token in the text.

Tokens come from spaCy's rules for the language and sentence ends from its rule-based sentencizer; a blank
line ends a sentence as well, a single line break does not (it may be a wrapped line). White space is no
token.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

from structural_kd.extras import extra


@contextmanager
def _without_tensors() -> Iterator[None]:
    """Makes packages that spaCy would import if they are there look as if they were not.

    Rules for tokens need no tensors, and torch alone would take 170 MB of each process.
    """
    hidden = [name for name in ("torch", "cupy", "tensorflow", "mxnet") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: the import system's own mark
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _without_tensors(), extra("text", "raw text"):
    import spacy
    from spacy.language import Language
    from spacy.pipeline import Sentencizer
    from spacy.tokens import Doc

ANY_LANGUAGE = "xx"

# spaCy's affix rules take quadratic time over a run without white space: 20,000 brackets would take 30 s.
RUN_CHARACTERS = 128
_LONG_RUN = re.compile(rf"\S{{{RUN_CHARACTERS + 1},}}")
_LINE_BREAK = r"(?:\r\n|\r(?!\n)|[\n\v\f\x85\u2028])"
_BLANK_LINE = re.compile(rf"{_LINE_BREAK}\s*?{_LINE_BREAK}|\u2029")
_CLAUSE_ENDS = frozenset(",;:،؛、，；：–—)")


@dataclass(frozen=True, slots=True)
class Segmented:
    """Tokens of a text: `text[start:end] == token` for each, in code points.

    `sentences` are token ranges that cover all tokens in order; `cuts` are the first tokens of those that
    begin only because the sentence before had become too long.
    """

    tokens: list[str]
    places: list[tuple[int, int]]
    sentences: list[tuple[int, int]]
    cuts: list[int]


class Segmenter:
    """Segments texts of one language. Not to be called from two threads at once.

    `language` is the one whose rules are used: the one asked for (ISO 639-1), or "xx" where spaCy has no
    rules for it or needs a further package for them (Japanese, Thai, ...).

    >>> Segmenter("en")("Dr. No isn't in.", sentence_tokens=512).tokens
    ['Dr.', 'No', 'is', "n't", 'in', '.']
    """

    def __init__(self, language: str, *, kept_strings: int = 20_000) -> None:
        self._nlp, self.language = _rules(language)
        self._sentencizer = Sentencizer()
        self._kept_strings = kept_strings

    def __call__(self, text: str, *, sentence_tokens: int) -> Segmented:
        # spaCy keeps each new string for ever; once it knows enough of them, a zone forgets the text's own.
        full = len(self._nlp.vocab.strings) > self._kept_strings
        with self._nlp.memory_zone() if full else nullcontext():
            return self._segment(text, sentence_tokens)

    def _segment(self, text: str, sentence_tokens: int) -> Segmented:
        tokens: list[str] = []
        places: list[tuple[int, int]] = []
        starts: list[int] = []
        is_start, after_space = True, False
        last_end = 0
        for token in self._sentencizer(self._tokenize(text)):
            is_start = is_start or token.is_sent_start
            if token.is_space:  # any white space but a single blank
                after_space = True
                continue
            start, form = token.idx, token.text
            if is_start or (after_space and _BLANK_LINE.search(text, last_end, start)):
                starts.append(len(tokens))
            is_start = after_space = False
            last_end = start + len(form)
            tokens.append(form)
            places.append((start, last_end))
        sentences: list[tuple[int, int]] = []
        cuts: list[int] = []
        for start, end in pairwise([*starts, len(tokens)]):
            parts = list(_parts(tokens, start, end, sentence_tokens))
            sentences.extend(parts)
            cuts.extend(part_start for part_start, _ in parts[1:])
        return Segmented(tokens, places, sentences, cuts)

    def _tokenize(self, text: str) -> Doc:
        pieces = list(_pieces(text))
        docs = [self._nlp.tokenizer(piece) for piece in pieces]
        if len(docs) == 1:
            return docs[0]
        words = [token.text for doc in docs for token in doc]
        spaces = [bool(token.whitespace_) for doc in docs for token in doc]
        return Doc(self._nlp.vocab, words=words, spaces=spaces)


def _rules(language: str) -> tuple[Language, str]:
    try:
        return spacy.blank(language), language
    except (ImportError, ValueError):
        return spacy.blank(ANY_LANGUAGE), ANY_LANGUAGE


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces none of which has a long run without white space; nearly always one piece."""
    start = 0
    for run in _LONG_RUN.finditer(text):
        position = run.start()
        while run.end() - position > RUN_CHARACTERS:
            position += RUN_CHARACTERS
            yield text[start:position]
            start = position
    if start < len(text) or start == 0:
        yield text[start:]


def _parts(tokens: list[str], start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """A sentence in parts of at most `longest` tokens, cut after a comma or the like where there is one."""
    while end - start > longest:
        candidates = range(start + longest, start + longest // 2, -1)
        cut = next((cut for cut in candidates if tokens[cut - 1] in _CLAUSE_ENDS), start + longest)
        yield start, cut
        start = cut
    yield start, end
