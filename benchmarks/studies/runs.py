"""The runs of a study, one for each point of its grids, and the students to be trained."""

import hashlib
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.studies.plan import Study, StudyError
from train.distill.objectives import is_for
from train.model_kinds import FAMILY, StudentKind, TaskName
from train.recipe import Recipe, RecipeError, TaskSettings, load_recipe


@dataclass(frozen=True)
class StudyRun:
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
        """Digest of what word vectors and teachers depend on: runs that have the same share them."""
        settings = self.recipe.model_dump(mode="json", exclude={"seeds", "distillation", "targets", "device"})
        if self.recipe.vectors.text == "corpus":
            del settings["unlabelled"]
        task = settings["tasks"][self.task]
        settings["tasks"] = {self.task: {key: task[key] for key in ("teacher", "monolingual_teachers")}}
        return _digest(settings)

    def token_key(self) -> str:
        """Digest of what the softmax teacher of the objective ``token`` depends on, where there is one."""
        return _digest([self.shared_key(), self._token_teacher])

    def text_key(self) -> str:
        """Digest of the sentences that features and word vectors are made of."""
        return _digest([self.recipe.corpus, self.recipe.target, str(self.recipe.text)])

    @cached_property
    def digests(self) -> dict[StudentKind, str]:
        """By kind of student, all settings that one depends on beside its objective and its seed."""
        settings = self._settings()
        task = settings["tasks"][self.task]
        students = task["students"]
        del task["serve"]
        found = {}
        for student in self.task_settings.students:
            task["students"] = {student: students[student]}
            found[student] = _digest(settings)
        return found

    @cached_property
    def teachers_digest(self) -> str:
        """Digest of all settings that the rows of this run's teachers depend on."""
        targets = self.recipe.targets.model_dump(mode="json")
        return _digest([self.shared_key(), targets, self._token_teacher, self.recipe.unlabelled])

    @property
    def folder(self) -> str:
        """Its folder among a study's runs: another one for other settings."""
        return f"{self.name}@{_digest(self._settings())}"

    @property
    def _token_teacher(self) -> dict[str, Any] | None:
        beside = self.task_settings.token_teacher
        return beside.model_dump(mode="json") if beside else None

    def _settings(self) -> dict[str, Any]:
        """The recipe without the seeds and objectives of its students, and without the device."""
        settings = self.recipe.model_dump(mode="json", exclude={"seeds", "device"})
        del settings["distillation"]["objectives"]
        return settings

    @property
    def corpus(self) -> str:
        """The labelled corpora, and the target of a transfer."""
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


def runs_of(study: Study, path: Path) -> dict[str, StudyRun]:
    """Every run of a study by its name, each recipe checked.

    Raises:
        StudyError: a recipe does not hold with its settings, or has more than one task.
    """
    found: dict[str, StudyRun] = {}
    for name, entry in study.runs.items():
        where = f"{path}: runs.{name}"
        for values in itertools.product(*entry.grid.values()):
            point = dict(zip(entry.grid, values, strict=True))
            settings = {**entry.set, **point, "seeds": list(study.seeds)}
            changes = tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())
            try:
                recipe = load_recipe(entry.recipe, changes)
            except RecipeError as error:
                raise StudyError(f"{where}: {error}") from None
            objectives = recipe.distillation.objectives
            if len(set(objectives)) < len(objectives):
                raise StudyError(f"{where}: an objective stands twice: {', '.join(objectives)}")
            if len(recipe.tasks) != 1:
                raise StudyError(f"{where}: a study's recipe has one task; make it two entries")
            full = "/".join([name, *(f"{key.rpartition('.')[2]}={value}" for key, value in point.items())])
            if full in found:
                raise StudyError(f"{where}: there are two runs {full}; rename one entry")
            found[full] = StudyRun(full, entry.recipe, changes, recipe)
    return found


def student_jobs(runs: dict[str, StudyRun]) -> list[StudentJob]:
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
