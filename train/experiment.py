"""One recipe from corpus to results: teacher, targets, students, scores."""

import json
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from torch import Tensor, nn

from bundle.trees import relative_labels
from train.corpora import CorpusWarning
from train.distill.objectives import OBJECTIVES
from train.distill.schedule import teacher_weight
from train.distill.targets import Target, TargetStore
from train.evaluation import count_parameters, evaluate, speed
from train.fit import Fitting, batches, check_settings, fit
from train.models.card import EncoderUse, Kind, ModelCard, build_model, load_trained, read_card, save_trained
from train.models.encoders import TokenEncoder, load_encoder
from train.models.parsers import SequenceLabellingParser
from train.recipe import Recipe, RecipeError, TaskSettings, Training
from train.resources import (
    Experiment,
    Material,
    Reader,
    load_material,
    load_word_types,
    read_features,
    say,
    write_whole,
)
from train.results import collect_results
from train.structs import HeadSelection, LinearChain, TokenSoftmax
from train.tasks import TASKS, TrainingTask
from train.teaching import make_targets, taught_sentences, words_digest

TEACHER_KIND: dict[str, Kind] = {"ner": "crf", "parse": "biaffine"}
FAMILY: dict[str, type] = {
    "crf": LinearChain,
    "softmax": TokenSoftmax,
    "biaffine": HeadSelection,
    "labeller": HeadSelection,
}


def run(recipe: Recipe, out: Path, *, cache: Path | None = None) -> list[dict[str, Any]]:
    """Run a recipe, or go on with it where it stopped, and return its result rows.

    Finished models in ``out`` are kept, unfinished ones go on from their last checkpoint. On a CPU each task
    has a process and a core of its own: the networks are small, and two threads on one of them gain little.

    Raises:
        RuntimeError: a task failed; its own error stands above.
    """
    experiment = _prepare(recipe, out, cache)
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


