"""The teachers of a task: trained, or taken as they are; one, or several that speak as one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train.corpora import Sentence
from train.evaluation import count_parameters, evaluate, predict, speed
from train.model_kinds import TEACHERS, case_of
from train.models.card import EncoderUse, build_model, load_trained
from train.models.ensemble import Committee
from train.models.token_classifier import TokenClassifier, load_token_classifier
from train.recipe import RecipeError, Teacher
from train.splits import Experiment, say, write_whole
from train.tasks import TASKS, TrainingTask
from train.training import card_of, fit_and_save, gold_batch, is_finished, live_encoder, settings_of


@dataclass(frozen=True)
class Teaching:
    """Trained teachers: who speaks, what they are (a digest) and of which kinds."""

    committee: Committee
    digest: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class _Member:
    model: nn.Module
    digest: str  # of its weights


def task_of(experiment: Experiment, name: str, teachers: Sequence[Teacher]) -> TrainingTask:
    """The task over the labels of the labelled sentences; without any, over those of a teacher as it is."""
    labelled = experiment.material.part("labelled")
    if labelled or name != "ner":
        task: TrainingTask = TASKS[name].of(labelled)
        return task
    return TASKS["ner"](_classifier(teachers[0], None, torch.device("cpu")).labels)


def get_teachers(
    experiment: Experiment,
    task: TrainingTask,
    teachers: Sequence[Teacher],
    folder: Path,
    *,
    monolingual: bool,
) -> Teaching:
    """Train a task's teachers, or load those that are finished, and write their scores to ``teacher.json``.

    Args:
        folder: the task's folder in the run.
        monolingual: one teacher for each corpus.
    """
    material = experiment.material
    kinds = tuple(kind_of(teacher, task) for teacher in teachers)
    speakers: dict[int, tuple[int, ...]] = {}
    if monolingual:
        members = [
            _member(
                experiment,
                task,
                teachers[0],
                folder / "teachers" / corpus,
                learns_from=material.of_corpus("labelled", number),
                dev=material.of_corpus("teacher_dev", number),
                title=f"teacher of {corpus}",
            )
            for number, corpus in enumerate(material.corpora)
        ]
        speakers = {i: (origin,) for i, origin in enumerate(material.origin)}
    elif len(teachers) > 1:
        names = [f"{number}-{kind}" for number, kind in enumerate(kinds, 1)]
        members = [
            _member(
                experiment,
                task,
                teacher,
                folder / "teachers" / name,
                learns_from=material.parts["labelled"],
                title=f"teacher {name}",
            )
            for name, teacher in zip(names, teachers, strict=True)
        ]
    else:
        members, speakers = _crossfitted(
            experiment, task, teachers[0], folder / "teacher", folder / "teachers"
        )
    teaching = _teaching(members, speakers, kinds)
    _write_scores(experiment, task, teaching, teachers[0], folder / "teacher.json")
    return teaching


def get_token_teacher(experiment: Experiment, task: TrainingTask, teacher: Teacher, folder: Path) -> Teaching:
    """The softmax teacher of the objective ``token``."""
    members, speakers = _crossfitted(
        experiment, task, teacher, folder / "token_teacher", folder / "token_teachers"
    )
    teaching = _teaching(members, speakers, (kind_of(teacher, task),))
    _write_scores(experiment, task, teaching, teacher, folder / "token_teacher.json")
    return teaching


def add_references(experiment: Experiment, task: TrainingTask, teaching: Teaching) -> None:
    """Where dev has no gold: what the teachers say of dev and test in its place, to compare students with."""
    sentences, parts = experiment.reader.sentences, experiment.material.parts
    if any(task.has_gold(sentences[i]) for i in parts["dev"]):
        return
    say(f"{task.name}: no gold in dev; students are chosen by their agreement with the teacher")
    numbers = [i for part in ("dev", "test") for i in parts[part] if not task.has_gold(sentences[i])]
    predictions = predict(experiment, task, teaching.committee, numbers)
    experiment.references = {
        i: task.annotated(sentences[i], prediction)
        for i, prediction in zip(numbers, predictions, strict=True)
    }


def by_corpus(experiment: Experiment, task: TrainingTask) -> dict[str, list[int]]:
    """The test sentences of each corpus with gold, where several corpora are tested."""
    material = experiment.material
    found = {}
    for number, corpus in enumerate(material.corpora):
        numbers = [
            i for i in material.of_corpus("test", number) if task.has_gold(experiment.reader.sentences[i])
        ]
        if numbers:
            found[corpus] = numbers
    return found if len(found) > 1 else {}


def kind_of(teacher: Teacher, task: TrainingTask) -> str:
    return teacher.kind or TEACHERS[task.name][0]


def _crossfitted(
    experiment: Experiment, task: TrainingTask, teacher: Teacher, whole: Path, folds: Path
) -> tuple[list[_Member], dict[int, tuple[int, ...]]]:
    """One teacher; with ``crossfit`` one more for each fold of the labelled sentences, and who speaks."""
    labelled = experiment.material.parts["labelled"]
    name = whole.name.replace("_", " ")
    members = [_member(experiment, task, teacher, whole, learns_from=labelled, title=name)]
    crossfit = experiment.recipe.targets.crossfit
    if not crossfit:
        return members, {}
    # The whole teacher speaks of every sentence that none of the folds holds.
    everything = range(len(experiment.material.sentences))
    speakers: dict[int, tuple[int, ...]] = dict.fromkeys(everything, (0,))
    order = np.random.default_rng(experiment.recipe.selection_seed).permutation(labelled).tolist()
    for fold in range(1, crossfit + 1):
        left_out = set(order[fold - 1 :: crossfit])
        members.append(
            _member(
                experiment,
                task,
                teacher,
                folds / f"fold-{fold}-of-{crossfit}",
                learns_from=[i for i in labelled if i not in left_out],
                title=f"{name} without fold {fold}",
            )
        )
        speakers |= dict.fromkeys(left_out, (fold,))
    return members, speakers


def _teaching(
    members: Sequence[_Member], speakers: dict[int, tuple[int, ...]], kinds: tuple[str, ...]
) -> Teaching:
    said = json.dumps([[member.digest for member in members], sorted(speakers.items())])
    committee = Committee([member.model for member in members], speakers)
    return Teaching(committee, hashlib.sha256(said.encode()).hexdigest(), kinds)


def _member(
    experiment: Experiment,
    task: TrainingTask,
    teacher: Teacher,
    folder: Path,
    *,
    learns_from: Sequence[int],
    title: str,
    dev: Sequence[int] | None = None,
) -> _Member:
    if kind_of(teacher, task) == "transformers":
        classifier = _classifier(teacher, task.labels, experiment.device)
        said = json.dumps([classifier.digest, teacher.scheme, sorted(teacher.types.items()), task.labels])
        return _Member(classifier, hashlib.sha256(said.encode()).hexdigest())
    model = _trained(experiment, task, teacher, folder, learns_from, title, dev)
    return _Member(model, hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())


def _classifier(teacher: Teacher, labels: Sequence[str] | None, device: torch.device) -> TokenClassifier:
    assert teacher.name is not None
    try:
        return load_token_classifier(
            teacher.name, labels, scheme=teacher.scheme, types=teacher.types, device=device
        )
    except (ValueError, OSError) as error:
        raise RecipeError(f"tasks.ner.teacher: {error}") from error


def _trained(
    experiment: Experiment,
    task: TrainingTask,
    teacher: Teacher,
    folder: Path,
    learns_from: Sequence[int],
    title: str,
    dev: Sequence[int] | None,
) -> nn.Module:
    recipe = experiment.recipe
    seed = _seed_of(experiment, teacher)
    use, live, read = None, None, None
    if teacher.reads_encoder:
        assert recipe.encoder is not None
        assert experiment.encoder is not None
        size = experiment.encoder.hidden_size
        use = EncoderUse(recipe.encoder.name, recipe.encoder.layers, size, recipe.encoder.finetune)
        read = {**recipe.encoder.model_dump(mode="json"), "digest": experiment.encoder.digest}
        live = live_encoder(experiment)
    card = card_of(experiment, task, kind_of(teacher, task), "teacher", teacher, encoder=use)
    sentences, parts = experiment.reader.sentences, experiment.material.parts
    gold = [i for i in learns_from if task.has_gold(sentences[i])]
    numbers = np.array([i for i in gold if card.kind != "projective_tree" or _is_projective(sentences[i])])
    settings = settings_of(
        experiment,
        teacher,
        seed=seed,
        encoder=read,
        learns_from=hashlib.sha256(numbers.tobytes()).hexdigest(),
    )
    if is_finished(folder, settings):
        return load_trained(folder, experiment.reader.types, live).to(experiment.device)
    if len(numbers) < len(gold):
        crossing = len(gold) - len(numbers)
        say(f"{task.name} {title}: {crossing} of {len(gold)} trees have crossing arcs and are left out")
    torch.manual_seed(seed)
    model = build_model(card, experiment.reader.types, live).to(experiment.device)

    def loss(wrapped: nn.Module, chosen: list[int], _progress: float) -> Tensor:
        batch, wanted = gold_batch(experiment, task, chosen, encoded=True)
        distribution = wrapped(batch)
        return -distribution.log_prob(wanted).sum() / batch.lengths.sum()

    about: dict[str, Any] = {"objective": "none", "seed": seed, "settings": settings}
    about |= {"labelled": len(numbers), "unlabelled": 0}
    fit_and_save(
        experiment, task, model, card, teacher, folder, seed, loss, lambda _: numbers,
        dev=parts["teacher_dev"] if dev is None else dev,
        parts={name: parts[name] for name in ("dev", "test")}, title=f"{task.name} {title}", about=about,
    )  # fmt: skip
    return model


def _seed_of(experiment: Experiment, teacher: Teacher) -> int:
    return experiment.recipe.teacher_seed if teacher.seed is None else teacher.seed


def _is_projective(sentence: Sentence) -> bool:
    """Whether no two arcs of the tree cross."""
    arcs = [sorted((dependent, head)) for dependent, head in enumerate(sentence.heads or (), 1)]
    return not any(a < c < b < d for a, b in arcs for c, d in arcs)


def _write_scores(
    experiment: Experiment, task: TrainingTask, teaching: Teaching, first: Teacher, file: Path
) -> None:
    """Scores, size and speed of all teachers together, measured once and kept."""
    case = case_of(teaching.kinds, next(iter(experiment.recipe.tasks[task.name].students)))  # type: ignore[index]
    of = [teaching.digest, experiment.material.digest, case]
    if file.exists() and json.loads(file.read_text(encoding="utf-8"))["of"] == of:
        return
    committee, parts = teaching.committee, experiment.material.parts
    scores = {split: evaluate(experiment, task, committee, parts[split]) for split in ("dev", "test")}
    for corpus, numbers in by_corpus(experiment, task).items():
        scores[f"test/{corpus}"] = evaluate(experiment, task, committee, numbers)
    about = {
        "of": of,
        "case": case,
        "labelled": len(parts["labelled"]),
        "seed": _seed_of(experiment, first),
        "scores": {split: found for split, found in scores.items() if found},
        "parameters": count_parameters(experiment, committee),
        "sentences_per_second": speed(experiment, task, committee),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(about, indent=1) + "\n")
