"""The whole comparison: train the systems that are missing, score and time all, write the report."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import figure, report
from benchmarks.peers.measure import scores, speeds
from benchmarks.peers.system import System, require_gold
from benchmarks.peers.systems import crfsuite, ours, spacy_pipeline, udpipe
from benchmarks.peers.training import PeerTrainingError, trained
from loadtest.machine import machine, now, versions
from structural_kd.files import write_whole
from train.corpora import Corpus, CorpusError, load_corpus
from train.recipe import RecipeError, load_recipe

PACKAGES = ("onnxruntime", "spacy", "ufal.udpipe", "python-crfsuite", "torch", "numpy")


def run(
    systems: Sequence[str], corpus_name: str, run: Path, out: Path, *, rounds: int, only_train: bool
) -> int:
    """Train systems and, unless ``only_train``, compare them; the exit status of the command."""
    try:
        corpus = load_corpus(corpus_name)
        require_gold(corpus)
        training = {name: trained(name, corpus, corpus_name, run) for name in systems}
        if not only_train:
            write(compare(systems, corpus, run, training, rounds), out)
    except (CorpusError, PeerTrainingError, RecipeError, OSError, RuntimeError, ValueError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("peers: stopped; the same command goes on, with what is trained already", file=sys.stderr)
        return 130
    return 0


def compare(
    names: Sequence[str],
    corpus: Corpus,
    run: Path,
    training: Mapping[str, Mapping[str, Any]],
    rounds: int,
) -> report.PeerResults:
    """Accuracy and speed of all systems."""
    systems = load(names, run, corpus)
    texts = [sentence.words for sentence in corpus.test]
    points = {}
    for name, system in systems.items():
        print(f"accuracy: {system.title}", flush=True)
        points[name] = scores(system.read(system.annotate(texts)), corpus.test)
    speed = speeds(systems, texts, rounds=rounds)
    return report.PeerResults(
        systems={
            name: report.Measured(each.title, each.parameters, each.size, points[name], speed[name])
            for name, each in systems.items()
        },
        corpus=corpus.name,
        sentences=len(texts),
        tokens=sum(map(len, texts)),
        rounds=rounds,
        students=students_of(run / "ours") if "ours" in names else None,
        training=training,
        machine=machine(),
        versions=versions(PACKAGES),
        date=now(),
    )


def students_of(run: Path) -> dict[str, Any]:
    """Seed, encoder and word vectors of the recipe that training left in the run's folder."""
    recipe = load_recipe(run / "recipe.yaml")
    return {
        "seed": recipe.seeds[0],
        "encoder": recipe.encoder.name if recipe.encoder else "no encoder",
        "vectors": recipe.vectors.name or ("the encoder's" if recipe.vectors_of_encoder else "the corpus's"),
    }


def load(names: Sequence[str], run: Path, corpus: Corpus) -> dict[str, System]:
    """All systems of these trainers, in the report's order."""
    found: dict[str, System] = {}
    if "ours" in names:
        found |= ours.load(run / "ours", corpus)
    for name, module in (("spacy", spacy_pipeline), ("udpipe", udpipe), ("crfsuite", crfsuite)):
        if name in names:
            found |= module.load(run / name)
    return {name: found[name] for name in report.ORDER if name in found}


def write(result: report.PeerResults, out: Path) -> None:
    """Write the report and print it."""
    markdown = report.as_markdown(result)
    write_whole(out / "peers.json", json.dumps(report.as_json(result), indent=1, ensure_ascii=False) + "\n")
    write_whole(out / "peers.md", markdown)
    write_whole(out / "peers.svg", figure.accuracy_against_speed(result.systems))
    print(f"\n{markdown}\nwritten to {out}: peers.json, .md and .svg")
