"""A study's file, and the jobs that it asks for.

A study is one YAML file: recipes, each with settings and a grid of settings, and the tables of its report.
Every point of a grid is a run, which ``python -m train`` could train as well; each student of it is a job.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from train.distill.objectives import is_for
from train.model_kinds import FAMILY, StudentKind, TaskName
from train.recipe import Recipe, RecipeError, Seed, TaskSettings, load_recipe


class StudyError(ValueError):
    """A study that can not be run: says in which file, under which key, and what to write instead."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Section):
    """One recipe of a study, with the settings that vary."""

    recipe: Path
    set: dict[str, Any] = {}
    """Settings of the recipe, dots between the levels of a key, as after ``--set``."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Settings with several values: each combination of them is a run."""


class Comparison(_Section):
    """What a claim is about: ``ours`` against ``theirs``, two columns of a table."""

    ours: str
    theirs: str
    claim: str
    """The key of the claim that it bears on; see ``Study.claims``."""
    rows: list[str] | None = None
    """The labels of the rows that it is made in; all of them unless set."""


class Paper(_Section):
    """What the paper has in a row's place."""

    of: str
    """Its corpus and amounts."""
    values: dict[str, float]
    """Its numbers by column."""


class TableRow(_Section):
    """A row of a table."""

    label: str
    cell: dict[str, Any]
    """What all cells of the row have in common."""
    instead: dict[str, dict[str, Any] | None] = {}
    """What some columns have in this row in place of their own settings; null leaves a cell empty."""
    paper: Paper | None = None


class Table(_Section):
    """One table of the report. What a cell is found by is its row's ``cell`` updated with its column:

    ``run``, in which braces stand for the other values (or a list of runs: the best on dev); ``student`` and
    ``objective``, or ``teacher`` (``teacher``, or ``token`` for the softmax teacher); ``metric``, unless it
    is the task's main one; ``split``, unless it is the test split.
    """

    title: str
    note: str = ""
    columns: dict[str, dict[str, Any]]
    rows: list[TableRow]
    comparisons: list[Comparison] = []
    digits: Annotated[int, Field(ge=0, le=6)] = 2

    def queries(self) -> Iterator[tuple[TableRow, str, dict[str, Any]]]:
        """What each cell is found by, with its row and its column."""
        for row in self.rows:
            for column, own in self.columns.items():
                changed = row.instead.get(column, own)
                if changed is not None:
                    yield row, column, {**row.cell, **changed}


class Curve(_Section):
    """One panel of the figure: score against the amount of unlabelled sentences."""

    title: str
    amounts: Annotated[list[int], Field(min_length=2)]
    cell: dict[str, Any]
    """What all lines have in common, as the rows of a table have; the run with ``{amount}`` in it."""
    lines: dict[str, dict[str, Any]]
    """What each line has of its own, as the columns of a table have."""
    levels: dict[str, dict[str, Any]] = {}
    """Scores that do not depend on the amount: the teacher's, the student's alone."""
    ours: str
    theirs: str
    """The lines whose difference is looked at as the amount grows."""
    paper: str = ""
    """What the paper has of that difference, in words."""

    def queries(self) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
        """What each point of a line is found by, with the line's name and the amount; of a level, None."""
        for name, own in self.lines.items():
            for amount in self.amounts:
                yield name, amount, {**self.cell, **own, "amount": amount}
        for name, own in self.levels.items():
            yield name, None, {**self.cell, **own}


