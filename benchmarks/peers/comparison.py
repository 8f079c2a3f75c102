"""The whole comparison: train what is not trained yet, open all, score and time them, write the report."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import figure, report
from benchmarks.peers.measure import scores, speeds
from benchmarks.peers.system import System, require_gold
from benchmarks.peers.systems import crfsuite, ours, spacy_pipeline, udpipe
from benchmarks.peers.training import TrainingError, trained
from loadtest.machine import machine, now, versions
from structural_kd.files import write_whole
from train.corpora import Corpus, CorpusError, load_corpus
from train.recipe import RecipeError, load_recipe

PACKAGES = ("onnxruntime", "spacy", "ufal.udpipe", "python-crfsuite", "torch", "numpy")


def run(options: argparse.Namespace) -> int:
    """Does what the options of the command ask for; the exit status."""
    try:
        corpus = load_corpus(options.corpus)
        require_gold(corpus)
        training = {
            name: trained(name, corpus, options.corpus, options.run, _say)
            for name in (options.train or options.systems)
        }
        if not options.train:
            written(compared(options, corpus, training), options.out)
    except (CorpusError, TrainingError, RecipeError, OSError, RuntimeError, ValueError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("peers: stopped; the same command goes on, with what is trained already", file=sys.stderr)
        return 130
    return 0


def compared(
    options: argparse.Namespace, corpus: Corpus, training: Mapping[str, Mapping[str, Any]]
) -> report.Comparison:
    """Accuracy and speed of all systems."""
    students = told_students(options.run / "ours") if "ours" in options.systems else None
    systems = opened(options.systems, options.run, corpus)
    texts = [sentence.words for sentence in corpus.test]
    points = {}
    for name, system in systems.items():
        _say(f"accuracy: {system.title}")
        points[name] = scores(system.read(system.annotate(texts)), corpus.test)
    fast = speeds(systems, texts, rounds=options.rounds, sample=options.sample, say=_say)
    return report.Comparison(
        rows={name: report.Row.of(systems[name], points[name], fast[name]) for name in systems},
        corpus=corpus.name,
        sentences=len(texts),
        tokens=sum(map(len, texts)),
        rounds=options.rounds,
        students=students,
        training=training,
        machine=machine(),
        versions=versions(PACKAGES),
        date=now(),
    )


def told_students(run: Path) -> report.Students:
    """What the recipe says by which they were trained, which training leaves in the run's folder."""
    recipe = load_recipe(run / "recipe.yaml")
    return report.Students(
        seed=recipe.seeds[0],
        encoder=recipe.encoder.name if recipe.encoder else "no encoder",
        vectors=recipe.vectors.name or "trained on the corpus",
    )


def written(result: report.Comparison, out: Path) -> None:
    """Writes the report and prints it."""
    markdown = report.as_markdown(result)
    files = {
        "peers.json": json.dumps(report.as_json(result), indent=1, ensure_ascii=False) + "\n",
        "peers.md": markdown,
        "peers.svg": figure.accuracy_against_speed(result.rows),
    }
    for name, text in files.items():
        write_whole(out / name, text)
    print(f"\n{markdown}\nwritten to {out}: peers.json, .md and .svg")


def opened(names: Sequence[str], run: Path, corpus: Corpus) -> dict[str, System]:
    """All systems of these trainers, in the report's order."""
    found: dict[str, System] = {}
    if "ours" in names:
        found |= ours.load(run / "ours", corpus)
    for name, module in (("spacy", spacy_pipeline), ("udpipe", udpipe), ("crfsuite", crfsuite)):
        if name in names:
            found |= module.load(run / name)
    return {name: found[name] for name in report.ORDER if name in found}


def _say(line: str) -> None:
    print(line, flush=True)
