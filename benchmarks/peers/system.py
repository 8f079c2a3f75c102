"""A system under comparison: a timed part, and the reading of its answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.corpora import Corpus

TRAINED = ("ours", "spacy", "udpipe", "crfsuite")
"""The trainers, each run once; some give several systems."""

Sentences = Sequence[Sequence[str]]
Tree = tuple[Sequence[int], Sequence[str]]


@dataclass(frozen=True)
class Answers:
    """A system's BIOES tags, and heads (0 the root, else 1-based) with relations, a row a sentence."""

    tags: list[tuple[str, ...]] | None = None
    trees: list[Tree] | None = None


@dataclass(frozen=True)
class System:
    """One point of the figure.

    Args:
        title: its name in tables.
        annotate: tokenised sentences to the system's own result objects; this is timed.
        read: those objects to answers that can be scored; not timed.
        parameters: numbers in the model, word tables included; None where they are not known.
        size: bytes of the files that it needs on disk.
        renew: empties caches of words, so that a second reading of a text costs as much as the first;
            not timed.
        sampled: too slow to be timed on a whole split more than once.
    """

    title: str
    annotate: Callable[[Sentences], Any]
    read: Callable[[Any], Answers]
    parameters: int | None = None
    size: int | None = None
    renew: Callable[[], None] = lambda: None
    sampled: bool = False


def bytes_on_disk(folder: Path) -> int:
    """Of all files below a folder, or of one file."""
    files = [folder] if folder.is_file() else folder.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def require_gold(corpus: Corpus) -> None:
    """Refuse a corpus that cannot be compared on, before anything is trained.

    Raises:
        ValueError: a split is empty, or some sentence lacks entities or a tree.
    """
    for name in ("train", "dev", "test"):
        sentences = getattr(corpus, name)
        if not sentences:
            raise ValueError(f"{corpus.name}: the {name} split has no sentences")
        for gold, field in (("entities", "tags"), ("trees", "heads")):
            missing = sum(getattr(sentence, field) is None for sentence in sentences)
            if missing:
                raise ValueError(f"{corpus.name}: {missing} sentences of the {name} split have no {gold}")
