"""Sentences as batches: what models read, and what they learn from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor

from train.corpora import Sentence
from train.distill.objectives import TeacherTargets
from train.models.batch import Batch, pad_rows
from train.models.feature_store import FeatureStore
from train.models.words import WordTypes
from train.tasks import TrainingTask

POOL_SENTENCES = 1024
"""Sentences are sorted by length within pools of so many."""
PREDICTION_SENTENCES = 64
PREDICTION_ARCS = 64 * 64**2
"""The most arcs that a batch's table holds: what bounds the memory of long sentences."""


@dataclass(frozen=True)
class Dataset:
    """The sentences of a run with their word ids, and encoder features for teachers that read frozen ones."""

    sentences: Sequence[Sentence]
    types: WordTypes
    features: FeatureStore | None = None

    @cached_property
    def ids(self) -> list[Tensor]:
        """Word type ids [n] of each sentence."""
        return [torch.from_numpy(self.types.ids(sentence.words)) for sentence in self.sentences]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sentence: [S]."""
        return np.array([len(sentence.words) for sentence in self.sentences])

    def batch(self, numbers: Sequence[int], *, encoded: bool = False) -> Batch:
        """The sentences of these numbers; with the encoder's features where a teacher asks for them."""
        rows = None
        if encoded and self.features is not None:
            rows = pad_rows([torch.from_numpy(self.features.rows(i).astype(np.float32)) for i in numbers])
        return Batch(
            words=pad_rows([self.ids[i] for i in numbers]),
            lengths=torch.from_numpy(self.lengths[list(numbers)]),
            sentences=tuple(self.sentences[i].words for i in numbers),
            encoded=rows,
        )

    def by_length(self, numbers: Sequence[int]) -> list[list[int]]:
        """Numbers of sentences of similar lengths, shortest first, in groups that fit into memory."""
        made: list[list[int]] = []
        for number in sorted(numbers, key=lambda i: self.lengths[i]):
            arcs = (len(made[-1]) + 1) * int(self.lengths[number]) ** 2 if made else 0
            if not made or arcs > PREDICTION_ARCS or len(made[-1]) == PREDICTION_SENTENCES:
                made.append([])
            made[-1].append(number)
        return made


class TrainingBatch(NamedTuple):
    """A few sentences to learn from."""

    numbers: list[int]
    inputs: Batch
    gold: Any  # gold structures; without meaning where there are none
    has_gold: Tensor  # [B]
    targets: Any = None  # TeacherTargets, where the network learns from teachers


@dataclass(frozen=True)
class TrainingSet:
    """What one network learns from.

    Args:
        epoch: draws the sentence numbers of one epoch.
        encoded: whether the network reads the encoder's features.
        read_targets: the teachers' targets of some sentences; None for learning from gold alone.
    """

    dataset: Dataset
    task: TrainingTask
    epoch: Callable[[np.random.Generator], np.ndarray]
    device: torch.device
    encoded: bool = False
    read_targets: Callable[[Sequence[int]], TeacherTargets] | None = None

    def batches(self, tokens: int, seed: int, *, first: int = 0) -> Iterator[TrainingBatch]:
        """Batches of so many tokens without end, the same for the same seed, from the ``first`` one on."""
        for numbers in islice(shuffled(self.epoch, self.dataset.lengths, tokens, seed), first, None):
            sentences = [self.dataset.sentences[i] for i in numbers]
            batch = TrainingBatch(
                numbers=numbers,
                inputs=self.dataset.batch(numbers, encoded=self.encoded),
                gold=self.task.gold(sentences),
                has_gold=torch.tensor([self.task.has_gold(sentence) for sentence in sentences]),
                targets=self.read_targets(numbers) if self.read_targets is not None else None,
            )
            yield send_to_device(batch, self.device)


def shuffled(
    epoch: Callable[[np.random.Generator], np.ndarray], lengths: np.ndarray, tokens: int, seed: int
) -> Iterator[list[int]]:
    """Sentence numbers in batches of similar lengths, epoch after epoch without end.

    Args:
        epoch: draws the sentence numbers of one epoch.
        lengths: tokens of each sentence.
        tokens: the most a batch has, padding included; a longer sentence is a batch of its own.

    Raises:
        RuntimeError: an epoch has no sentence.
    """
    for number in range(2**31):
        generator = np.random.default_rng([seed, number])
        order = epoch(generator)
        if not len(order):
            raise RuntimeError("there is no sentence to train on")
        made: list[list[int]] = []
        for first in range(0, len(order), POOL_SENTENCES):
            pool = order[first : first + POOL_SENTENCES]
            batch: list[int] = []
            for place in pool[np.argsort(lengths[pool], kind="stable")].tolist():
                if batch and (len(batch) + 1) * lengths[place] > tokens:
                    made.append(batch)
                    batch = []
                batch.append(place)
            made.append(batch)
        for i in generator.permutation(len(made)):
            yield made[i]
