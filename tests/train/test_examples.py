"""The sentences that two students answer differently."""

import json
from pathlib import Path
from typing import Any

import pytest

from train.corpora import Sentence, write_jsonl
from train.examples import Example, choose, compared_students, write_examples

RIGHT_TO_LEFT = ("דוד", "גר", "בירושלים")
GOLD = [
    Sentence(("Ada", "sees", "Rome"), ("S-PER", "O", "S-LOC"), (2, 0, 2), ("nsubj", "root", "obj")),
    Sentence(RIGHT_TO_LEFT, ("S-PER", "O", "S-LOC"), (2, 0, 2), ("nsubj", "root", "obl")),
    Sentence(("a|b", "_is_"), ("O", "O"), (2, 0), ("nsubj", "root")),
]


def tagged(*rows: str) -> list[Sentence]:
    return [Sentence(s.words, tuple(tags.split())) for s, tags in zip(GOLD, rows, strict=True)]


def attached(*rows: tuple[tuple[int, ...], str]) -> list[Sentence]:
    return [
        Sentence(s.words, heads=heads, deprels=tuple(relations.split()))
        for s, (heads, relations) in zip(GOLD, rows, strict=True)
    ]


def student(
    run: Path, task: str, objective: str, seed: int, dev: float, predicted: list[Sentence] = GOLD
) -> None:
    kind, metric = {"ner": ("crf", "f1"), "parse": ("biaffine", "las")}[task]
    folder = run / task / "students" / f"{kind}-{objective}-seed{seed}"
    write_jsonl(folder / "predictions.jsonl", predicted)
    about = {"card": {"task": task, "kind": kind}, "objective": objective, "scores": {"dev": {metric: dev}}}
    (folder / "model.json").write_text(json.dumps(about))


def serve(run: Path, task: str, name: str) -> None:
    (run / task / "served.json").write_text(json.dumps({"student": f"students/{name}"}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Alone is wrong about Rome and right about the Hebrew sentence; distilled the other way round."""
    write_jsonl(tmp_path / "test.jsonl", GOLD)
    alone = tagged("S-PER O O", "S-PER O S-LOC", "O O")
    distilled = tagged("S-PER O S-LOC", "S-ORG O S-LOC", "O O")
    write_jsonl(tmp_path / "ner" / "teacher_predictions.jsonl", tagged("S-PER O S-LOC", "O O O", "O O"))
    student(tmp_path, "ner", "none", 1, 50.0, alone)
    student(tmp_path, "ner", "structural", 1, 60.0, distilled)
    serve(tmp_path, "ner", "crf-structural-seed1")
    return tmp_path


def cells(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without the marks of direction."""
    plain = text.replace("\u2068", "").replace("\u2069", "")
    lines = [line.strip("| ") for line in plain.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_each_entity_that_any_system_has_is_a_row_with_all_their_labels(run: Path) -> None:
    text = write_examples(run)
    assert text is not None
    assert (run / "examples.md").read_text(encoding="utf-8") == text
    rows = cells(text)
    assert ["Ada", "PER", "PER", "PER", "PER"] in rows
    assert ["Rome", "LOC", "LOC", "–", "LOC"] in rows
    assert ["דוד", "PER", "–", "PER", "ORG"] in rows
    assert ["בירושלים", "LOC", "–", "LOC", "LOC"] in rows
    assert "_is" not in text  # both students say the same of that sentence


def test_both_kinds_of_outcome_are_shown(run: Path) -> None:
    text = write_examples(run) or ""
    assert text.count("the distilled student is nearer") == text.count("the student alone is nearer") == 2


def test_text_from_right_to_left_stands_in_isolates(run: Path) -> None:
    text = write_examples(run) or ""
    assert f"\u2068{' '.join(RIGHT_TO_LEFT)}\u2069" in text
    assert text.count("\u2068") == text.count("\u2069")


def test_a_tree_shows_the_words_that_the_students_attach_differently(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", GOLD)
    right = attached(((2, 0, 2), "nsubj root obj"), ((2, 0, 2), "nsubj root obl"), ((2, 0), "nsubj root"))
    wrong = attached(((2, 0, 1), "nsubj root obj"), ((2, 0, 2), "nsubj root obl"), ((0, 1), "root dep"))
    write_jsonl(tmp_path / "parse" / "teacher_predictions.jsonl", right)
    student(tmp_path, "parse", "none", 1, 50.0, wrong)
    student(tmp_path, "parse", "top1", 1, 60.0, right)
    serve(tmp_path, "parse", "biaffine-top1-seed1")
    rows = cells(write_examples(tmp_path) or "")
    assert ["Rome", "obj → sees", "obj → sees", "obj → Ada", "obj → sees"] in rows
    assert ["a\\|b", "nsubj → \\_is\\_", "nsubj → \\_is\\_", "root → root", "nsubj → \\_is\\_"] in rows
    assert not any(row[0] in RIGHT_TO_LEFT for row in rows)


def test_the_best_student_alone_stands_beside_the_served_one(run: Path) -> None:
    student(run, "ner", "none", 2, 55.0)
    student(run, "ner", "structural", 2, 99.0)
    found = compared_students(run, "ner")
    assert found is not None
    assert [folder.name for folder in found] == ["crf-none-seed2", "crf-structural-seed1"]


def test_where_a_student_alone_is_served_the_best_distilled_one_stands_beside_the_best_of_those(
    run: Path,
) -> None:
    student(run, "ner", "structural", 2, 70.0)
    serve(run, "ner", "crf-none-seed1")
    found = compared_students(run, "ner")
    assert found is not None
    assert [folder.name for folder in found] == ["crf-none-seed1", "crf-structural-seed2"]


@pytest.mark.parametrize(
    "missing",
    [
        "ner/students/crf-none-seed1/model.json",
        "ner/students/crf-none-seed1/predictions.jsonl",
        "ner/served.json",
        "test.jsonl",
    ],
)
def test_without_two_students_or_their_predictions_there_are_no_examples(run: Path, missing: str) -> None:
    (run / missing).unlink()
    assert write_examples(run) is None
    assert not (run / "examples.md").exists()


def example(outcome: int, length: int) -> Example:
    """One whose gold is x: of outcome 0 distilled has it, of 1 alone, of 2 none."""
    answers: list[Any] = [{0: "x"}, {}, {0: "x" if outcome == 1 else "y"}, {0: "x" if outcome == 0 else "z"}]
    return Example(("w",) * length, tuple(answers))  # type: ignore[arg-type]


def test_outcomes_are_chosen_in_the_proportion_in_which_they_occur() -> None:
    examples = [example(outcome, 5) for outcome in [0] * 60 + [1] * 30 + [2] * 12]
    assert [e.outcome for e in choose(examples)].count(0) == 6
    assert [e.outcome for e in choose(examples)].count(1) == 3
    assert [e.outcome for e in choose(examples)].count(2) == 1


def test_the_choice_is_the_same_every_time_and_of_the_shorter_half() -> None:
    examples = [example(0, length) for length in range(1, 101)]
    chosen = choose(examples)
    assert chosen == choose(examples)
    assert len(chosen) == 10
    assert all(len(e.words) <= 50 for e in chosen)
    assert chosen != choose(examples, seed=1)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_fewer_examples_than_asked_for_are_all_chosen(count: int) -> None:
    examples = [example(i % 3, 4) for i in range(count)]
    assert choose(examples) == examples
