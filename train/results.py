"""The rows of ``results.jsonl``, made from the finished models of a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structural_kd.files import write_whole
from train.models.card import read_card
from train.tasks import TASKS

TEACHER_FILES = {"teacher.json": None, "token_teacher.json": "token"}
"""Where the scores of a task's teachers are, and their case where it is not that of the first student."""

STUDENT = ("task", "case", "system", "objective", "seed")
"""The keys of a row that say which student it is of."""

KEPT, GAP = "kept", "gap"
"""A student's main score in percent of its teacher's; and the percentage of the way from the same student
alone to the teacher that it has come."""


def collect_results(out: Path) -> list[dict[str, Any]]:
    """Write ``results.jsonl`` from the finished models of a run, one row a number, and return the rows."""
    rows = []
    for file in _teacher_files(out):
        rows += teacher_rows(file)
    for file in sorted(out.glob("*/students/*/model.json")):
        rows += student_rows(file.parent)
    rows += comparison_rows(rows)
    write_whole(out / "results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def teacher_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a task's teachers, from the file of their scores."""
    about = json.loads(file.read_text(encoding="utf-8"))
    case = TEACHER_FILES[file.name] or about["case"]
    about |= {"objective": "none", "unlabelled": 0, "case": case}
    return _rows(about, file.parent.name, "teacher")


def student_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of one student, from its folder."""
    _, about = read_card(folder)
    return _rows(about, folder.parents[1].name, "student")


def comparison_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What students keep of their teacher's main score, and how much of the gap distillation closes.

    The gap is between the task's teacher and the student of the same case and seed that learned alone; where
    there is no such student, or the teacher is not better than it, there is no row.
    """
    main = [row for row in rows if row["metric"] == TASKS[row["task"]].metric]
    teachers: dict[tuple[Any, ...], float] = {}
    alone: dict[tuple[Any, ...], float] = {}
    for row in main:
        if row["system"] == "teacher":
            # The first is the task's own; one of the objective ``token`` may follow.
            teachers.setdefault((row["task"], row["split"]), row["value"])
        elif row["objective"] == "none":
            alone[_comparable(row)] = row["value"]
    found = []
    for row in main:
        teacher = teachers.get((row["task"], row["split"]))
        if row["system"] == "teacher" or not teacher:
            continue
        found.append({**row, "metric": KEPT, "value": round(100 * row["value"] / teacher, 3)})
        baseline = alone.get(_comparable(row))
        if row["objective"] == "none" or baseline is None:
            continue
        share = gap_recovered(teacher, baseline, row["value"])
        if share is not None:
            found.append({**row, "metric": GAP, "value": round(100 * share, 3)})
    return found


def gap_recovered(teacher: float, alone: float, distilled: float) -> float | None:
    """The share of the teacher–student gap that distillation closes; None where there is no gap."""
    return (distilled - alone) / (teacher - alone) if teacher > alone else None


def read_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``results.jsonl``."""
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def comparisons(out: Path, student: Path) -> dict[str, dict[str, float]]:
    """What a student of a run keeps of its teacher's score and closes of the gap, by split and metric.

    Nothing where the run's rows do not say it.
    """
    if not (out / "results.jsonl").is_file():
        return {}
    about = student_rows(student)[0]
    wanted = [about[key] for key in STUDENT]
    found: dict[str, dict[str, float]] = {}
    for row in read_rows(out):
        if row["metric"] in (KEPT, GAP) and [row[key] for key in STUDENT] == wanted:
            found.setdefault(row["split"], {})[row["metric"]] = row["value"]
    return found


def encoder_weights(out: Path) -> list[str]:
    """Which encoder weights the teachers of a run read, a line each: name, weights, start of the SHA-256."""
    lines = set()
    for file in _teacher_files(out):
        encoder = json.loads(file.read_text(encoding="utf-8")).get("encoder")
        if encoder:
            lines.add(f"Encoder {encoder['name']}: {encoder['weights']}; SHA-256 {encoder['digest'][:12]}…")
    return sorted(lines)


def _comparable(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("task", "case", "seed", "split"))


def _teacher_files(out: Path) -> list[Path]:
    return sorted(path for name in TEACHER_FILES for path in out.glob(f"*/{name}"))


def _rows(about: dict[str, Any], task: str, system: str) -> list[dict[str, Any]]:
    row = {"task": task, "case": about["case"], "system": system}
    row |= {key: about[key] for key in ("objective", "labelled", "unlabelled", "seed")}
    rows = [
        {**row, "split": split, "metric": metric, "value": round(value, 3)}
        for split, scores in about["scores"].items()
        for metric, value in scores.items()
    ]
    rows.append({**row, "split": "test", "metric": "params", "value": about["parameters"]})
    rows.append({**row, "split": "test", "metric": "sent_per_s", "value": about["sentences_per_second"]})
    if "lost_mass" in about:
        rows.append({**row, "split": "train", "metric": "lost_mass", "value": round(about["lost_mass"], 6)})
    return rows
