"""The two tasks, entities and dependency trees: gold, predictions, scores and stored targets."""

from train.tasks.ner import EntityTask
from train.tasks.parse import TreeTask

TrainingTask = EntityTask | TreeTask
TASKS: dict[str, type[TrainingTask]] = {"ner": EntityTask, "parse": TreeTask}

__all__ = ["TASKS", "EntityTask", "TrainingTask", "TreeTask"]
