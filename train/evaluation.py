"""What a trained model does on sentences it was not trained on: predictions, scores, speed, size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bundle.words import SubwordVectors
from train.fit import sentences_per_second
from train.models.encoders import encode
from train.resources import Experiment, Reader
from train.tasks import TrainingTask

SPEED_SENTENCES = 256
BATCH = 64
CELLS = 64 * 64**2
"""The most arcs that a batch's table holds: what bounds the memory of long sentences."""


def evaluate(experiment: Experiment, task: TrainingTask, model: nn.Module, split: str) -> dict[str, float]:
    """A model's scores on a split, in percent."""
    numbers = [i for i in experiment.material.parts[split] if task.has_gold(experiment.reader.sentences[i])]
    predictions = predict(experiment, task, model, numbers)
    return task.score([experiment.reader.sentences[i] for i in numbers], predictions)


@torch.no_grad()
def predict(
    experiment: Experiment, task: TrainingTask, model: nn.Module, numbers: Sequence[int]
) -> list[Any]:
    """Predictions for the sentences of these numbers, in order."""
    representation: Any = model.representation
    training = model.training
    model.eval()
    predictions: dict[int, Any] = {}
    for chosen in by_length(experiment.reader, numbers):
        batch = experiment.reader.batch(chosen, encoded=representation.encoded_size > 0)
        distribution = model(batch.to(experiment.device))
        predictions.update(zip(chosen, task.decode(model, distribution), strict=True))
    model.train(training)
    return [predictions[i] for i in numbers]


def count_parameters(experiment: Experiment, model: nn.Module) -> int:
    """All weights a model needs to run: its own, the vectors of words and subwords, the encoder."""
    representation: Any = model.representation
    vectors = SubwordVectors.load(experiment.out / "words")
    total = sum(parameter.numel() for parameter in model.parameters()) + vectors.vectors.size
    if vectors.subwords is not None:
        total += vectors.subwords.size
    if representation.encoded_size and representation.encoder is None:
        total += sum(parameter.numel() for parameter in experiment.encoder.model.parameters())
    return total


def speed(experiment: Experiment, task: TrainingTask, model: nn.Module) -> float:
    """Sentences a second in torch on this machine, from words to labels, the encoder included."""
    representation: Any = model.representation
    numbers = experiment.material.parts["test"][:SPEED_SENTENCES]

    def once() -> None:
        if representation.encoded_size and representation.encoder is None:
            for chosen in by_length(experiment.reader, numbers):
                encode(
                    experiment.encoder,
                    [experiment.reader.sentences[i].words for i in chosen],
                    layers=experiment.recipe.encoder.layers,
                )
        predict(experiment, task, model, numbers)

    return round(sentences_per_second(once, len(numbers)), 1)


def by_length(reader: Reader, numbers: Sequence[int]) -> list[list[int]]:
    """Batches of sentences of similar lengths, shortest first."""
    made: list[list[int]] = []
    for number in sorted(numbers, key=lambda i: reader.lengths[i]):
        cells = (len(made[-1]) + 1) * int(reader.lengths[number]) ** 2 if made else CELLS + 1
        if cells > CELLS or len(made[-1]) == BATCH:
            made.append([])
        made[-1].append(number)
    return made
