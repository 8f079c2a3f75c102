"""One recipe from corpus to results: splits, word types, teachers, targets, students, scores."""

import json
import multiprocessing
import os
import sys
import threading
import warnings
from functools import lru_cache
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from structural_kd.extras import MissingExtraError
from structural_kd.files import write_whole
from train.batching import Dataset
from train.corpora import CorpusError, CorpusWarning, write_jsonl
from train.distill.target_store import Content, TargetStore
from train.distill.targets import store_targets
from train.evaluation import main_score
from train.experiment import Experiment, precision_of
from train.model_kinds import FAMILY, TaskName
from train.models.card import read_card
from train.models.encoder_places import EncoderNotFoundError
from train.models.encoders import Encoder, load_encoder
from train.models.feature_store import frozen_features
from train.progress import log
from train.recipe import Recipe, RecipeError
from train.results import collect_results
from train.splits import Splits, load_splits
from train.structs import StructuredDistribution
from train.tasks import TASKS, TrainingTask
from train.train_students import Supervision, students_of, train_student
from train.train_teachers import reference_predictions, task_of, train_teachers
from train.word_types import load_word_types

USER_ERRORS = (
    *(RecipeError, CorpusError, EncoderNotFoundError, MissingExtraError),
    *(FloatingPointError, RuntimeError),
)
"""What can go wrong without a fault of the program: a message is enough."""


def run(recipe: Recipe, out: Path, *, cache: Path | None = None) -> list[dict[str, Any]]:
    """Run a recipe, or go on with it where it stopped, and return its result rows.

    Finished models in ``out`` are kept, unfinished ones go on from their last checkpoint. On a CPU each task
    has a process and a core of its own: the networks are small, and two threads on one of them gain little.

    Args:
        cache: where features of frozen encoders are kept; ``train.offline.cache_folder`` unless set.

    Raises:
        RuntimeError: a task failed; its own error stands above.
    """
    experiment = prepare(recipe, out, cache)
    if len(recipe.tasks) == 1 or experiment.device.type != "cpu" or (os.cpu_count() or 1) == 1:
        for name in recipe.tasks:
            _run_task(experiment, name)
    else:
        del experiment
        _run_in_processes(recipe, out, cache)
    return collect_results(out)


def prepare(recipe: Recipe, out: Path, cache: Path | None = None, *, quiet: bool = False) -> Experiment:
    """Splits, word types and encoder features: made by the first process, read by the others."""
    accelerator = _accelerator(recipe)
    splits = load_splits(recipe, quiet=quiet)
    if not quiet:
        _write_inputs(recipe, splits, out)
        counts = (
            f"{len(splits.labelled)} labelled, {len(splits.unlabelled)} unlabelled, {len(splits.dev)} dev"
        )
        log(f"{splits.name}: {counts}, {len(splits.test)} test sentences; device {accelerator.device}")
    _check_gold(recipe, splits)
    choice, encoder, features = recipe.encoder, None, None
    if choice is not None and (recipe.reads_encoder or recipe.vectors_of_encoder):
        # A fine-tuned encoder is loaded afresh for each teacher; this copy shows its size.
        encoder = _load_once(choice.name, "cpu" if choice.finetune else accelerator.device)
        _check_layers(recipe, encoder)
        if not quiet:
            log(f"encoder {encoder.name}: {encoder.weights}; SHA-256 {encoder.digest[:12]}…")
        if recipe.reads_encoder and not choice.finetune:
            words = [sentence.words for sentence in splits.sentences]
            precision = precision_of(choice, encoder.device)
            features = frozen_features(encoder, words, cache, layers=choice.layers, precision=precision)
    types = load_word_types(recipe, splits, out / "words", encoder, cache)
    dataset = Dataset(splits.sentences, types, features)
    return Experiment(recipe, out, splits, dataset, encoder, accelerator)


def _run_task(experiment: Experiment, name: TaskName) -> None:
    supervision = supervise(experiment, name)
    collect_results(experiment.out)
    for kind, objective in students_of(experiment.recipe, name):
        # Seeds of one objective follow one another, so that a stopped run has whole comparisons.
        for seed in experiment.recipe.seeds:
            train_student(experiment, supervision, kind, objective, seed)
            collect_results(experiment.out)
    _choose_served(experiment, supervision.task)


def supervise(experiment: Experiment, name: TaskName) -> Supervision:
    """Train a task's teachers and store their targets; what is finished is kept."""
    recipe, folder = experiment.recipe, experiment.out / name
    settings = recipe.tasks[name]
    task = task_of(experiment, name, settings.teacher)
    teachers = train_teachers(experiment, task, settings.teacher, monolingual=settings.monolingual_teachers)
    token_teachers = teachers
    if settings.token_teacher is not None and recipe.distillation.asks_token_teacher:
        token_teachers = train_teachers(experiment, task, [settings.token_teacher], "token_teacher")
    references = reference_predictions(experiment, task, teachers)
    targets: dict[tuple[bool, type[StructuredDistribution], Content], TargetStore] = {}
    for kind, objective in students_of(recipe, name):
        loss = recipe.distillation.loss_settings(objective)
        by_token = loss.by_token_teacher
        chosen, place = (token_teachers, "token_targets") if by_token else (teachers, "targets")
        for content in loss.contents:
            key = by_token, FAMILY[kind], content
            if key not in targets:
                targets[key] = store_targets(experiment, task, chosen, FAMILY[kind], content, folder / place)
    return Supervision(task, teachers, token_teachers, references, targets)


