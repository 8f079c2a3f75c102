"""The study of the paper's tables, as it is committed: its file, its rows and its report belong together."""

import re
from pathlib import Path

import pytest

from benchmarks.studies.check import check_cells
from benchmarks.studies.plan import Study, load_study
from benchmarks.studies.report import VERDICTS, sources
from benchmarks.studies.rows import Results, is_current
from benchmarks.studies.runs import StudyRun, runs_of, student_jobs
from benchmarks.studies.selection import select
from benchmarks.studies.significance import score_of
from benchmarks.studies.tables import fill_tables
from train.tasks import TASKS

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "studies" / "paper.yaml"


def table_below(header: str, text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its header."""
    lines = text[re.search(header, text).start() :].partition("\n\n")[0].splitlines()[2:]  # type: ignore[union-attr]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def study() -> tuple[Study, dict[str, StudyRun]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        loaded = load_study(FILE)
        return loaded, runs_of(loaded, FILE)


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(FILE.parent)


@pytest.fixture(scope="module")
def report() -> str:
    return (FILE.parent / "REPORT.md").read_text(encoding="utf-8")


def test_every_cell_is_one_that_the_study_trains(study: tuple[Study, dict[str, StudyRun]]) -> None:
    check_cells(*study, FILE)


def test_every_claim_has_differences(study: tuple[Study, dict[str, StudyRun]]) -> None:
    loaded, _ = study
    claims = {comparison.claim for table in loaded.tables for comparison in table.comparisons}
    assert claims == set(loaded.claims)


def test_every_student_that_is_trained_is_shown(study: tuple[Study, dict[str, StudyRun]]) -> None:
    loaded, runs = study
    selections = [select(query, runs) for table in loaded.tables for _, _, query in table.queries()]
    shown = {(run.name, each.student, each.model) for each in selections for run in each.runs}
    assert {(job.run, job.student, job.objective) for job in student_jobs(runs)} <= shown


def test_stored_rows_are_ones_that_the_study_still_has(
    study: tuple[Study, dict[str, StudyRun]], results: Results
) -> None:
    _, runs = study
    assert [row for row in results.rows if not is_current(row, runs)] == []


def test_every_stored_score_is_that_of_the_stored_counts(
    study: tuple[Study, dict[str, StudyRun]], results: Results
) -> None:
    _, runs = study
    for row in results.rows:
        main = TASKS[runs[row["run"]].task].metric
        if row["split"].startswith("test") and row["metric"] in (main, "f1_marginals"):
            counts = results.counts(row)
            assert counts is not None, row
            assert score_of(counts.sum(0), row["task"]) == pytest.approx(row["value"], abs=1e-3), row


def test_the_report_was_drawn_from_the_rows_that_are_stored(
    study: tuple[Study, dict[str, StudyRun]], results: Results, report: str
) -> None:
    drawn = sources(fill_tables(*study, results))
    assert table_below(r"\| table ", drawn) == table_below(r"\| table ", report)


def test_the_numbers_of_the_study_in_docs_are_the_reports(
    study: tuple[Study, dict[str, StudyRun]], report: str
) -> None:
    claims = table_below(r"\| claim ", report)
    reported = {(row[2], row[3], row[5], row[1].strip("*").removesuffix(" here")) for row in claims}
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").replace("−", "-")
    shown = table_below(r"\| structural distillation \|", page)
    assert shown
    for _, points, low_to_high, paper, verdict in shown:
        assert (points.split()[0], low_to_high, paper, verdict) in reported
    verdicts = [row[1].strip("*") for row in claims]
    numbers = [len(claims), *(verdicts.count(verdict) for verdict in VERDICTS.values())]
    found = re.search(r"Of (\d+) claims (\d+) hold, (\d+) do not hold, and (\d+) can't be told", page)
    assert found is not None
    assert list(map(int, found.groups())) == numbers
    assert f" {len(student_jobs(study[1]))} students" in page
