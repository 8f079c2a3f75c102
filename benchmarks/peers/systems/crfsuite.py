"""CRFsuite (Okazaki 2007): a linear chain over hand-written features, as entity taggers were before networks.

It stands in for NameTag 1, whose Python package holds no trainer. The features are the usual ones (Ratinov
and Roth 2009, without word lists): the word and its affixes, shape and flags, and all but the affixes of two
words on either side. L-BFGS with L1 and L2 penalties; dev chooses them among a few.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pycrfsuite

from benchmarks.peers.system import Answers, Sentences, System, bytes_on_disk
from structural_kd.files import write_whole
from structural_kd.labels import repair_to_bioes
from train.corpora import Corpus
from train.metrics import entity_scores

MODEL = "model.crfsuite"
WINDOW = (-2, -1, 1, 2)
AFFIXES = 4
"""Most characters of a prefix or suffix."""

MOST_ITERATIONS = 100
"""Bounds L-BFGS: the last hundreds change the weights of rare features only."""

CACHED_WORDS = 100_000

PENALTIES = ((0.1, 0.1), (0.1, 0.01), (0.5, 0.01))
"""Weights of the L1 norm and of the squared L2 norm of the feature weights; the best on dev are kept."""


def train(corpus: Corpus, folder: Path, *, iterations: int = MOST_ITERATIONS) -> None:
    """Train with each of the penalties on the training split; ``folder`` gets the best on dev."""
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    for sentence in corpus.train:
        assert sentence.tags is not None
        trainer.append(features(sentence.words), list(sentence.tags))
    words, best = [sentence.words for sentence in corpus.dev], -1.0
    for c1, c2 in PENALTIES:
        settings = {"max_iterations": iterations, "feature.possible_transitions": True}
        trainer.set_params({"c1": c1, "c2": c2, **settings})
        with tempfile.TemporaryDirectory() as temporary:
            model = Path(temporary) / MODEL
            trainer.train(str(model))
            f1 = entity_scores(corpus.dev, _read(_annotate(_open(model), words)).tags)["f1"]  # type: ignore[arg-type]
            if f1 > best:
                best = f1
                write_whole(folder / MODEL, model.read_bytes())


def load(folder: Path) -> dict[str, System]:
    """The tagger.

    Raises:
        ValueError: the model is missing or damaged.
    """
    tagger = _open(folder / MODEL)
    info = tagger.info()
    return {
        "crfsuite": System(
            "CRFsuite",
            annotate=partial(_annotate, tagger),
            read=_read,
            parameters=len(info.state_features) + len(info.transitions),
            size=bytes_on_disk(folder / MODEL),
            renew=_clear_caches,
        )
    }


def _open(path: Path) -> Any:
    tagger = pycrfsuite.Tagger()
    try:
        tagger.open(str(path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: is no CRFsuite model, or is damaged ({error}); delete {path.parent} to train it again"
        ) from None
    return tagger


def _annotate(tagger: Any, sentences: Sentences) -> list[list[str]]:
    return [tagger.tag(features(words)) for words in sentences]


def _read(tagged: Sequence[Sequence[str]]) -> Answers:
    """Nothing keeps this chain from a misplaced tag."""
    return Answers(tags=[tuple(repair_to_bioes(tags, "bioes")[0]) for tags in tagged])


def features(words: Sequence[str]) -> list[list[str]]:
    """The features of each word: its own, and those of two words on either side."""
    rows: list[list[str]] = []
    for i, word in enumerate(words):
        row = [*_own_features(word)]
        for offset in WINDOW:
            j = i + offset
            row += _form(words[j], offset) if 0 <= j < len(words) else (f"{offset}:none",)
        rows.append(row)
    return rows


@lru_cache(CACHED_WORDS)
def _own_features(word: str) -> tuple[str, ...]:
    lower = word.lower()
    affixes = range(1, min(AFFIXES, len(lower)) + 1)
    prefixes = (f"prefix={lower[:size]}" for size in affixes)
    suffixes = (f"suffix={lower[-size:]}" for size in affixes)
    return ("bias", f"word={word}", *prefixes, *suffixes, *_form(word, 0))


@lru_cache((len(WINDOW) + 1) * CACHED_WORDS)
def _form(word: str, offset: int) -> tuple[str, ...]:
    """The features of a word at some distance from the word at hand."""
    return tuple(f"{offset}:{name}" for name in _form_names(word))


def _form_names(word: str) -> Iterator[str]:
    shape = shape_of(word)
    yield f"lower={word.lower()}"
    yield f"shape={shape}"
    yield "short=" + re.sub(r"(.)\1+", r"\1", shape)
    flags = {
        "capital": word[:1].isupper(),
        "capitals": word.isupper(),
        "digit": any(map(str.isdigit, word)),
        "digits": word.isdigit(),
        "hyphen": "-" in word,
        "mark": not any(map(str.isalnum, word)),
    }
    yield from (name for name, is_so in flags.items() if is_so)


def shape_of(word: str) -> str:
    """Letters as X and x, digits as 0, all else as it is.

    >>> shape_of("McDonald's-2")
    "XxXxxxxx'x-0"
    """
    return "".join("X" if c.isupper() else "x" if c.isalpha() else "0" if c.isdigit() else c for c in word)


def _clear_caches() -> None:
    _own_features.cache_clear()
    _form.cache_clear()
