"""A system under comparison: what is timed, and how its answers are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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


def require_sentences(name: str, count: int) -> None:
    """Refuse to train on nothing, which some of the libraries answer with a crash."""
    if not count:
        raise ValueError(f"{name}: no sentences to train on; give a corpus with a training and a dev split")
