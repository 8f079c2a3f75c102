"""What a trained model does on sentences it was not trained on: predictions, scores, speed, size."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from structural_kd.words import SubwordVectors
from train.corpora import Sentence
from train.experiment import Experiment
from train.models.encoders import encode
from train.models.ensemble import Ensemble, predict, reads_features
from train.models.token_classifier import TokenClassifier
from train.structs import StructuredDistribution
from train.tasks import TrainingTask

SPEED_SENTENCES = 256
AGREEMENT = "agreement"
"""The task's main score, with the teacher's predictions in the place of gold."""
UNSEEN = "unseen_"
"""Before the name of the main score: of entities with a word, or of words, that training text never had."""


class Evaluation(NamedTuple):
    """Scores in percent, empty where nothing can be compared; and what they come from."""

    scores: dict[str, float]
    counts: np.ndarray | None  # [n, 3] of the sentences with gold
    predictions: Mapping[int, Any]  # by sentence number, empty where nothing can be compared


def evaluate(
    experiment: Experiment,
    task: TrainingTask,
    model: nn.Module | Ensemble,
    numbers: Sequence[int],
    references: Mapping[int, Sentence],
) -> Evaluation:
    """A model's scores on the sentences of these numbers.

    Against gold: the task's scores, and its main score on what has a word that the students' training text
    never had (``unseen_f1``, ``unseen_las``). Against the teacher's predictions (``references``), as far as
    they are given: the main score, as ``agreement``.
    """
    sentences = experiment.splits.sentences
    gold = [i for i in numbers if task.has_gold(sentences[i])]
    taught = [i for i in numbers if i in references]
    if not gold and not taught:
        return Evaluation({}, None, {})
    found = dict(zip(numbers, predictions(experiment, task, model, numbers), strict=True))
    scores: dict[str, float] = {}
    counts = None
    if gold:
        wanted, predicted = [sentences[i] for i in gold], [found[i] for i in gold]
        counts = task.counts(wanted, predicted)
        scores |= task.scores_of(counts)
        unseen = task.counts(wanted, predicted, known=experiment.splits.taught_words)
        if unseen.any():
            scores[UNSEEN + task.metric] = task.scores_of(unseen)[task.metric]
    if taught:
        agreeing = task.counts([references[i] for i in taught], [found[i] for i in taught])
        scores[AGREEMENT] = task.scores_of(agreeing)[task.metric]
    return Evaluation(scores, counts, found)


def main_score(task: TrainingTask, scores: Mapping[str, float]) -> float:
    """The score that chooses between models."""
    return scores[task.metric] if task.metric in scores else scores[AGREEMENT]


def tested_splits(experiment: Experiment, task: TrainingTask) -> dict[str, list[int]]:
    """The test split; where several corpora are tested, also the sentences of each that have gold."""
    splits = experiment.splits
    gold = [i for i in splits.test if task.has_gold(splits.sentences[i])]
    found = {
        f"test/{corpus}": numbers
        for place, corpus in enumerate(splits.corpora)
        if (numbers := splits.of_corpus(gold, place))
    }
    return {"test": splits.test} | (found if len(found) > 1 else {})


@torch.no_grad()
def predictions(
    experiment: Experiment, task: TrainingTask, model: nn.Module | Ensemble, numbers: Sequence[int]
) -> list[Any]:
    """Predictions for the sentences of these numbers, in order."""
    found: dict[int, Any] = {}
    for chosen, models, distribution in distributions(experiment, model, numbers):
        found.update(zip(chosen, task.decode(models[0], distribution), strict=True))
    return [found[i] for i in numbers]


@torch.no_grad()
def distributions(
    experiment: Experiment, model: nn.Module | Ensemble, numbers: Sequence[int]
) -> Iterator[tuple[list[int], list[nn.Module], StructuredDistribution]]:
    """Batch by batch: sentence numbers, the models that predict them, their distribution without gradient.

    Models are in evaluation mode meanwhile.
    """
    ensemble = _ensemble(model)
    training = [member.training for member in ensemble.members]
    for member in ensemble.members:
        member.eval()
    for models, group in ensemble.groups(numbers):
        for chosen in experiment.dataset.by_length(group):
            batch = experiment.dataset.batch(chosen, encoded=reads_features(models))
            yield chosen, models, predict(models, batch.to(experiment.device))
    for member, was in zip(ensemble.members, training, strict=True):
        member.train(was)


def count_parameters(experiment: Experiment, model: nn.Module | Ensemble) -> int:
    """All weights a model needs to run: its own, the vectors of words and subwords, the encoder."""
    members = _ensemble(model).members_for(experiment.splits.test)
    total = sum(map(_own_parameters, members))
    if any(getattr(member.representation, "words", None) is not None for member in members):
        vectors = SubwordVectors.load(experiment.out / "words")
        total += vectors.vectors.size + (0 if vectors.subwords is None else vectors.subwords.size)
    if experiment.encoder is not None and _reads_frozen(members):
        total += sum(parameter.numel() for parameter in experiment.encoder.model.parameters())
    return total


def speed(experiment: Experiment, task: TrainingTask, model: nn.Module | Ensemble) -> float:
    """Sentences a second in torch on this machine, from words to labels, the encoder included."""
    numbers = experiment.splits.test[:SPEED_SENTENCES]
    encoder, choice = experiment.encoder, experiment.recipe.encoder
    reads_encoder = _reads_frozen(_ensemble(model).members_for(experiment.splits.test))

    def once() -> float:
        start = time.perf_counter()
        if encoder is not None and choice is not None and reads_encoder:
            for chosen in experiment.dataset.by_length(numbers):
                words = [sentence.words for sentence in experiment.splits.select(chosen)]
                encode(encoder, words, layers=choice.layers)
        predictions(experiment, task, model, numbers)
        return time.perf_counter() - start

    once()  # warms up
    return round(len(numbers) / once(), 1)


def _own_parameters(member: nn.Module) -> int:
    if isinstance(member, TokenClassifier):
        return member.parameter_count  # a graph has no parameters in torch
    return sum(parameter.numel() for parameter in member.parameters())


def _ensemble(model: nn.Module | Ensemble) -> Ensemble:
    return model if isinstance(model, Ensemble) else Ensemble([model])


def _reads_frozen(members: Sequence[nn.Module]) -> bool:
    return any(
        reads_features([member]) and getattr(member.representation, "encoder", None) is None
        for member in members
    )
