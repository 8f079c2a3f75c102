"""Training one network of a run, a teacher or a student, from random weights to its scores on disk."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train.batching import TrainingBatch, TrainingSet
from train.corpora import Sentence, write_jsonl
from train.evaluation import count_parameters, evaluate, main_score, speed
from train.experiment import Experiment
from train.models.card import build_model, save_trained
from train.models.encoders import TokenEncoder
from train.network import CHECKPOINT, Network
from train.structs import StructuredDistribution
from train.trainer import fit

PREDICTIONS = "predictions.jsonl"
"""A student's predictions for the test split, beside its weights."""


@dataclass(frozen=True)
class HeldOut:
    """The sentences that a network does not learn from, by their numbers.

    Args:
        dev: they choose the weights that are kept.
        tested: the splits it is scored on, by name; those without gold or references are left out.
        references: the teachers' predictions for test, and for dev where it has no gold.
    """

    dev: Sequence[int]
    tested: Mapping[str, Sequence[int]]
    references: Mapping[int, Sentence] = field(default_factory=dict)


def train_network(
    experiment: Experiment,
    network: Network,
    data: TrainingSet,
    loss: Callable[[StructuredDistribution, TrainingBatch, float], Tensor],
    held_out: HeldOut,
    *,
    about: Mapping[str, Any],
    live_encoder: TokenEncoder | None = None,
) -> nn.Module:
    """Train a network by its dev score, and write it with its scores.

    Args:
        about: what is written beside the card and the scores.
        live_encoder: the encoder that is fine-tuned with the rest.
    """
    task, references = data.task, held_out.references

    def dev_score(model: nn.Module) -> float:
        return main_score(task, evaluate(experiment, task, model, held_out.dev, references).scores)

    torch.manual_seed(network.seed)
    model = build_model(network.card, experiment.dataset.types, live_encoder).to(experiment.device)
    choice = experiment.recipe.encoder
    start = time.perf_counter()
    fit(
        model,
        network,
        data,
        loss=loss,
        dev_score=dev_score,
        accelerator=experiment.accelerator,
        encoder_learning_rate=choice.learning_rate if choice else None,
    )
    seconds = time.perf_counter() - start
    found = {
        name: evaluate(experiment, task, model, numbers, references)
        for name, numbers in held_out.tested.items()
    }
    # Beside the scores what they come from, sentence by sentence, for tests of significance between models.
    counts = {name.replace("/", "-"): f.counts for name, f in found.items() if f.counts is not None}
    np.savez_compressed(network.folder / "counts.npz", allow_pickle=False, **counts)
    if network.card.role == "student":
        sentences = experiment.splits.sentences
        predicted = [task.annotated(sentences[i], p) for i, p in found["test"].predictions.items()]
        write_jsonl(network.folder / PREDICTIONS, predicted)
    encoder = experiment.encoder if network.card.encoder else None
    save_trained(
        network.folder,
        model,
        network.card,
        **about,
        seed=network.seed,
        settings=network.settings,
        scores={name: f.scores for name, f in found.items() if f.scores},
        seconds=round(seconds, 1),
        parameters=count_parameters(experiment, model),
        sentences_per_second=speed(experiment, task, model),
        corpus={"name": experiment.splits.name, "digest": experiment.splits.digest},
        encoder_digest=encoder and encoder.digest,
        encoder_weights=encoder and encoder.weights,
    )
    (network.folder / CHECKPOINT).unlink(missing_ok=True)
    return model
