"""What the teacher says of the sentences its students learn from, put into the target store."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from train.corpora import Sentence
from train.distill.targets import TargetHeader, TargetStore
from train.evaluation import by_length
from train.fit import progress_bar
from train.resources import Experiment
from train.tasks import TrainingTask


@torch.no_grad()
def make_targets(
    experiment: Experiment, task: TrainingTask, teacher: nn.Module, family: type, folder: Path
) -> TargetStore:
    """The teacher's targets for a student family, a row for each of ``taught_sentences``; made where missing.

    Args:
        family: the students' structured distribution, whose parts' marginals are stored.
        folder: the task's folder in the run, with the teacher's weights.
    """
    temperature = experiment.recipe.distillation.temperature
    taught = taught_sentences(experiment)
    header = TargetHeader(
        task=task.name,
        family=family.__name__,
        teacher=hashlib.sha256((folder / "teacher" / "model.safetensors").read_bytes()).hexdigest(),
        corpus=words_digest([experiment.reader.sentences[i] for i in taught]),
        labels=task.labels,
        temperature=temperature,
        sentences=len(taught),
    )
    store = TargetStore(folder / "targets" / f"{family.__name__}-T{temperature:g}", header)
    missing = list(store.missing())
    total = sum(len(rows) for _, rows in missing)
    teacher.eval()
    if not missing:
        return store
    with progress_bar(total, f"{task.name} targets", "sentence") as bar:
        for shard, places in missing:
            numbers = [taught[place] for place in places]
            rows: dict[int, Any] = {}
            for chosen in by_length(experiment.reader, numbers):
                batch = experiment.reader.batch(chosen, encoded=True).to(experiment.device)
                distribution = teacher(batch).tempered(temperature)
                rows.update(zip(chosen, task.targets(distribution, family), strict=True))
                bar.update(len(chosen))
            store.write(shard, [rows[i] for i in numbers])
    return store


def taught_sentences(experiment: Experiment) -> list[int]:
    """The numbers of the sentences the teacher speaks of, in the order of the target store."""
    return sorted([*experiment.material.parts["labelled"], *experiment.material.parts["unlabelled"]])


def words_digest(sentences: Sequence[Sentence]) -> str:
    """SHA-256 over the words of sentences, in order: whether stored targets belong to them."""
    digest = hashlib.sha256()
    for sentence in sentences:
        digest.update("\t".join(sentence.words).encode("utf-8") + b"\n")
    return digest.hexdigest()
