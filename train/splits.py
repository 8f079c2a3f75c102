"""What a run's teachers and students share: sentences, word types, encoder features."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from structural_kd.words import SubwordVectors
from train.corpora import Corpus, Sentence, load_corpus, read_jsonl, read_text
from train.corpora.named import UNKNOWN_LANGUAGE
from train.models.batch import Batch, pad_rows
from train.models.encoders import Encoder
from train.models.feature_store import FeatureStore, frozen_features
from train.models.named_vectors import named_vectors
from train.models.vectors import load_vectors, train_vectors
from train.models.words import WordTypes, alphabet_of
from train.offline import UnavailableError, cache_folder
from train.recipe import EncoderSettings, Recipe, RecipeError

HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 1000
"""What is held out of raw text for dev and for test, where there is no corpus."""


MANY_LANGUAGES = "mul"
"""ISO 639-2's code for several languages."""


@dataclass(frozen=True)
class Material:
    """The sentences of an experiment, in the order in which word ids and features are kept.

    That order is each corpus's own (train, dev, test, then added text), so that features in the cache serve
    every choice of labelled sentences. Sentences not labelled in this experiment have no labels here.

    Parts, as numbers of sentences:
        labelled      keep their gold labels; teachers learn from them
        raw           all other training text of the students' language, of which some is unlabelled
        unlabelled    raw text that students learn from
        taught        what students learn from: both of these, or raw text alone
        teacher_dev   chooses teachers
        dev, test     choose and measure students
    """

    name: str
    language: str
    digest: str
    sentences: tuple[Sentence, ...]
    origin: tuple[
        int, ...
    ]  # the corpus each sentence is of, in the recipe's order; added text is of none, −1
    corpora: tuple[str, ...]
    parts: dict[str, list[int]]

    def part(self, name: str) -> list[Sentence]:
        return [self.sentences[i] for i in self.parts[name]]

    def of_corpus(self, part: str, corpus: int) -> list[int]:
        """The sentences of a part that are of one corpus."""
        return [i for i in self.parts[part] if self.origin[i] == corpus]


def load_material(recipe: Recipe) -> Material:
    """Read the corpora and decide which training sentences keep their labels.

    Raises:
        RecipeError: more sentences are asked for than there are.
    """
    corpora = [_read_corpus(recipe, name) for name in recipe.corpus]
    names = [corpus.name for corpus in corpora] + ([Path(recipe.target).name] if recipe.target else [])
    if len(set(names)) < len(names):
        raise RecipeError(f"corpus: two of {', '.join(names)} have the same name; rename a folder")
    text = _read_raw(recipe.text) if recipe.text else []
    if recipe.target is not None:
        return _zero_shot(recipe, corpora, _read_corpus(recipe, recipe.target), text)
    if not corpora:
        return _raw_alone(recipe, text)
    sentences: list[Sentence] = []
    origin: list[int] = []
    parts: dict[str, list[int]] = {name: [] for name in ("labelled", "unlabelled", "dev", "test")}
    raw: list[int] = []
    for number, corpus in enumerate(corpora):
        first = len(sentences)
        chosen, order = _choose_labelled(recipe, corpus)
        keeps = set(chosen)
        sentences += [s if i in keeps else s.unlabelled() for i, s in enumerate(corpus.train)]
        parts["labelled"] += [first + i for i in sorted(keeps)]
        raw += [first + i for i in order[len(chosen) :]]
        for split, held in (("dev", corpus.dev), ("test", corpus.test)):
            parts[split] += range(len(sentences), len(sentences) + len(held))
            sentences += held
        origin += [number] * (len(sentences) - first)
    raw += range(len(sentences), len(sentences) + len(text))
    parts["raw"] = sorted(raw)
    parts["unlabelled"] = sorted(_choose_raw(recipe, raw))
    parts["taught"] = sorted([*parts["labelled"], *parts["unlabelled"]])
    parts["teacher_dev"] = parts["dev"]
    languages = {corpus.language for corpus in corpora}
    return Material(
        name="+".join(corpus.name for corpus in corpora),
        language=recipe.language or (languages.pop() if len(languages) == 1 else MANY_LANGUAGES),
        digest=_digest_of(corpora),
        sentences=(*sentences, *text),
        origin=(*origin, *[-1] * len(text)),
        corpora=tuple(corpus.name for corpus in corpora),
        parts=parts,
    )


def _zero_shot(
    recipe: Recipe, sources: Sequence[Corpus], target: Corpus, text: Sequence[Sentence]
) -> Material:
    """Teachers learn from the sources; students see the target's train and dev splits without labels."""
    sentences: list[Sentence] = []
    origin: list[int] = []
    parts: dict[str, list[int]] = {}

    def add(part: str, found: Sequence[Sentence], corpus: int) -> None:
        parts.setdefault(part, []).extend(range(len(sentences), len(sentences) + len(found)))
        sentences.extend(found)
        origin.extend([corpus] * len(found))

    for number, corpus in enumerate(sources):
        chosen, _ = _choose_labelled(recipe, corpus)
        add("labelled", [corpus.train[i] for i in sorted(chosen)], number)
        add("teacher_dev", corpus.dev, number)
    place = len(sources)
    add("raw", [*(s.unlabelled() for s in target.train), *text], place)
    parts["unlabelled"] = sorted(_choose_raw(recipe, parts["raw"]))
    add("dev", [s.unlabelled() for s in target.dev], place)
    add("test", target.test, place)
    parts["taught"] = parts["unlabelled"]
    return Material(
        name="+".join(corpus.name for corpus in sources) + f"-to-{target.name}",
        language=recipe.language or target.language,
        digest=_digest_of([*sources, target]),
        sentences=tuple(sentences),
        origin=tuple(origin),
        corpora=(*(corpus.name for corpus in sources), target.name),
        parts=parts,
    )


