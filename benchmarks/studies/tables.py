"""The cells, differences and verdicts of a study's report, from its stored rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from benchmarks.studies.plan import Comparison, Study, Table, TableRow
from benchmarks.studies.rows import ResultRow, Results, is_current
from benchmarks.studies.runs import StudyRun
from benchmarks.studies.selection import Selection, select
from benchmarks.studies.significance import (
    DOMINATES,
    Epsilons,
    Floats,
    ModelScores,
    Pair,
    differences,
    interval,
    over_shared_seeds,
    shared_seeds,
)
from train.evaluation import AGREEMENT
from train.results import gap_recovered
from train.tasks import TASKS

FEWEST_SEEDS = 3
"""With fewer seeds of a student nothing is called better or worse."""


class StoredScores:
    """The stored scores of the settings, objectives and seeds that the study has now."""

    def __init__(self, runs: Mapping[str, StudyRun], results: Results) -> None:
        self._results = results
        self._rows: dict[tuple[str, ...], list[ResultRow]] = defaultdict(list)
        for row in results.rows:
            if is_current(row, runs):
                model = row["objective"] if row["student"] else _teacher_of(row, runs[row["run"]])
                self._rows[row["run"], row["student"], model, row["metric"]].append(row)

    def find(self, selection: Selection) -> ModelScores | None:
        """The scores of a cell, None where it has no rows yet; of several runs the one that is best on dev.

        Runs are compared over the seeds that all of them have on dev; where there are none, the first is
        taken.
        """
        found = [self._of_run(run, selection) for run in selection.runs]
        cells = [cell for cell in found if cell is not None]
        if not cells:
            return None
        seeds = set.intersection(*(set(cell.dev) for cell in cells))
        return max(cells, key=lambda cell: mean(cell.dev[seed] for seed in seeds) if seeds else 0.0)

    def _of_run(self, run: StudyRun, selection: Selection) -> ModelScores | None:
        _, student, model, metric, split = selection
        stored = self._rows.get((run.name, student, model, metric), [])
        rows = {(row["seed"], row["split"]): row for row in stored if row["split"].split("/")[0] == split}
        if not rows:
            return None
        seeds = tuple(sorted({seed for seed, _ in rows}))
        # Where several corpora are tested, the mean of their scores.
        corpora = sorted({part for _, part in rows if "/" in part}) or [split]
        counts = [self._counts([rows[seed, corpus] for seed in seeds]) for corpus in corpora]
        return ModelScores(
            seeds=seeds,
            values=tuple(mean(rows[seed, corpus]["value"] for corpus in corpora) for seed in seeds),
            counts=() if any(each is None for each in counts) else tuple(counts),  # type: ignore[arg-type]
            task=run.task,
            is_teacher=not student,
            run=run.name,
            model=f"{student} {model}".strip(),
            dev={
                row["seed"]: row["value"]
                for name in (TASKS[run.task].metric, AGREEMENT)
                for row in self._rows.get((run.name, student, model, name), [])
                if row["split"] == "dev"
            },
        )

    def _counts(self, rows: Sequence[ResultRow]) -> np.ndarray | None:
        """The counts [S, n, 3] behind the scores of some seeds, if all of them are stored."""
        found = [self._results.counts(row) for row in rows]
        known = [counts for counts in found if counts is not None]
        return np.stack(known) if len(known) == len(rows) else None


def _teacher_of(row: ResultRow, run: StudyRun) -> str:
    """Which teacher a row is of: the softmax one that is trained beside another, or the main one."""
    beside = run.task_settings.token_teacher is not None
    return "token" if row["case"] == "token" and beside else "teacher"


@dataclass(frozen=True)
class Difference:
    """Ours less theirs in one row of a table, in points, over the seeds that both have.

    draws: bootstrap draws of it. is_one_model: the same model, read in two ways.
    """

    label: str
    comparison: Comparison
    ours: ModelScores
    theirs: ModelScores
    draws: Floats
    paper: float | None
    is_one_model: bool = False

    @property
    def scores(self) -> Pair:
        return self.ours.values, self.theirs.values

    @property
    def value(self) -> float:
        return self.ours.mean - self.theirs.mean

    @property
    def order(self) -> Pair | None:
        """The scores of the better side, then of the other one; None where the interval contains zero.

        Fewer than three seeds of a student have no order, nor have two teachers of one training each.
        """
        sides = self.ours, self.theirs
        if any(len(side.seeds) < FEWEST_SEEDS for side in sides if not side.is_teacher):
            return None
        if all(side.is_teacher for side in sides) and not self.is_one_model:
            return None
        low, high = interval(self.draws)
        if low == high or low <= 0 <= high:
            return None
        return self.scores if low > 0 else self.scores[::-1]

    def verdict(self, epsilons: Epsilons) -> str:
        """better, worse or open: the interval and the ε of the order it finds have to agree.

        A teacher is trained once and has no ε: the interval decides alone.
        """
        order = self.order
        if order is None:
            return "open"
        epsilon = epsilons[order]
        if epsilon is not None and epsilon >= DOMINATES:
            return "open"
        return "better" if order == self.scores else "worse"


@dataclass(frozen=True)
class FilledTable:
    """A table with its cells by row label and column; a cell that the study trains later is None."""

    table: Table
    cells: Mapping[str, Mapping[str, ModelScores | None]]
    differences: Sequence[Difference]


def fill_tables(study: Study, runs: Mapping[str, StudyRun], results: Results) -> list[FilledTable]:
    """Every table of a study with its cells and differences.

    Raises:
        StudyError: a cell names something that the study does not have.
    """
    stored = StoredScores(runs, results)
    filled = []
    for table in study.tables:
        cells: dict[str, dict[str, ModelScores | None]] = {row.label: {} for row in table.rows}
        for row, column, query in table.queries():
            selection = select(query, runs)
            if selection.is_trained:
                cells[row.label][column] = stored.find(selection)
        found = [
            difference
            for comparison in table.comparisons
            for row in table.rows
            if (difference := _difference(row, cells[row.label], comparison)) is not None
        ]
        filled.append(FilledTable(table, cells, found))
    return filled


def _difference(
    row: TableRow, cells: Mapping[str, ModelScores | None], comparison: Comparison
) -> Difference | None:
    ours, theirs = cells.get(comparison.ours), cells.get(comparison.theirs)
    if ours is None or theirs is None or row.label not in (comparison.rows or [row.label]):
        return None
    sides = over_shared_seeds(ours, theirs)
    if sides is None:
        return None
    papers = row.paper.values if row.paper else {}
    has_paper = comparison.ours in papers and comparison.theirs in papers
    paper = papers[comparison.ours] - papers[comparison.theirs] if has_paper else None
    is_one_model = (ours.run, ours.model) == (theirs.run, theirs.model)
    return Difference(row.label, comparison, *sides, differences(*sides), paper, is_one_model)


def differences_of(claim: str, tables: Sequence[FilledTable]) -> list[Difference]:
    """The differences of a claim."""
    return [d for table in tables for d in table.differences if d.comparison.claim == claim]


def pooled(claim: str, tables: Sequence[FilledTable]) -> Difference | None:
    """The mean of all differences of a claim, over the seeds that all of them have; None if there are none.

    As the paper does for its averages, the scores of the same seed are averaged.
    """
    found = differences_of(claim, tables)
    sides = [side for d in found for side in (d.ours, d.theirs)]
    seeds = shared_seeds(sides)
    if not found or not (seeds or all(side.is_teacher for side in sides)):
        return None
    pairs = [(d.ours.of(seeds), d.theirs.of(seeds)) for d in found]
    draws = [
        d.draws if pair[0] is d.ours and pair[1] is d.theirs else differences(*pair)
        for d, pair in zip(found, pairs, strict=True)
    ]
    ours, theirs = (_average([pair[side] for pair in pairs], seeds) for side in (0, 1))
    is_one_model = all(d.is_one_model for d in found)
    return Difference("", found[0].comparison, ours, theirs, np.mean(draws, axis=0), None, is_one_model)


def _average(models: Sequence[ModelScores], seeds: tuple[int, ...]) -> ModelScores:
    """The mean score of several models with each seed."""
    teachers = all(model.is_teacher for model in models)
    table = np.array([np.broadcast_to(m.values, len(m.values if teachers else seeds)) for m in models])
    values = tuple(table.mean(0).tolist())
    return ModelScores(models[0].seeds if teachers else seeds, values, (), models[0].task, teachers)


def recovered(cells: Mapping[str, ModelScores | None], column: str) -> float | None:
    """The share of the gap between a row's teacher and its student alone that a column closes."""
    teacher, alone, cell = cells.get("teacher"), cells.get("none"), cells.get(column)
    if teacher is None or alone is None or cell is None or column == "none" or cell.is_teacher:
        return None
    return gap_recovered(teacher.mean, alone.mean, cell.mean)
