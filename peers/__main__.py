"""python -m peers: our students and teachers beside spaCy, UDPipe and CRFsuite, on one corpus.

Trains what is not trained yet (two hours and more, once; what is there is taken as it is), scores every
system on the test split, times all of them in turn in this process on one thread, and writes the report.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtest.machine import machine, now, versions
from loadtest.writing import replace
from peers import figure, report
from peers.measure import scores, speeds
from peers.system import System
from peers.systems import crfsuite, ours, spacy_pipeline, udpipe
from peers.training import RECIPE, TRAINERS, TrainingError, trained
from train.corpora import Corpus, CorpusError, load_corpus
from train.recipe import load_recipe

PACKAGES = ("onnxruntime", "spacy", "ufal.udpipe", "python-crfsuite", "torch", "numpy")

EPILOG = """\
examples:
  everything:
    python -m peers
  training alone, for instance two of them side by side in two terminals:
    python -m peers --train ours
    python -m peers --train spacy udpipe crfsuite
  a report without the systems that take long to train:
    python -m peers --systems ours crfsuite

It writes peers.json, peers.md and peers.svg into --out. What was trained lies in --run, a folder a system;
delete one to have it trained anew. Exit status: 0 measured, 1 something could not be trained or read.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        print(
            "peers: set OMP_NUM_THREADS=1, as make peers does: libraries take all cores else",
            file=sys.stderr,
        )
        return 2
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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m peers",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--systems", nargs="+", choices=list(TRAINERS), default=list(TRAINERS), help="which to compare (all)"
    )
    parser.add_argument("--train", nargs="+", choices=list(TRAINERS), help="train these, and measure nothing")
    parser.add_argument("--corpus", default="en_ewt", help="name or folder, with entities and trees (en_ewt)")
    parser.add_argument("--run", type=Path, default=Path("runs/peers"), help="what was trained (runs/peers)")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the report (reports)")
    parser.add_argument("--rounds", type=_positive, default=5, help="in which all take turns (5)")
    parser.add_argument(
        "--sample", type=_positive, default=200, help="sentences on which teachers are timed (200)"
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, not {text!r}")
    return int(text)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
