"""One recipe from corpus to results: teacher, targets, students, scores."""

import json
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from train.corpora import CorpusError, CorpusWarning
from train.distill.objectives import Lesson, is_for, lesson
from train.distill.target_store import Content, TargetStore, TargetStoreError
from train.distill.targets import make_targets
from train.evaluation import main_score
from train.model_kinds import FAMILY, StudentKind
from train.models.card import read_card
from train.models.encoder_places import EncoderNotFoundError
from train.models.encoders import Encoder, load_encoder
from train.recipe import EncoderSettings, Recipe, RecipeError, TaskSettings
from train.results import collect_results
from train.splits import (
    Experiment,
    Material,
    Reader,
    load_material,
    load_word_types,
    read_features,
    say,
    write_whole,
)
from train.tasks import TASKS, TrainingTask
from train.train_students import train_student
from train.train_teachers import Teaching, add_references, get_teachers, get_token_teacher, task_of
from train.trainer import TrainingError


def run(recipe: Recipe, out: Path, *, cache: Path | None = None) -> list[dict[str, Any]]:
    """Run a recipe, or go on with it where it stopped, and return its result rows.

    Finished models in ``out`` are kept, unfinished ones go on from their last checkpoint. On a CPU each task
    has a process and a core of its own: the networks are small, and two threads on one of them gain little.

    Raises:
        RuntimeError: a task failed; its own error stands above.
    """
    experiment = prepare(recipe, out, cache)
    if len(recipe.tasks) == 1 or experiment.device.type != "cpu" or (os.cpu_count() or 1) == 1:
        for name, settings in recipe.tasks.items():
            _run_task(experiment, name, settings)
    else:
        del experiment
        _run_apart(recipe, out, cache)
    return collect_results(out)


def _run_apart(recipe: Recipe, out: Path, cache: Path | None) -> None:
    """Each task in a process of its own, on a thread of its own."""
    context = multiprocessing.get_context("spawn")
    processes = {
        name: context.Process(target=_run_one, args=(recipe, out, cache, name), name=name)
        for name in recipe.tasks
    }
    try:
        for process in processes.values():
            process.start()
        for process in processes.values():
            process.join()
    finally:
        for process in processes.values():
            if process.pid is not None:
                process.terminate()
    failed = [name for name, process in processes.items() if process.exitcode]
    if failed:
        raise RuntimeError(f"failed: {', '.join(failed)}; finished models are kept, go on with --resume")


USER_ERRORS = (
    RecipeError,
    CorpusError,
    TargetStoreError,
    TrainingError,
    EncoderNotFoundError,
    FloatingPointError,
    RuntimeError,
)
"""What can go wrong without a fault of the program: a message is enough."""


