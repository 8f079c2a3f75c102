"""How closely students follow a teacher that was taken as it is, type by type, and how much faster they are.

    python -m benchmarks.agreement [--run runs/pii]

Scores are precision, recall and F1 over exact entity spans of the run's test split, with the teacher's own
answers as gold: the mean over the seeds of the student that is served. Speed is sentences a second from given
tokens to entities, on one thread: the served student, exported, with no word of the test split in its tables
but those of its training text and with an empty cache, against the teacher in batches of similar length,
without its chain. CPU time of the process, medians over rounds in which both take turns.

Writes RUN/agreement.json and RUN/agreement.md.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

import structural_kd
from benchmarks.bench import conditions, take_turns
from benchmarks.engine import keep_words, without_cache
from export.model import export_model, model_folder
from structural_kd.files import write_whole
from structural_kd.labels import spans_from_bioes
from structural_kd.predictor import Predictor
from train.batching import Dataset
from train.models.card import load_trained, read_card
from train.models.token_classifier import TokenClassifier, load_token_classifier
from train.recipe import RecipeError, load_recipe
from train.splits import load_splits
from train.tasks.ner import EntityTask
from train.word_types import read_word_types

SPEED_SENTENCES = 500
ROUNDS = 5
ALL = "all"

Tags = Sequence[Sequence[str]]
Counts = Mapping[str, np.ndarray]
"""By type, and of all of them: entities that are right, found, wanted."""


def type_counts(gold: Tags, found: Tags) -> dict[str, np.ndarray]:
    """Entities of each type, and of all: right, found, wanted [3]; BIOES tags of the same sentences.

    >>> type_counts([["S-PER", "S-LOC"]], [["S-PER", "O"]])["all"].tolist()
    [1, 1, 2]
    """
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))
    for wanted_tags, found_tags in zip(gold, found, strict=True):
        wanted, predicted = set(spans_from_bioes(wanted_tags)), set(spans_from_bioes(found_tags))
        for place, spans in enumerate((wanted & predicted, predicted, wanted)):
            for span in spans:
                counts[span.label][place] += 1
                counts[ALL][place] += 1
    return dict(counts)


def scores(counts: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1, from 0 to 1, of what is right, found, wanted [3]."""
    right, found, wanted = counts.tolist()
    return {
        "precision": right / found if found else 0.0,
        "recall": right / wanted if wanted else 0.0,
        "f1": 2 * right / (found + wanted) if found + wanted else 0.0,
    }


def mean_scores(runs: Sequence[Counts]) -> dict[str, dict[str, float]]:
    """By type, the most frequent first and all together last: means over students, and how many."""
    wanted = {name: int(counts[name][2]) for counts in runs for name in counts}
    order = sorted(wanted, key=lambda name: (name == ALL, -wanted[name], name))
    nothing = np.zeros(3, np.int64)
    table = {}
    for name in order:
        each = [scores(counts.get(name, nothing)) for counts in runs]
        table[name] = {metric: mean(one[metric] for one in each) for metric in each[0]}
        table[name]["entities"] = wanted[name]
    return table


