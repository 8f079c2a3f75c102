"""The students of a task: each learns by one objective from one seed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from structural_kd.trees import RelativeLabel, relative_labels
from train.batching import TrainingSet
from train.checkpoint import Network
from train.corpora import Sentence
from train.distill.loss import distillation_loss
from train.distill.objectives import TeacherTargets, is_for
from train.distill.target_store import Content, TargetStore
from train.evaluation import evaluate, evaluate_and_save, main_score, tested_splits
from train.experiment import Experiment
from train.model_kinds import FAMILY, StudentKind, TaskName, case_of
from train.models.card import ModelCard, build_model
from train.progress import log
from train.recipe import Recipe
from train.structs import StructuredDistribution
from train.tasks import TrainingTask
from train.train_teachers import TrainedTeachers
from train.trainer import fit


@dataclass(frozen=True)
class Supervision:
    """What the students of a task learn from, and what they are compared with.

    Args:
        token_teachers: those of the objective ``token``; where it has none of its own, the others.
        references: predictions of the teachers by sentence number, where dev has no gold.
        targets: by whether they are the token teachers', by student family and by content.
    """

    task: TrainingTask
    teachers: TrainedTeachers
    token_teachers: TrainedTeachers
    references: Mapping[int, Sentence]
    targets: Mapping[tuple[bool, type[StructuredDistribution], Content], TargetStore]


def students_of(recipe: Recipe, task: TaskName) -> list[tuple[StudentKind, str]]:
    """Every kind of student of a task with every objective that is for its family."""
    return [
        (kind, objective)
        for kind in recipe.tasks[task].students
        for objective in recipe.distillation.objectives
        if is_for(objective, FAMILY[kind])
    ]


def train_student(
    experiment: Experiment, supervision: Supervision, kind: StudentKind, objective: str, seed: int
) -> None:
    """Train one student, or leave it as it is where it is finished."""
    task, splits, distillation = supervision.task, experiment.splits, experiment.recipe.distillation
    training = experiment.recipe.tasks[task.name].students[kind]
    loss = distillation.loss_settings(objective)
    teachers = supervision.token_teachers if loss.by_token_teacher else supervision.teachers
    stores = {
        content: supervision.targets[loss.by_token_teacher, FAMILY[kind], content]
        for content in loss.contents
    }
    settings = experiment.settings_of(training, seed=seed, objective=objective)
    settings |= {"unlabelled": len(splits.unlabelled), "distillation": None, "teacher": None}
    if stores:
        settings["distillation"] = distillation.model_dump(mode="json", exclude={"objectives"})
        settings["teacher"] = teachers.digest
    folder = experiment.out / task.name / "students" / f"{kind}-{objective}-seed{seed}"
    network = Network(training, seed, settings, folder, f"{task.name} {kind} {objective} seed {seed}")
    if network.is_finished():
        return
    closed = _relative_labels(splits.select(splits.labelled)) if kind == "labeller" else ()
    card = ModelCard(
        task.name, kind, "student", splits.language, task.labels, closed, **training.architecture
    )
    torch.manual_seed(seed)
    model = build_model(card, experiment.dataset.types).to(experiment.device)
    # A labelled sentence without this task's gold is raw text to it.
    labelled = np.array([i for i in splits.student_train if task.has_gold(splits.sentences[i])], np.int64)
    unlabelled = np.setdiff1d(splits.student_train, labelled) if stores else np.array([], np.int64)
    epoch = _epoch(labelled, unlabelled, distillation.unlabelled_share)
    row_of = {number: row for row, number in enumerate(splits.student_train)}

    def read_targets(numbers: Sequence[int]) -> TeacherTargets:
        rows = {content: [store[row_of[i]] for i in numbers] for content, store in stores.items()}
        return task.targets.to_batch(rows, model, distillation.temperature)

    def dev_score(model: nn.Module) -> float:
        found = evaluate(experiment, task, model, splits.dev, supervision.references)
        return main_score(task, found.scores)

    data = TrainingSet(experiment.dataset, task, epoch, experiment.device)
    if stores:
        data = replace(data, read_targets=read_targets)
    start = time.perf_counter()
    fit(
        model,
        network,
        data,
        loss=partial(distillation_loss, settings=loss),
        dev_score=dev_score,
        accelerator=experiment.accelerator,
    )
    evaluate_and_save(
        experiment,
        task,
        model,
        network,
        card,
        supervision.references,
        {"dev": splits.dev, **tested_splits(experiment, task)},
        objective=objective,
        case=case_of(supervision.teachers.kinds, kind),
        labelled=len(labelled),
        unlabelled=len(unlabelled),
        seconds=round(time.perf_counter() - start, 1),
        **_lost_mass(task, kind, stores, model),
    )


def _relative_labels(sentences: Sequence[Sentence]) -> tuple[RelativeLabel, ...]:
    """The closed label set of a sequence labelling parser: all that the sentences' trees need."""
    trees = [(s.heads, s.deprels) for s in sentences if s.heads and s.deprels]
    return tuple(sorted({label for heads, deprels in trees for label in relative_labels(heads, deprels)}))


def _lost_mass(
    task: TrainingTask, kind: StudentKind, stores: Mapping[Content, TargetStore], model: nn.Module
) -> dict[str, Any]:
    """What share of the teacher's mass a student can not express, where that is measured."""
    if "marginals" not in stores:
        return {}
    store = stores["marginals"]
    lost = task.targets.lost_mass([store[row] for row in range(len(store))], model)
    if lost is None:
        return {}
    log(f"{task.name} {kind}: the student can not express {100 * lost:.2f} % of the teacher's mass")
    return {"lost_mass": lost}


def _epoch(
    labelled: np.ndarray, unlabelled: np.ndarray, share: float | None
) -> Callable[[np.random.Generator], np.ndarray]:
    """Draws the sentences of an epoch: all of them, or as many unlabelled ones as make up their share."""

    def draw(generator: np.random.Generator) -> np.ndarray:
        raw = unlabelled
        if share is not None and len(unlabelled) and len(labelled):
            wanted = round(len(labelled) * share / (1 - share))
            raw = generator.choice(unlabelled, wanted, replace=wanted > len(unlabelled))
        return generator.permutation(np.concatenate([labelled, raw]))

    return draw