def _raw_alone(recipe: Recipe, text: Sequence[Sentence]) -> Material:
    """Raw text and nothing else: some of it is held out, to compare the student with its teacher on."""
    order = np.random.default_rng(recipe.selection_seed).permutation(len(text)).tolist()
    held = min(HELD_OUT_MOST, int(len(text) * HELD_OUT_SHARE))
    if not held:
        raise RecipeError(f"text: {recipe.text} has {len(text)} sentences; at least 10 are needed")
    raw = _choose_raw(recipe, order[2 * held :])
    assert recipe.text is not None
    return Material(
        name=recipe.text.stem,
        language=recipe.language or UNKNOWN_LANGUAGE,
        digest=hashlib.sha256(json.dumps([s.words for s in text]).encode()).hexdigest(),
        sentences=tuple(text),
        origin=(0,) * len(text),
        corpora=(recipe.text.stem,),
        parts={
            "labelled": [],
            "teacher_dev": [],
            "raw": sorted(order[2 * held :]),
            "unlabelled": sorted(raw),
            "taught": sorted(raw),
            "dev": sorted(order[:held]),
            "test": sorted(order[held : 2 * held]),
        },
    )


def _read_corpus(recipe: Recipe, name: str) -> Corpus:
    corpus = _load_once(name, recipe.merge_subtokens)
    if not recipe.sentences:
        return corpus
    return replace(
        corpus,
        train=corpus.train[: recipe.sentences],
        dev=corpus.dev[: recipe.sentences],
        test=corpus.test[: recipe.sentences],
    )


@lru_cache(maxsize=8)
def _load_once(name: str, merge_subtokens: bool | None) -> Corpus:
    """A corpus, read once for all the runs of a process."""
    return load_corpus(name, merge_subtokens=merge_subtokens)


def _choose_labelled(recipe: Recipe, corpus: Corpus) -> tuple[list[int], list[int]]:
    """Which training sentences keep their labels, and the order in which they were drawn."""
    size = len(corpus.train)
    wanted = recipe.labelled or size
    if wanted > size:
        raise RecipeError(
            f"labelled: {wanted} sentences are wanted, {corpus.name} has {size} in its training split"
        )
    order = np.random.default_rng(recipe.selection_seed).permutation(size).tolist()
    return order[:wanted], order


def _choose_raw(recipe: Recipe, raw: list[int]) -> list[int]:
    if recipe.unlabelled is None:
        return raw
    if recipe.unlabelled > len(raw):
        raise RecipeError(
            f"unlabelled: {recipe.unlabelled} sentences are wanted, there are {len(raw)}; "
            "name a file of raw text under text, or ask for fewer"
        )
    return np.random.default_rng(recipe.selection_seed).permutation(raw)[: recipe.unlabelled].tolist()


def _digest_of(corpora: Sequence[Corpus]) -> str:
    if len(corpora) == 1:
        return corpora[0].digest
    return hashlib.sha256("".join(corpus.digest for corpus in corpora).encode()).hexdigest()


def _read_raw(path: Path) -> list[Sentence]:
    """Sentences of a file of raw text; labels that JSON lines may have are not looked at."""
    read = read_jsonl if path.suffix == ".jsonl" else read_text
    return [sentence.unlabelled() for sentence in read(path)]


def load_word_types(recipe: Recipe, material: Material, folder: Path) -> WordTypes:
    """The run's word types with their vectors; trained or loaded once, then read from the run's folder.

    Raises:
        RecipeError: the folder was made from other text or settings, or the vectors can not be read.
    """
    parts, settings = material.parts, recipe.vectors
    taught = set(parts["taught"])  # in zero-shot runs the sources' text stays out of the vectors
    own = [i for i in parts["labelled"] if i in taught]
    whole = settings.text == "corpus"
    chosen = sorted([*own, *parts["raw"]]) if whole else [*own, *parts["unlabelled"]]
    text = [material.sentences[i].words for i in chosen]
    counts = Counter(word for sentence in material.sentences for word in sentence.words)
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    made_of = json.dumps(
        [settings.model_dump(mode="json", exclude={"text"}), recipe.teacher_seed, text, words]
    )
    key = hashlib.sha256(made_of.encode()).hexdigest()
    key_file = folder / "made_of.sha256"  # written last: a folder with it is whole
    if key_file.exists():
        if key_file.read_text().strip() != key:
            raise RecipeError(
                f"{folder}: made from other text or vectors than the recipe names; choose another --out, "
                "or delete the run"
            )
        return read_word_types(folder)
    if settings.load or settings.name:
        try:
            path = settings.load or named_vectors(settings.name or "", cache_folder())
            vectors = load_vectors(path, words, most=settings.most)
        except (OSError, ValueError, UnavailableError) as error:
            raise RecipeError(f"vectors.{'load' if settings.load else 'name'}: {error}") from error
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
    encoder: Encoder | None
    accelerator: Accelerator
    references: dict[int, Sentence] = field(default_factory=dict)
    """Sentences without gold, with what the teacher says of them in its place."""

    @property
    def device(self) -> torch.device:
        return self.accelerator.device


def read_features(recipe: Recipe, material: Material, encoder: Encoder, cache: Path | None) -> FeatureStore:
    """The frozen encoder's features of every sentence, from the cache where they are there already."""
    settings = recipe.encoder
    assert settings is not None
    precision = precision_of(settings, encoder.device)
    words = [sentence.words for sentence in material.sentences]
    return frozen_features(encoder, words, cache, layers=settings.layers, precision=precision)


def precision_of(settings: EncoderSettings, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision an encoder runs in: as the recipe says, or bfloat16 on a GPU that has it."""
    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


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
