"""The rows of ``results.jsonl``, made from the finished models of a run."""

import json
from pathlib import Path
from typing import Any

from structural_kd.files import write_whole
from train.models.card import read_card

TEACHER_FILES = {"teacher.json": None, "token_teacher.json": "token"}
"""Where the scores of a task's teachers are, and their case where it is not that of the first student."""


def collect_results(out: Path) -> list[dict[str, Any]]:
    """Write ``results.jsonl`` from the finished models of a run, one row a number, and return the rows."""
    rows = []
    for file in _teacher_files(out):
        rows += teacher_rows(file)
    for file in sorted(out.glob("*/students/*/model.json")):
        rows += student_rows(file.parent)
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


def encoder_weights(out: Path) -> list[str]:
    """Which encoder weights the teachers of a run read, a line each: name, weights, start of the SHA-256."""
    lines = set()
    for file in _teacher_files(out):
        encoder = json.loads(file.read_text(encoding="utf-8")).get("encoder")
        if encoder:
            lines.add(f"Encoder {encoder['name']}: {encoder['weights']}; SHA-256 {encoder['digest'][:12]}…")
    return sorted(lines)


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
