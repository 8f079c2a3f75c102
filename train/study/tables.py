"""The cells, differences and verdicts of a study's report, from its stored rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from train.distill.objectives import is_for
from train.families import FAMILY
from train.report import gap_recovered
from train.study.plan import Comparison, Run, Study, StudyError, Table
from train.study.plan import Row as TableRow
from train.study.rows import Results, Row, is_current
from train.study.significance import DOMINATES, Floats, Pair, Scored, differences, interval, mean_draws

MAIN_METRIC = {"ner": "f1", "parse": "las"}


@dataclass(frozen=True)
class Cell:
    """One system's test scores, a score a seed, and where they are stored."""

    scored: Scored
    dev: tuple[float, ...]
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
    """Ours less theirs in one row of a table, in points."""

    label: str
    ours: str
    theirs: str
    claim: str
    draws: Floats  # bootstrap draws of it
    scores: Pair  # a score a seed: ours, theirs
    paper: float | None

    @property
    def value(self) -> float:
        return mean(self.scores[0]) - mean(self.scores[1])


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


def verdict(draws: Floats, epsilon: float | None) -> str:
    """better, worse or open: both tests have to agree on better; for worse the interval decides.

    Without ε, for teachers that were trained once, the interval decides alone.
    """
    low, high = interval(draws)
    if low > 0 and (epsilon is None or epsilon < DOMINATES):
        return "better"
    return "worse" if high < 0 else "open"


def fill(study: Study, runs: Mapping[str, Run], results: Results) -> list[FilledTable]:
    """Every table of a study with its cells and differences.

    Raises:
        StudyError: a cell names a run that the study does not have.
    """
    stored = Cells(runs, results)
    filled = []
    for table in study.tables:
        rows = []
        for row in table.rows:
            cells = {}
            for column, own in table.columns.items():
                changed = row.instead.get(column, own)
                query = {**row.cell, **(changed or {})}
                if changed is not None and stored.is_planned(table.title, query):
                    cells[column] = stored.find(table.title, query)
            rows.append(FilledRow(row, cells))
        found = [
            difference
            for comparison in table.comparisons
            for filled_row in rows
            if (difference := _difference(filled_row, comparison)) is not None
        ]
        filled.append(FilledTable(table, rows, found))
    return filled


def check_cells(study: Study, runs: Mapping[str, Run], where: Path) -> None:
    """Refuse a study with a cell that names nothing, before anything is trained for it.

    Raises:
        StudyError: says in which table, and what there is.
    """
    cells = Cells(runs, None)
    for table in study.tables:
        for row in table.rows:
            for column, own in table.columns.items():
                changed = row.instead.get(column, own)
                if changed is not None:
                    cells.is_planned(f"{where}: tables: {table.title}", {**row.cell, **changed})
        for comparison in table.comparisons:
            for name in (comparison.ours, comparison.theirs):
                if name not in table.columns:
                    raise StudyError(f"{where}: tables: {table.title}: comparisons: no column {name!r}")
            if comparison.claim not in study.claims:
                raise StudyError(f"{where}: claims: {comparison.claim!r} is compared and not among them")
    for curve in study.figure:
        for own in (*curve.lines.values(), *curve.levels.values()):
            query = {**curve.cell, **own, "amount": curve.amounts[0]}
            cells.is_planned(f"{where}: figure: {curve.title}", query)
        for name in (curve.ours, curve.theirs):
            if name not in curve.lines:
                raise StudyError(f"{where}: figure: {curve.title}: no line {name!r}")


def pooled(claim: str, tables: Sequence[FilledTable]) -> Difference | None:
    """The mean of all differences that a claim is about; None where there is none yet.

    As the paper does for its averages, the scores of the same seed are averaged.
    """
    found = [d for table in tables for d in table.differences if d.claim == claim]
    if not found:
        return None
    draws = mean_draws([d.draws for d in found])
    scores = _average([d.scores[0] for d in found]), _average([d.scores[1] for d in found])
    return Difference("", "", "", claim, draws, scores, None)


