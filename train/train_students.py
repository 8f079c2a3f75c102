"""The students of a task: each learns by one objective from one seed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train.distill.objectives import Lesson
from train.distill.schedule import teacher_weight
from train.distill.target_store import Target, TargetStore
from train.model_kinds import StudentKind, case_of
from train.models.card import build_model
from train.recipe import Training
from train.splits import Experiment, say
from train.tasks import TrainingTask
from train.train_teachers import Teaching, by_corpus
from train.training import card_of, fit_and_save, gold_batch, is_finished, settings_of, to_device


def train_student(
    experiment: Experiment,
    task: TrainingTask,
    kind: StudentKind,
    training: Training,
    objective: str,
    lesson: Lesson,
    seed: int,
    teaching: Teaching,
    taught_by: Teaching,
    stores: Mapping[str, TargetStore],
    folder: Path,
) -> None:
    """Train one student, or leave it as it is where it is finished.

    Args:
        teaching: the task's teachers, which the student is compared with.
        taught_by: those it learns from: the same, or the softmax teacher of the objective ``token``.
        stores: what they say, by content; empty for a student alone.
        folder: the task's folder in the run.
    """
    student_folder = folder / "students" / f"{kind}-{objective}-seed{seed}"
    distillation = experiment.recipe.distillation
    settings = settings_of(experiment, training, seed=seed, objective=objective)
    settings["unlabelled"] = len(experiment.material.parts["unlabelled"])
    settings["distillation"] = (
        distillation.model_dump(mode="json", exclude={"objectives"}) if stores else None
    )
    settings["teacher"] = taught_by.digest if stores else None
    if is_finished(student_folder, settings):
        return
    card = card_of(experiment, task, kind, "student", training)
    torch.manual_seed(seed)
    model = build_model(card, experiment.reader.types).to(experiment.device)
    parts, sentences = experiment.material.parts, experiment.reader.sentences
    place = {number: i for i, number in enumerate(parts["taught"])}
    is_labelled = np.zeros(len(sentences), bool)
    is_labelled[[i for i in parts["taught"] if task.has_gold(sentences[i])]] = True
    labelled = np.flatnonzero(is_labelled)
    # A labelled sentence without this task's gold is raw text to it.
    raw = [number for number in place if not is_labelled[number]]
    unlabelled = np.array(raw if stores else [], dtype=np.int64)

    def loss(wrapped: nn.Module, chosen: list[int], progress: float) -> Tensor:
        batch, gold = gold_batch(experiment, task, chosen, encoded=False)
        distribution = wrapped(batch).kept()  # one log-partition for what the teacher and the gold say
        if not stores:
            return -distribution.log_prob(gold).sum() / batch.lengths.sum()
        has_gold = torch.from_numpy(is_labelled[chosen]).to(experiment.device)  # [B]
        rows: dict[str, list[Target]] = {
            content: [store[place[i]] for i in chosen] for content, store in stores.items()
        }
        targets = to_device(task.teacher_targets(rows, model, distillation.temperature), experiment.device)
        known = distribution.log_partition().new_zeros(len(chosen))  # [B]
        if is_labelled[chosen].any():
            known = torch.where(has_gold, -distribution.log_prob(gold), 0.0)
        weight, taught = 0.0, torch.zeros_like(known)  # [B]
        if lesson.loss is not None:
            weight = teacher_weight(progress, distillation.anneal)
            taught = lesson.loss(distribution, targets)
        mixed = weight * taught + (1 - weight) * known
        guessed = taught
        if lesson.pseudo_gold is not None:
            guessed = weight * taught + (1 - weight) * lesson.pseudo_gold(distribution, targets)
        total = torch.where(has_gold, mixed, distillation.unlabelled_weight * guessed).sum()
        return total / batch.lengths.sum()

    about: dict[str, Any] = {
        "objective": objective,
        "seed": seed,
        "case": case_of(teaching.kinds, kind),
        "labelled": len(labelled),
        "unlabelled": len(unlabelled),
        "settings": settings,
    }
    if "marginals" in stores:
        store = stores["marginals"]
        lost = task.lost_mass([store[i] for i in range(len(store))], model)
        if lost is not None:
            about["lost_mass"] = lost
            say(f"{task.name} {kind}: the student can not express {100 * lost:.2f} % of the teacher's mass")
    measured = {"dev": parts["dev"], "test": parts["test"]}
    measured |= {f"test/{corpus}": numbers for corpus, numbers in by_corpus(experiment, task).items()}
    fit_and_save(
        experiment, task, model, card, training, student_folder, seed, loss,
        _epoch(labelled, unlabelled, distillation.unlabelled_share),
        dev=parts["dev"], parts=measured, title=f"{task.name} {kind} {objective} seed {seed}", about=about,
    )  # fmt: skip


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
