"""The wheel: the library alone, which annotates in an environment that has nothing else."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.export.tiny_models import bundle_of

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("structural_kd", "train", "export", "serve", "loadtest", "benchmarks")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves files beside its sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, its dependencies and the extra `cpu`."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--no-compile"]
    options = ["-c", str(ROOT / "constraints.txt"), f"{wheel}[cpu]"]
    subprocess.run([*pip, *options], env=ENVIRONMENT, check=True, capture_output=True)
    return folder / "bin"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_library_alone(wheel: Path) -> None:
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")} == {"structural_kd"}
    tracked = {path.relative_to(ROOT) for path in (ROOT / "structural_kd").rglob("*.py")}
    assert names >= tracked | {Path("structural_kd/py.typed")}


def test_an_environment_with_nothing_else_annotates(installed: Path, tmp_path: Path) -> None:
    missing = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])"
    others = ["torch", "fastapi", "spacy", "tokenizers", *ROOMS[1:]]
    assert run(installed / "python", "-c", missing.format(others), cwd=tmp_path).stdout == "[]\n"
    bundle_of(tmp_path / "ner", "crf")
    (tmp_path / "in").write_text("sola luna\nMara\n")
    program = installed / "structural-kd"
    command = ["annotate", "--bundle", "ner", "--input", "in", "--output", "out", "--input-format", "tokens"]
    done = run(program, *command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    results = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [result["tokens"] for result in results] == [["sola", "luna"], ["Mara"]]
    speed = run(program, "speed", "--bundle", "ner", "--sentences", "in", "--seconds=0.1", cwd=tmp_path)
    assert json.loads(speed.stdout)["sentences"] > 0


def test_a_missing_extra_is_named_before_anything_is_written(installed: Path, tmp_path: Path) -> None:
    bundle_of(tmp_path / "ner", "crf")
    (tmp_path / "in.txt").write_text("Raw text.\n")
    (tmp_path / "in.jsonl").write_text('{"text": "Raw text."}\n')
    for name in ("in.txt", "in.jsonl"):
        command = ["annotate", "--bundle", "ner", "--input", name, "--output", "out"]
        done = run(installed / "structural-kd", *command, cwd=tmp_path)
        assert done.returncode == 2
        assert "spacy: pip install 'structural-kd[text]'" in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "in.txt", "ner"]
    done = run(installed / "python", "-c", "import structural_kd.wordpieces", cwd=tmp_path)
    assert "tokenizers: pip install 'structural-kd[encoder]'" in done.stderr