def measure(run: Path) -> dict[str, Any]:
    """Scores by type and speeds of a run's served student.

    Raises:
        RecipeError: the run's teacher was trained here.
        FileNotFoundError: the run has no student.
    """
    recipe = load_recipe(run / "recipe.yaml")
    teacher = recipe.tasks["ner"].teacher[0] if "ner" in recipe.tasks else None
    if teacher is None or teacher.name is None:
        raise RecipeError(f"{run}: has no teacher of the kind transformers; results.jsonl compares with gold")
    served = model_folder(run, "ner", "student")
    card, _ = read_card(served)
    splits = load_splits(recipe)
    types = read_word_types(run / "words")
    dataset, task = Dataset(splits.sentences, types), EntityTask(card.labels)
    classifier = load_token_classifier(teacher.name, card.labels, scheme=teacher.scheme, types=teacher.types)
    _say("the teacher's answers")
    gold = tags_of(task, dataset, classifier, splits.test)
    runs = []
    for folder in sorted(served.parent.glob(served.name.rpartition("-seed")[0] + "-seed*")):
        _say(folder.name)
        network = load_trained(folder, types)
        runs.append(type_counts(gold, tags_of(task, dataset, network, splits.test)))
    with tempfile.TemporaryDirectory() as temporary:
        _say("export")
        export_model(run, "ner", "student", Path(temporary) / "ner")
        student = structural_kd.load(Path(temporary) / "ner")
    learnt = {word for sentence in splits.select(splits.student_train) for word in sentence.words}
    student.words = keep_words(student.words, learnt)
    tested = [sentence.words for sentence in splits.select(splits.test[:SPEED_SENTENCES])]
    by_length = [
        [splits.sentences[i].words for i in group]
        for group in dataset.by_length(splits.test[:SPEED_SENTENCES])
    ]
    _say("speed")
    seconds = take_turns(
        {
            "student": partial(_predict_cold, student, tested),
            "teacher": partial(_classify, classifier, by_length),
        },
        ROUNDS,
    )
    table = mean_scores(runs)
    return {
        "run": run.name,
        "teacher": teacher.name,
        "student": served.name,
        "students": len(runs),
        "sentences": len(splits.test),
        "f1": table[ALL]["f1"],
        "speed_ratio": seconds["teacher"] / seconds["student"],
        **{f"{name}_sentences_per_s": len(tested) / value for name, value in seconds.items()},
        "unknown_words": float(np.mean([word not in learnt for words in tested for word in words])),
        "types": table,
    }


@torch.no_grad()
def tags_of(task: EntityTask, dataset: Dataset, model: Any, numbers: Sequence[int]) -> list[list[str]]:
    """Predicted BIOES tags of the sentences of these numbers, in order."""
    found: dict[int, list[str]] = {}
    for chosen in dataset.by_length(numbers):
        distribution = model(dataset.batch(chosen))
        found.update(zip(chosen, task.decode(model, distribution), strict=True))
    return [found[i] for i in numbers]


def _predict_cold(student: Predictor, sentences: Sequence[Sequence[str]]) -> None:
    student.words = without_cache(student.words)
    student.predict(sentences)


def _classify(classifier: TokenClassifier, batches: Iterable[Sequence[Sequence[str]]]) -> None:
    for sentences in batches:
        classifier.scores(sentences).argmax(-1)


def report(figures: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    rows = [
        [name, f"{row['entities']:,}", *(f"{row[metric]:.3f}" for metric in ("precision", "recall", "f1"))]
        for name, row in figures["types"].items()
    ]
    headers = ["type", "teacher's entities", "precision", "recall", "F1"]
    student, teacher = (figures[f"{name}_sentences_per_s"] for name in ("student", "teacher"))
    return (
        f"Agreement of {figures['student'].rpartition('-seed')[0]} with {figures['teacher']} on "
        f"{figures['sentences']:,} sentences, mean of {figures['students']} "
        f"{'seed' if figures['students'] == 1 else 'seeds'}:\n\n"
        f"{tabulate(rows, headers, tablefmt='pipe', disable_numparse=True)}\n\n"
        f"Sentences a second on one thread: student {student:,.0f}, teacher {teacher:,.0f}: "
        f"{figures['speed_ratio']:.1f} times as many; {100 * figures['unknown_words']:.0f} % of the tokens "
        f"are words that training never saw. {figures['cpu']}, {figures['date']}.\n"
    )


def _say(what: str) -> None:
    print(f"measuring: {what}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agreement",
        description="How closely students follow a teacher taken as it is, and how much faster they are.",
    )
    parser.add_argument("--run", type=Path, default=Path("runs/pii"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        figures = conditions() | measure(options.run)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_whole(options.run / "agreement.json", json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    write_whole(options.run / "agreement.md", report(figures))
    print(f"{report(figures)}\nwritten: {options.run / 'agreement.json'}, {options.run / 'agreement.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
