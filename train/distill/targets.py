"""What the teachers say of the sentences students learn from, put into the target store."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from train.corpora import Sentence
from train.distill.target_store import Content, TargetHeader, TargetStore
from train.evaluation import by_length
from train.models.ensemble import Committee, reads_features, speak
from train.splits import Experiment
from train.structs import StructuredDistribution
from train.tasks import TrainingTask
from train.trainer import TrainingError, progress_bar


@torch.no_grad()
def make_targets(
    experiment: Experiment,
    task: TrainingTask,
    teachers: Committee,
    digest: str,
    family: type[StructuredDistribution],
    content: Content,
    folder: Path,
) -> TargetStore:
    """The teachers' targets for a student family, a row for each taught sentence; made where missing.

    Args:
        digest: of all that the teachers are.
        family: the students' structured distribution, whose parts' marginals are stored.
        folder: where the task's stores are.
    """
    settings = experiment.recipe.distillation
    taught = experiment.material.parts["taught"]
    softened = content == "marginals"
    header = TargetHeader(
        task=task.name,
        family=family.__name__,
        teacher=digest,
        corpus=words_digest([experiment.reader.sentences[i] for i in taught]),
        labels=task.labels,
        temperature=settings.temperature if softened else 1.0,
        sentences=len(taught),
        content=content,
        temper=settings.temper if softened else "potentials",
        k=settings.k if content in ("topk", "topwk") else None,
    )
    store = TargetStore(folder / _name(header), header)
    missing = list(store.missing())
    if not missing:
        return store
    for member in teachers.members:
        member.eval()
    total = sum(len(rows) for _, rows in missing)
    with progress_bar(total, f"{task.name} {content}", "sentence") as bar:
        for shard, places in missing:
            numbers = [taught[place] for place in places]
            rows: dict[int, Any] = {}
            for models, group in teachers.groups(numbers):
                for chosen in by_length(experiment.reader, group):
                    batch = experiment.reader.batch(chosen, encoded=reads_features(models))
                    try:
                        said = task.targets(
                            speak(models, batch.to(experiment.device)),
                            family,
                            header,
                            allow_inconsistent=settings.allow_inconsistent,
                        )
                    except ValueError as error:
                        raise TrainingError(f"{task.name} {content}, sentences {chosen}: {error}") from error
                    rows.update(zip(chosen, said, strict=True))
                    bar.update(len(chosen))
            store.write(shard, [rows[i] for i in numbers])
    return store


def _name(header: TargetHeader) -> str:
    if header.content == "marginals":
        local = "-local" if header.temper == "marginals" else ""
        return f"{header.family}-T{header.temperature:g}{local}"
    return f"{header.family}-{header.content}" + (f"{header.k}" if header.k else "")


def words_digest(sentences: Sequence[Sentence]) -> str:
    """SHA-256 over the words of sentences, in order: whether stored targets belong to them."""
    digest = hashlib.sha256()
    for sentence in sentences:
        digest.update("\t".join(sentence.words).encode("utf-8") + b"\n")
    return digest.hexdigest()
