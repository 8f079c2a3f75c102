import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from benchmarks.studies import report
from benchmarks.studies.__main__ import main
from benchmarks.studies.curves import fill_curves
from benchmarks.studies.plan import Comparison, Study, load_study
from benchmarks.studies.rows import JobResult, Results
from benchmarks.studies.runs import StudyRun, runs_of
from benchmarks.studies.significance import ModelScores
from benchmarks.studies.tables import Difference, FilledTable, fill_tables, pooled

RECIPE = {
    "corpus": "en_ewt",
    "encoder": {"name": "some/encoder"},
    "vectors": {"text": "corpus"},
    "distillation": {"objectives": ["none", "structural"]},
    "tasks": {"ner": {"students": {"crf": {}}}},
}
CELL = {"run": "raw/unlabelled={amount}", "student": "crf"}
STUDY: dict[str, Any] = {
    "seeds": [1, 2, 3],
    "runs": {"raw": {"recipe": "?", "grid": {"unlabelled": [10, 30]}}},
    "claims": {"beats": "it beats the student alone", "nothing": "nothing bears on this"},
    "tables": [
        {
            "title": "Table 1: entities",
            "columns": {
                "teacher": {"teacher": "teacher"},
                "none": {"objective": "none"},
                "ours": {"objective": "structural"},
                "its teacher": {"teacher": "teacher"},
            },
            "rows": [
                {
                    "label": "ten",
                    "cell": {**CELL, "amount": 10},
                    "paper": {"of": "CoNLL", "values": {"none": 80.0, "ours": 81.5}},
                },
                {"label": "thirty", "cell": {**CELL, "amount": 30}},
                {
                    "label": "the better one",
                    "cell": {"run": ["raw/unlabelled=10", "raw/unlabelled=30"], "student": "crf"},
                    "instead": {"teacher": None, "its teacher": None},
                },
            ],
            "comparisons": [{"ours": "ours", "theirs": "none", "claim": "beats"}],
        }
    ],
    "figure": [
        {
            "title": "entities",
            "amounts": [10, 30],
            "cell": CELL,
            "lines": {"alone": {"objective": "none"}, "distilled": {"objective": "structural"}},
            "levels": {"teacher": {"run": "raw/unlabelled=10", "teacher": "teacher"}},
            "ours": "distilled",
            "theirs": "alone",
        }
    ],
}


