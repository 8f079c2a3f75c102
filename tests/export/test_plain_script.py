"""docs/run_onnx.py: ten lines that run a bundle without this toolkit."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import structural_kd
from tests.export.tiny_models import WORDS, bundle_of

SCRIPT = Path(__file__).parents[2] / "docs" / "run_onnx.py"


def test_ten_lines_of_onnx_runtime_give_the_tags_that_the_predictor_gives(tmp_path):
    bundle_of(tmp_path / "ner", "crf")
    words = WORDS[3:12]
    answer = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "ner", *words],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (expected,) = structural_kd.load(tmp_path / "ner").predict([words])
    assert ast.literal_eval(answer.stdout) == expected.tags


def test_the_script_has_ten_lines_and_imports_nothing_of_this_project():
    text = SCRIPT.read_text(encoding="utf-8")
    tree = ast.parse(text)
    _, *code = tree.body
    assert text.count("\n") - (code[0].lineno - 1) == 10
    imported = {name.name for node in code if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"json", "sys", "numpy", "onnxruntime"}
