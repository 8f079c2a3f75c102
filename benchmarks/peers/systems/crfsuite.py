"""CRFsuite (Okazaki 2007): a linear chain over hand-written features, as entity taggers were before networks.

It stands in for NameTag 1, whose Python package holds no trainer. The features are the usual ones (Ratinov
and Roth 2009, without word lists): the word and its affixes, shape and flags, and the same but for affixes
of two words on either side. L-BFGS with L1 and L2 penalties; dev chooses them among a few.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pycrfsuite

from benchmarks.peers.system import Answers, Sentences, System, bytes_on_disk
from structural_kd.labels import repair_to_bioes
from train.corpora import Corpus, Sentence
from train.metrics import entity_scores

MODEL = "model.crfsuite"
WINDOW = (-2, -1, 1, 2)
AFFIXES = 4
"""Most characters of a prefix or suffix."""

MOST_ITERATIONS = 100
"""Bounds L-BFGS: the last hundreds change the weights of rare features only."""

CACHED_WORDS = 100_000


@dataclass(frozen=True)
class Penalties:
    """Weights of the L1 norm and of the squared L2 norm of the feature weights."""

    c1: float
    c2: float


GRID = (Penalties(0.1, 0.1), Penalties(0.1, 0.01), Penalties(0.5, 0.01))
"""What is tried; the best on dev is kept."""


class CRFsuiteError(RuntimeError):
    """CRFsuite can not read a model; the message says what to do."""


def train(
    corpus: Corpus, folder: Path, *, grid: Sequence[Penalties] = GRID, iterations: int = MOST_ITERATIONS
) -> list[dict[str, float]]:
    """Train with each of the penalties on the training split; ``folder`` gets the best on dev.

    Returns:
        For each of the penalties c1, c2 and the dev split's F1, in the order of ``grid``.
    """
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    for sentence in corpus.train:
        assert sentence.tags is not None
        trainer.append(features(sentence.words), list(sentence.tags))
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{MODEL}.part"
    tried: list[dict[str, float]] = []
    for penalties in grid:
        trainer.set_params(
            {
                "c1": penalties.c1,
                "c2": penalties.c2,
                "max_iterations": iterations,
                "feature.possible_transitions": True,
            }
        )
        trainer.train(str(part))
        f1 = _dev_f1(part, corpus.dev)
        if f1 > max((row["dev_f1"] for row in tried), default=-1.0):
            os.replace(part, folder / MODEL)
        tried.append({"c1": penalties.c1, "c2": penalties.c2, "dev_f1": round(f1, 2)})
    part.unlink(missing_ok=True)
    return tried


def _dev_f1(path: Path, sentences: Sequence[Sentence]) -> float:
    tags = _annotate(_open(path), [sentence.words for sentence in sentences])
    found = _read(tags).tags
    assert found is not None
    return entity_scores(sentences, found)["f1"]


def load(folder: Path) -> dict[str, System]:
    """The tagger.

    Raises:
        CRFsuiteError: the model is missing or damaged.
    """
    path = folder / MODEL
    tagger = _open(path)
    told = tagger.info()
    return {
        "crfsuite": System(
            "CRFsuite",
            annotate=partial(_annotate, tagger),
            read=_read,
            parameters=len(told.state_features) + len(told.transitions),
            size=bytes_on_disk(path),
            renew=_forget,
        )
    }


def _open(path: Path) -> Any:
    tagger = pycrfsuite.Tagger()
    try:
        tagger.open(str(path))
    except (OSError, ValueError) as error:
        raise CRFsuiteError(
            f"{path}: is no CRFsuite model, or is damaged ({error}); delete {path.parent} to train it again"
        ) from None
    return tagger


def _annotate(tagger: Any, sentences: Sentences) -> list[list[str]]:
    return [tagger.tag(features(words)) for words in sentences]


def _read(tagged: Sequence[Sequence[str]]) -> Answers:
    """Nothing keeps this chain from a misplaced tag."""
    return Answers(tags=[tuple(repair_to_bioes(tags, "bioes")[0]) for tags in tagged])


def features(words: Sequence[str]) -> list[list[str]]:
    """What the chain sees of each word: itself, and two words on either side."""
    seen: list[list[str]] = []
    for i, word in enumerate(words):
        row = [*_at_word(word)]
        for offset in WINDOW:
            j = i + offset
            row += _from_afar(words[j], offset) if 0 <= j < len(words) else (f"{offset}:none",)
        seen.append(row)
    return seen


@lru_cache(CACHED_WORDS)
def _at_word(word: str) -> tuple[str, ...]:
    lower = word.lower()
    affixes = range(1, min(AFFIXES, len(lower)) + 1)
    return (
        "bias",
        f"word={word}",
        *(f"prefix={lower[:size]}" for size in affixes),
        *(f"suffix={lower[-size:]}" for size in affixes),
        *_form(word, "0"),
    )


@lru_cache(len(WINDOW) * CACHED_WORDS)
def _from_afar(word: str, offset: int) -> tuple[str, ...]:
    return tuple(_form(word, str(offset)))


def _form(word: str, place: str) -> Iterator[str]:
    yield f"{place}:lower={word.lower()}"
    long = shape(word)
    yield f"{place}:shape={long}"
    short = re.sub(r"(.)\1+", r"\1", long)
    yield f"{place}:short={short}"
    flags: Mapping[str, bool] = {
        "capital": word[:1].isupper(),
        "capitals": word.isupper(),
        "digit": any(map(str.isdigit, word)),
        "digits": word.isdigit(),
        "hyphen": "-" in word,
        "mark": not any(map(str.isalnum, word)),
    }
    yield from (f"{place}:{name}" for name, is_so in flags.items() if is_so)


def shape(word: str) -> str:
    """Letters as X and x, digits as 0, all else as it is.

    >>> shape("McDonald's-2")
    "XxXxxxxx'x-0"
    """
    return "".join("X" if c.isupper() else "x" if c.isalpha() else "0" if c.isdigit() else c for c in word)


def _forget() -> None:
    _at_word.cache_clear()
    _from_afar.cache_clear()
