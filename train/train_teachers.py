"""The teachers of a task: trained, or taken as they are; one, or an ensemble."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from structural_kd.files import write_whole
from train.batching import TrainingSet
from train.corpora import Sentence, write_jsonl
from train.distill.loss import gold_loss
from train.evaluation import (
    count_parameters,
    evaluate,
    predictions,
    speed,
    tested_splits,
)
from train.experiment import Experiment, precision_of
from train.model_kinds import TEACHERS, TaskName, TeacherKind, case_of
from train.models.card import EncoderUse, ModelCard, load_trained
from train.models.encoders import TokenEncoder, load_encoder
from train.models.ensemble import Ensemble
from train.models.token_classifier import TokenClassifier, load_token_classifier
from train.network import Network
from train.progress import log
from train.recipe import RecipeError, Teacher
from train.splits import words_digest
from train.tasks import TASKS, TrainingTask
from train.train_network import HeldOut, train_network

TEACHER_PREDICTIONS = "teacher_predictions.jsonl"
"""The predictions of a task's teachers together for the test split, in the task's folder."""


@dataclass(frozen=True)
class TrainedTeachers:
    """Trained teachers, their digest, which is of all their weights, and their kinds."""

    ensemble: Ensemble
    digest: str
    kinds: tuple[str, ...]


class _Member(NamedTuple):
    """One teacher that is to be trained."""

    settings: Teacher
    folder: Path
    labelled: Sequence[int]
    dev: Sequence[int]
    title: str


def task_of(experiment: Experiment, name: TaskName, teachers: Sequence[Teacher]) -> TrainingTask:
    """The task over the labels of the labelled sentences; without any, over those of a teacher as it is."""
    labelled = experiment.splits.select(experiment.splits.labelled)
    if labelled or name != "ner":
        task: TrainingTask = TASKS[name].of(labelled)
        return task
    return TASKS["ner"](_classifier(teachers[0], None, torch.device("cpu")).labels)


def train_teachers(
    experiment: Experiment,
    task: TrainingTask,
    teachers: Sequence[Teacher],
    name: str = "teacher",
    *,
    monolingual: bool = False,
) -> TrainedTeachers:
    """Train a task's teachers, or load those that are finished, and write their scores to ``NAME.json``.

    Args:
        teachers: one, or several whose mixture is the teacher.
        name: of their files and folders in the task's folder.
        monolingual: one teacher for each corpus.
    """
    kinds = tuple(kind_of(teacher, task) for teacher in teachers)
    members, assigned = _planned(experiment, task, teachers, name, monolingual=monolingual)
    models, digests = zip(*(_train_one(experiment, task, member) for member in members), strict=True)
    digest = hashlib.sha256(json.dumps([digests, sorted(assigned.items())]).encode()).hexdigest()
    trained = TrainedTeachers(Ensemble(models, assigned), digest, kinds)
    _write_scores(experiment, task, trained, teachers, experiment.out / task.name / f"{name}.json")
    return trained


def reference_predictions(
    experiment: Experiment, task: TrainingTask, teachers: TrainedTeachers
) -> dict[int, Sentence]:
    """The teachers' predictions to compare students with: for test, and for dev where it has no gold.

    Those for test are written as well, to ``teacher_predictions.jsonl``.
    """
    splits = experiment.splits
    numbers = list(splits.test)
    if not any(task.has_gold(sentence) for sentence in splits.select(splits.dev)):
        log(f"{task.name}: no gold in dev; students are chosen by their agreement with the teacher")
        numbers += splits.dev
    found = predictions(experiment, task, teachers.ensemble, numbers)
    references = {
        i: task.annotated(splits.sentences[i], prediction)
        for i, prediction in zip(numbers, found, strict=True)
    }
    write_jsonl(experiment.out / task.name / TEACHER_PREDICTIONS, [references[i] for i in splits.test])
    return references


def kind_of(teacher: Teacher, task: TrainingTask) -> TeacherKind:
    return teacher.kind or TEACHERS[task.name][0]


def _planned(
    experiment: Experiment, task: TrainingTask, teachers: Sequence[Teacher], name: str, *, monolingual: bool
) -> tuple[list[_Member], dict[int, tuple[int, ...]]]:
    """The members of an ensemble, and which of them predict a sentence where that is not all."""
    splits, folder, title = experiment.splits, experiment.out / task.name, name.replace("_", " ")
    labelled, dev = splits.labelled, splits.teacher_dev
    if monolingual:
        members = [
            _Member(
                teachers[0],
                folder / f"{name}s" / corpus,
                splits.of_corpus(labelled, place),
                splits.of_corpus(dev, place),
                f"{title} of {corpus}",
            )
            for place, corpus in enumerate(splits.corpora)
        ]
        return members, {i: (place,) for i, place in enumerate(splits.corpus_of)}
    if len(teachers) > 1:
        members = []
        for number, teacher in enumerate(teachers, 1):
            own = f"{number}-{kind_of(teacher, task)}"
            members.append(_Member(teacher, folder / f"{name}s" / own, labelled, dev, f"{title} {own}"))
        return members, {}
    members = [_Member(teachers[0], folder / name, labelled, dev, title)]
    crossfit = experiment.recipe.targets.crossfit
    if not crossfit:
        return members, {}
    # The whole teacher predicts every sentence that none of the folds holds.
    assigned: dict[int, tuple[int, ...]] = dict.fromkeys(range(len(splits.sentences)), (0,))
    order = np.random.default_rng(experiment.recipe.selection_seed).permutation(labelled).tolist()
    for fold in range(1, crossfit + 1):
        left_out = set(order[fold - 1 :: crossfit])
        others = [i for i in labelled if i not in left_out]
        place = folder / f"{name}s" / f"fold-{fold}-of-{crossfit}"
        members.append(_Member(teachers[0], place, others, dev, f"{title} without fold {fold}"))
        assigned |= dict.fromkeys(left_out, (fold,))
    return members, assigned


def _train_one(experiment: Experiment, task: TrainingTask, member: _Member) -> tuple[nn.Module, str]:
    """A teacher and its digest; one that is taken as it is, is loaded."""
    teacher = member.settings
    if kind_of(teacher, task) == "transformers":
        classifier = _classifier(teacher, task.labels, experiment.device)
        made_of = json.dumps([classifier.digest, teacher.scheme, sorted(teacher.types.items()), task.labels])
        return classifier, hashlib.sha256(made_of.encode()).hexdigest()
    model = _trained(experiment, task, member)
    return model, hashlib.sha256((member.folder / "model.safetensors").read_bytes()).hexdigest()


def _classifier(teacher: Teacher, labels: Sequence[str] | None, device: torch.device) -> TokenClassifier:
    assert teacher.name is not None
    try:
        return load_token_classifier(
            teacher.name, labels, scheme=teacher.scheme, types=teacher.types, device=device
        )
    except (ValueError, OSError) as error:
        raise RecipeError(f"tasks.ner.teacher: {error}") from error


def _trained(experiment: Experiment, task: TrainingTask, member: _Member) -> nn.Module:
    teacher, splits, kind = member.settings, experiment.splits, kind_of(member.settings, task)
    seed = _seed_of(experiment, teacher)
    use, live, encoder_settings = _encoder_of(experiment, teacher)
    gold = [i for i in member.labelled if task.has_gold(splits.sentences[i])]
    numbers = np.array([i for i in gold if kind != "projective_tree" or _is_projective(splits.sentences[i])])
    chosen = hashlib.sha256(numbers.tobytes()).hexdigest()
    settings = experiment.settings_of(teacher, seed=seed, encoder=encoder_settings, learns_from=chosen)
    card = ModelCard(
        task.name,
        kind,  # type: ignore[arg-type]  # a model taken as it is is not trained
        "teacher",
        splits.language,
        task.labels,
        encoder=use,
        **teacher.architecture,
    )
    network = Network(card, teacher, seed, settings, member.folder, f"{task.name} {member.title}")
    if network.is_finished():
        return load_trained(member.folder, experiment.dataset.types, live).to(experiment.device)
    if len(numbers) < len(gold):
        crossing = len(gold) - len(numbers)
        log(f"{network.title}: {crossing} of {len(gold)} trees have crossing arcs and are left out")
    return train_network(
        experiment,
        network,
        TrainingSet(experiment.dataset, task, lambda _: numbers, experiment.device, encoded=True),
        gold_loss,
        HeldOut(member.dev, {"dev": splits.dev, "test": splits.test}),
        about={"objective": "none", "labelled": len(numbers), "unlabelled": 0},
        live_encoder=live,
    )


def _encoder_of(
    experiment: Experiment, teacher: Teacher
) -> tuple[EncoderUse | None, TokenEncoder | None, dict[str, Any] | None]:
    """How a teacher reads its encoder, a fresh copy where it is fine-tuned, and the settings of both."""
    choice, encoder = experiment.recipe.encoder, experiment.encoder
    if not teacher.reads_encoder:
        return None, None, None
    assert choice is not None
    assert encoder is not None
    use = EncoderUse(choice.name, choice.layers, encoder.hidden_size, choice.finetune)
    live = None
    if choice.finetune:
        precision = precision_of(choice, experiment.device)
        fresh = load_encoder(choice.name, device=experiment.device)
        live = TokenEncoder(fresh, layers=choice.layers, precision=precision)
    return use, live, {**choice.model_dump(mode="json"), "digest": encoder.digest}


def _seed_of(experiment: Experiment, teacher: Teacher) -> int:
    return experiment.recipe.teacher_seed if teacher.seed is None else teacher.seed


def _is_projective(sentence: Sentence) -> bool:
    """Whether no two arcs of the tree cross."""
    arcs = [sorted((dependent, head)) for dependent, head in enumerate(sentence.heads or (), 1)]
    return not any(a < c < b < d for a, b in arcs for c, d in arcs)


def _write_scores(
    experiment: Experiment,
    task: TrainingTask,
    trained: TrainedTeachers,
    teachers: Sequence[Teacher],
    file: Path,
) -> None:
    """Scores, size and speed of all teachers together, measured once and kept."""
    case = case_of(trained.kinds, next(iter(experiment.recipe.tasks[task.name].students)))
    splits = experiment.splits
    # What counts as unseen depends on the students' training text.
    of = [trained.digest, splits.digest, case, words_digest(splits.select(splits.student_train))]
    if file.exists() and json.loads(file.read_text(encoding="utf-8"))["of"] == of:
        return
    measured: Mapping[str, list[int]] = {"dev": splits.dev, **tested_splits(experiment, task)}
    scores = {
        name: evaluate(experiment, task, trained.ensemble, numbers, {}).scores
        for name, numbers in measured.items()
    }
    encoder = experiment.encoder if any(t.reads_encoder and t.is_trained for t in teachers) else None
    about = {
        "of": of,
        "case": case,
        "encoder": encoder and {"name": encoder.name, "weights": encoder.weights, "digest": encoder.digest},
        "labelled": len(splits.labelled),
        "seed": _seed_of(experiment, teachers[0]),
        "scores": {split: found for split, found in scores.items() if found},
        "parameters": count_parameters(experiment, trained.ensemble),
        "sentences_per_second": speed(experiment, task, trained.ensemble),
    }
    write_whole(file, json.dumps(about, indent=1) + "\n")
