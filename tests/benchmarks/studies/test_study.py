import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from benchmarks.studies.__main__ import main
from tests.train.tiny import write_corpus, write_encoder, write_recipe

TRAINING = {"hidden_size": 16, "steps": 12, "batch_tokens": 160, "evaluations": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_corpus(folder / "xx_tiny")
    write_encoder(folder / "encoder")
    write_recipe(
        folder,
        labelled=12,
        unlabelled=0,
        vectors={"dim": 8, "epochs": 2, "buckets": 500, "text": "corpus"},
        distillation={"objectives": ["none", "structural"], "anneal": 1.0},
        tasks={"ner": {"teacher": TRAINING, "students": {"crf": TRAINING}}},
    )
    return folder


def write_study(folder: Path, name: str, **runs: Any) -> Path:
    """A study of its own folder, with one table."""
    path = folder / name / "study.yaml"
    path.parent.mkdir()
    entries = {key: {"recipe": str(folder / "tiny.yaml"), **entry} for key, entry in runs.items()}
    first = next(iter(runs))
    table = {
        "title": "Table 1: entities",
        "columns": {
            "teacher": {"teacher": "teacher"},
            "modes": {"teacher": "teacher", "metric": "f1_marginals"},
            "none": {"objective": "none"},
            "structural": {"objective": "structural"},
        },
        "rows": [{"label": "tiny", "cell": {"run": first, "student": "crf"}}],
    }
    content = {"seeds": [1, 2], "runs": entries, "tables": [table]}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


RUNS: dict[str, Any] = {
    "labelled": {},
    "raw": {"set": {"distillation.objectives": ["structural+top1"]}, "grid": {"unlabelled": [8, 16]}},
}


def command(study: Path, folder: Path, *more: str) -> list[str]:
    out = str(study.parent / "runs")
    return [sys.executable, "-m", "benchmarks.studies", str(study), "--out", out, "--jobs", "2", *more]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "STRUCTURAL_KD_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def train(study: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(study, folder, *more), env=environment(folder), capture_output=True, text=True, timeout=600
    )