def end_with(parent: BaseProcess) -> None:
    """End this process when its parent does."""
    parent.join()
    os._exit(1)


def _run_in_processes(recipe: Recipe, out: Path, cache: Path | None) -> None:
    """Each task in a process of its own, on a thread of its own."""
    context = multiprocessing.get_context("spawn")
    processes = {
        name: context.Process(target=_run_in_process, args=(recipe, out, cache, name), name=name)
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


def _run_in_process(recipe: Recipe, out: Path, cache: Path | None, name: TaskName) -> None:
    # A killed parent must not leave a process behind that writes to the run a resumed one works on.
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CorpusWarning)  # the parent has warned
    try:
        _run_task(prepare(recipe, out, cache, quiet=True), name)
    except USER_ERRORS as error:
        sys.exit(f"error: {name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _accelerator(recipe: Recipe) -> Accelerator:
    """The device and precision: CUDA with bf16 where there is one, unless the recipe has another."""
    cuda = torch.cuda.is_available()
    if recipe.device == "cuda" and not cuda:
        raise RuntimeError("device: cuda is asked for, and torch sees none; use device: auto or cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RuntimeError("one process trains a recipe; start it without torchrun or accelerate launch")
    # Gradients of a confident model underflow, and a CPU is slow over denormal numbers: with them a tagger
    # trained at less than half its speed.
    torch.set_flush_denormal(True)
    on_gpu = cuda and recipe.device != "cpu"
    bf16 = on_gpu and torch.cuda.is_bf16_supported()
    return Accelerator(cpu=not on_gpu, mixed_precision="bf16" if bf16 else "no")


def _write_inputs(recipe: Recipe, splits: Splits, out: Path) -> None:
    """What is read of a run beside its models: the recipe; the test split, its words alone and with gold."""
    write_whole(out / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    lines = [" ".join(sentence.words) + "\n" for sentence in splits.select(splits.test)]
    write_whole(out / "test.txt", "".join(lines))
    write_jsonl(out / "test.jsonl", splits.select(splits.test))


@lru_cache(maxsize=2)
def _load_once(name: str, device: torch.device | str) -> Encoder:
    """An encoder, one copy for all the runs of a process: its weights stay as they are."""
    return load_encoder(name, device=device)


def _check_layers(recipe: Recipe, encoder: Encoder) -> None:
    assert recipe.encoder is not None
    layers, depth = recipe.encoder.layers, encoder.model.config.num_hidden_layers
    if not all(-depth - 1 <= layer <= depth for layer in layers):
        raise RecipeError(
            f"encoder.layers: {encoder.name} has hidden states 0 to {depth}, "
            f"or -{depth + 1} to -1 from the end; the recipe asks for {list(layers)}"
        )


def _check_gold(recipe: Recipe, splits: Splits) -> None:
    """What is trained here needs sentences to learn from, to choose by and to be measured on."""
    if not recipe.corpus:
        return
    if not splits.dev:
        raise RecipeError(
            f"{recipe.target or splits.name}: the dev split is empty; students are chosen by it"
        )
    needed = {"labelled": splits.labelled, "dev": splits.teacher_dev, "test": splits.test}
    for name, settings in recipe.tasks.items():
        task: TrainingTask = TASKS[name].of(splits.select(splits.labelled))
        groups: dict[str, int | None] = {splits.name: None}
        if settings.monolingual_teachers:
            groups = {corpus: place for place, corpus in enumerate(splits.corpora)}
        for (source, corpus), (split, numbers) in product(groups.items(), needed.items()):
            own = numbers if corpus is None else splits.of_corpus(numbers, corpus)
            if not any(task.has_gold(sentence) for sentence in splits.select(own)):
                what = {"ner": "entities", "parse": "trees with relations"}[name]
                raise RecipeError(
                    f"tasks.{name}: no {split} sentence of {source} has {what}; "
                    "give the corpus that annotation, or leave the task out"
                )


def _choose_served(experiment: Experiment, task: TrainingTask) -> None:
    """Note the student that export takes: of the kind the recipe serves, the best on dev."""
    folder, settings = experiment.out / task.name, experiment.recipe.tasks[task.name]
    scores = {}
    for file in sorted(folder.glob(f"students/{settings.served}-*/model.json")):
        _, about = read_card(file.parent)
        scores[f"students/{file.parent.name}"] = main_score(task, about["scores"]["dev"])
    best = max(scores, key=lambda name: scores[name])
    write_whole(folder / "served.json", json.dumps({"student": best}) + "\n")
