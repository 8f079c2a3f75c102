"""The study of the paper's tables, as it is committed: its file, its rows and its report belong together."""

from pathlib import Path

import pytest

from train.study.curves import fill_curves
from train.study.plan import Run, Study, load_study, runs_of, student_jobs
from train.study.report import where_cells_come_from
from train.study.rows import Results
from train.study.tables import fill

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "studies" / "paper.yaml"


@pytest.fixture(scope="module")
def study() -> tuple[Study, dict[str, Run]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        loaded = load_study(FILE)
        return loaded, runs_of(loaded, FILE)


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(FILE.parent)


def test_every_row_of_every_table_has_cells_that_the_study_trains(
    study: tuple[Study, dict[str, Run]], results: Results
) -> None:
    loaded, runs = study
    for table in fill(loaded, runs, results):
        assert all(row.cells for row in table.rows), table.table.title
        for row in table.rows:
            said = set(row.row.paper.values) if row.row.paper else set()
            assert said <= set(table.table.columns), (table.table.title, row.row.label)
    assert len(fill_curves(loaded, runs, results)) == len(loaded.figure)


def test_every_claim_has_differences_that_bear_on_it(study: tuple[Study, dict[str, Run]]) -> None:
    loaded, _ = study
    claims = {comparison.claim for table in loaded.tables for comparison in table.comparisons}
    assert claims == set(loaded.claims)
    for table in loaded.tables:
        named = {name for comparison in table.comparisons for name in (comparison.ours, comparison.theirs)}
        assert named <= set(table.columns)


def test_every_student_that_is_trained_is_shown(study: tuple[Study, dict[str, Run]], tmp_path: Path) -> None:
    loaded, runs = study
    shown = set()
    for table in loaded.tables:
        for row in table.rows:
            for column, own in table.columns.items():
                changed = row.instead.get(column, own)
                if changed is None:
                    continue
                query = {**row.cell, **changed}
                names = query["run"] if isinstance(query["run"], list) else [query["run"]]
                objective = str(query.get("objective", "")).format(**query)
                shown |= {(str(name).format(**query), query.get("student"), objective) for name in names}
    assert {(job.run, job.student, job.objective) for job in student_jobs(runs)} <= shown


def test_stored_rows_are_of_settings_that_the_study_still_has(
    study: tuple[Study, dict[str, Run]], results: Results
) -> None:
    _, runs = study
    for row in results.rows:
        run = runs[row["run"]]
        expected = run.digest(row["student"]) if row["student"] else run.teachers_digest()
        assert row["settings"] == expected, row


def test_the_report_was_drawn_from_the_rows_that_are_stored(
    study: tuple[Study, dict[str, Run]], results: Results
) -> None:
    loaded, runs = study
    report = (FILE.parent / "REPORT.md").read_text(encoding="utf-8")
    assert where_cells_come_from(fill(loaded, runs, results)) in report