def _average(scores: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    seeds = min(map(len, scores))
    return tuple(float(v) for v in np.mean([row[:seeds] for row in scores], axis=0))


class Cells:
    """The stored scores of a study, found by what a table says of a cell.

    Only rows of the settings that the study has now are looked at.
    """

    def __init__(self, runs: Mapping[str, Run], results: Results | None) -> None:
        self._runs, self._results = runs, results
        self._rows: dict[tuple[str, ...], list[Row]] = {}
        for row in results.rows if results else ():
            if not is_current(row, runs):
                continue
            teaches = row["system"] == "teacher"
            who = ("token" if row["case"] == "token" else "teacher") if teaches else row["objective"]
            self._rows.setdefault((row["run"], row["student"], who, row["metric"]), []).append(row)

    def is_planned(self, where: str, query: Mapping[str, Any]) -> bool:
        """Whether the study trains what a cell shows."""
        run = self._runs_of(where, query)[0]
        if query.get("teacher"):
            return query["teacher"] != "token" or run.task_settings.token_teacher is not None
        student, objective = query.get("student"), str(query["objective"]).format(**query)
        return (
            student in run.task_settings.students
            and objective in run.recipe.distillation.objectives
            and is_for(objective, FAMILY[student])
        )

    def find(self, where: str, query: Mapping[str, Any]) -> Cell | None:
        """The cell of a query (see ``Table``), None where it has no rows yet.

        Args:
            where: the table, for the error.

        Raises:
            StudyError: there is no such run.
        """
        found = [self._find(run, query) for run in self._runs_of(where, query)]
        cells = [cell for cell in found if cell is not None]
        if len(found) > 1:
            return max(cells, key=lambda cell: mean(cell.dev), default=None)
        return found[0]

    def _runs_of(self, where: str, query: Mapping[str, Any]) -> list[Run]:
        try:
            names = query["run"] if isinstance(query["run"], list) else [query["run"]]
            names = [str(name).format(**query) for name in names]
            if not query.get("teacher"):
                query["student"], str(query["objective"]).format(**query)
        except KeyError as error:
            raise StudyError(f"{where}: a cell has no {error}; it has {', '.join(query)}") from None
        for name in names:
            if name not in self._runs:
                raise StudyError(f"{where}: there is no run {name!r}; there are: {', '.join(self._runs)}")
        return [self._runs[name] for name in names]

    def _find(self, run: Run, query: Mapping[str, Any]) -> Cell | None:
        teacher, part = query.get("teacher"), query.get("split", "test")
        who = teacher or str(query["objective"]).format(**query)
        student = "" if teacher else query["student"]
        rows = self._rows.get((run.name, student, who, query.get("metric", MAIN_METRIC[run.task])), [])
        tested = {(row["seed"], row["split"]): row for row in rows if row["split"].partition("/")[0] == part}
        if not tested:
            return None
        seeds = sorted({seed for seed, _ in tested})
        corpora = sorted({split for _, split in tested if "/" in split}) or [part]
        values = tuple(mean(tested[seed, corpus]["value"] for corpus in corpora) for seed in seeds)
        assert self._results is not None
        counts = [[self._results.counts(tested[seed, corpus]) for seed in seeds] for corpus in corpora]
        whole = [[c for c in row if c is not None] for row in counts]
        complete = sum(map(len, whole)) == len(corpora) * len(seeds)
        stacked = tuple(np.stack(row) for row in whole) if complete else ()
        dev = tuple(row["value"] for row in rows if row["split"] == "dev")
        return Cell(Scored(values, stacked, run.task), dev, run.name, f"{student} {who}".strip())


def _difference(row: FilledRow, comparison: Comparison) -> Difference | None:
    ours, theirs = row.cells.get(comparison.ours), row.cells.get(comparison.theirs)
    if ours is None or theirs is None:
        return None
    paper = None
    said = row.row.paper.values if row.row.paper else {}
    if comparison.ours in said and comparison.theirs in said:
        paper = said[comparison.ours] - said[comparison.theirs]
    return Difference(
        label=row.row.label,
        ours=comparison.ours,
        theirs=comparison.theirs,
        claim=comparison.claim,
        draws=differences(ours.scored, theirs.scored),
        scores=(ours.scored.values, theirs.scored.values),
        paper=paper,
    )


def recovered(row: FilledRow, column: str) -> float | None:
    """The share of the gap between the row's teacher and its student alone that a column closes."""
    teacher, alone, cell = row.cells.get("teacher"), row.cells.get("none"), row.cells.get(column)
    if teacher is None or alone is None or cell is None or column in ("teacher", "none"):
        return None
    return gap_recovered(teacher.mean, alone.mean, cell.mean)
