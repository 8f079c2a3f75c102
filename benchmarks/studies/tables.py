"""The cells, differences and verdicts of a study's report, from its stored rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.studies.plan import Comparison, Run, Study, StudyError, Table, TableRow
from benchmarks.studies.rows import OF_MODES, Results, Row, is_current
from benchmarks.studies.significance import (
    DOMINATES,
    Floats,
    Pair,
    Scored,
    differences,
    interval,
    mean_draws,
    over_shared_seeds,
    shared_seeds,
)
from train.distill.objectives import is_for
from train.evaluation import AGREEMENT
from train.model_kinds import FAMILY
from train.report import gap_recovered
from train.tasks import TASKS

METRICS = {
    "ner": ("f1", "precision", "recall", AGREEMENT, "entropy", "lost_mass", OF_MODES),
    "parse": ("uas", "las", AGREEMENT, "entropy", "lost_mass"),
}
"""What a cell can show, by task."""
SPLITS = ("test", "dev", "train", "labelled", "unlabelled")
TEACHERS = ("teacher", "token")
QUERY = ("run", "student", "objective", "teacher", "metric", "split")
"""The keys of a cell that are looked for; others stand in the braces of these."""
FEWEST_SEEDS = 3
"""With fewer seeds of a student nothing is called better or worse."""


@dataclass(frozen=True)
class Cell:
    """One system's scores, a score a seed, and where they are stored."""

    scored: Scored
    dev: Mapping[int, float]  # by seed, in the task's main metric or in agreement with the teacher
    run: str
    what: str  # the kind of student and the objective, or teacher

    @property
    def mean(self) -> float:
        return mean(self.scored.values)

    @property
    def spread(self) -> float | None:
        values = self.scored.values
        return stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Ours less theirs in one row of a table, in points, over the seeds that both have."""

    label: str
    comparison: Comparison
    ours: Scored
    theirs: Scored
    draws: Floats  # bootstrap draws of it
    paper: float | None
    is_one_model: bool = False  # the same model, read in two ways

    @property
    def scores(self) -> Pair:
        return self.ours.values, self.theirs.values

    @property
    def value(self) -> float:
        return mean(self.ours.values) - mean(self.theirs.values)

    @property
    def order(self) -> Pair | None:
        """The scores of the better side, then of the other one; None where the interval does not tell.

        Fewer than three seeds of a student tell nothing, nor do two teachers of one training each.
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

    def verdict(self, epsilons: Mapping[Pair, float | None]) -> str:
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
class FilledRow:
    """A row's cells by column: None where the study has such a cell and no rows of it yet."""

    row: TableRow
    cells: Mapping[str, Cell | None]


@dataclass(frozen=True)
class FilledTable:
    table: Table
    rows: Sequence[FilledRow]
    differences: Sequence[Difference]