class Study(_Section):
    """A study's file."""

    title: str = ""
    about: str = ""
    report: str = ""
    """The report's file, beside the study's; NAME.md unless set. The figure has the same name."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    runs: dict[str, Entry]
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
        return self


@dataclass(frozen=True)
class Run:
    """One point of a study's grid: a recipe with all settings filled in.

    ``name`` is the entry's, with the grid's values: ``entities/unlabelled=3000``.
    """

    name: str
    recipe_file: Path
    settings: tuple[str, ...]
    recipe: Recipe

    @property
    def task(self) -> TaskName:
        return next(iter(self.recipe.tasks))

    @property
    def task_settings(self) -> TaskSettings:
        return self.recipe.tasks[self.task]

    def shared_key(self) -> str:
        """Of all that word vectors and teachers depend on: runs with the same key have the same teachers."""
        said = self.recipe.model_dump(mode="json", exclude={"seeds", "distillation", "targets", "device"})
        if self.recipe.vectors.text == "corpus":
            del said["unlabelled"]
        task = said["tasks"][self.task]
        said["tasks"] = {self.task: {key: task[key] for key in ("teacher", "monolingual_teachers")}}
        return _digest(said)

    def token_key(self) -> str:
        """Of all that the softmax teacher of the objective ``token`` depends on, where there is one."""
        beside = self.task_settings.token_teacher
        return _digest([self.shared_key(), beside.model_dump(mode="json") if beside else None])

    def text_key(self) -> str:
        """Of the sentences that features and word vectors are made of: made once, by whoever comes first."""
        return _digest([self.recipe.corpus, self.recipe.target, str(self.recipe.text)])

    def digest(self, student: StudentKind) -> str:
        """Of all settings that a student of this run depends on, beside its objective and its seed."""
        return self._digests[student]

    @cached_property
    def _digests(self) -> dict[StudentKind, str]:
        """Of each kind of student, made once: every stored row is held against them."""
        said = self._settings()
        students = said["tasks"][self.task]["students"]
        said["tasks"][self.task].pop("serve")
        found = {}
        for student in self.task_settings.students:
            said["tasks"][self.task]["students"] = {student: students[student]}
            found[student] = _digest(said)
        return found

    def teachers_digest(self) -> str:
        """Of all settings that the rows of this run's teachers depend on."""
        return self._teachers_digest

    @cached_property
    def _teachers_digest(self) -> str:
        beside = self.task_settings.token_teacher
        return _digest(
            [
                self.shared_key(),
                self.recipe.targets.model_dump(mode="json"),
                beside.model_dump(mode="json") if beside else None,
                self.recipe.unlabelled,
            ]
        )

    @property
    def folder(self) -> str:
        """Its folder among a study's runs: another one for other settings."""
        return f"{self.name}@{_digest(self._settings())}"

    def _settings(self) -> dict[str, Any]:
        """The recipe without what tells its students apart and where they are trained."""
        said = self.recipe.model_dump(mode="json", exclude={"seeds", "device"})
        said["distillation"].pop("objectives")
        return said

    @property
    def corpus(self) -> str:
        """What is labelled, and what it is taken to."""
        names = "+".join(Path(name).name for name in self.recipe.corpus)
        return f"{names}→{self.recipe.target}" if self.recipe.target else names

    def command(self) -> str:
        """How ``python -m train`` trains this run alone."""
        sets = " ".join(f"--set '{setting}'" for setting in self.settings)
        return f"python -m train {self.recipe_file} {sets}".rstrip()


@dataclass(frozen=True, order=True)
class StudentJob:
    """One student to be trained."""

    run: str
    student: StudentKind
    objective: str
    seed: int

    def __str__(self) -> str:
        return f"{self.run} {self.student} {self.objective} seed {self.seed}"


def load_study(path: Path) -> Study:
    """Read and check a study's file.

    Raises:
        StudyError: it is missing, no YAML, or a key or value does not fit; says which.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = ", ".join(sorted(str(p) for p in Path("studies").glob("*.yaml")))
        raise StudyError(f"{path}: no such study; there are: {beside or 'none'}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not valid YAML: {error}") from None
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        lines = []
        for found in error.errors():
            keys = ".".join(map(str, found["loc"]))
            lines.append(f"{path}: {keys + ': ' if keys else ''}{found['msg'].removeprefix('Value error, ')}")
        raise StudyError("\n".join(lines)) from None


def runs_of(study: Study, path: Path) -> dict[str, Run]:
    """Every run of a study by its name, each recipe checked.

    Raises:
        StudyError: a recipe does not hold with its settings, or has more than one task.
    """
    found: dict[str, Run] = {}
    for name, entry in study.runs.items():
        for values in itertools.product(*entry.grid.values()):
            point = dict(zip(entry.grid, values, strict=True))
            settings = {**entry.set, **point, "seeds": list(study.seeds)}
            changes = tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())
            try:
                recipe = load_recipe(entry.recipe, changes)
            except RecipeError as error:
                raise StudyError(f"{path}: runs.{name}: {error}") from None
            objectives = recipe.distillation.objectives
            if len(set(objectives)) < len(objectives):
                raise StudyError(f"{path}: runs.{name}: an objective stands twice: {', '.join(objectives)}")
            if len(recipe.tasks) != 1:
                raise StudyError(f"{path}: runs.{name}: a study's recipe has one task; make it two entries")
            full = "/".join([name, *(f"{key.rpartition('.')[2]}={value}" for key, value in point.items())])
            if full in found:
                raise StudyError(f"{path}: runs.{name}: there are two runs {full}; rename one entry")
            found[full] = Run(full, entry.recipe, changes, recipe)
    return found


def student_jobs(runs: dict[str, Run]) -> list[StudentJob]:
    """All students of all runs, the first seed of each before the second of any.

    So a study that is stopped has whole tables, of fewer seeds.
    """
    jobs = [
        (seed_place, StudentJob(run.name, student, objective, seed))
        for run in runs.values()
        for seed_place, seed in enumerate(run.recipe.seeds)
        for student in run.task_settings.students
        for objective in run.recipe.distillation.objectives
        if is_for(objective, FAMILY[student])
    ]
    return [job for _, job in sorted(jobs, key=lambda pair: pair[0])]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
