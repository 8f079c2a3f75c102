"""The figures of the distilled students that are served, gathered from runs, beside what is aimed at.

python -m train.summary runs/quickstart runs/en_ewt runs/pii
python -m train.summary runs/quickstart --out reports/students.json

Means over the seeds of each run; F1, LAS and shares in percent, pii_f1 from 0 to 1. A figure whose run is not
given is null. The file is written whole, so give all the runs.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from tabulate import tabulate

from structural_kd.files import write_whole
from train.evaluation import AGREEMENT
from train.results import gap_recovered, read_rows
from train.tasks import TASKS

TREEBANKS = {"he_htb": "he", "en_ewt": "en"}
PII = "pii"
CORPORA = {**TREEBANKS, "personal_data": PII}
"""What figures are taken of: corpora, and raw text whose gold is the teacher's own answers."""
SEEDS = 3
"""The targets are for the mean of so many."""

TARGETS = {
    "he_ner_f1": 56.5,
    "he_las": 65.0,
    "he_ner_gap": 20.0,
    "he_las_gap": 40.0,
    "en_ner_f1": 74.5,
    "en_las": 79.5,
    "en_ner_gap": 50.0,
    "en_las_gap": 50.0,
    "he_ner_kept": 92.0,
    "en_ner_kept": 95.0,
    "least_kept_trees": 95.5,
    "pii_f1": 0.90,
    "pii_speed": 40.0,
}
"""What each figure should be at least: F1, LAS and shares in percent, but for pii_f1."""

PACKAGES = ("torch", "transformers", "numpy")


class RunError(ValueError):
    """A run that no figure can be taken from: says which, what is wrong, and what to do."""


@dataclass(frozen=True)
class Scores:
    """One task of a run on its test split, by seed: the served kind of student, and its teacher.

    Args:
        corpus: its short name.
        metric: ``f1``, ``las``, or ``agreement`` where there is no gold.
        alone: the same student without a teacher; empty where the run has none.
    """

    run: str
    corpus: str
    task: str
    student: str
    metric: str
    labelled: int
    unlabelled: int
    teacher: float | None
    alone: Mapping[int, float]
    distilled: Mapping[int, float]
    speed_ratio: float | None = None

    @property
    def mean(self) -> float:
        return mean(self.distilled.values())

    @property
    def kept(self) -> float | None:
        """The share of the teacher's score that is kept, in percent."""
        return 100 * self.mean / self.teacher if self.teacher else None

    @property
    def gap(self) -> float | None:
        """The share of the gap that is recovered, in percent, from the means; None where there is no gap."""
        if self.teacher is None or not self.alone:
            return None
        share = gap_recovered(self.teacher, mean(self.alone.values()), self.mean)
        return None if share is None else 100 * share


def read_run(run: Path) -> list[Scores]:
    """The scores of a run's tasks.

    Raises:
        RunError: it is no finished run, or of another corpus than those that are asked for.
    """
    try:
        recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
        rows = read_rows(run)
    except OSError as error:
        raise RunError(f"{run}: no finished run ({error.filename}: {error.strerror})") from None
    texts = [source["path"] for source in recipe["text"] or ()]
    sources = [*recipe["corpus"], recipe["target"]] if recipe["corpus"] else texts
    names = [Path(source).name for source in sources if source]
    if len(names) != 1 or names[0] not in CORPORA:
        known = ", ".join(CORPORA)
        raise RunError(f"{run}: its corpus is {', '.join(names)}; there are figures of {known}")
    return [_scores(run, CORPORA[names[0]], task, rows, recipe) for task in TASKS if task in recipe["tasks"]]


def figures(found: Sequence[Scores]) -> dict[str, float | None]:
    """Every figure by its key, None where its run is not among them.

    Raises:
        RunError: two runs have the same task of the same corpus.
    """
    by_place: dict[tuple[str, str], Scores] = {}
    for scores in found:
        other = by_place.setdefault((scores.corpus, scores.task), scores)
        if other is not scores:
            both = f"{other.run}, {scores.run}: both have {scores.task}"
            raise RunError(f"{both} of the corpus {scores.corpus}; give one of them")

    def of(corpus: str, task: str, value: Callable[[Scores], float | None]) -> float | None:
        scores = by_place.get((corpus, task))
        return None if scores is None else value(scores)

    values: dict[str, float | None] = {}
    for corpus in TREEBANKS.values():
        for task, name in (("ner", "ner_f1"), ("parse", "las")):
            values[f"{corpus}_{name}"] = of(corpus, task, lambda scores: scores.mean)
            values[f"{corpus}_{name.removesuffix('_f1')}_gap"] = of(corpus, task, lambda scores: scores.gap)
        values[f"{corpus}_ner_kept"] = of(corpus, "ner", lambda scores: scores.kept)
    trees = [of(corpus, "parse", lambda scores: scores.kept) for corpus in TREEBANKS.values()]
    known = [kept for kept in trees if kept is not None]
    values["least_kept_trees"] = min(known) if len(known) == len(trees) else None
    values["pii_f1"] = of(PII, "ner", lambda scores: scores.mean / 100)
    values["pii_speed"] = of(PII, "ner", lambda scores: scores.speed_ratio)
    return {key: None if values[key] is None else round(values[key], 3) for key in TARGETS}  # type: ignore[arg-type]