class Cells:
    """The stored scores of a study, found by what a table says of a cell (see ``Table``).

    Only rows of the settings, objectives and seeds that the study has now are looked at.
    """

    def __init__(self, runs: Mapping[str, Run], results: Results | None) -> None:
        self._runs, self._results = runs, results
        self._rows: dict[tuple[str, ...], list[Row]] = {}
        for row in results.rows if results else ():
            if is_current(row, runs):
                key = row["run"], row["student"], _who(row, runs), row["metric"]
                self._rows.setdefault(key, []).append(row)

    def is_planned(self, where: str, query: Mapping[str, Any]) -> bool:
        """Whether the study trains what a cell shows.

        Args:
            where: the table, for the error.

        Raises:
            StudyError: there is no such run, teacher, split or metric, or the query does not say enough.
        """
        student, who = self._model(where, query)
        if not student and who not in TEACHERS:
            raise StudyError(f"{where}: no teacher {who!r}; there are: {', '.join(TEACHERS)}")
        if query.get("split", "test") not in SPLITS:
            raise StudyError(f"{where}: no split {query['split']!r}; there are: {', '.join(SPLITS)}")
        for run in self._runs_of(where, query):
            if query.get("metric", METRICS[run.task][0]) not in METRICS[run.task]:
                known = ", ".join(METRICS[run.task])
                raise StudyError(f"{where}: no metric {query['metric']!r} of {run.task}; there are: {known}")
        return all(
            (who != "token" or run.task_settings.token_teacher is not None)
            if not student
            else student in run.task_settings.students
            and who in run.recipe.distillation.objectives
            and is_for(who, FAMILY[student])  # type: ignore[index]
            for run in self._runs_of(where, query)
        )

    def find(self, where: str, query: Mapping[str, Any]) -> Cell | None:
        """The cell of a query, None where it has no rows yet; of several runs the one that is best on dev.

        Runs are compared over the seeds that all of them have on dev; where there are none, the first is
        taken.

        Raises:
            StudyError: as above.
        """
        student, who = self._model(where, query)
        found = [self._find(run, student, who, query) for run in self._runs_of(where, query)]
        cells = [cell for cell in found if cell is not None]
        if not cells:
            return None
        seeds = set.intersection(*(set(cell.dev) for cell in cells))
        return max(cells, key=lambda cell: mean(cell.dev[seed] for seed in seeds) if seeds else 0.0)

    def check_counts(self, where: str, query: Mapping[str, Any]) -> None:
        """Refuse to compare a cell whose score does not come from stored counts."""
        for run in self._runs_of(where, query):
            compared = (TASKS[run.task].metric, OF_MODES)
            if query.get("metric", compared[0]) not in compared or query.get("split", "test") != "test":
                said = " and ".join(compared)
                raise StudyError(f"{where}: {said} of the test split can be compared, not {dict(query)}")

    def _model(self, where: str, query: Mapping[str, Any]) -> tuple[str, str]:
        """The kind of student, empty for a teacher; the objective, or which teacher."""
        try:
            if "teacher" in query:
                return "", query["teacher"]
            return query["student"], str(query["objective"]).format(**query)
        except KeyError as error:
            raise StudyError(f"{where}: a cell has no {error}; it has {', '.join(query)}") from None
        except (IndexError, ValueError) as error:
            raise StudyError(f"{where}: objective {query['objective']!r}: {error}") from None

    def _runs_of(self, where: str, query: Mapping[str, Any]) -> list[Run]:
        try:
            names = [name.format(**query) for name in run_names(query)]
        except KeyError as error:
            raise StudyError(f"{where}: a cell has no {error}; it has {', '.join(query)}") from None
        except (IndexError, ValueError) as error:
            raise StudyError(f"{where}: run {query['run']!r}: {error}") from None
        for name in names:
            if name not in self._runs:
                raise StudyError(f"{where}: there is no run {name!r}; there are: {', '.join(self._runs)}")
        return [self._runs[name] for name in names]

    def _find(self, run: Run, student: str, who: str, query: Mapping[str, Any]) -> Cell | None:
        split, metric = query.get("split", "test"), query.get("metric", TASKS[run.task].metric)
        rows = self._rows.get((run.name, student, who, metric), [])
        tested = {(row["seed"], row["split"]): row for row in rows if row["split"].partition("/")[0] == split}
        if not tested:
            return None
        seeds = tuple(sorted({seed for seed, _ in tested}))
        corpora = sorted({found for _, found in tested if "/" in found}) or [split]
        values = tuple(mean(tested[seed, corpus]["value"] for corpus in corpora) for seed in seeds)
        counts = [self._counts([tested[seed, corpus] for seed in seeds]) for corpus in corpora]
        whole = tuple(each for each in counts if each is not None)
        scored = Scored(
            seeds, values, whole if len(whole) == len(corpora) else (), run.task, is_teacher=not student
        )
        chosen_by = (TASKS[run.task].metric, AGREEMENT)
        dev = {
            row["seed"]: row["value"]
            for name in chosen_by
            for row in self._rows.get((run.name, student, who, name), [])
            if row["split"] == "dev"
        }
        return Cell(scored, dev, run.name, f"{student} {who}".strip())

    def _counts(self, rows: Sequence[Row]) -> np.ndarray | None:
        """The counts [S, n, 3] behind the scores of some seeds, if all of them are stored."""
        assert self._results is not None
        found = [self._results.counts(row) for row in rows]
        known = [counts for counts in found if counts is not None]
        return np.stack(known) if len(known) == len(rows) else None


