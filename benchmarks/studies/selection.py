"""From the query of a cell to the runs and the model whose scores it shows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.studies.plan import Query, StudyError
from benchmarks.studies.rows import OF_MODES
from benchmarks.studies.runs import StudyRun
from train.distill.objectives import is_for
from train.evaluation import AGREEMENT
from train.model_kinds import FAMILY
from train.tasks import TASKS

METRICS = {
    "ner": ("f1", "precision", "recall", AGREEMENT, "entropy", "lost_mass", OF_MODES),
    "parse": ("uas", "las", AGREEMENT, "entropy", "lost_mass"),
}
"""What a cell can show, by task."""
SPLITS = ("test", "dev", "train", "labelled", "unlabelled")
TEACHERS = ("teacher", "token")
KEYS = ("run", "student", "objective", "teacher", "metric", "split")
"""The keys that a query is understood by; others stand in the braces of these."""


class Selection(NamedTuple):
    """One model of each of some runs, in one metric on one split.

    student: its kind; empty for a teacher. model: its objective, or which of `TEACHERS`.
    """

    runs: tuple[StudyRun, ...]
    student: str
    model: str
    metric: str
    split: str

    @property
    def is_trained(self) -> bool:
        """Whether the study trains the model in all of the runs."""
        if not self.student:
            return self.model != "token" or all(run.task_settings.token_teacher for run in self.runs)
        return all(
            self.student in run.task_settings.students
            and self.model in run.recipe.distillation.objectives
            and is_for(self.model, FAMILY[self.student])  # type: ignore[index]
            for run in self.runs
        )

    @property
    def has_counts(self) -> bool:
        """Whether the score comes from stored counts, so that it can be compared."""
        return self.split == "test" and self.metric in (TASKS[self.runs[0].task].metric, OF_MODES)


def select(query: Query, runs: Mapping[str, StudyRun]) -> Selection:
    """What a query is for.

    Raises:
        StudyError: there is no such run, teacher, split or metric, or the query lacks a key.
    """
    names = [_filled_in(query, "run", name) for name in run_templates(query)]
    for name in names:
        if name not in runs:
            raise StudyError(f"there is no run {name!r}; there are: {', '.join(runs)}")
    found = tuple(runs[name] for name in names)
    task = found[0].task
    if "teacher" in query:
        student, model = "", query["teacher"]
        _require("teacher", model, TEACHERS)
    else:
        student = _filled_in(query, "student", query.get("student"))
        model = _filled_in(query, "objective", query.get("objective"))
    split, metric = query.get("split", "test"), query.get("metric", TASKS[task].metric)
    _require("split", split, SPLITS)
    _require("metric", metric, METRICS[task])
    return Selection(found, student, model, metric, split)


def run_templates(query: Query) -> list[str]:
    """The names of a query's runs, braces and all."""
    named = query.get("run")
    return named if isinstance(named, list) else [named]  # type: ignore[list-item]


def _filled_in(query: Query, key: str, template: Any) -> str:
    try:
        if template is None:
            raise KeyError(key)
        return str(template).format(**query)
    except KeyError as error:
        raise StudyError(f"a cell has no {error}; it has {', '.join(query)}") from None
    except (IndexError, ValueError) as error:
        raise StudyError(f"{key} {template!r}: {error}") from None


def _require(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise StudyError(f"no {what} {value!r}; there are: {', '.join(known)}")