def summary(found: Sequence[Scores]) -> dict[str, Any]:
    """The figures, and beside them what they come from: runs, seeds, deviations, machine, date, versions."""
    runs = []
    for scores in found:
        values = list(scores.distilled.values())
        deviation = stdev(values) if len(values) > 1 else None
        means = {"mean": scores.mean, "stdev": deviation, "kept": scores.kept, "gap": scores.gap}
        rounded = {key: None if value is None else round(value, 3) for key, value in means.items()}
        runs.append({**asdict(scores), "seeds": list(scores.distilled), **rounded})
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": _versions(),
        "targets": TARGETS,
        "runs": runs,
    }
    return {**figures(found), "about": about}


def targets_table(values: Mapping[str, float | None]) -> str:
    """Targets beside figures, as a Markdown table."""
    lines = []
    for key, target in TARGETS.items():
        value = values[key]
        verdict = "not measured" if value is None else "met" if value >= target else "missed"
        lines.append([key, f"{target:g}", "" if value is None else f"{value:.2f}", verdict])
    return tabulate(lines, ["figure", "at least", "measured", ""], tablefmt="pipe", disable_numparse=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.summary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of python -m train")
    parser.add_argument(
        "--out", type=Path, default=Path("reports/students.json"), metavar="FILE", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    try:
        found = [scores for run in options.runs for scores in read_run(run)]
        made = summary(found)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_whole(options.out, json.dumps(made, indent=1) + "\n")
    missing = [key for key in TARGETS if made[key] is None]
    if missing:
        print(f"no run given has: {', '.join(missing)}; they are null in {options.out}", file=sys.stderr)
    for scores in found:
        few = "" if len(scores.distilled) >= SEEDS else f"; the targets are for the mean of {SEEDS}"
        seeds = ", ".join(map(str, scores.distilled))
        print(f"{scores.run}, {scores.task}: {scores.student}, seeds {seeds}{few}")
    print(f"\n{targets_table(made)}\n\nfigures: {options.out}")
    return 0


def _scores(
    run: Path, corpus: str, task: str, rows: Sequence[dict[str, Any]], recipe: Mapping[str, Any]
) -> Scores:
    kind, case, objective = _served(run, task, recipe)
    of_test = [row for row in rows if row["task"] == task and row["split"] == "test"]
    metric = AGREEMENT if corpus == PII else TASKS[task].metric

    def by_seed(objective: str) -> dict[int, dict[str, Any]]:
        wanted = "student", case, objective, metric
        keys = "system", "case", "objective", "metric"
        return {row["seed"]: row for row in of_test if tuple(row[key] for key in keys) == wanted}

    distilled = by_seed(objective)
    if not distilled:
        raise RunError(f"{run}: results.jsonl has no {metric} of the student {kind} {objective} of {task}")
    # The first is the task's own teacher; one of the objective ``token`` may follow.
    teachers = [row["value"] for row in of_test if (row["system"], row["metric"]) == ("teacher", metric)]
    first = next(iter(distilled.values()))
    speed = run / "agreement.json"  # of benchmarks.agreement
    return Scores(
        run=run.resolve().name,
        corpus=corpus,
        task=task,
        student=f"{kind} {objective}",
        metric=metric,
        labelled=first["labelled"],
        unlabelled=first["unlabelled"],
        teacher=teachers[0] if teachers else None,
        alone={seed: row["value"] for seed, row in by_seed("none").items()},
        distilled={seed: row["value"] for seed, row in distilled.items()},
        speed_ratio=json.loads(speed.read_text(encoding="utf-8"))["speed_ratio"] if speed.is_file() else None,
    )


def _served(run: Path, task: str, recipe: Mapping[str, Any]) -> tuple[str, str, str]:
    """Kind and case of the served student, and its objective; the recipe's first other for one that is alone.

    Raises:
        RunError: the run is not finished, or distils nothing.
    """
    try:
        served = json.loads((run / task / "served.json").read_text(encoding="utf-8"))["student"]
        about = json.loads((run / task / served / "model.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{run}: {task} is not finished ({error.filename}: {error.strerror})") from None
    distilled = [name for name in recipe["distillation"]["objectives"] if name != "none"]
    if not distilled:
        raise RunError(f"{run}: its recipe has no student that learns from a teacher")
    objective = about["objective"] if about["objective"] != "none" else distilled[0]
    return about["card"]["kind"], about["case"], objective


def _machine() -> dict[str, Any]:
    name = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.platform(terse=True)}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


if __name__ == "__main__":
    sys.exit(main())
