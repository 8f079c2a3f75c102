"""What a run's teachers and students share: sentences, word types, encoder features."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from bundle.words import SubwordVectors
from train.corpora import Corpus, Sentence, load_corpus, read_jsonl, read_text
from train.models.batch import Batch, pad_rows
from train.models.encoders import Encoder, FeatureStore, frozen_features
from train.models.vectors import load_vectors, train_vectors
from train.models.words import WordTypes, alphabet_of
from train.recipe import Recipe, RecipeError


@dataclass(frozen=True)
class Material:
    """The sentences of an experiment, in the order in which word ids and features are kept.

    That order is the corpus's own (train, dev, test, then added text), so that features in the cache serve
    every choice of labelled sentences. Sentences not labelled in this experiment have no labels here.
    """

    corpus: Corpus
    sentences: tuple[Sentence, ...]
    parts: dict[str, list[int]]  # numbers of the labelled, unlabelled, dev and test sentences

    def part(self, name: str) -> list[Sentence]:
        return [self.sentences[i] for i in self.parts[name]]


def load_material(recipe: Recipe) -> Material:
    """Read the corpus and decide which training sentences keep their labels."""
    corpus = load_corpus(recipe.corpus, merge_subtokens=recipe.merge_subtokens)
    if recipe.sentences:
        corpus = replace(
            corpus,
            train=corpus.train[: recipe.sentences],
            dev=corpus.dev[: recipe.sentences],
            test=corpus.test[: recipe.sentences],
        )
    size = len(corpus.train)
    wanted = recipe.labelled or size
    if wanted > size:
        raise RecipeError(
            f"labelled: {wanted} sentences are wanted, {corpus.name} has {size} in its training split"
        )
    order = np.random.default_rng(recipe.selection_seed).permutation(size).tolist()
    keeps = set(order[:wanted])
    train = [s if i in keeps else s.unlabelled() for i, s in enumerate(corpus.train)]
    text = _read_raw(recipe.text) if recipe.text else []
    after = size + len(corpus.dev) + len(corpus.test)
    raw = [*order[wanted:], *range(after, after + len(text))]
    if recipe.unlabelled is not None:
        if recipe.unlabelled > len(raw):
            raise RecipeError(
                f"unlabelled: {recipe.unlabelled} sentences are wanted, there are {len(raw)}; "
                "name a file of raw text under text, or ask for fewer"
            )
        raw = np.random.default_rng(recipe.selection_seed).permutation(raw)[: recipe.unlabelled].tolist()
    return Material(
        corpus,
        (*train, *corpus.dev, *corpus.test, *text),
        {
            "labelled": sorted(keeps),
            "unlabelled": sorted(raw),
            "dev": list(range(size, size + len(corpus.dev))),
            "test": list(range(size + len(corpus.dev), after)),
        },
    )


def _read_raw(path: Path) -> list[Sentence]:
    """Sentences of a file of raw text; labels that JSON lines may have are not looked at."""
    read = read_jsonl if path.suffix == ".jsonl" else read_text
    return [sentence.unlabelled() for sentence in read(path)]


def load_word_types(recipe: Recipe, material: Material, folder: Path) -> WordTypes:
    """The run's word types with their vectors; trained or loaded once, then read from the run's folder.

    Raises:
        RecipeError: the folder was made from other text or settings, or the vectors can not be read.
    """
    text = [sentence.words for part in ("labelled", "unlabelled") for sentence in material.part(part)]
    counts = Counter(word for sentence in material.sentences for word in sentence.words)
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    settings = recipe.vectors
    made_of = json.dumps([settings.model_dump(mode="json"), recipe.teacher_seed, text, words])
    key = hashlib.sha256(made_of.encode()).hexdigest()
    key_file = folder / "made_of.sha256"  # written last: a folder with it is whole
    if key_file.exists():
        if key_file.read_text().strip() != key:
            raise RecipeError(
                f"{folder}: made from other text or vectors than the recipe names; choose another --out, "
                "or delete the run"
            )
        return read_word_types(folder)
    if settings.load:
        try:
            vectors = load_vectors(settings.load, words)
        except (OSError, ValueError) as error:
            raise RecipeError(f"vectors.load: {error}") from error
    else:
        vectors = train_vectors(
            text,
            dim=settings.dim,
            epochs=settings.epochs,
            buckets=settings.buckets,
            min_n=settings.min_n,
            max_n=settings.max_n,
            seed=recipe.teacher_seed,
        )
    folder.mkdir(parents=True, exist_ok=True)
    vectors.save(folder)
    # A character seen once is left out: it trains what stands for every unknown one.
    alphabet = alphabet_of((word for sentence in text for word in sentence), min_count=2)
    write_whole(folder / "alphabet.json", json.dumps(alphabet, ensure_ascii=False))
    write_whole(folder / "words.json", json.dumps(words, ensure_ascii=False))
    write_whole(key_file, key + "\n")
    return read_word_types(folder)


def read_word_types(folder: Path) -> WordTypes:
    """The word types of a run's ``words`` folder."""
    words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    alphabet = json.loads((folder / "alphabet.json").read_text(encoding="utf-8"))
    return WordTypes.build(words, SubwordVectors.load(folder), alphabet)


@dataclass
class Reader:
    """Sentences as batches: word ids for everyone, encoder features for a teacher that reads frozen ones."""

    sentences: Sequence[Sentence]
    types: WordTypes
    features: FeatureStore | None = None

    def __post_init__(self) -> None:
        self.ids = [torch.from_numpy(self.types.ids(sentence.words)) for sentence in self.sentences]
        self.lengths = np.array([len(sentence.words) for sentence in self.sentences])

    def batch(self, numbers: Sequence[int], *, encoded: bool) -> Batch:
        """The sentences of these numbers; with the encoder's features where a teacher asks for them."""
        rows = None
        if encoded and self.features is not None:
            rows = pad_rows([torch.from_numpy(self.features.rows(i).astype(np.float32)) for i in numbers])
        return Batch(
            words=pad_rows([self.ids[i] for i in numbers]),
            lengths=torch.from_numpy(self.lengths[list(numbers)]),
            sentences=tuple(self.sentences[i].words for i in numbers),
            encoded=rows,
        )


@dataclass
class Experiment:
    """Everything that the steps of a run share."""

    recipe: Recipe
    out: Path
    material: Material
    reader: Reader
    encoder: Encoder
    accelerator: Accelerator

    @property
    def device(self) -> torch.device:
        return self.accelerator.device


def read_features(recipe: Recipe, material: Material, encoder: Encoder, cache: Path | None) -> FeatureStore:
    """The frozen encoder's features of every sentence, from the cache where they are there already."""
    settings = recipe.encoder
    precision = settings.precision
    if precision == "auto":
        precision = (
            "bfloat16" if encoder.device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        )
    words = [sentence.words for sentence in material.sentences]
    return frozen_features(encoder, words, cache, layers=settings.layers, precision=precision)


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(
        f"{path.name}.{os.getpid()}.part"
    )  # the processes of two tasks write some files both
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def say(text: str) -> None:
    """Tell the user, above any progress bar."""
    tqdm.write(text)
