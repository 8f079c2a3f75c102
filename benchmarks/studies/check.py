"""Whether every cell of a study's tables and figure is one that it trains, before anything is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from benchmarks.studies.plan import Curve, Run, Study, StudyError, Table
from benchmarks.studies.tables import QUERY, Cells, run_names


def check_cells(study: Study, runs: Mapping[str, Run], where: Path) -> None:
    """Refuse a study with a cell that names nothing, before anything is trained for it.

    Raises:
        StudyError: says in which table, and what there is.
    """
    cells = Cells(runs, None)
    for table in study.tables:
        _check_table(cells, table, f"{where}: tables: {table.title}")
        for comparison in table.comparisons:
            if comparison.claim not in study.claims:
                raise StudyError(f"{where}: claims: {comparison.claim!r} is compared and not among them")
    for curve in study.figure:
        _check_curve(cells, curve, f"{where}: figure: {curve.title}")


def _check_table(cells: Cells, table: Table, where: str) -> None:
    planned = [(row.label, column) for row, column, q in table.queries() if cells.is_planned(where, q)]
    for column in table.columns:
        if column not in {name for _, name in planned}:
            raise StudyError(f"{where}: the study trains nothing for the column {column!r}, in any row")
    for row in table.rows:
        if row.label not in {label for label, _ in planned}:
            raise StudyError(f"{where}: the study trains nothing for the row {row.label!r}, in any column")
        for column in (*row.instead, *(row.paper.values if row.paper else ())):
            if column not in table.columns:
                raise StudyError(f"{where}: row {row.label!r}: no column {column!r}")
    _check_keys([query for _, _, query in table.queries()], where)
    for comparison in table.comparisons:
        for name in (comparison.ours, comparison.theirs):
            if name not in table.columns:
                raise StudyError(f"{where}: comparisons: no column {name!r}")
        for label in comparison.rows or ():
            if label not in {row.label for row in table.rows}:
                raise StudyError(f"{where}: comparisons: no row {label!r}")
        for row, column, query in table.queries():
            is_row = row.label in (comparison.rows or [row.label])
            if is_row and column in (comparison.ours, comparison.theirs):
                cells.check_counts(f"{where}: comparisons", query)


def _check_curve(cells: Cells, curve: Curve, where: str) -> None:
    for name, _, query in curve.queries():
        if not cells.is_planned(where, query):
            raise StudyError(f"{where}: the study does not train {name!r}: {query}")
        cells.check_counts(where, query)
    _check_keys([query for _, _, query in curve.queries()], where)
    for name in (curve.ours, curve.theirs):
        if name not in curve.lines:
            raise StudyError(f"{where}: no line {name!r}")


def _check_keys(queries: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse keys that are neither looked for nor in the braces of any cell: they are misspelt."""
    named = {key: None for query in queries for key in query}
    braces = {
        field
        for query in queries
        for value in (query.get("objective"), *run_names(query))
        for _, field, _, _ in Formatter().parse(str(value))
    }
    for key in named:
        if key not in QUERY and key not in braces:
            raise StudyError(f"{where}: no cell uses {key!r}; it is none of {', '.join(QUERY)}")
