"""A study's results on disk: rows of numbers, and what is right in each test sentence.

``results.jsonl`` has the rows of ``train.results`` with four keys before them: ``run``, ``student`` (its
kind, empty for teachers), ``settings`` (a digest of all settings that the number depends on) and ``corpus``.
``counts.jsonl`` has the counts [n, 3] that a test score comes from, compressed, for tests of significance.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.studies.plan import Run
from structural_kd.files import write_whole
from train.tasks import TASKS

Row = dict[str, Any]
IDENTITY = ("run", "student", "settings", "system", "case", "objective", "seed", "split", "metric")

OF_MODES = "f1_marginals"
"""The score of the modes of a teacher's marginals; it has counts of its own, as the main score has."""


class Outcome(NamedTuple):
    """What came of a job: rows, and the counts of its model on each test split under a row's keys."""

    rows: list[Row]
    counts: list[tuple[Row, np.ndarray]]


class RowsError(ValueError):
    """A file of rows or counts that can not be read: says which, and where."""


class Results:
    """The stored rows and counts of a study, rewritten whole whenever something is added.

    Raises:
        RowsError: a line is no JSON; says in which file and line.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows_file, self._counts_file = folder / "results.jsonl", folder / "counts.jsonl"
        self._rows = {_identity(row): row for row in _read(self.rows_file)}
        self._counts = {_identity(row): row for row in _read(self._counts_file)}

    @property
    def rows(self) -> Sequence[Row]:
        return list(self._rows.values())

    def counts(self, row: Row) -> np.ndarray | None:
        """The counts [n, 3] behind a test score, if they are stored.

        Raises:
            RowsError: what is stored can not be read; says of which model.
        """
        metric = OF_MODES if row["metric"] == OF_MODES else "counts"
        stored = self._counts.get(_identity({**row, "metric": metric}))
        if stored is None:
            return None
        try:
            raw = zlib.decompress(base64.b85decode(stored["value"]))
            return np.frombuffer(raw, np.uint16).reshape(3, -1).T.astype(np.int64)
        except (ValueError, zlib.error):
            model = " ".join(str(row[key]) for key in ("run", "student", "objective", "seed"))
            where = f"{self._counts_file}: the counts of {model}"
            raise RowsError(f"{where}: damaged; restore the file") from None

    def has_counts(self, row: Row) -> bool:
        """Whether a row is no main score of a test split, or has its counts."""
        is_score = row["split"].startswith("test") and row["metric"] == TASKS[row["task"]].metric
        return not is_score or self.counts(row) is not None

    def add(self, outcome: Outcome) -> None:
        """Store what came of a job in place of what it gave before."""
        self._rows |= {_identity(row): row for row in outcome.rows}
        for row, counts in outcome.counts:
            raw = zlib.compress(np.ascontiguousarray(counts.T.astype(np.uint16)).tobytes(), 9)
            stored = {**row, "value": base64.b85encode(raw).decode()}
            self._counts[_identity(stored)] = stored
        self._write()

    def forget(self, runs: Mapping[str, Run]) -> int:
        """Drop a study's rows that are not current, and their counts; how many rows were dropped."""
        kept = {identity for identity, row in self._rows.items() if is_current(row, runs)}
        models = {identity[:-2] for identity in kept}
        before = len(self._rows)
        self._rows = {identity: row for identity, row in self._rows.items() if identity in kept}
        self._counts = {i: row for i, row in self._counts.items() if i[:-2] in models}
        self._write()
        return before - len(self._rows)

    def _write(self) -> None:
        # Counts first: a job with rows is done, and must have them.
        for file, rows in ((self._counts_file, self._counts), (self.rows_file, self._rows)):
            ordered = sorted(rows.items(), key=lambda item: tuple(map(str, item[0])))
            write_whole(file, "".join(json.dumps(row) + "\n" for _, row in ordered))


def is_current(row: Row, runs: Mapping[str, Run]) -> bool:
    """Whether a row is of a run, settings, an objective and a seed that the study still has."""
    run = runs.get(row["run"])
    if run is None:
        return False
    if not row["student"]:
        return bool(row["settings"] == run.teachers_digest())
    return (
        row["student"] in run.task_settings.students
        and row["objective"] in run.recipe.distillation.objectives
        and row["seed"] in run.recipe.seeds
        and bool(row["settings"] == run.digest(row["student"]))
    )


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in IDENTITY)


def _read(file: Path) -> list[Row]:
    if not file.exists():
        return []
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            _identity(row)
        except (ValueError, KeyError, TypeError):
            raise RowsError(f"{file}, line {number}: not a row of results; restore the file") from None
        rows.append(row)
    return rows
