"""The rows of ``results.jsonl``, made from the finished models of a run."""

import json
from pathlib import Path
from typing import Any

from train.models.card import read_card
from train.resources import write_whole

CASE = {"crf": "1a", "softmax": "2a", "labeller": "1b", "biaffine": "1b-biaffine"}
"""The paper's case of each student under its task's teacher; biaffine is 1b without the label set."""


def collect_results(out: Path) -> list[dict[str, Any]]:
    """Write ``results.jsonl`` from the finished models of a run, one row a number, and return the rows."""
    rows = []
    for file in sorted(out.glob("*/teacher/model.json")) + sorted(out.glob("*/students/*/model.json")):
        card, about = read_card(file.parent)
        row = {
            "task": card.task,
            "case": CASE[card.kind],
            "system": card.role,
            "objective": about["objective"],
            "labelled": about["labelled"],
            "unlabelled": about["unlabelled"],
            "seed": about["seed"],
        }
        for split, scores in about["scores"].items():
            rows += [
                {**row, "split": split, "metric": metric, "value": round(value, 3)}
                for metric, value in scores.items()
            ]
        rows.append({**row, "split": "test", "metric": "params", "value": about["parameters"]})
        rows.append({**row, "split": "test", "metric": "sent_per_s", "value": about["sentences_per_second"]})
        if "lost_mass" in about:
            rows.append(
                {**row, "split": "train", "metric": "lost_mass", "value": round(about["lost_mass"], 6)}
            )
    write_whole(out / "results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return rows
