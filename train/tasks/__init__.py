"""The two tasks: entities and dependency trees. Each says how its gold, targets and predictions look."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from torch import nn

from train.corpora import Sentence
from train.distill.objectives import TeacherTargets
from train.distill.target_store import Target, TargetHeader
from train.structs import StructuredDistribution
from train.tasks.ner import EntityTask
from train.tasks.parse import TreeTask


class TrainingTask(Protocol):
    """What the trainer asks of a task."""

    name: str
    metric: str  # the score that chooses checkpoints
    labels: tuple[str, ...]

    def has_gold(self, sentence: Sentence) -> bool: ...

    def gold(self, sentences: list[Sentence]) -> Any:
        """The gold structures of a batch, in the form of the family's structures."""

    def annotated(self, sentence: Sentence, prediction: Any) -> Sentence:
        """The sentence with a prediction in place of gold."""

    def targets(
        self,
        teacher: StructuredDistribution,
        onto: type[StructuredDistribution],
        header: TargetHeader,
        *,
        allow_inconsistent: bool = False,
    ) -> list[Target]:
        """A batch of sentences as rows of the target store, of the content that the header names."""

    def teacher_targets(
        self, rows: Mapping[str, list[Target]], model: nn.Module, temperature: float
    ) -> TeacherTargets:
        """Rows of the target store, by content, as one batch."""

    def lost_mass(self, rows: list[Target], model: nn.Module) -> float | None:
        """The teacher's mass that a student can not express; None where it can express all of it."""

    def decode(self, model: Any, distribution: StructuredDistribution) -> list[Any]:
        """Predictions for a batch; a mixture of teachers is decoded without its models."""

    def counts(self, sentences: list[Sentence], predictions: list[Any]) -> np.ndarray:
        """What is right in each sentence, and of how much: [n, 3]."""

    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        """The scores, in percent, of the sentences of these counts together."""


TASKS: dict[str, type[EntityTask] | type[TreeTask]] = {"ner": EntityTask, "parse": TreeTask}

__all__ = ["TASKS", "EntityTask", "TrainingTask", "TreeTask"]
