"""The two tasks, entities and dependency trees: gold, predictions, scores and stored targets."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from torch import nn

from train.corpora import Sentence
from train.distill.objectives import TeacherTargets
from train.distill.target_store import Content, TargetHeader, TargetRow
from train.model_kinds import TaskName
from train.structs import StructuredDistribution
from train.tasks.ner import EntityTask
from train.tasks.parse import TreeTask


class TargetRows(Protocol):
    """How a task's teacher targets are stored: a row of arrays a sentence."""

    def to_rows(
        self,
        teacher: StructuredDistribution,
        onto: type[StructuredDistribution],
        header: TargetHeader,
        *,
        allow_inconsistent: bool = False,
    ) -> list[TargetRow]:
        """Rows of a batch, of the content that the header names, for students of the family ``onto``.

        Raises:
            ValueError: the targets are no numbers, or contradict one another.
        """

    def to_batch(
        self, rows: Mapping[Content, list[TargetRow]], model: nn.Module, temperature: float
    ) -> TeacherTargets:
        """Rows by content as one batch, for a student."""

    def lost_mass(self, rows: list[TargetRow], model: nn.Module) -> float | None:
        """The teacher's mass that a student can not express; None where it can express all of it."""


class TrainingTask(Protocol):
    """What training asks of a task."""

    name: TaskName
    metric: str  # the score that chooses checkpoints
    labels: tuple[str, ...]

    @property
    def targets(self) -> TargetRows: ...

    def has_gold(self, sentence: Sentence) -> bool: ...

    def gold(self, sentences: list[Sentence]) -> Any:
        """The gold structures of a batch, in the form of the family's structures."""

    def annotated(self, sentence: Sentence, prediction: Any) -> Sentence:
        """The sentence with a prediction in place of gold."""

    def decode(self, model: Any, distribution: StructuredDistribution) -> list[Any]:
        """Predictions for a batch; a mixture of teachers is decoded without its models."""

    def counts(self, sentences: list[Sentence], predictions: list[Any]) -> np.ndarray:
        """What is right in each sentence, and of how much: [n, 3]."""

    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        """The scores, in percent, of the sentences of these counts together."""


TASKS: dict[str, type[EntityTask] | type[TreeTask]] = {"ner": EntityTask, "parse": TreeTask}

__all__ = ["TASKS", "EntityTask", "TargetRows", "TrainingTask", "TreeTask"]
