"""The jobs of a study's worker: train a run's teachers, or one student."""

import os
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.studies.rows import OF_MODES, JobResult, ResultRow
from benchmarks.studies.runs import StudentJob, StudyRun
from structural_kd.files import write_whole
from structural_kd.labels import repair_to_bioes
from train.distill.projection import project
from train.evaluation import distributions, evaluate, tested_splits
from train.experiment import Experiment
from train.models.card import read_card
from train.results import student_rows, teacher_rows
from train.run import prepare, supervise
from train.structs import TokenSoftmax
from train.tasks import EntityTask
from train.train_students import Supervision, train_student
from train.train_teachers import TrainedTeachers

MOST_RUNS = 64
"""How many runs a worker keeps in memory."""

Supervised = tuple[Experiment, Supervision]

_supervised: dict[str, Supervised] = {}
"""What this worker has read, by run, the oldest first: the next student of a run starts at once."""


def train_run_teachers(run: StudyRun, out: Path, is_measured: bool) -> JobResult:
    """Train the teachers of a run, unless another run has had them trained, and store their targets.

    Args:
        out: the folder of the study's runs.
        is_measured: whether the teachers' rows are stored; then the scores are all that comes of it.
    """
    start = time.perf_counter()
    folder, shared = out / run.folder, out / "shared"
    _link(folder / "words", shared / run.shared_key() / "words")
    homes = {"teacher": shared / run.shared_key() / run.task}  # one for all runs with the same teachers
    if run.task_settings.token_teacher:
        homes["token_teacher"] = shared / run.token_key() / run.task
    for name, home in homes.items():
        for one_or_many in (name, f"{name}s"):
            _link(folder / run.task / one_or_many, home / one_or_many)
        _copy_scores(f"{name}.json", home, folder / run.task)
    experiment, supervision = _supervise(run, out)
    for name, home in homes.items():
        _copy_scores(f"{name}.json", folder / run.task, home)
    files = [f"{name}.json" for name in homes]
    if is_measured:
        return JobResult([row for name in files for row in teacher_rows(folder / run.task / name)], [])
    rows: list[ResultRow] = []
    counts: list[tuple[ResultRow, np.ndarray]] = []
    for name, teachers in zip(files, (supervision.teachers, supervision.token_teachers), strict=False):
        found = teacher_rows(folder / run.task / name)
        rows += found
        counts += _test_counts(experiment, supervision, teachers, found[0])
    about = {**rows[0], "split": "test"}
    if run.task == "ner":
        modes = _marginal_modes(experiment, supervision)
        scores = supervision.task.scores_of(modes)
        rows.append({**about, "metric": OF_MODES, "value": round(scores["f1"], 3)})
        counts.append(({**about, "metric": OF_MODES}, modes))
    rows += [
        {**about, "split": part, "metric": "entropy", "value": round(value, 5)}
        for part, value in _entropies(experiment, supervision).items()
    ]
    rows.append({**about, "metric": "seconds", "value": round(time.perf_counter() - start, 1)})
    return JobResult(rows, counts)


def train_one(run: StudyRun, out: Path, job: StudentJob) -> JobResult:
    """Train one student of a run whose teachers have stored their targets."""
    experiment, supervision = _supervised.get(run.name) or _supervise(run, out)
    train_student(experiment, supervision, job.student, job.objective, job.seed)
    folder = experiment.out / run.task / "students" / f"{job.student}-{job.objective}-seed{job.seed}"
    rows = student_rows(folder)
    _, about = read_card(folder)
    rows.append({**rows[0], "split": "test", "metric": "seconds", "value": about["seconds"]})
    with np.load(folder / "counts.npz", allow_pickle=False) as found:
        counts = [
            ({**rows[0], "split": split.replace("-", "/", 1), "metric": "counts"}, found[split])
            for split in found.files
            if split.startswith("test")
        ]
    return JobResult(rows, counts)


def _supervise(run: StudyRun, out: Path) -> Supervised:
    torch.set_num_threads(1)
    experiment = prepare(run.recipe, out / run.folder)
    supervision = supervise(experiment, run.task)
    if len(_supervised) >= MOST_RUNS:
        del _supervised[next(iter(_supervised))]
    _supervised[run.name] = experiment, supervision
    return experiment, supervision


def _test_counts(
    experiment: Experiment, supervision: Supervision, teachers: TrainedTeachers, row: ResultRow
) -> list[tuple[ResultRow, np.ndarray]]:
    """What teachers get right in the test sentences, for each corpus that is tested."""
    task = supervision.task
    measured = {
        split: evaluate(experiment, task, teachers.ensemble, numbers, supervision.references).counts
        for split, numbers in tested_splits(experiment, task).items()
    }
    return [
        ({**row, "split": split, "metric": "counts"}, counts)
        for split, counts in measured.items()
        if counts is not None
    ]


@torch.no_grad()
def _marginal_modes(experiment: Experiment, supervision: Supervision) -> np.ndarray:
    """The counts [n, 3] of the test sentences, each token labelled by the mode of its marginals (table 6)."""
    task, sentences = supervision.task, experiment.splits.sentences
    assert isinstance(task, EntityTask)
    numbers = [i for i in experiment.splits.test if task.has_gold(sentences[i])]
    tags: dict[int, list[str]] = {}  # read as the CoNLL evaluation does where they are invalid
    for chosen, _, distribution in distributions(experiment, supervision.teachers.ensemble, numbers):
        modes = project(distribution, onto=TokenSoftmax).argmax(-1)  # [B, n]
        for i, row in zip(chosen, modes.tolist(), strict=True):
            found = [task.labels[label] for label in row[: len(sentences[i].words)]]
            tags[i], _ = repair_to_bioes(found, "bioes")
    return task.counts([sentences[i] for i in numbers], [tags[i] for i in numbers])


def _entropies(experiment: Experiment, supervision: Supervision) -> dict[str, float]:
    """The entropy of the teachers' targets, in nats a token, of labelled and of unlabelled sentences.

    Empty where the stored targets are softened, or have no entropy, a mixture's for example.
    """
    splits = experiment.splits
    if experiment.recipe.distillation.temperature != 1:
        return {}
    stores = [
        store
        for (by_token, _, content), store in supervision.targets.items()
        if not by_token and content == "marginals" and "entropy" in store[0]
    ]
    totals: dict[str, list[float]] = {}
    labelled = set(splits.labelled)
    for store in stores[:1]:  # every family's store has the teacher's own entropy
        for place, number in enumerate(splits.student_train):
            total = totals.setdefault("labelled" if number in labelled else "unlabelled", [0.0, 0.0])
            total[0] += float(store[place]["entropy"][0])
            total[1] += len(splits.sentences[number].words)
    return {part: entropy / tokens for part, (entropy, tokens) in totals.items()}


def _link(link: Path, target: Path) -> None:
    """A folder of a run that is another folder, which all runs with the same teachers share."""
    target.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)


def _copy_scores(name: str, source: Path, target: Path) -> None:
    """Scores of the same teachers, measured once."""
    if (source / name).exists() and not (target / name).exists():
        write_whole(target / name, (source / name).read_text(encoding="utf-8"))