def _run_one(recipe: Recipe, out: Path, cache: Path | None, name: str) -> None:
    # A killed parent must not leave a process behind that writes to the run a resumed one works on.
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CorpusWarning)  # said once, by the parent
    try:
        _run_task(_prepare(recipe, out, cache, quiet=True), name, recipe.tasks[name])  # type: ignore[index]
    except RuntimeError as error:
        sys.exit(f"error: {name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _prepare(recipe: Recipe, out: Path, cache: Path | None, quiet: bool = False) -> Experiment:
    """Corpus, word types and encoder features: made by the first who asks, read by the others."""
    accelerator = _accelerator(recipe)
    out.mkdir(parents=True, exist_ok=True)
    material = load_material(recipe)
    if not quiet:
        write_whole(out / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
        write_whole(out / "test.txt", "".join(" ".join(s.words) + "\n" for s in material.corpus.test))
        parts = ", ".join(f"{len(numbers)} {part}" for part, numbers in material.parts.items())
        say(f"{material.corpus.name}: {parts} sentences; device {accelerator.device}")
    _check_gold(recipe, material)
    types = load_word_types(recipe, material, out / "words")
    encoder = load_encoder(recipe.encoder.name, device=accelerator.device)
    depth = encoder.model.config.num_hidden_layers
    if not all(-depth - 1 <= layer <= depth for layer in recipe.encoder.layers):
        raise RecipeError(
            f"encoder.layers: {recipe.encoder.name} has hidden states 0 to {depth}, "
            f"or -{depth + 1} to -1 from the end; the recipe asks for {list(recipe.encoder.layers)}"
        )
    features = None if recipe.encoder.finetune else read_features(recipe, material, encoder, cache)
    reader = Reader(material.sentences, types, features)
    return Experiment(recipe, out, material, reader, encoder, accelerator)


def _check_gold(recipe: Recipe, material: Material) -> None:
    """Every task needs sentences to learn from, to choose by and to be measured on."""
    for name in recipe.tasks:
        task: TrainingTask = TASKS[name].of(material.part("labelled"))
        for part in ("labelled", "dev", "test"):
            if not any(task.has_gold(sentence) for sentence in material.part(part)):
                what = {"ner": "entities", "parse": "trees with relations"}[name]
                raise RecipeError(
                    f"tasks.{name}: no {part} sentence of {material.corpus.name} has {what}; "
                    "give the corpus that annotation, or leave the task out"
                )


def _run_task(experiment: Experiment, name: str, settings: TaskSettings) -> None:
    folder = experiment.out / name
    task: TrainingTask = TASKS[name].of(experiment.material.part("labelled"))
    teacher = _train_teacher(experiment, task, settings.teacher, folder / "teacher")
    seen = tuple(dict.fromkeys(FAMILY[kind] for kind in settings.students))
    stores = {}
    if any(OBJECTIVES[objective] for objective in experiment.recipe.distillation.objectives):
        stores = {family: make_targets(experiment, task, teacher, family, folder) for family in seen}
    del teacher
    for kind, training in settings.students.items():
        for objective in experiment.recipe.distillation.objectives:
            for seed in experiment.recipe.seeds:
                _train_student(
                    experiment, task, kind, training, objective, seed, stores.get(FAMILY[kind]), folder
                )
                collect_results(experiment.out)
    _choose_served(folder, settings, task.metric)


def _train_teacher(experiment: Experiment, task: TrainingTask, training: Training, folder: Path) -> nn.Module:
    recipe = experiment.recipe
    use = EncoderUse(
        recipe.encoder.name, recipe.encoder.layers, experiment.encoder.hidden_size, recipe.encoder.finetune
    )
    card = _card(experiment, task, TEACHER_KIND[task.name], "teacher", training, encoder=use)
    read = recipe.encoder.model_dump()
    settings = _settings(experiment, training, seed=recipe.teacher_seed, encoder=read)
    if _is_finished(folder, settings):
        return load_trained(folder, experiment.reader.types, _live_encoder(experiment)).to(experiment.device)
    torch.manual_seed(recipe.teacher_seed)
    model = build_model(card, experiment.reader.types, _live_encoder(experiment)).to(experiment.device)
    numbers = np.array(
        [i for i in experiment.material.parts["labelled"] if task.has_gold(experiment.reader.sentences[i])]
    )

    def loss(wrapped: nn.Module, chosen: list[int], _progress: float) -> Tensor:
        batch, gold = _labelled_batch(experiment, task, chosen, encoded=True)
        distribution = wrapped(batch)
        return -distribution.log_prob(gold).sum() / batch.lengths.sum()

    about = {"objective": "none", "seed": recipe.teacher_seed, "settings": settings}
    _fit_and_save(
        experiment, task, model, card, training, folder, recipe.teacher_seed, loss, lambda _: numbers,
        title=f"{task.name} teacher", about=about,
    )  # fmt: skip
    return model


def _train_student(
    experiment: Experiment,
    task: TrainingTask,
    kind: Kind,
    training: Training,
    objective: str,
    seed: int,
    store: TargetStore | None,
    folder: Path,
) -> None:
    student_folder = folder / "students" / f"{kind}-{objective}-seed{seed}"
    distillation = experiment.recipe.distillation
    taught_by = distillation.model_dump(exclude={"objectives"}) if OBJECTIVES[objective] else None
    settings = _settings(experiment, training, seed=seed, objective=objective, distillation=taught_by)
    settings["teacher"] = store.header.teacher if store and OBJECTIVES[objective] else None
    if _is_finished(student_folder, settings):
        return
    teacher_loss = OBJECTIVES[objective]
    card = _card(experiment, task, kind, "student", training)
    torch.manual_seed(seed)
    model = build_model(card, experiment.reader.types).to(experiment.device)
    sentences = experiment.reader.sentences
    labelled = np.array([i for i in experiment.material.parts["labelled"] if task.has_gold(sentences[i])])
    place = {number: i for i, number in enumerate(taught_sentences(experiment))}
    is_labelled = np.zeros(len(sentences), bool)
    is_labelled[labelled] = True
    # A labelled sentence without this task's gold is raw text to it.
    raw = [number for number in place if not is_labelled[number]]
    unlabelled = np.array(raw if teacher_loss else [], dtype=np.int64)

    def loss(wrapped: nn.Module, chosen: list[int], progress: float) -> Tensor:
        batch, gold = _labelled_batch(experiment, task, chosen, encoded=False)
        distribution = wrapped(batch)
        has_gold = torch.from_numpy(is_labelled[chosen]).to(experiment.device)  # [B]
        if teacher_loss is None or store is None:
            return -distribution.log_prob(gold).sum() / batch.lengths.sum()
        rows: list[Target] = [store[place[i]] for i in chosen]
        targets = _to(task.teacher_targets(rows, model, distillation.temperature), experiment.device)
        taught = teacher_loss(distribution, targets)  # [B]
        weight = teacher_weight(progress, distillation.anneal)
        known = torch.where(has_gold, -distribution.log_prob(gold), 0.0)  # [B]
        mixed = weight * taught + (1 - weight) * known
        total = torch.where(has_gold, mixed, distillation.unlabelled_weight * taught).sum()
        return total / batch.lengths.sum()

    about: dict[str, Any] = {"objective": objective, "seed": seed, "settings": settings}
    if isinstance(model, SequenceLabellingParser) and store is not None:
        lost, tokens = task.lost_mass([store[i] for i in range(len(store))], model)  # type: ignore[attr-defined]
        about["lost_mass"] = lost / tokens
        share = f"{100 * lost / tokens:.2f} %"
        say(f"{task.name} {kind}: {len(model.labels)} labels lose {share} of the teacher's mass")
    _fit_and_save(
        experiment, task, model, card, training, student_folder, seed, loss,
        _epoch(labelled, unlabelled, distillation.unlabelled_share),
        title=f"{task.name} {kind} {objective} seed {seed}", about=about,
    )  # fmt: skip


def _settings(experiment: Experiment, training: Training, **more: Any) -> dict[str, Any]:
    """All that decides what a model becomes: a finished or half-finished one is only kept under the same."""
    material = experiment.material
    return {
        "training": training.model_dump(),
        "corpus": [material.corpus.digest, words_digest(material.sentences)],
        "labelled": len(material.parts["labelled"]),
        "unlabelled": len(material.parts["unlabelled"]),
        "selection_seed": experiment.recipe.selection_seed,
        "vectors": experiment.recipe.vectors.model_dump(mode="json"),
        **more,
    }


def _is_finished(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder holds the finished model of these settings; other settings are an error."""
    if not (folder / "model.json").exists():
        return False
    _, about = read_card(folder)
    check_settings(folder, about.get("settings"), settings)
    return True


def _epoch(
    labelled: np.ndarray, unlabelled: np.ndarray, share: float | None
) -> Callable[[np.random.Generator], np.ndarray]:
    """Draws the sentences of an epoch: all of them, or as many unlabelled ones as make up their share."""

    def draw(generator: np.random.Generator) -> np.ndarray:
        raw = unlabelled
        if share is not None and len(unlabelled):
            wanted = round(len(labelled) * share / (1 - share))
            raw = generator.choice(unlabelled, wanted, replace=wanted > len(unlabelled))
        return generator.permutation(np.concatenate([labelled, raw]))

    return draw


def _fit_and_save(
    experiment: Experiment,
    task: TrainingTask,
    model: nn.Module,
    card: ModelCard,
    training: Training,
    folder: Path,
    seed: int,
    loss: Callable[[nn.Module, list[int], float], Tensor],
    epoch: Callable[[np.random.Generator], np.ndarray],
    *,
    title: str,
    about: dict[str, Any],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    fit(
        model,
        loss=loss,
        evaluate=lambda m: evaluate(experiment, task, m, "dev")[task.metric],
        stream=batches(epoch, experiment.reader.lengths, training.batch, seed),
        fitting=Fitting(
            steps=training.steps,
            batch=training.batch,
            learning_rate=training.learning_rate,
            evaluations=training.evaluations,
            encoder_learning_rate=experiment.recipe.encoder.learning_rate,
        ),
        accelerator=experiment.accelerator,
        checkpoint=folder / "checkpoint.pt",
        settings=about["settings"],
        title=title,
    )
    seconds = time.perf_counter() - start
    scores = {split: evaluate(experiment, task, model, split) for split in ("dev", "test")}
    parts = experiment.material.parts
    used = len(parts["unlabelled"]) if about["objective"] != "none" else 0
    save_trained(
        folder, model, card, **about,
        labelled=len(parts["labelled"]), unlabelled=used, scores=scores, seconds=round(seconds, 1),
        parameters=count_parameters(experiment, model), sentences_per_second=speed(experiment, task, model),
        corpus={"name": experiment.material.corpus.name, "digest": experiment.material.corpus.digest},
        encoder_digest=experiment.encoder.digest if card.encoder else None,
    )  # fmt: skip
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def _choose_served(folder: Path, settings: TaskSettings, metric: str) -> None:
    """Note the student that export takes: of the kind the recipe serves, the best on dev."""
    kind = settings.serve or next(iter(settings.students))
    scores = {}
    for file in sorted(folder.glob(f"students/{kind}-*/model.json")):
        _, about = read_card(file.parent)
        scores[f"students/{file.parent.name}"] = about["scores"]["dev"][metric]
    best = max(scores, key=lambda name: scores[name])
    write_whole(folder / "served.json", json.dumps({"student": best}) + "\n")


def _card(
    experiment: Experiment,
    task: TrainingTask,
    kind: Kind,
    role: Any,
    training: Training,
    encoder: EncoderUse | None = None,
) -> ModelCard:
    relative: tuple[tuple[int, str], ...] = ()
    if kind == "labeller":
        seen = {
            label
            for sentence in experiment.material.part("labelled")
            if sentence.heads and sentence.deprels
            for label in relative_labels(sentence.heads, sentence.deprels)
        }
        relative = tuple(sorted(seen))
    return ModelCard(
        task=task.name,  # type: ignore[arg-type]
        kind=kind,
        role=role,
        language=experiment.material.corpus.language,
        labels=task.labels,
        relative_labels=relative,
        encoder=encoder,
        hidden_size=training.hidden_size,
        layers=training.layers,
        dropout=training.dropout,
        character_dim=training.character_dim,
        character_features=training.character_features,
        arc_size=training.arc_size,
        relation_size=training.relation_size,
    )


def _labelled_batch(experiment: Experiment, task: TrainingTask, chosen: list[int], *, encoded: bool) -> Any:
    batch = experiment.reader.batch(chosen, encoded=encoded).to(experiment.device)
    gold = task.gold([experiment.reader.sentences[i] for i in chosen])
    return batch, _to(gold, experiment.device)


def _live_encoder(experiment: Experiment) -> TokenEncoder | None:
    """A fresh copy of the encoder to be fine-tuned, where the recipe says so."""
    settings = experiment.recipe.encoder
    if not settings.finetune:
        return None
    return TokenEncoder(load_encoder(settings.name, device=experiment.device), layers=settings.layers)


def _to(value: Any, device: torch.device) -> Any:
    """Tensors, and named tuples or dataclasses of tensors, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return type(value)(*(_to(part, device) for part in value))
    if hasattr(value, "__dataclass_fields__"):
        moved = {name: _to(getattr(value, name), device) for name in value.__dataclass_fields__}
        return replace(value, **moved)
    return value


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
