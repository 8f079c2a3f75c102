"""The whole comparison: train what is not trained yet, open all, score and time them, write the report."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtest.machine import machine, now, versions
from loadtest.writing import replace
from peers import figure, report
from peers.measure import scores, speeds
from peers.system import System
from peers.systems import crfsuite, ours, spacy_pipeline, udpipe
from peers.training import RECIPE, TrainingError, trained
from train.corpora import Corpus, CorpusError, load_corpus
from train.recipe import load_recipe

PACKAGES = ("onnxruntime", "spacy", "ufal.udpipe", "python-crfsuite", "torch", "numpy")


def run(options: argparse.Namespace) -> int:
    """Does what the options of the command ask for; the exit status."""
    try:
        corpus = load_corpus(options.corpus)
        training = {
            name: trained(name, corpus, options.corpus, options.run, _say)
            for name in (options.train or options.systems)
        }
        if options.train:
            return 0
        systems = opened(options.systems, options.run, corpus)
        gold = corpus.test
        texts = [sentence.words for sentence in gold]
        points = {}
        for name, system in systems.items():
            _say(f"accuracy: {system.title}")
            points[name] = scores(system.read(system.annotate(texts)), gold)
        fast = speeds(systems, texts, rounds=options.rounds, sample=options.sample, say=_say)
    except (CorpusError, TrainingError, OSError, RuntimeError, ValueError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    recipe = load_recipe(RECIPE)
    result = report.Comparison(
        rows={name: report.Row.of(systems[name], points[name], fast[name]) for name in systems},
        corpus=corpus.name,
        sentences=len(texts),
        tokens=sum(map(len, texts)),
        rounds=options.rounds,
        seed=recipe.seeds[0],
        encoder=recipe.encoder.name if recipe.encoder else "no encoder",
        vectors=recipe.vectors.name or "trained on the corpus",
        training=training,
        machine=machine(),
        versions=versions(PACKAGES),
        date=now(),
    )
    markdown = report.as_markdown(result)
    replace(
        options.out / "peers.json", json.dumps(report.as_json(result), indent=1, ensure_ascii=False) + "\n"
    )
    replace(options.out / "peers.md", markdown)
    replace(options.out / "peers.svg", figure.figure_file(result.rows))
    print(f"\n{markdown}\nwritten to {options.out}: peers.json, .md and .svg")
    return 0


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
