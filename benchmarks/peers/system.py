"""A system under comparison: what is timed, and how its answers are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.corpora import Corpus

TRAINED = ("ours", "spacy", "udpipe", "crfsuite")
"""What is trained, each once; some of it gives several systems."""

Sentences = Sequence[Sequence[str]]
Tree = tuple[Sequence[int], Sequence[str]]


@dataclass(frozen=True)
class Answers:
    """What a system says of sentences: BIOES tags, and heads (0 the root, else 1-based) with relations."""

    tags: list[tuple[str, ...]] | None = None
    trees: list[Tree] | None = None


def _keep() -> None:
    """For a system that remembers nothing of what it has read."""


@dataclass(frozen=True)
class System:
    """One point of the figure.

    Args:
        title: its name in tables.
        annotate: tokenised sentences to the system's own result objects: this is what is timed.
        read: those objects to answers that can be scored; not timed.
        parameters: numbers the model holds, word tables included; None where it does not say.
        size: bytes of the files that it needs on disk.
        renew: forgets the words it has met, so that a second reading of a text costs as much as the first;
            not timed.
        sampled: too slow to be timed on a whole split more than once.
    """

    title: str
    annotate: Callable[[Sentences], Any]
    read: Callable[[Any], Answers]
    parameters: int | None = None
    size: int | None = None
    renew: Callable[[], None] = _keep
    sampled: bool = False


def bytes_on_disk(folder: Path) -> int:
    """Of all files below a folder, or of one file."""
    files = [folder] if folder.is_file() else folder.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def require_gold(corpus: Corpus) -> None:
    """Refuses a corpus that cannot be compared on, before anything is trained.

    Raises:
        ValueError: a split is empty, or some sentence lacks entities or a tree.
    """
    for name, sentences in (("train", corpus.train), ("dev", corpus.dev), ("test", corpus.test)):
        if not sentences:
            raise ValueError(f"{corpus.name}: the {name} split has no sentences")
        for what, field in (("entities", "tags"), ("trees", "heads")):
            lacking = sum(getattr(sentence, field) is None for sentence in sentences)
            if lacking:
                raise ValueError(f"{corpus.name}: {lacking} sentences of the {name} split have no {what}")
