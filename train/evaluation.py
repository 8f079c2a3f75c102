"""What a trained model does on sentences it was not trained on: predictions, scores, speed, size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from structural_kd.words import SubwordVectors
from train.models.encoders import encode
from train.models.ensemble import Committee, reads_features, speak
from train.splits import Experiment, Reader
from train.tasks import TrainingTask
from train.trainer import sentences_per_second

SPEED_SENTENCES = 256
BATCH = 64
CELLS = 64 * 64**2
"""The most arcs that a batch's table holds: what bounds the memory of long sentences."""
AGREEMENT = "agreement"
"""The score against what the teacher says, where there is no gold."""


def evaluate(
    experiment: Experiment, task: TrainingTask, model: nn.Module | Committee, numbers: Sequence[int]
) -> dict[str, float]:
    """A model's scores on the sentences of these numbers, in percent; empty where nothing can be compared.

    Where none of them has gold, the teacher's predictions stand in, and the only score is the ``agreement``
    with them, measured as the task's main score is.
    """
    return measure(experiment, task, model, numbers)[0]


def measure(
    experiment: Experiment, task: TrainingTask, model: nn.Module | Committee, numbers: Sequence[int]
) -> tuple[dict[str, float], np.ndarray | None]:
    """The scores of ``evaluate``, and the counts [n, 3] of the sentences with gold that they come from."""
    sentences = experiment.reader.sentences
    gold = [i for i in numbers if task.has_gold(sentences[i])]
    if gold:
        counts = task.counts([sentences[i] for i in gold], predict(experiment, task, model, gold))
        return task.scores_of(counts), counts
    said = [i for i in numbers if i in experiment.references]
    if not said:
        return {}, None
    counts = task.counts([experiment.references[i] for i in said], predict(experiment, task, model, said))
    return {AGREEMENT: task.scores_of(counts)[task.metric]}, None


def main_score(task: TrainingTask, scores: dict[str, float]) -> float:
    """The score that chooses between models."""
    return scores[task.metric] if task.metric in scores else scores[AGREEMENT]


@torch.no_grad()
def predict(
    experiment: Experiment, task: TrainingTask, model: nn.Module | Committee, numbers: Sequence[int]
) -> list[Any]:
    """Predictions for the sentences of these numbers, in order."""
    committee = model if isinstance(model, Committee) else Committee([model])
    training = [member.training for member in committee.members]
    predictions: dict[int, Any] = {}
    for models, group in committee.groups(numbers):
        for member in models:
            member.eval()
        for chosen in by_length(experiment.reader, group):
            batch = experiment.reader.batch(chosen, encoded=reads_features(models)).to(experiment.device)
            predictions.update(zip(chosen, task.decode(models[0], speak(models, batch)), strict=True))
    for member, was in zip(committee.members, training, strict=True):
        member.train(was)
    return [predictions[i] for i in numbers]


def count_parameters(experiment: Experiment, model: nn.Module | Committee) -> int:
    """All weights a model needs to run: its own, the vectors of words and subwords, the encoder."""
    members = _speakers(experiment, model)
    total = sum(parameter.numel() for member in members for parameter in member.parameters())
    if any(getattr(member.representation, "words", None) is not None for member in members):
        vectors = SubwordVectors.load(experiment.out / "words")
        total += vectors.vectors.size + (0 if vectors.subwords is None else vectors.subwords.size)
    if experiment.encoder is not None and _reads_frozen(members):
        total += sum(parameter.numel() for parameter in experiment.encoder.model.parameters())
    return total


def speed(experiment: Experiment, task: TrainingTask, model: nn.Module | Committee) -> float:
    """Sentences a second in torch on this machine, from words to labels, the encoder included."""
    members = _speakers(experiment, model)
    numbers = experiment.material.parts["test"][:SPEED_SENTENCES]

    def once() -> None:
        if experiment.encoder is not None and experiment.recipe.encoder and _reads_frozen(members):
            for chosen in by_length(experiment.reader, numbers):
                encode(
                    experiment.encoder,
                    [experiment.reader.sentences[i].words for i in chosen],
                    layers=experiment.recipe.encoder.layers,
                )
        predict(experiment, task, model, numbers)

    return round(sentences_per_second(once, len(numbers)), 1)


def _speakers(experiment: Experiment, model: nn.Module | Committee) -> Sequence[nn.Module]:
    """The models that speak of the test sentences; a teacher that only scored a fold does not."""
    if not isinstance(model, Committee):
        return [model]
    groups = model.groups(experiment.material.parts["test"])
    return list({id(member): member for models, _ in groups for member in models}.values())


def _reads_frozen(members: Sequence[nn.Module]) -> bool:
    return any(
        reads_features([member]) and getattr(member.representation, "encoder", None) is None
        for member in members
    )


def by_length(reader: Reader, numbers: Sequence[int]) -> list[list[int]]:
    """Batches of sentences of similar lengths, shortest first."""
    made: list[list[int]] = []
    for number in sorted(numbers, key=lambda i: reader.lengths[i]):
        cells = (len(made[-1]) + 1) * int(reader.lengths[number]) ** 2 if made else CELLS + 1
        if cells > CELLS or len(made[-1]) == BATCH:
            made.append([])
        made[-1].append(number)
    return made
