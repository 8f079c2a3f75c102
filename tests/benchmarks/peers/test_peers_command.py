"""The command `python -m benchmarks.peers` as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.peers.tiny import write_corpus

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_systems_are_trained_scored_and_timed_and_the_report_is_written(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "en_tiny")
    options = ("--corpus", corpus, "--run", tmp_path / "run", "--out", tmp_path / "reports", "--rounds", 2)
    done = run("--systems", "crfsuite", "udpipe", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "reports" / "peers.json").read_text(encoding="utf-8"))
    assert set(report["systems"]) == {"crfsuite", "udpipe"}
    assert report["systems"]["crfsuite"]["scores"]["f1"] == 100
    assert report["systems"]["udpipe"]["sentences_per_second"] > 0
    assert len(report["systems"]["udpipe"]["speed"]["seconds"]) == 2
    assert "| CRFsuite |" in (tmp_path / "reports" / "peers.md").read_text(encoding="utf-8")
    assert (tmp_path / "reports" / "peers.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_training_alone_writes_no_report(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "en_tiny")
    options = ("--corpus", corpus, "--run", tmp_path / "run", "--out", tmp_path / "reports")
    done = run("--train", "crfsuite", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "crfsuite" / "trained.json").is_file()
    assert not (tmp_path / "reports").exists()


def test_a_corpus_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    done = run("--corpus", "nowhere", "--run", tmp_path / "run")
    assert done.returncode == 1
    assert "nowhere: no such corpus" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_teaches(tmp_path: Path) -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("examples:", "--train ours", "peers.svg", "Exit status"):
        assert word in done.stdout


def test_a_corpus_without_trees_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    corpus = tmp_path / "en_tagged"
    corpus.mkdir()
    for split in ("train", "dev", "test"):
        (corpus / f"{split}.iob2").write_text("1\tAda\tB-PER\n2\tsleeps\tO\n\n", encoding="utf-8")
    done = run("--corpus", corpus, "--run", tmp_path / "run")
    assert done.returncode == 1
    assert "1 sentences of the train split have no trees" in done.stderr
    assert not (tmp_path / "run").exists()


def test_more_than_one_thread_is_refused(tmp_path: Path) -> None:
    done = run("--run", tmp_path / "run", OMP_NUM_THREADS="2")
    assert done.returncode == 2
    assert "OMP_NUM_THREADS=1" in done.stderr