def numbers(study: Path) -> list[dict[str, Any]]:
    """The stored rows without what differs from run to run."""
    rows = map(json.loads, (study.parent / "results.jsonl").read_text().splitlines())
    return [row for row in rows if row["metric"] not in ("seconds", "sent_per_s")]


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    study = write_study(folder, "finished", **RUNS)
    done = train(study, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (study.parent / "printed.txt").write_text(done.stdout)
    return study


def test_a_study_trains_every_student_and_stores_a_row_a_number(finished: Path) -> None:
    rows = numbers(finished)
    students = {(r["run"], r["objective"], r["seed"]) for r in rows if r["system"] == "student"}
    assert students == {
        *(("labelled", objective, seed) for objective in ("none", "structural") for seed in (1, 2)),
        *((f"raw/unlabelled={n}", "structural+top1", seed) for n in (8, 16) for seed in (1, 2)),
    }
    row = next(r for r in rows if r["run"] == "raw/unlabelled=16" and r["system"] == "student")
    assert (row["corpus"], row["student"], row["labelled"], row["unlabelled"]) == ("xx_tiny", "crf", 12, 16)
    assert len(row["settings"]) == 12
    metrics = {row["metric"] for row in rows if row["system"] == "teacher"}
    assert metrics == {"f1", "f1_marginals", "precision", "recall", "params", "entropy"}
    assert (finished.parent / "counts.jsonl").read_text().count("\n") == 8 + 3 + 3


def test_runs_with_the_same_teacher_have_one_teacher_between_them(finished: Path) -> None:
    runs = finished.parent / "runs"
    folders = {folder.resolve() for folder in runs.glob("**/*@*/ner/teacher")}
    assert len(folders) == 1
    assert (folders.pop() / "model.json").exists()
    assert len(list((runs / "shared").iterdir())) == 1
    trained = [
        row["value"] for row in numbers(finished) if row["system"] == "teacher" and row["metric"] == "f1"
    ]
    assert len(trained) == 6
    assert len(set(trained)) <= 2  # dev and test


def test_a_line_a_job_has_its_scores(finished: Path) -> None:
    lines = (finished.parent / "printed.txt").read_text().splitlines()
    assert lines[0].startswith("8 students and the teachers of 3 runs are left")
    jobs = [line for line in lines if line.startswith("[")]
    assert len(jobs) == 3 + 8
    assert jobs[0].startswith("[1/11] labelled teachers: dev F1 ")


def test_stored_students_are_not_trained_again_on_another_machine(finished: Path, folder: Path) -> None:
    copy = folder / "elsewhere" / "study.yaml"
    copy.parent.mkdir()
    for name in ("study.yaml", "results.jsonl", "counts.jsonl"):
        (copy.parent / name).write_text((finished.parent / name).read_text())
    before = (copy.parent / "results.jsonl").read_bytes()
    done = train(copy, folder)
    assert done.returncode == 0, done.stderr
    assert "are left" not in done.stdout
    assert not (copy.parent / "runs").exists()
    assert (copy.parent / "results.jsonl").read_bytes() == before
    report = (copy.parent / "study.md").read_text()
    assert report == (finished.parent / "study.md").read_text().replace(str(finished), str(copy))


def test_counts_that_are_lost_are_made_again(finished: Path, folder: Path) -> None:
    study = folder / "lost" / "study.yaml"
    copytree(finished.parent, study.parent, symlinks=True)
    counts = study.parent / "counts.jsonl"
    before = counts.read_text()
    lines = before.splitlines(keepends=True)
    teacher = next(line for line in lines if '"run": "labelled"' in line and '"student": ""' in line)
    student = next(line for line in lines if '"run": "labelled"' in line and '"student": "crf"' in line)
    counts.write_text("".join(line for line in lines if line not in (teacher, student)))
    done = train(study, folder)
    assert done.returncode == 0, done.stderr
    assert "1 students and the teachers of 1 runs are left" in done.stdout
    assert counts.read_text() == before


def test_a_study_killed_in_the_middle_goes_on_to_the_numbers_of_an_uninterrupted_one(
    finished: Path, folder: Path
) -> None:
    study = write_study(folder, "killed", **RUNS)
    process = subprocess.Popen(
        command(study, folder), env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not list(study.parent.glob("runs/**/ner/students/*/checkpoint.pt")):
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline, "no student began"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    process.stdout.read()  # until the workers have ended as well: they hold the pipe's other end
    process.wait()
    done = train(study, folder)
    assert done.returncode == 0, done.stderr
    assert numbers(study) == numbers(finished)


def test_a_job_that_fails_is_named_and_the_others_go_on(folder: Path) -> None:
    study = write_study(folder, "failing", labelled={}, greedy={"set": {"labelled": 99}})
    done = train(study, folder)
    assert done.returncode == 1
    assert "FAILED greedy teachers, and with it 4 students: labelled: 99 sentences" in done.stdout
    assert "error: greedy teachers: labelled: 99 sentences" in done.stderr
    assert {row["run"] for row in numbers(study)} == {"labelled"}


def test_the_list_has_done_and_missing_students_and_a_command_for_each_run(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        line
        for line in (finished.parent / "results.jsonl").read_text().splitlines(keepends=True)
        if not ('"seed": 2' in line and '"run": "labelled"' in line)
    ]
    partly = finished.parent.parent / "partly"
    partly.mkdir()
    (partly / "study.yaml").write_text(finished.read_text())
    (partly / "results.jsonl").write_text("".join(lines))
    (partly / "counts.jsonl").write_text((finished.parent / "counts.jsonl").read_text())
    assert main([str(partly / "study.yaml"), "--list"]) == 0
    printed = capsys.readouterr().out
    assert "labelled: 2 of 4 students\n    python -m train " in printed
    assert "2 of 8 students are left to train" in printed


def test_two_processes_do_not_write_one_study_or_one_folder_of_runs_at_a_time(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(folder, "locked", labelled={})
    runs = study.parent / "runs"
    for locked, more in ((study.parent, []), (study.parent, ["--forget"]), (runs, [])):
        locked.mkdir(exist_ok=True)
        with (locked / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert main([str(study), "--out", str(runs), *more]) == 1
        assert f"{locked}: another process is training a study" in capsys.readouterr().err
    assert [path.name for path in runs.iterdir()] == [".lock"]


def test_only_takes_patterns_and_an_unknown_one_lists_the_runs(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished), "--list", "--only", "raw/*"]) == 0
    assert capsys.readouterr().out.endswith("0 of 4 students are left to train\n")
    assert main([str(finished), "--list", "--only", "row"]) == 2
    assert "no run is called so; there are: labelled, raw/unlabelled=8" in capsys.readouterr().err
