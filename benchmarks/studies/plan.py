"""A study's file: recipes with grids of settings, and the tables and figure of its report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from train.recipe import Seed

Query = dict[str, Any]
"""The keys that a cell is found by; see `Table`."""


class StudyError(ValueError):
    """A study that cannot be run: says in which file, under which key, and what to write instead."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridEntry(_Section):
    """One recipe of a study, with the settings that vary."""

    recipe: Path
    set: dict[str, Any] = {}
    """Settings of the recipe, dots between the levels of a key, as after ``--set``."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Settings with several values: each combination of them is a run."""


class Comparison(_Section):
    """``ours`` against ``theirs``, two columns of a table, in some of its rows (all unless set)."""

    ours: str
    theirs: str
    claim: str
    """The key of its claim in ``Study.claims``."""
    rows: list[str] | None = None


class Paper(_Section):
    """The paper's numbers by column, ``of`` its corpus and amounts."""

    of: str
    values: dict[str, float]


class TableRow(_Section):
    """A row of a table. ``cell`` has what all its cells have in common."""

    label: str
    cell: Query
    instead: dict[str, Query | None] = {}
    """Replaces the settings of a column in this row; null leaves the cell empty."""
    paper: Paper | None = None


class Table(_Section):
    """One table of the report. A cell's query is its row's ``cell`` updated with its column:

    ``run``, in which braces stand for the other values (or a list of runs: the best on dev); ``student`` and
    ``objective``, or ``teacher`` (``teacher``, or ``token`` for the softmax teacher); ``metric``, unless it
    is the task's main one; ``split``, unless it is the test split.
    """

    title: str
    note: str = ""
    columns: dict[str, Query]
    rows: list[TableRow]
    comparisons: list[Comparison] = []
    digits: Annotated[int, Field(ge=0, le=6)] = 2

    def queries(self) -> Iterator[tuple[TableRow, str, Query]]:
        """Each cell's query, with its row and its column."""
        for row in self.rows:
            for column, own in self.columns.items():
                changed = row.instead.get(column, own)
                if changed is not None:
                    yield row, column, {**row.cell, **changed}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for row in self.rows:
            for column in (*row.instead, *(row.paper.values if row.paper else ())):
                if column not in self.columns:
                    raise ValueError(f"{self.title}: row {row.label!r}: no column {column!r}")
        for comparison in self.comparisons:
            for column in (comparison.ours, comparison.theirs):
                if column not in self.columns:
                    raise ValueError(f"{self.title}: comparisons: no column {column!r}")
            for label in comparison.rows or ():
                if label not in {row.label for row in self.rows}:
                    raise ValueError(f"{self.title}: comparisons: no row {label!r}")
        return self


class Curve(_Section):
    """One panel of the figure: score against the amount of unlabelled sentences."""

    title: str
    amounts: Annotated[list[int], Field(min_length=2)]
    cell: Query
    """What all lines have in common, as the rows of a table have; the run with ``{amount}`` in it."""
    lines: dict[str, Query]
    """What each line has of its own, as the columns of a table have."""
    levels: dict[str, Query] = {}
    """Scores that do not depend on the amount: the teacher's, the student's alone."""
    ours: str
    theirs: str
    """The two lines whose difference, and its change with the amount, is in the report."""
    paper: str = ""
    """The paper's differences, in words."""

    def queries(self) -> Iterator[tuple[str, int | None, Query]]:
        """The query of each point, with its line and its amount; of each level, without an amount."""
        for name, own in self.lines.items():
            for amount in self.amounts:
                yield name, amount, {**self.cell, **own, "amount": amount}
        for name, own in self.levels.items():
            yield name, None, {**self.cell, **own}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in (self.ours, self.theirs):
            if name not in self.lines:
                raise ValueError(f"{self.title}: no line {name!r}")
        return self


class Study(_Section):
    """A study's file."""

    title: str = ""
    about: str = ""
    report: str = ""
    """The report's file, beside the study's; NAME.md unless set. The figure has the same name."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    runs: dict[str, GridEntry]
    claims: dict[str, str] = {}
    tables: list[Table] = []
    figure: list[Curve] = []

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: one stands twice among {', '.join(map(str, self.seeds))}")
        if self.report != Path(self.report).name:
            raise ValueError(f"report: {self.report}: the report lies beside the study's file; name it alone")
        for name, entry in self.runs.items():
            if "seeds" in {**entry.set, **entry.grid}:
                raise ValueError(f"runs.{name}: seeds are those of the whole study; set them there")
        for claim in (comparison.claim for table in self.tables for comparison in table.comparisons):
            if claim not in self.claims:
                raise ValueError(f"claims: {claim!r} is compared and not among them")
        return self


def load_study(path: Path) -> Study:
    """Read and check a study's file.

    Raises:
        StudyError: it is missing, no YAML, or a key or value does not fit; says which.
    """
    try:
        return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        beside = ", ".join(sorted(str(p) for p in Path("studies").glob("*.yaml")))
        raise StudyError(f"{path}: no such study; there are: {beside or 'none'}") from None
    except ValidationError as error:
        lines = []
        for found in error.errors():
            keys = ".".join(map(str, found["loc"]))
            lines.append(f"{path}: {keys + ': ' if keys else ''}{found['msg'].removeprefix('Value error, ')}")
        raise StudyError("\n".join(lines)) from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not valid YAML: {error}") from None
