"""One network of a run: the settings it belongs to, its card, its training, its folder."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from structural_kd.trees import relative_labels
from train.distill.targets import words_digest
from train.evaluation import count_parameters, evaluate, main_score, measure, speed
from train.models.batch import Batch
from train.models.card import EncoderUse, ModelCard, read_card, save_trained
from train.models.encoders import TokenEncoder, load_encoder
from train.recipe import Teacher, Training
from train.splits import Experiment, precision_of
from train.tasks import TrainingTask
from train.trainer import Fitting, batches, check_settings, fit


def settings_of(experiment: Experiment, training: Training, **more: Any) -> dict[str, Any]:
    """All that decides what a model becomes: a finished or half-finished one is only kept under the same."""
    material = experiment.material
    return {
        "training": training.model_dump(mode="json"),
        "corpus": [material.digest, words_digest(material.sentences)],
        "labelled": len(material.parts["labelled"]),
        "selection_seed": experiment.recipe.selection_seed,
        "vectors": experiment.recipe.vectors.model_dump(mode="json", exclude={"text"}),
        **more,
    }


def is_finished(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder holds the finished model of these settings; other settings are an error."""
    if not (folder / "model.json").exists():
        return False
    _, about = read_card(folder)
    check_settings(folder, about.get("settings"), settings)
    return True


def card_of(
    experiment: Experiment,
    task: TrainingTask,
    kind: Any,
    role: Any,
    training: Training,
    encoder: EncoderUse | None = None,
) -> ModelCard:
    """The card of a network that is to be trained."""
    relative: tuple[tuple[int, str], ...] = ()
    if kind == "labeller":
        seen = {
            label
            for sentence in experiment.material.part("labelled")
            if sentence.heads and sentence.deprels
            for label in relative_labels(sentence.heads, sentence.deprels)
        }
        relative = tuple(sorted(seen))
    card = ModelCard(
        task=task.name,  # type: ignore[arg-type]
        kind=kind,
        role=role,
        language=experiment.material.language,
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
    if isinstance(training, Teacher):
        card = replace(card, reads_words=training.reads_words, second_order_size=training.second_order_size)
    return card


def fit_and_save(
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
    dev: Sequence[int],
    parts: Mapping[str, Sequence[int]],
    title: str,
    about: dict[str, Any],
) -> None:
    """Train a network by its dev score and write it with its scores on some parts of the material.

    Args:
        dev: the sentences that choose the weights that are kept.
        parts: the sentences it is scored on, by name; parts without gold or references are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    fit(
        model,
        loss=loss,
        evaluate=lambda m: main_score(task, evaluate(experiment, task, m, dev)),
        stream=batches(epoch, experiment.reader.lengths, training.batch, seed),
        fitting=Fitting(
            steps=training.steps,
            batch=training.batch,
            learning_rate=training.learning_rate,
            evaluations=training.evaluations,
            encoder_learning_rate=_encoder_rate(experiment),
        ),
        accelerator=experiment.accelerator,
        checkpoint=folder / "checkpoint.pt",
        settings=about["settings"],
        title=title,
    )
    seconds = time.perf_counter() - start
    found = {name: measure(experiment, task, model, numbers) for name, numbers in parts.items()}
    # Beside the scores what they come from, sentence by sentence, for tests of significance between models.
    counts = {name.replace("/", "-"): counts for name, (_, counts) in found.items() if counts is not None}
    np.savez_compressed(folder / "counts.npz", allow_pickle=False, **counts)
    save_trained(
        folder, model, card, **about,
        scores={name: scores for name, (scores, _) in found.items() if scores}, seconds=round(seconds, 1),
        parameters=count_parameters(experiment, model), sentences_per_second=speed(experiment, task, model),
        corpus={"name": experiment.material.name, "digest": experiment.material.digest},
        encoder_digest=experiment.encoder.digest if card.encoder and experiment.encoder else None,
    )  # fmt: skip
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def gold_batch(
    experiment: Experiment, task: TrainingTask, chosen: list[int], *, encoded: bool
) -> tuple[Batch, Any]:
    """A batch and its gold structures on the device; gold of sentences without any is meaningless."""
    batch = experiment.reader.batch(chosen, encoded=encoded).to(experiment.device)
    return batch, to_device(task.gold([experiment.reader.sentences[i] for i in chosen]), experiment.device)


def live_encoder(experiment: Experiment) -> TokenEncoder | None:
    """A fresh copy of the encoder to be fine-tuned, where the recipe says so."""
    settings = experiment.recipe.encoder
    if settings is None or not settings.finetune:
        return None
    encoder = load_encoder(settings.name, device=experiment.device)
    return TokenEncoder(encoder, layers=settings.layers, precision=precision_of(settings, experiment.device))


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors, and named tuples or dataclasses of tensors, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        parts = [to_device(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if hasattr(value, "__dataclass_fields__"):
        moved = {name: to_device(getattr(value, name), device) for name in value.__dataclass_fields__}
        return replace(value, **moved)
    return value


def _encoder_rate(experiment: Experiment) -> float | None:
    return experiment.recipe.encoder.learning_rate if experiment.recipe.encoder else None
