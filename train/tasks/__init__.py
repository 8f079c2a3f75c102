"""The two tasks: entities and dependency trees. Each says how its gold, targets and predictions look."""

from typing import Any, Protocol

from torch import nn

from train.corpora import Sentence
from train.distill.objectives import TeacherTargets
from train.distill.targets import Target
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

    def targets(self, teacher: Any, onto: type) -> list[Target]:
        """A batch of sentences as rows of the target store."""

    def teacher_targets(self, rows: list[Target], model: nn.Module, temperature: float) -> TeacherTargets:
        """Rows of the target store as one batch."""

    def decode(self, model: Any, distribution: Any) -> list[Any]: ...

    def score(self, sentences: list[Sentence], predictions: list[Any]) -> dict[str, float]: ...


TASKS: dict[str, type[EntityTask] | type[TreeTask]] = {"ner": EntityTask, "parse": TreeTask}

__all__ = ["TASKS", "EntityTask", "TrainingTask", "TreeTask"]
