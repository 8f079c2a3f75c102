"""Whether a study trains every cell of its tables and figure, before anything is trained."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Formatter

from benchmarks.studies.plan import Curve, Query, Study, StudyError, Table
from benchmarks.studies.runs import StudyRun
from benchmarks.studies.selection import KEYS, run_templates, select


def check_cells(study: Study, runs: Mapping[str, StudyRun], file: Path) -> None:
    """Refuse a study with a cell that it does not train.

    Raises:
        StudyError: names the table or panel, and the known values.
    """
    for table in study.tables:
        with _naming(f"{file}: tables: {table.title}"):
            _check_table(table, runs)
    for curve in study.figure:
        with _naming(f"{file}: figure: {curve.title}"):
            _check_curve(curve, runs)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None


def _check_table(table: Table, runs: Mapping[str, StudyRun]) -> None:
    cells = [(row.label, column, select(query, runs)) for row, column, query in table.queries()]
    trained = [(label, column) for label, column, selection in cells if selection.is_trained]
    for column in table.columns:
        if column not in {name for _, name in trained}:
            raise StudyError(f"the study trains nothing for the column {column!r}, in any row")
    for row in table.rows:
        if row.label not in {label for label, _ in trained}:
            raise StudyError(f"the study trains nothing for the row {row.label!r}, in any column")
    _check_keys([query for _, _, query in table.queries()])
    for comparison in table.comparisons:
        for label, column, selection in cells:
            is_compared = label in (comparison.rows or [label])
            if is_compared and column in (comparison.ours, comparison.theirs) and not selection.has_counts:
                raise StudyError(
                    f"comparisons: {label}, {column}: only the main score of the test split, and that of a "
                    f"teacher's modes, can be compared, not {selection.metric} on {selection.split}"
                )


def _check_curve(curve: Curve, runs: Mapping[str, StudyRun]) -> None:
    for name, _, query in curve.queries():
        selection = select(query, runs)
        if not selection.is_trained:
            raise StudyError(f"the study does not train {name!r}: {query}")
        if not selection.has_counts:
            raise StudyError(f"{name!r}: a curve shows the main score of the test split")
    _check_keys([query for _, _, query in curve.queries()])


def _check_keys(queries: Sequence[Query]) -> None:
    """Refuse keys that stand neither among `KEYS` nor in the braces of any cell: they are misspelt."""
    braces = {
        field
        for query in queries
        for value in (query.get("objective"), *run_templates(query))
        for _, field, _, _ in Formatter().parse(str(value))
    }
    for key in {key: None for query in queries for key in query}:
        if key not in KEYS and key not in braces:
            raise StudyError(f"no cell uses {key!r}; it is none of {', '.join(KEYS)}")
