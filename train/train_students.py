"""The students of a task: each learns by one objective from one seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from structural_kd.trees import RelativeLabel, relative_labels
from train.batching import TrainingSet
from train.corpora import Sentence
from train.distill.loss import distillation_loss
from train.distill.objectives import is_for
from train.distill.target_store import Content, TargetStore
from train.distill.targets import StudentTargets
from train.evaluation import tested_splits
from train.experiment import Experiment
from train.model_kinds import FAMILY, StudentKind, TaskName, case_of
from train.models.card import ModelCard
from train.network import Network
from train.progress import log
from train.recipe import Recipe
from train.structs import StructuredDistribution
from train.tasks import TrainingTask
from train.train_network import HeldOut, train_network
from train.train_teachers import TrainedTeachers


@dataclass(frozen=True)
class Supervision:
    """What the students of a task learn from, and what they are compared with.

    Args:
        token_teachers: those of the objective ``token``; where it has none of its own, the others.
        references: predictions of the teachers by sentence number, for test, and for dev without gold.
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
    closed = _relative_labels(splits.select(splits.labelled)) if kind == "labeller" else ()
    card = ModelCard(
        task.name, kind, "student", splits.language, task.labels, closed, **training.architecture
    )
    folder = experiment.out / task.name / "students" / f"{kind}-{objective}-seed{seed}"
    network = Network(card, training, seed, settings, folder, f"{task.name} {kind} {objective} seed {seed}")
    if network.is_finished():
        return
    read_targets = None
    lost_mass: dict[str, float] = {}
    if stores:
        targets = StudentTargets(task, stores, splits.student_train, distillation.temperature, closed)
        read_targets = targets.read
        lost = targets.lost_mass()
        if lost is not None:
            lost_mass = {"lost_mass": lost}
            log(f"{network.title}: the student can not express {100 * lost:.2f} % of the teacher's mass")
    # A labelled sentence without this task's gold is raw text to it.
    labelled = np.array([i for i in splits.student_train if task.has_gold(splits.sentences[i])], np.int64)
    unlabelled = np.setdiff1d(splits.student_train, labelled) if stores else np.array([], np.int64)
    epoch = _epoch(labelled, unlabelled, distillation.unlabelled_share)
    train_network(
        experiment,
        network,
        TrainingSet(experiment.dataset, task, epoch, experiment.device, read_targets=read_targets),
        partial(distillation_loss, settings=loss),
        HeldOut(splits.dev, {"dev": splits.dev, **tested_splits(experiment, task)}, supervision.references),
        about={
            "objective": objective,
            "case": case_of(supervision.teachers.kinds, kind),
            "labelled": len(labelled),
            "unlabelled": len(unlabelled),
            **lost_mass,
        },
    )


def _relative_labels(sentences: Sequence[Sentence]) -> tuple[RelativeLabel, ...]:
    """The closed label set of a sequence labelling parser: all that the sentences' trees need."""
    trees = [(s.heads, s.deprels) for s in sentences if s.heads and s.deprels]
    return tuple(sorted({label for heads, deprels in trees for label in relative_labels(heads, deprels)}))


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
