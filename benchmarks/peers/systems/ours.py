"""This project's own: students in fp32 and int8, and the teachers, as bundles that a user would load."""

import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structural_kd
from benchmarks.engine import keep_words
from benchmarks.peers.system import Answers, System, bytes_on_disk
from export.model import export_model
from structural_kd.manifest import Precision
from structural_kd.predictor import Predictor
from structural_kd.word_projection import ProjectedWords
from structural_kd.words import SubwordVectors
from train.corpora import Corpus

BUNDLES = "bundles"
"""In a run's folder: they are gone where the run is deleted."""


ANY_LOSS = 100.0
"""Points: what int8 costs stands in the table."""


@dataclass(frozen=True)
class Kind:
    """One bundle of the run: what `export.model.export_model` is told, and its title."""

    title: str
    task: str
    role: str
    precision: Precision = "fp32"


KINDS = {
    "ner_fp32": Kind("student, entities", "ner", "student"),
    "ner_int8": Kind("student, entities, int8", "ner", "student", "int8"),
    "ner_teacher": Kind("teacher, entities", "ner", "teacher"),
    "parse_fp32": Kind("student, trees", "parse", "student"),
    "parse_int8": Kind("student, trees, int8", "parse", "student", "int8"),
    "parse_teacher": Kind("teacher, trees", "parse", "teacher"),
}


def load(run: Path, corpus: Corpus) -> dict[str, System]:
    """Exports what is not exported yet, and opens all of it with the default settings of `structural_kd.load`.

    A run's word tables hold the words of all splits; whoever reads new text has not seen those of the test
    split, so words that are neither in the training split nor among the pretrained vectors are taken out.
    """
    known = {word for sentence in corpus.train for word in sentence.words}
    known |= set(SubwordVectors.load(run / "words").vocabulary)
    return {name: _system(kind, _exported(run, name, kind), known) for name, kind in KINDS.items()}


def _exported(run: Path, name: str, kind: Kind) -> Path:
    place = run / BUNDLES / name
    if not (place / "manifest.json").is_file():
        print(f"exporting: {kind.title}", file=sys.stderr)
        export_model(run, kind.task, kind.role, place, precision=kind.precision, most_loss=ANY_LOSS)
    return place


def _system(kind: Kind, place: Path, known: Set[str]) -> System:
    predictor = structural_kd.load(place)
    predictor.words = keep_words(predictor.words, known)
    return System(
        kind.title,
        annotate=predictor.predict,
        read=partial(_read, task=kind.task),
        parameters=predictor.manifest.parameters,
        size=bytes_on_disk(place),
        renew=partial(_forget, predictor),
        sampled=kind.role == "teacher",
    )


def _read(results: Sequence[Any], task: str) -> Answers:
    if task == "ner":
        return Answers(tags=[tuple(result.tags) for result in results])
    return Answers(trees=[(result.heads, result.deprels) for result in results])


def _forget(predictor: Predictor) -> None:
    words = predictor.words
    predictor.words = ProjectedWords(words.table, words.weight, words.bias, words.rows)
