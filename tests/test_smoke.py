"""The smoke recipe: a real corpus and a real encoder, from packages, through the commands a user types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import structural_kd


def test_the_smoke_recipe_trains_and_exports_both_tasks_from_packages_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "STRUCTURAL_KD_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    for command in (
        ["-m", "train", "recipes/smoke.yaml", "--out", str(tmp_path / "run")],
        ["-m", "export", str(tmp_path / "run"), "--out", str(tmp_path / "bundles")],
    ):
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert {(row["task"], row["case"]) for row in rows} == {
        ("ner", "1a"), ("ner", "2a"), ("parse", "1b"), ("parse", "1b-biaffine")
    }  # fmt: skip
    words = [["הילדים", "משחקים", "בגן", "."]]
    assert len(structural_kd.load(tmp_path / "bundles" / "ner").predict(words)) == 1
    tree = structural_kd.load(tmp_path / "bundles" / "parse").predict(words)[0]
    assert isinstance(tree, structural_kd.ParsedSentence)
    assert tree.heads.count(0) == 1
