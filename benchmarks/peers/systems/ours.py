"""This project's own: students in fp32 and int8, and the teachers, as bundles that a user would load."""

import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structural_kd
from benchmarks.engine import keep_words, without_cache
from benchmarks.peers.system import Answers, System, bytes_on_disk
from export.model import export_model
from structural_kd.manifest import Precision
from structural_kd.predictor import Predictor
from structural_kd.words import SubwordVectors
from train.corpora import Corpus

FOLDER = "bundles"
"""In a run's folder, so that the bundles are deleted with the run."""

ANY_LOSS = 100.0
"""No limit on the points that int8 costs: they stand in the report."""


@dataclass(frozen=True)
class RunBundle:
    """One bundle of the run, and its title."""

    title: str
    task: str
    role: str
    precision: Precision = "fp32"


BUNDLES = {
    "ner_fp32": RunBundle("student, entities", "ner", "student"),
    "ner_int8": RunBundle("student, entities, int8", "ner", "student", "int8"),
    "ner_teacher": RunBundle("teacher, entities", "ner", "teacher"),
    "parse_fp32": RunBundle("student, trees", "parse", "student"),
    "parse_int8": RunBundle("student, trees, int8", "parse", "student", "int8"),
    "parse_teacher": RunBundle("teacher, trees", "parse", "teacher"),
}


def load(run: Path, corpus: Corpus) -> dict[str, System]:
    """All bundles, exported unless they are there, with the default settings of `structural_kd.load`.

    A run's word tables hold the words of all splits. Words of new text are unknown, so words that are neither
    in the training split nor among the pretrained vectors are taken out.
    """
    known = {word for sentence in corpus.train for word in sentence.words}
    known |= set(SubwordVectors.load(run / "words").vocabulary)
    systems = {}
    for name, bundle in BUNDLES.items():
        place = run / FOLDER / name
        if not (place / "manifest.json").is_file():
            print(f"exporting: {bundle.title}", file=sys.stderr)
            export_model(run, bundle.task, bundle.role, place, precision=bundle.precision, most_loss=ANY_LOSS)
        systems[name] = _system(bundle, place, known)
    return systems


def _system(bundle: RunBundle, place: Path, known: Set[str]) -> System:
    predictor = structural_kd.load(place)
    predictor.words = keep_words(predictor.words, known)
    return System(
        bundle.title,
        annotate=predictor.predict,
        read=partial(_read, task=bundle.task),
        parameters=predictor.manifest.parameters,
        size=bytes_on_disk(place),
        renew=partial(_empty_cache, predictor),
        sampled=bundle.role == "teacher",
    )


def _read(results: Sequence[Any], task: str) -> Answers:
    if task == "ner":
        return Answers(tags=[tuple(result.tags) for result in results])
    return Answers(trees=[(result.heads, result.deprels) for result in results])


def _empty_cache(predictor: Predictor) -> None:
    predictor.words = without_cache(predictor.words)
