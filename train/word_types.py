"""The word types of a run: every word of its sentences, with frozen vectors and known characters."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import wordfreq

from structural_kd.files import write_whole
from structural_kd.words import SubwordVectors
from train.experiment import precision_of
from train.models.encoder_vectors import encoder_vectors, side_by_side
from train.models.encoders import Encoder
from train.models.named_vectors import named_vectors
from train.models.vectors import load_vectors, train_vectors
from train.models.words import WordTypes, alphabet_of
from train.offline import UnavailableError, cache_folder
from train.progress import log
from train.recipe import Recipe, RecipeError, Vectors
from train.splits import Splits


def load_word_types(
    recipe: Recipe, splits: Splits, folder: Path, encoder: Encoder | None = None, cache: Path | None = None
) -> WordTypes:
    """The run's word types with their vectors; made or loaded once, then read from the run's folder.

    Args:
        encoder: needed where vectors are the encoder's.
        cache: the folder of encoder features.

    Raises:
        RecipeError: the folder was made from other text or settings, or the vectors can not be read.
    """
    settings = recipe.vectors
    text = _known_text(splits, whole=settings.text == "corpus")
    counts = Counter(word for sentence in splits.sentences for word in sentence.words)
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    made_of = json.dumps(
        [
            settings.model_dump(mode="json", exclude={"text"}),
            encoder.digest if encoder and recipe.vectors_of_encoder else None,
            recipe.teacher_seed,
            text,
            words,
        ]
    )
    key = hashlib.sha256(made_of.encode()).hexdigest()
    key_file = folder / "made_of.sha256"  # written last: a folder with it is whole
    if not key_file.exists():
        if recipe.vectors_of_encoder:
            assert encoder is not None
            vectors = _encoder_vectors(recipe, splits, text, encoder, cache)
        else:
            vectors = _vectors(settings, text, words, seed=recipe.teacher_seed)
        vectors.save(folder)
        # A character seen once is left out: it trains what stands for every unknown one.
        alphabet = alphabet_of((word for sentence in text for word in sentence), min_count=2)
        write_whole(folder / "alphabet.json", json.dumps(alphabet, ensure_ascii=False))
        write_whole(folder / "words.json", json.dumps(words, ensure_ascii=False))
        write_whole(key_file, key + "\n")
    elif key_file.read_text().strip() != key:
        raise RecipeError(
            f"{folder}: made from other text or vectors than the recipe names; choose another --out, "
            "or delete the run"
        )
    return read_word_types(folder)


def read_word_types(folder: Path) -> WordTypes:
    """The word types of a run's ``words`` folder."""
    words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    alphabet = json.loads((folder / "alphabet.json").read_text(encoding="utf-8"))
    return WordTypes.build(words, SubwordVectors.load(folder), alphabet)


def _known_text(splits: Splits, *, whole: bool) -> list[tuple[str, ...]]:
    """The sentences that trained vectors and known characters come from: what students learn from, or all
    training text. In zero-shot runs the sources' text stays out."""
    student_train = set(splits.student_train)
    own = [i for i in splits.labelled if i in student_train]
    chosen = sorted([*own, *splits.raw]) if whole else [*own, *splits.unlabelled]
    return [sentence.words for sentence in splits.select(chosen)]


def _vectors(settings: Vectors, text: list[tuple[str, ...]], words: list[str], seed: int) -> SubwordVectors:
    if settings.load or settings.name:
        return _read_vectors(settings, words)
    return train_vectors(text, **settings.sizes("text"), epochs=settings.epochs, seed=seed)


def _read_vectors(settings: Vectors, words: Sequence[str]) -> SubwordVectors:
    try:
        path = settings.load or named_vectors(settings.name or "", cache_folder())
        return load_vectors(path, words, most=settings.most)
    except (OSError, ValueError, UnavailableError) as error:
        raise RecipeError(f"vectors.{'load' if settings.load else 'name'}: {error}") from error


def _encoder_vectors(
    recipe: Recipe, splits: Splits, text: list[tuple[str, ...]], encoder: Encoder, cache: Path | None
) -> SubwordVectors:
    """Vectors of the words of all text but the held-out splits, and of the language's most frequent ones.

    Beside them those of a file or a name, if the recipe has them.
    """
    assert recipe.encoder is not None
    counts = Counter(word for sentence in text for word in sentence)
    try:
        vectors = encoder_vectors(
            encoder,
            list(counts),
            counts,
            frequent=_frequent_words(splits.language, recipe.vectors.frequent_words),
            **recipe.vectors.sizes("encoder"),
            layers=recipe.encoder.layers,
            precision=precision_of(recipe.encoder, encoder.device),
            cache=cache,
        )
        if recipe.vectors.load or recipe.vectors.name:
            vectors = side_by_side(vectors, _read_vectors(recipe.vectors, vectors.vocabulary))
        return vectors
    except ValueError as error:
        raise RecipeError(f"vectors: {error}") from error


def _frequent_words(language: str, count: int) -> list[str]:
    """The most frequent words of a language by wordfreq (Speer 2022); none of a language it lacks."""
    if not count:
        return []
    if language not in wordfreq.available_languages("best"):
        log(
            f"vectors: wordfreq has no list of frequent words for the language {language!r}; only words of "
            "the text have vectors of their own"
        )
        return []
    return wordfreq.top_n_list(language, count)
