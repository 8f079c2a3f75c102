"""The study of the paper's tables, as it is committed: its file, its rows and its report belong together."""

import re
from pathlib import Path

import pytest

from benchmarks.studies.check import check_cells
from benchmarks.studies.plan import Run, Study, load_study, runs_of, student_jobs
from benchmarks.studies.report import VERDICTS, where_cells_come_from
from benchmarks.studies.rows import Results, is_current
from benchmarks.studies.significance import score_of
from benchmarks.studies.tables import fill, run_names
from train.tasks import TASKS

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


def test_every_cell_is_one_that_the_study_trains_and_the_papers_numbers_have_a_column(
    study: tuple[Study, dict[str, Run]],
) -> None:
    loaded, runs = study
    check_cells(loaded, runs, FILE)
    for table in loaded.tables:
        for row in table.rows:
            assert set(row.paper.values if row.paper else ()) <= set(table.columns), (table.title, row.label)


def test_every_claim_has_differences_that_bear_on_it(study: tuple[Study, dict[str, Run]]) -> None:
    loaded, _ = study
    claims = {comparison.claim for table in loaded.tables for comparison in table.comparisons}
    assert claims == set(loaded.claims)


def test_every_student_that_is_trained_is_shown(study: tuple[Study, dict[str, Run]]) -> None:
    loaded, runs = study
    shown = set()
    for query in (query for table in loaded.tables for _, _, query in table.queries()):
        objective = str(query.get("objective", "")).format(**query)
        shown |= {(name.format(**query), query.get("student"), objective) for name in run_names(query)}
    assert {(job.run, job.student, job.objective) for job in student_jobs(runs)} <= shown


def test_stored_rows_are_ones_that_the_study_still_has(
    study: tuple[Study, dict[str, Run]], results: Results
) -> None:
    _, runs = study
    assert [row for row in results.rows if not is_current(row, runs)] == []


def test_every_stored_score_is_that_of_the_stored_counts(
    study: tuple[Study, dict[str, Run]], results: Results
) -> None:
    _, runs = study
    for row in results.rows:
        main = TASKS[runs[row["run"]].task].metric
        if row["split"].startswith("test") and row["metric"] in (main, "f1_marginals"):
            counts = results.counts(row)
            assert counts is not None, row
            assert score_of(counts.sum(0), row["task"]) == pytest.approx(row["value"], abs=1e-3), row


def test_the_report_was_drawn_from_the_rows_that_are_stored(
    study: tuple[Study, dict[str, Run]], results: Results
) -> None:
    loaded, runs = study
    report = (FILE.parent / "REPORT.md").read_text(encoding="utf-8")
    assert where_cells_come_from(fill(loaded, runs, results)) in report


IN_THE_README = {
    "trees, labelled sentences only: over no distillation": "labelled_none_trees",
    "trees, raw text as well: over Top-1": "raw_top1_trees",
    "entities, labelled sentences only: over no distillation": "labelled_none",
    "entities, raw text as well: over Top-1": "raw_top1",
    "entities, raw text as well: over token-level distillation": "raw_token",
    "entities, zero-shot: over Top-1": "zero_shot_top1",
    "entities, zero-shot: a CRF over a MaxEnt student taught token by token": "zero_shot_token",
    "entities, a temperature of 2 to 5: on marginals over on potentials": "local_same",
}


def test_the_readme_says_of_the_study_what_its_report_says(study: tuple[Study, dict[str, Run]]) -> None:
    loaded, runs = study
    report = (FILE.parent / "REPORT.md").read_text(encoding="utf-8")
    cells = [line.split(" | ") for line in report.splitlines() if line.startswith("| ")]
    claims = {row[0].removeprefix("| "): row for row in cells if len(row) == 7}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| structural distillation |")[2].partition("\n\n")[0].splitlines()[2:]
    said = [[cell.strip() for cell in line.replace("−", "-").strip("|").split("|")] for line in table]
    assert [row[0] for row in said] == list(IN_THE_README)
    for label, points, low_to_high, paper, verdict in said:
        _, wanted, difference, interval, _, papers, _ = claims[loaded.claims[IN_THE_README[label]]]
        assert wanted.strip("*").startswith(verdict), label
        assert (points.split()[0], low_to_high, paper) == (difference, interval, papers), label
    tally = re.search(r"Of (\d+) claims (\d+) hold, (\d+) do not hold, and (\d+) can't be told", readme)
    assert tally is not None
    holds, fails, opens = (
        sum(row[1].strip("*") == verdict for row in claims.values()) for verdict in VERDICTS.values()
    )
    assert tuple(map(int, tally.groups())) == (len(loaded.claims), holds, fails, opens)
    assert f" {len(student_jobs(runs))} students" in readme