def run_names(query: Mapping[str, Any]) -> list[str]:
    """The runs of a cell, braces and all."""
    named = query["run"]
    return [str(name) for name in (named if isinstance(named, list) else [named])]


def _who(row: Row, runs: Mapping[str, Run]) -> str:
    """The objective of a student's row; of a teacher's row, whether it is the softmax one beside another."""
    if row["student"]:
        return str(row["objective"])
    beside = runs[row["run"]].task_settings.token_teacher is not None
    return "token" if row["case"] == "token" and beside else "teacher"


def fill(study: Study, runs: Mapping[str, Run], results: Results) -> list[FilledTable]:
    """Every table of a study with its cells and differences.

    Raises:
        StudyError: a cell names something that the study does not have.
    """
    stored = Cells(runs, results)
    filled = []
    for table in study.tables:
        cells: dict[str, dict[str, Cell | None]] = {row.label: {} for row in table.rows}
        for row, column, query in table.queries():
            if stored.is_planned(table.title, query):
                cells[row.label][column] = stored.find(table.title, query)
        rows = [FilledRow(row, cells[row.label]) for row in table.rows]
        found = [
            difference
            for comparison in table.comparisons
            for filled_row in rows
            if (difference := _difference(filled_row, comparison)) is not None
        ]
        filled.append(FilledTable(table, rows, found))
    return filled


def bearing_on(claim: str, tables: Sequence[FilledTable]) -> list[Difference]:
    """The differences that a claim is about."""
    return [d for table in tables for d in table.differences if d.comparison.claim == claim]


def pooled(claim: str, tables: Sequence[FilledTable]) -> Difference | None:
    """The mean of all differences that a claim is about, over the seeds that all of them have; None if none.

    As the paper does for its averages, the scores of the same seed are averaged.
    """
    found = bearing_on(claim, tables)
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
    return Difference("", found[0].comparison, ours, theirs, mean_draws(draws), None, is_one_model)


def _average(models: Sequence[Scored], seeds: tuple[int, ...]) -> Scored:
    """The mean score of several models with each seed."""
    teachers = all(model.is_teacher for model in models)
    table = np.array([np.broadcast_to(m.values, len(m.values if teachers else seeds)) for m in models])
    values = tuple(table.mean(0).tolist())
    return Scored(models[0].seeds if teachers else seeds, values, (), models[0].task, is_teacher=teachers)


def _difference(row: FilledRow, comparison: Comparison) -> Difference | None:
    ours, theirs = row.cells.get(comparison.ours), row.cells.get(comparison.theirs)
    if ours is None or theirs is None or row.row.label not in (comparison.rows or [row.row.label]):
        return None
    sides = over_shared_seeds(ours.scored, theirs.scored)
    if sides is None:
        return None
    paper = None
    said = row.row.paper.values if row.row.paper else {}
    if comparison.ours in said and comparison.theirs in said:
        paper = said[comparison.ours] - said[comparison.theirs]
    is_one_model = (ours.run, ours.what) == (theirs.run, theirs.what)
    return Difference(row.row.label, comparison, *sides, differences(*sides), paper, is_one_model)


def recovered(row: FilledRow, column: str) -> float | None:
    """The share of the gap between the row's teacher and its student alone that a column closes."""
    teacher, alone, cell = row.cells.get("teacher"), row.cells.get("none"), row.cells.get(column)
    if teacher is None or alone is None or cell is None or column == "none" or cell.scored.is_teacher:
        return None
    return gap_recovered(teacher.mean, alone.mean, cell.mean)
