"""The teachers' targets of the sentences students learn from: to the target store, and back to students."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from structural_kd.trees import RelativeLabel
from train.distill.objectives import TeacherTargets
from train.distill.target_store import Content, TargetHeader, TargetRow, TargetStore
from train.evaluation import distributions
from train.experiment import Experiment
from train.progress import progress_bar
from train.splits import words_digest
from train.structs import StructuredDistribution
from train.tasks import TrainingTask
from train.train_teachers import TrainedTeachers
from train.trainer import TrainingError


@torch.no_grad()
def store_targets(
    experiment: Experiment,
    task: TrainingTask,
    teachers: TrainedTeachers,
    family: type[StructuredDistribution],
    content: Content,
    folder: Path,
) -> TargetStore:
    """The teachers' targets for a student family, a row for each sentence of ``student_train``; made where
    missing.

    Args:
        family: the students' structured distribution, whose parts' marginals are stored.
        folder: where the teachers' stores are.
    """
    distillation = experiment.recipe.distillation
    numbers = experiment.splits.student_train
    tempered = content == "marginals"
    header = TargetHeader(
        task=task.name,
        family=family.__name__,
        teacher=teachers.digest,
        corpus=words_digest(experiment.splits.select(numbers)),
        labels=task.labels,
        temperature=distillation.temperature if tempered else 1.0,
        sentences=len(numbers),
        content=content,
        temper=distillation.temper if tempered else "potentials",
        k=distillation.k if content in ("topk", "topwk") else None,
    )
    store = TargetStore(folder / _name(header), header)
    missing = list(store.missing())
    if not missing:
        return store
    with progress_bar(sum(len(places) for _, places in missing), f"{task.name} {content}", "sentence") as bar:
        for shard, places in missing:
            wanted = [numbers[place] for place in places]
            rows: dict[int, TargetRow] = {}
            for chosen, _, distribution in distributions(experiment, teachers.ensemble, wanted):
                try:
                    found = task.targets.to_rows(
                        distribution, family, header, allow_inconsistent=distillation.allow_inconsistent
                    )
                except ValueError as error:
                    raise TrainingError(f"{task.name} {content}, sentences {chosen}: {error}") from error
                rows.update(zip(chosen, found, strict=True))
                bar.update(len(chosen))
            store.write(shard, [rows[i] for i in wanted])
    return store


def _name(header: TargetHeader) -> str:
    if header.content == "marginals":
        local = "-local" if header.temper == "marginals" else ""
        return f"{header.family}-T{header.temperature:g}{local}"
    return f"{header.family}-{header.content}" + (f"{header.k}" if header.k else "")


@dataclass(frozen=True)
class StudentTargets:
    """Stored targets as one student reads them.

    Args:
        stores: by content.
        numbers: the sentences of their rows.
        closed: the label set of a sequence labelling parser; empty for other students.
    """

    task: TrainingTask
    stores: Mapping[Content, TargetStore]
    numbers: Sequence[int]
    temperature: float
    closed: Sequence[RelativeLabel] = ()

    def read(self, numbers: Sequence[int]) -> TeacherTargets:
        """The targets of these sentences as one batch."""
        rows = {content: [store[self._row_of[i]] for i in numbers] for content, store in self.stores.items()}
        return self.task.targets.to_batch(rows, self.temperature, self.closed)

    def lost_mass(self) -> float | None:
        """The share of the teacher's mass that the student can not express; None where it can express all."""
        store = self.stores["marginals"]
        return self.task.targets.lost_mass([store[row] for row in range(len(store))], self.closed)

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {number: row for row, number in enumerate(self.numbers)}