def _run_one(recipe: Recipe, out: Path, cache: Path | None, name: str) -> None:
    # A killed parent must not leave a process behind that writes to the run a resumed one works on.
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CorpusWarning)  # said once, by the parent
    try:
        _run_task(prepare(recipe, out, cache, quiet=True), name, recipe.tasks[name])  # type: ignore[index]
    except USER_ERRORS as error:
        sys.exit(f"error: {name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def end_with(parent: Any) -> None:
    """End this process when its parent does."""
    parent.join()
    os._exit(1)


def prepare(recipe: Recipe, out: Path, cache: Path | None, quiet: bool = False) -> Experiment:
    """Corpus, word types and encoder features: made by the first who asks, read by the others."""
    accelerator = _accelerator(recipe)
    out.mkdir(parents=True, exist_ok=True)
    material = load_material(recipe)
    if not quiet:
        write_whole(out / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
        write_whole(out / "test.txt", "".join(" ".join(s.words) + "\n" for s in material.part("test")))
        sizes = {part: len(material.parts[part]) for part in ("labelled", "unlabelled", "dev", "test")}
        parts = ", ".join(f"{size} {part}" for part, size in sizes.items())
        say(f"{material.name}: {parts} sentences; device {accelerator.device}")
    _check_gold(recipe, material)
    types = load_word_types(recipe, material, out / "words")
    encoder, features = None, None
    if recipe.encoder is not None and _is_read(recipe):
        # A fine-tuned encoder is loaded afresh for each teacher; this copy only says how large it is.
        where = "cpu" if recipe.encoder.finetune else accelerator.device
        encoder = _load_once(recipe.encoder.name, where)
        _check_layers(recipe.encoder, encoder.model.config.num_hidden_layers)
        if not recipe.encoder.finetune:
            features = read_features(recipe, material, encoder, cache)
    reader = Reader(material.sentences, types, features)
    return Experiment(recipe, out, material, reader, encoder, accelerator)


@lru_cache(maxsize=2)
def _load_once(name: str, device: torch.device | str) -> Encoder:
    """An encoder, one copy for all the runs of a process: its weights stay as they are."""
    return load_encoder(name, device=device)


def _is_read(recipe: Recipe) -> bool:
    teachers = [teacher for task in recipe.tasks.values() for teacher in task.teacher]
    teachers += [task.token_teacher for task in recipe.tasks.values() if task.token_teacher]
    return any(teacher.reads_encoder and teacher.kind != "transformers" for teacher in teachers)


def _check_layers(settings: EncoderSettings, depth: int) -> None:
    if not all(-depth - 1 <= layer <= depth for layer in settings.layers):
        raise RecipeError(
            f"encoder.layers: {settings.name} has hidden states 0 to {depth}, "
            f"or -{depth + 1} to -1 from the end; the recipe asks for {list(settings.layers)}"
        )


def _check_gold(recipe: Recipe, material: Material) -> None:
    """What is trained here needs sentences to learn from, to choose by and to be measured on."""
    if not recipe.corpus:
        return
    for name in recipe.tasks:
        task: TrainingTask = TASKS[name].of(material.part("labelled"))
        if not material.parts["dev"]:
            raise RecipeError(
                f"{recipe.target or material.name}: the dev split is empty; students are chosen by it"
            )
        groups: list[tuple[str, Callable[[str], list[int]]]] = [
            (material.name, lambda part: material.parts[part])
        ]
        if recipe.tasks[name].monolingual_teachers:
            groups = [
                (corpus, partial(material.of_corpus, corpus=number))
                for number, corpus in enumerate(material.corpora)
            ]
        for (who, numbers), part in product(groups, ("labelled", "teacher_dev", "test")):
            if not any(task.has_gold(material.sentences[i]) for i in numbers(part)):
                what = {"ner": "entities", "parse": "trees with relations"}[name]
                raise RecipeError(
                    f"tasks.{name}: no {part.removeprefix('teacher_')} sentence of {who} has {what}; "
                    "give the corpus that annotation, or leave the task out"
                )


@dataclass(frozen=True)
class TaughtTask:
    """A task of a run whose teachers are trained and have spoken: all that its students need."""

    experiment: Experiment
    task: TrainingTask
    settings: TaskSettings
    lessons: dict[str, Lesson]
    teaching: Teaching
    token_teaching: Teaching
    stores: dict[tuple[str, type, Content], TargetStore]

    @property
    def folder(self) -> Path:
        return self.experiment.out / self.task.name

    def students(self) -> list[tuple[StudentKind, str]]:
        """Every kind of student with every objective that is for its family."""
        return [
            (kind, objective)
            for kind in self.settings.students
            for objective in self.lessons
            if is_for(objective, FAMILY[kind])
        ]

    def train(self, kind: StudentKind, objective: str, seed: int) -> None:
        """Train one student, or leave it as it is where it is finished."""
        learns = self.lessons[objective]
        who, where = self._speaker(learns)
        said: dict[str, TargetStore] = {
            content: self.stores[where, FAMILY[kind], content] for content in learns.contents
        }
        train_student(
            self.experiment, self.task, kind, self.settings.students[kind], objective, learns, seed,
            self.teaching, who, said, self.folder,
        )  # fmt: skip

    def make_targets(self) -> None:
        """Have the teachers say what is missing of what the students are taught."""
        for kind, objective in self.students():
            who, where = self._speaker(self.lessons[objective])
            for content in self.lessons[objective].contents:
                key = where, FAMILY[kind], content
                if key not in self.stores:
                    self.stores[key] = make_targets(
                        self.experiment, self.task, who.committee, who.digest, FAMILY[kind], content,
                        self.folder / where,
                    )  # fmt: skip

    def _speaker(self, learns: Lesson) -> tuple[Teaching, str]:
        """The teachers of a lesson, and the folder of what they say."""
        if learns.by_token_teacher:
            return self.token_teaching, "token_targets"
        return self.teaching, "targets"


def teach(experiment: Experiment, name: str, settings: TaskSettings) -> TaughtTask:
    """Train a task's teachers and have them speak; what is finished is kept."""
    folder = experiment.out / name
    experiment.references = {}
    distillation = experiment.recipe.distillation
    lessons = {
        objective: lesson(objective, divergence=distillation.divergence, alpha=distillation.alpha)
        for objective in distillation.objectives
    }
    task = task_of(experiment, name, settings.teacher)
    teaching = get_teachers(
        experiment, task, settings.teacher, folder, monolingual=settings.monolingual_teachers
    )
    token_teaching = teaching
    if settings.token_teacher is not None and distillation.asks_token_teacher:
        token_teaching = get_token_teacher(experiment, task, settings.token_teacher, folder)
    add_references(experiment, task, teaching)
    taught = TaughtTask(experiment, task, settings, lessons, teaching, token_teaching, {})
    taught.make_targets()
    return taught


def _run_task(experiment: Experiment, name: str, settings: TaskSettings) -> None:
    taught = teach(experiment, name, settings)
    collect_results(experiment.out)
    for kind, objective in taught.students():
        # Seeds of one objective follow one another, so that a stopped run has whole comparisons.
        for seed in experiment.recipe.seeds:
            taught.train(kind, objective, seed)
            collect_results(experiment.out)
    _choose_served(taught.folder, settings, taught.task)


def _choose_served(folder: Path, settings: TaskSettings, task: TrainingTask) -> None:
    """Note the student that export takes: of the kind the recipe serves, the best on dev."""
    kind = settings.serve or next(iter(settings.students))
    scores = {}
    for file in sorted(folder.glob(f"students/{kind}-*/model.json")):
        _, about = read_card(file.parent)
        scores[f"students/{file.parent.name}"] = main_score(task, about["scores"]["dev"])
    best = max(scores, key=lambda name: scores[name])
    write_whole(folder / "served.json", json.dumps({"student": best}) + "\n")


def _accelerator(recipe: Recipe) -> Accelerator:
    """The device and precision: CUDA with bf16 where there is one, unless the recipe says otherwise."""
    cuda = torch.cuda.is_available()
    if recipe.device == "cuda" and not cuda:
        raise RuntimeError("device: cuda is asked for, and torch sees none; use device: auto or cpu")
    on_gpu = cuda and recipe.device != "cpu"
    bf16 = on_gpu and torch.cuda.is_bf16_supported()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RuntimeError("one process trains a recipe; start it without torchrun or accelerate launch")
    return Accelerator(cpu=not on_gpu, mixed_precision="bf16" if bf16 else "no")