class Loaded(NamedTuple):
    study: Study
    runs: dict[str, StudyRun]
    path: Path

    def tables(self, results: Results) -> list[FilledTable]:
        return fill_tables(self.study, self.runs, results)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    path = tmp_path / "study.yaml"
    content = {**STUDY, "runs": {"raw": {**STUDY["runs"]["raw"], "recipe": str(recipe)}}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    study = load_study(path)
    return Loaded(study, runs_of(study, path), path)


def result(run: StudyRun, objective: str, seed: int, hits: int, *, teacher: bool = False) -> JobResult:
    """A model that finds so many of 100 entities, and two more on dev."""
    about = {
        "run": run.name,
        "corpus": run.corpus,
        "student": "" if teacher else "crf",
        "settings": run.teachers_digest if teacher else run.digests["crf"],
        "task": "ner",
        "case": "1a",
        "system": "teacher" if teacher else "student",
        "objective": objective,
        "labelled": 5,
        "unlabelled": 5,
        "seed": seed,
    }
    counts = np.array([[int(i < hits), 1, 1] for i in range(100)])
    rows = [
        {**about, "split": split, "metric": "f1", "value": float(value)}
        for split, value in (("dev", hits + 2), ("test", hits))
    ]
    return JobResult(rows, [({**about, "split": "test", "metric": "counts"}, counts)])


def outdated(new: JobResult) -> JobResult:
    """The same of settings that the study does not have."""
    changed = {"settings": "000000000000"}
    return JobResult(
        [{**row, **changed} for row in new.rows], [({**row, **changed}, counts) for row, counts in new.counts]
    )


@pytest.fixture
def results(loaded: Loaded, tmp_path: Path) -> Results:
    stored = Results(tmp_path)
    for amount, gain in ((10, 10), (30, 4)):
        run = loaded.runs[f"raw/unlabelled={amount}"]
        stored.add(result(run, "none", 1, 80, teacher=True))
        for seed in (1, 2, 3):
            stored.add(result(run, "none", seed, 40 + seed))
            stored.add(result(run, "structural", seed, 40 + seed + gain))
    return stored


def test_a_cell_holds_the_scores_of_its_seeds_and_where_they_come_from(
    loaded: Loaded, results: Results
) -> None:
    results.add(outdated(result(loaded.runs["raw/unlabelled=10"], "structural", 1, 99)))
    (table,) = loaded.tables(results)
    cell, teacher = table.cells["ten"]["ours"], table.cells["ten"]["teacher"]
    assert cell is not None
    assert cell.values == (51.0, 52.0, 53.0)
    assert (cell.run, cell.model) == ("raw/unlabelled=10", "crf structural")
    assert cell.counts[0].shape == (3, 100, 3)
    assert teacher is not None
    assert (teacher.mean, teacher.spread) == (80.0, None)


def test_cells_that_the_study_does_not_train_are_left_out_and_those_without_rows_are_empty(
    loaded: Loaded, tmp_path: Path
) -> None:
    (table,) = loaded.tables(Results(tmp_path / "empty"))
    assert table.cells["ten"] == dict.fromkeys(("teacher", "none", "ours", "its teacher"))
    assert table.cells["the better one"] == {"none": None, "ours": None}


def test_of_several_runs_the_one_that_is_best_on_dev_is_shown(loaded: Loaded, results: Results) -> None:
    (table,) = loaded.tables(results)
    best = table.cells["the better one"]["ours"]
    assert best is not None
    assert best.run == "raw/unlabelled=10"


def test_a_difference_stands_beside_the_papers_and_a_claim_is_their_mean(
    loaded: Loaded, results: Results
) -> None:
    tables = loaded.tables(results)
    ten, thirty, _ = tables[0].differences
    assert (ten.value, ten.paper) == (10.0, 1.5)
    assert (thirty.value, thirty.paper) == (4.0, None)
    claim = pooled("beats", tables)
    assert claim is not None
    assert claim.value == pytest.approx((10 + 4 + 10) / 3)
    assert claim.draws.mean() == pytest.approx(8, abs=0.5)
    assert pooled("nothing", tables) is None


OURS, THEIRS = (61.0, 62.0, 63.0), (50.0, 51.0, 52.0)
TEACHER = ModelScores((1,), (60.0,), (), "ner", is_teacher=True)


def difference(draws: list[float], ours: ModelScores, theirs: ModelScores, **more: Any) -> Difference:
    compared = Comparison(ours="a", theirs="b", claim="c")
    return Difference("", compared, ours, theirs, np.array(draws), None, **more)


def student(values: tuple[float, ...]) -> ModelScores:
    return ModelScores(tuple(range(len(values))), values, (), "ner")


@pytest.mark.parametrize(
    ("draws", "epsilon", "opposite", "verdict"),
    [
        ([1.0, 2.0, 3.0], 0.1, 0.9, "better"),
        ([1.0, 2.0, 3.0], 0.4, 0.9, "open"),
        ([-1.0, 2.0, 3.0], 0.0, 0.0, "open"),
        ([-3.0, -2.0, -1.0], 0.9, 0.1, "worse"),
        ([-3.0, -2.0, -1.0], 0.9, 0.4, "open"),
        ([0.0, 0.0, 0.0], 0.0, 0.0, "open"),
    ],
)
def test_the_interval_and_the_almost_stochastic_order_have_to_agree_on_better_and_on_worse(
    draws: list[float], epsilon: float, opposite: float, verdict: str
) -> None:
    found = difference(draws, student(OURS), student(THEIRS))
    assert found.verdict({(OURS, THEIRS): epsilon, (THEIRS, OURS): opposite}) == verdict


def test_two_seeds_and_two_teachers_leave_a_difference_open() -> None:
    ours, theirs = OURS[:2], THEIRS[:2]
    assert difference([1.0, 2.0], student(ours), student(theirs)).verdict({(ours, theirs): 0.0}) == "open"
    against = {(TEACHER.values, OURS): None, (TEACHER.values, TEACHER.values): None}
    assert difference([1.0, 2.0], TEACHER, student(OURS)).verdict(against) == "better"
    assert difference([1.0, 2.0], TEACHER, TEACHER, is_one_model=True).verdict(against) == "better"
    assert difference([1.0, 2.0], TEACHER, TEACHER).verdict(against) == "open"


def test_a_claim_is_of_the_seeds_that_all_its_rows_have(loaded: Loaded, tmp_path: Path) -> None:
    fewer = Results(tmp_path / "fewer")
    for amount, gain, seeds in ((10, 10, (1, 2, 3)), (30, 4, (2, 3))):
        run = loaded.runs[f"raw/unlabelled={amount}"]
        for seed in seeds:
            fewer.add(result(run, "none", seed, 40 + 5 * seed))
            fewer.add(result(run, "structural", seed, 40 + 5 * seed + gain * seed))
    claim = pooled("beats", loaded.tables(fewer))
    assert claim is not None
    assert claim.ours.seeds == (2, 3)
    assert claim.value == pytest.approx((10 + 4 + 10) * 2.5 / 3)
    assert claim.draws.mean() == pytest.approx(claim.value, abs=0.5)


def test_a_claim_whose_rows_have_no_seed_in_common_has_no_mean_and_its_curve_no_change(
    loaded: Loaded, tmp_path: Path
) -> None:
    apart = Results(tmp_path / "apart")
    for amount, seeds in ((10, (1, 2, 3)), (30, (4, 5, 6))):
        run = loaded.runs[f"raw/unlabelled={amount}"]
        for seed in seeds:
            apart.add(result(run, "none", seed, 40))
            apart.add(result(run, "structural", seed, 50))
    # Rows of seeds that the study does not have are not read.
    wider = {
        name: replace(run, recipe=run.recipe.model_copy(update={"seeds": (1, 2, 3, 4, 5, 6)}))
        for name, run in loaded.runs.items()
    }
    assert pooled("beats", fill_tables(loaded.study, wider, apart)) is None
    (curve,) = fill_curves(loaded.study, wider, apart)
    assert curve.gain(10) == curve.gain(30) == 10
    assert curve.change is None


def test_a_curve_has_the_change_of_the_gain_with_the_amount(loaded: Loaded, results: Results) -> None:
    (curve,) = fill_curves(loaded.study, loaded.runs, results)
    assert curve.lines["distilled"][10].mean == 52
    assert curve.change is not None
    change, (low, high) = curve.change
    assert change == pytest.approx(-6)
    assert low < change < high < 0
    assert curve.levels["teacher"].mean == 80


def test_rows_of_settings_that_the_study_no_longer_has_can_be_dropped(
    loaded: Loaded, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(results.rows)
    assert results.forget(loaded.runs) == 0
    results.add(outdated(result(loaded.runs["raw/unlabelled=10"], "structural", 1, 99)))
    assert main([str(loaded.path), "--forget"]) == 0
    assert capsys.readouterr().out == "2 rows dropped\n"
    assert len(Results(loaded.path.parent).rows) == before
    assert "000000000000" not in (loaded.path.parent / "counts.jsonl").read_text()


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("run: raw/unlabelled={amount}", "run: row/{amount}", "Table 1: entities: there is no run 'row/10'"),
        ("run: raw/unlabelled={amount}", "run: raw/{", "run 'raw/{': Single '{' encountered"),
        ("objective: structural", "objective: '}'", "objective '}': Single '}' encountered"),
        ("amount: 10", "amounts: 10", "a cell has no 'amount'; it has run, student"),
        ("objective: structural", "objektive: structural", "a cell has no 'objective'"),
        ("objective: structural", "objective: strukturel", "trains nothing for the column 'ours'"),
        ("teacher: teacher", "teacher: teacher\n      metric: las", "no metric 'las'; there are: f1, "),
        ("teacher: teacher", "teacher: tokn", "no teacher 'tokn'; there are: teacher, token"),
        ("teacher: teacher", "teacher: teacher\n      split: tset", "no split 'tset'; there are: test, dev"),
        ("teacher: teacher", "teacher: teacher\n      mteric: f1", "entities: no cell uses 'mteric'"),
        (
            "objective: structural",
            "objective: structural\n      split: dev",
            "ten, ours: only the main",
        ),
        ("      ours: 81.5", "      hours: 81.5", "Table 1: entities: row 'ten': no column 'hours'"),
        ("theirs: none", "theirs: nobody", "comparisons: no column 'nobody'"),
        ("claim: beats", "claim: beets", "claims: 'beets' is compared and not among them"),
        ("amounts:\n  - 10\n  - 30", "amounts:\n  - 10\n  - 50", "there is no run 'raw/unlabelled=50'"),
        ("theirs: alone", "theirs: lonely", "entities: no line 'lonely'"),
    ],
)
def test_a_cell_that_names_nothing_is_refused_before_anything_is_trained(
    loaded: Loaded, old: str, new: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = loaded.path.read_text()
    assert old in text
    loaded.path.write_text(text.replace(old, new, 1))
    assert main([str(loaded.path)]) == 2
    assert error in capsys.readouterr().err


def unpadded(markdown: str) -> str:
    return re.sub(r"  +", " ", markdown)


def test_the_report_shows_scores_shares_of_the_gap_verdicts_and_sources(
    loaded: Loaded, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "aso_epsilons", lambda pairs: dict.fromkeys(pairs, 0.01))
    written = report.write_report(loaded.path, loaded.study, loaded.runs, results)
    assert [file.name for file in written] == ["study.md", "study.svg"]
    text = unpadded(written[0].read_text())
    assert "| ten | 80.00 | 42.00 ± 1.00 | 52.00 ± 1.00 (26 %) | 80.00 |" in text
    assert "| *the paper: CoNLL* | | *80.00* | *81.50* | |" in text
    assert "**holds: 1** · **does not hold: 0** · **can't be told here: 0**" in text
    (claim,) = (line for line in text.splitlines() if line.startswith("| it beats the student alone |"))
    assert claim.startswith("| it beats the student alone | **holds** | +8.00 | ")
    # ε, what the paper has of the first cell alone, and the cells' verdicts.
    assert claim.endswith(" | 0.01 | +1.50 (1 of 3 cells; ours of them +10.00) | 2 / 1 / 0 |")
    assert "| nothing bears on this | no rows yet, or no seed that all have |" in text
    assert "| Table 1 | ten: ours | `raw/unlabelled=10` | crf structural | 51.00, 52.00, 53.00 |" in text
    assert "Not finished" not in text
    assert "<svg" in written[1].read_text()
    again = [file.read_bytes() for file in written]
    report.write_report(loaded.path, loaded.study, loaded.runs, Results(loaded.path.parent))
    assert [file.read_bytes() for file in written] == again


def test_a_damaged_file_of_rows_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"run": "a"}\n')
    with pytest.raises(ValueError, match=r"results\.jsonl, line 1: not a row of results"):
        Results(tmp_path)


def test_damaged_counts_are_refused_with_their_model(
    loaded: Loaded, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    path = loaded.path
    file = path.parent / "counts.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[-1]["value"] = rows[-1]["value"][:-5]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(path), "--list"]) == 2
    error = capsys.readouterr().err
    assert "counts.jsonl: the counts of raw/unlabelled=30 crf structural 3: damaged; restore" in error


def test_a_student_whose_counts_are_lost_is_trained_again(
    loaded: Loaded, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    path = loaded.path
    assert main([str(path), "--list"]) == 0
    assert "\n0 of 12 students are left" in capsys.readouterr().out
    file = path.parent / "counts.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    assert main([str(path), "--list"]) == 0
    assert "\n1 of 12 students are left" in capsys.readouterr().out
