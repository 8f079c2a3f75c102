"""Figures of runs, gathered from their rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from train.summary import TARGETS, RunError, main, read_run, targets_table

KINDS = {"ner": ("crf", "1a", "f1"), "parse": ("biaffine", "1b-biaffine", "las")}


def write_run(
    run: Path,
    values: dict[str, dict[str, list[float]]],
    *,
    served: str = "structural",
    metric: str | None = None,
    **recipe: Any,
) -> Path:
    """A finished run: by task the test scores of ``teacher``, ``none`` and other objectives, one a seed."""
    run.mkdir(parents=True)
    objectives = list(dict.fromkeys(name for each in values.values() for name in each if name != "teacher"))
    written: dict[str, Any] = {"corpus": ["he_htb"], "target": None, "text": None}
    written |= {"tasks": {task: {} for task in values}}
    written |= {"distillation": {"objectives": objectives}, **recipe}
    (run / "recipe.yaml").write_text(yaml.safe_dump(written))
    rows = []
    for task, scores in values.items():
        kind, case, main_metric = KINDS[task]
        for name, by_seed in scores.items():
            system, objective = ("teacher", "none") if name == "teacher" else ("student", name)
            about: dict[str, Any] = {"task": task, "case": case, "system": system, "split": "test"}
            about |= {"objective": objective, "metric": metric or main_metric}
            about |= {"labelled": 2000, "unlabelled": 2937}
            rows += [{**about, "seed": seed, "value": value} for seed, value in enumerate(by_seed, 1)]
        folder = run / task / "students" / f"{kind}-{served}-seed1"
        folder.mkdir(parents=True)
        model = {"card": {"kind": kind, "task": task}, "case": case, "objective": served}
        (folder / "model.json").write_text(json.dumps(model))
        (run / task / "served.json").write_text(json.dumps({"student": f"students/{folder.name}"}))
    rows += [{**row, "case": "2a", "value": 0.0} for row in rows if row["system"] == "student"]
    (run / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


ENTITIES = {"teacher": [60.0], "none": [50.0, 52.0], "structural": [55.0, 57.0]}
TREES = {"teacher": [80.0], "none": [60.0, 60.0], "structural": [76.0, 78.0]}


def summarise(tmp_path: Path, *runs: Path) -> dict[str, Any]:
    out = tmp_path / "reports" / "students.json"
    assert main([*map(str, runs), "--out", str(out)]) == 0
    made: dict[str, Any] = json.loads(out.read_text())
    return made


def test_figures_are_means_over_seeds_and_the_gap_is_that_of_the_means(tmp_path: Path) -> None:
    hebrew = write_run(tmp_path / "he", {"ner": ENTITIES, "parse": TREES})
    english = write_run(tmp_path / "en", {"parse": {**TREES, "structural": [70.0]}}, corpus=["data/en_ewt"])
    made = summarise(tmp_path, hebrew, english)
    assert set(made) == {*TARGETS, "about"}
    assert made["he_ner_f1"] == 56.0
    assert made["he_ner_gap"] == pytest.approx(100 * 5 / 9, abs=1e-3)
    assert made["he_ner_kept"] == pytest.approx(100 * 56 / 60, abs=1e-3)
    assert (made["he_las"], made["he_las_gap"]) == (77.0, 85.0)
    assert (made["en_las"], made["en_las_gap"]) == (70.0, 50.0)
    assert made["least_kept_trees"] == 87.5
    entities = made["about"]["runs"][0]
    assert entities["seeds"] == [1, 2]
    assert entities["stdev"] == pytest.approx(1.414, abs=1e-3)
    assert (entities["run"], entities["student"], entities["teacher"]) == ("he", "crf structural", 60.0)
    assert {"date", "machine", "versions"} <= set(made["about"])


def test_what_no_run_has_is_null_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = summarise(tmp_path, write_run(tmp_path / "he", {"ner": ENTITIES, "parse": TREES}))
    assert made["en_ner_f1"] is None
    assert made["least_kept_trees"] is None  # of two corpora, and one is not there
    assert "en_ner_f1" in capsys.readouterr().err


def test_a_student_without_a_baseline_has_no_gap(tmp_path: Path) -> None:
    made = summarise(tmp_path, write_run(tmp_path / "he", {"ner": {"teacher": [60.0], "structural": [55.0]}}))
    assert (made["he_ner_f1"], made["he_ner_gap"]) == (55.0, None)


def test_where_a_student_alone_is_served_the_figures_are_of_the_distilled_one(tmp_path: Path) -> None:
    made = summarise(tmp_path, write_run(tmp_path / "he", {"ner": ENTITIES}, served="none"))
    assert made["he_ner_f1"] == 56.0


def test_personal_data_is_measured_by_agreement_and_its_speed_is_read_from_the_run(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"corpus": [], "text": [{"path": "personal_data", "tokenised": False}]}
    run = write_run(tmp_path / "pii", {"ner": {"structural": [91.0, 93.0]}}, metric="agreement", **recipe)
    assert summarise(tmp_path, run)["pii_speed"] is None
    (run / "agreement.json").write_text('{"speed_ratio": 44.5}')
    made = summarise(tmp_path, run)
    assert (made["pii_f1"], made["pii_speed"]) == (0.92, 44.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": ["pt_petrogold"]}, "pt_petrogold"),
        ({"target": "en_ewt"}, "he_htb, en_ewt"),
        ({"distillation": {"objectives": ["none"]}}, "no student that learns from a teacher"),
        ({"served": "top1"}, "no f1 of the student crf top1"),
    ],
)
def test_a_run_that_gives_no_figure_is_an_error_that_names_it(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = write_run(tmp_path / "other", {"ner": ENTITIES}, **change)
    with pytest.raises(RunError, match=message):
        read_run(run)


def test_an_unfinished_run_and_two_of_one_corpus_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "he", {"ner": ENTITIES})
    assert main([str(run), str(run), "--out", str(tmp_path / "out.json")]) == 2
    (run / "ner" / "served.json").unlink()
    assert main([str(run), "--out", str(tmp_path / "out.json")]) == 2
    assert main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out.json")]) == 2
    errors = capsys.readouterr().err
    assert "give one of them" in errors
    assert "served.json" in errors
    assert "nowhere" in errors
    assert not (tmp_path / "out.json").exists()


def test_the_table_has_a_row_for_every_target() -> None:
    values: dict[str, float | None] = dict.fromkeys(TARGETS, None) | {"he_ner_f1": 56.5, "he_las": 64.9}
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in targets_table(values).splitlines()[2:]
    ]
    assert [row[0] for row in rows] == list(TARGETS)
    assert [row[3] for row in rows[:2]] == ["met", "missed"]
