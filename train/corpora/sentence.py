"""A sentence with its annotation, a corpus of them, and what readers say when a file is wrong."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from structural_kd.labels import spans_from_bioes
from structural_kd.trees import is_tree


class CorpusError(ValueError):
    """A corpus cannot be read: `path:line: what was wrong; what was expected`."""

    def __init__(self, path: Path | str, line: int | None, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")
        self.path = path
        self.line = line


class CorpusWarning(UserWarning):
    """A corpus was read, but not exactly as it stands; the message says what was changed and how often."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words and, where known, their annotation; anything inconsistent is a `ValueError`.

    `tags` are BIOES entity tags; `heads` are 1-based with 0 for the root and form a tree with one root;
    `deprels` need `heads`; `text` is the raw text, where the corpus has it.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    heads: tuple[int, ...] | None = None
    deprels: tuple[str, ...] | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("a sentence has no words; expected at least one")
        for number, word in enumerate(self.words, start=1):
            if fault := word_fault(word):
                raise ValueError(f"word {number} {fault}")
        for name, values in (("tags", self.tags), ("heads", self.heads), ("deprels", self.deprels)):
            if values is not None and len(values) != len(self.words):
                raise ValueError(f"{len(values)} {name} for {len(self.words)} words; expected one each")
        if self.tags is not None:
            spans_from_bioes(self.tags)
        if self.heads is not None and (broken := tree_fault(self.heads)):
            raise ValueError(f"the heads {self.heads} are no tree: {broken[1]}")
        if self.deprels is not None and self.heads is None:
            raise ValueError("relations without heads; expected both or heads alone")
        if self.deprels is not None and not all(self.deprels):
            raise ValueError(f"the relations {self.deprels} hold an empty one")

    def unlabelled(self) -> "Sentence":
        """The same words, nothing else."""
        return Sentence(self.words)


@dataclass(frozen=True)
class Corpus:
    """Three splits, any of which may be empty, in one language (ISO 639-1)."""

    name: str
    language: str
    train: tuple[Sentence, ...]
    dev: tuple[Sentence, ...]
    test: tuple[Sentence, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the words and labels of all three splits; the raw text does not count."""
        sha = hashlib.sha256()
        for split in (self.train, self.dev, self.test):
            for sentence in split:
                row = [sentence.words, sentence.tags, sentence.heads, sentence.deprels]
                sha.update(json.dumps(row, ensure_ascii=True).encode("ascii") + b"\n")
            sha.update(b"\n")
        return sha.hexdigest()


def warn(path: Path | str, lines: Sequence[int], what: str) -> None:
    """Warn of what was changed while reading: `path: 2 things were changed, at the lines 3, 17`."""
    shown = ", ".join(map(str, lines[:20])) + (", …" if len(lines) > 20 else "")
    warnings.warn(f"{path}: {len(lines)} {what}, at the lines {shown}", CorpusWarning, stacklevel=4)


def warn_of_file(path: Path | str, what: str) -> None:
    """Warn of a file as a whole: `path: what`."""
    warnings.warn(f"{path}: {what}", CorpusWarning, stacklevel=3)


def word_fault(word: str) -> str | None:
    """Why this cannot be a word, if it cannot."""
    if not word.strip():
        return f"is {word!r}; expected a form that is not empty"
    if any(character in word for character in "\t\n\r"):
        return f"is {word!r}; expected a form without tabs and line breaks"
    return None


def tree_fault(heads: Sequence[int]) -> tuple[int, str] | None:
    """The 0-based word and the reason why these heads are not a tree with exactly one root."""
    for position, head in enumerate(heads):
        if not 0 <= head <= len(heads):
            return position, f"head {head} is out of range; expected 0 (root) to {len(heads)}"
    roots = [position for position, head in enumerate(heads) if head == 0]
    if len(roots) > 1:
        return roots[1], f"word {roots[1] + 1} is a second root beside word {roots[0] + 1}; expected one root"
    if not roots:
        return 0, "the sentence has no root; expected one word with head 0"
    if not is_tree(heads):
        for word in range(1, len(heads) + 1):
            seen = [word]
            while heads[seen[-1] - 1] not in (0, word) and len(seen) <= len(heads):
                seen.append(heads[seen[-1] - 1])
            if heads[seen[-1] - 1] == word:
                cycle = " → ".join(map(str, [*seen, word]))
                return word - 1, f"the heads form a cycle {cycle}; expected a tree"
    return None
