"""The teachers' targets of the sentences students learn from, written to the target store."""

from pathlib import Path

import torch

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
