"""What a predictor answers for one sentence."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity over the tokens ``start``, …, ``end − 1``; ``score`` is its probability under the model."""

    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """The entities of a sentence from left to right, and the same as one BIOES tag a token."""

    entities: list[Entity]
    tags: list[str]


@dataclass(frozen=True, slots=True)
class ParsedSentence:
    """A dependency tree: for each token its head (0 is the root, else 1-based), relation and probability."""

    heads: list[int]
    deprels: list[str]
    scores: list[float]
