"""One trained model of a run to one bundle, checked against torch before it is put in place."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import onnx
from torch import nn

import structural_kd
from export.context import word_projection
from export.encoder_graph import encoder_graph
from export.parity import Parity, on_random_inputs, on_sentences
from export.parser_graph import biaffine_graph, labeller_graph, relations_graph
from export.products import PRODUCTS, Product
from export.quantisation import BOUND, QuantisationError, check_loss, check_quantised, measure_loss
from export.tagger_graph import crf_graph, softmax_graph
from export.write import new_bundle, write_graph, write_manifest
from structural_kd.manifest import (
    ENCODER,
    FORMAT_VERSION,
    MODEL,
    RELATIONS,
    TOKENIZER,
    WORDS,
    CorpusName,
    EncoderFeatures,
    Kind,
    Manifest,
    Precision,
    Provenance,
    Quantisation,
    WordSettings,
)
from structural_kd.word_projection import ProjectedWords
from structural_kd.words import SubwordVectors, WordTable
from train.models.card import ModelCard, load_trained, read_card
from train.models.encoders import Encoder, TokenEncoder, load_encoder
from train.models.words import WordTypes
from train.results import comparisons
from train.word_types import read_word_types

GRAPHS: dict[str, dict[str, Callable[[Any, Product], onnx.ModelProto]]] = {
    "crf": {MODEL: crf_graph},
    "softmax": {MODEL: softmax_graph},
    "biaffine": {MODEL: biaffine_graph, RELATIONS: relations_graph},
    "labeller": {MODEL: labeller_graph},
}
"""The graphs of each kind of model, by the file they go to."""

TABLE_BYTES = 64 * 2**20
"""Most bytes of the table of projected words, the most frequent first; others are projected at first use."""

RANDOM_INPUTS = 1000
TEST_SENTENCES = 5000
TEST_SENTENCES_ENCODED = 200
"""Most sentences of the test split that are compared with torch; fewer for a model with an encoder, which
runs twice for each."""

PACKAGES = ("torch", "transformers", "onnx", "spox", "onnxruntime", "onnxruntime-gpu", "numpy")


@dataclass(frozen=True)
class TrainedModel:
    """A model of a run, and all that its bundle is made of.

    Args:
        name: of the bundle in fp32.
        types: the words of the run; the bundle's tables hold them and those of `vectors`.
        encoder: the one that the card names, with its trained weights if it was fine-tuned.
        teacher: a student's teacher in words.
        about: the fields of ``model.json`` beside the card: objective, seed, scores, corpus.
    """

    name: str
    recipe: str
    card: ModelCard
    model: nn.Module
    types: WordTypes
    vectors: SubwordVectors
    encoder: Encoder | None = None
    teacher: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WrittenBundle:
    """A bundle: where, its bytes on disk, and how it compares with torch."""

    path: Path
    manifest: Manifest
    size: int
    random_inputs: Parity
    test_sentences: Parity


def tasks_of(run: Path, only: str | None) -> list[str]:
    """The tasks of a run, or one of them.

    Raises:
        FileNotFoundError: it has none.
    """
    tasks = [only] if only else [task for task in ("ner", "parse") if (run / task).is_dir()]
    if not tasks:
        raise FileNotFoundError(f"{run}: no task in it; train first: python -m train RECIPE")
    return tasks


def model_folder(run: Path, task: str, role: str) -> Path:
    """The folder of a run's teacher, or of the student that ``served.json`` names.

    Raises:
        FileNotFoundError: the run has no such model (yet).
    """
    if role == "teacher":
        folder = run / task / "teacher"
        if (run / task / "teacher.json").is_file() and not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder; this run's teacher is no network of its own, and has no graph"
            )
    else:
        served = run / task / "served.json"
        if not served.is_file():
            raise FileNotFoundError(f"{served}: no such file; python -m train writes it at its end")
        folder = run / task / json.loads(served.read_text())["student"]
    if not (folder / "model.json").is_file():
        raise FileNotFoundError(f"{folder / 'model.json'}: no such file; train the {role} first")
    return folder


def export_model(
    run: Path,
    task: str,
    role: str,
    target: Path,
    *,
    precision: Precision = "fp32",
    most_loss: float = BOUND,
) -> WrittenBundle:
    """Write the bundle of a run's teacher or served student to ``target``.

    The fp32 graph is compared with torch in any case. An int8 bundle is compared with the fp32 one on the
    corpus of the run, and its manifest has the loss.

    Args:
        most_loss: points of F1 or LAS that int8 may cost on any split.

    Raises:
        FileNotFoundError: the run has no such model.
        ParityError: the bundle does not answer as the model; ``target`` is as it was.
        QuantisationError: int8 costs too much, or cannot be had; ``target`` is as it was.
    """
    trained = load_from_run(run, task, role)
    card = trained.card
    if precision == "int8" and card.encoder is not None:
        raise QuantisationError(
            f"{model_folder(run, task, role)}: a model with an encoder is exported in fp32 only"
        )
    with new_bundle(target) as place, TemporaryDirectory() as temporary:
        exact = place if precision == "fp32" else Path(temporary)
        manifest = write_bundle(exact, trained)
        predictor = structural_kd.load(exact)
        random_inputs = on_random_inputs(trained.model, predictor, count=RANDOM_INPUTS)
        most = TEST_SENTENCES if card.encoder is None else TEST_SENTENCES_ENCODED
        sentences = _test_sentences(run / "test.txt", set(trained.types.words), most)
        test_sentences = on_sentences(trained.model, predictor, sentences, trained.types, trained.encoder)
        if precision == "int8":
            manifest = write_bundle(place, trained, quantisation=Quantisation({}, most_loss))
            check_quantised(onnx.load(str(place / MODEL)), card)
            loss = measure_loss(run, task, predictor, structural_kd.load(place))
            check_loss(loss, task, most_loss)
            manifest = write_manifest(
                place, replace(manifest, quantisation=Quantisation(loss, most_loss), files={})
            )
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return WrittenBundle(target, manifest, size, random_inputs, test_sentences)


def load_from_run(run: Path, task: str, role: str) -> TrainedModel:
    """A run's teacher or served student.

    Raises:
        FileNotFoundError: the run has no such model.
        ValueError: there is no graph for its kind.
    """
    folder = model_folder(run, task, role)
    card, about = read_card(folder)
    if card.kind not in GRAPHS or not card.reads_words:
        what = f"the kind {card.kind}" if card.kind not in GRAPHS else "a model that reads no words"
        raise ValueError(
            f"{folder}: {what} has no graph; {', '.join(GRAPHS)} over words can be exported. Students learn "
            "from such a teacher all the same: leave out --teachers"
        )
    if role == "student":
        scores, compared = about.get("scores", {}), comparisons(run, folder)
        about["scores"] = {split: scores[split] | compared.get(split, {}) for split in scores}
    types = read_word_types(run / "words")
    encoder = load_encoder(card.encoder.name) if card.encoder else None
    tuned = None
    if card.encoder is not None and card.encoder.finetuned:
        assert encoder is not None
        tuned = TokenEncoder(encoder, layers=card.encoder.layers)
    return TrainedModel(
        name=f"{run.resolve().name}-{task}-{role}",
        recipe=run.resolve().name,
        card=card,
        model=load_trained(folder, types, tuned),
        types=types,
        vectors=SubwordVectors.load(run / "words"),
        encoder=encoder,
        teacher=_teacher_of(run, task, role),
        about=about,
    )


def write_bundle(
    place: Path,
    trained: TrainedModel,
    *,
    quantisation: Quantisation | None = None,
    graph_of_encoder: Callable[[Any, Sequence[int]], onnx.ModelProto] = encoder_graph,
) -> Manifest:
    """Write all files of a bundle into an empty folder, without comparing it with torch.

    Args:
        quantisation: what the manifest says of a bundle in int8; None for one in fp32.
    """
    model, card, encoder, about = trained.model, trained.card, trained.encoder, trained.about
    precision: Precision = "int8" if quantisation else "fp32"
    for file, graph in GRAPHS[card.kind].items():
        write_graph(place / file, graph(model, PRODUCTS[precision]))
    representation: Any = model.representation
    # Words with a vector of their own come along even where no sentence of the run has them.
    table = WordTable.fold(
        trained.vectors,
        representation.words.convolution(),
        words=dict.fromkeys([*trained.types.words, *trained.vectors.vocabulary]),
    )
    projected = ProjectedWords.fold(table, *word_projection(representation), table_bytes=TABLE_BYTES)
    projected.save(place / WORDS)
    trainable = sum(weight.numel() for weight in model.parameters())
    frozen = table.vector_size * len(table.vocabulary)
    if table.subwords is not None:
        frozen += table.subwords.size
    settings = None
    if card.encoder is not None:
        assert encoder is not None
        write_graph(place / ENCODER, graph_of_encoder(encoder.model, card.encoder.layers))
        encoder.tokenizer.save(str(place / TOKENIZER))
        settings = EncoderFeatures(
            name=card.encoder.name,
            layers=card.encoder.layers,
            size=card.encoder.size,
            max_pieces=encoder.max_pieces,
            finetuned=card.encoder.finetuned,
        )
        if not card.encoder.finetuned:
            frozen += sum(weight.numel() for weight in encoder.model.parameters())
    corpus = about.get("corpus")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=trained.name + "-int8" * (precision == "int8"),
        task=card.task,
        role=card.role,
        kind=cast(Kind, card.kind),
        precision=precision,
        language=card.language,
        labels=card.labels,
        relative_labels=card.relative_labels,
        words=WordSettings(table.vector_size, table.characters.size, projected.size),
        encoder=settings,
        parameters=trainable + frozen,
        trainable_parameters=trainable,
        scores=about.get("scores", {}),
        quantisation=quantisation,
        corpus=None if corpus is None else CorpusName(corpus["name"], corpus["digest"]),
        provenance=Provenance(
            recipe=trained.recipe,
            objective=about.get("objective", "none"),
            teacher=trained.teacher,
            seed=about.get("seed"),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={"python": platform.python_version(), **_versions()},
        ),
        files={},
    )
    return write_manifest(place, manifest)


def _teacher_of(run: Path, task: str, role: str) -> str | None:
    """A student's teacher in words: its kind and its encoder."""
    if role == "teacher" or not (run / task / "teacher" / "model.json").is_file():
        return None
    card, _ = read_card(run / task / "teacher")
    return f"{card.kind} over {card.encoder.name}" if card.encoder else card.kind


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _test_sentences(path: Path, known: set[str], most: int) -> list[list[str]]:
    """Test sentences spread over the file; a word with a space in it falls apart there, so it is left out."""
    sentences = [line.split() for line in path.read_text().splitlines()]
    usable = [words for words in sentences if words and known.issuperset(words)]
    return usable[:: -(-len(usable) // most) or 1]
