"""The command `python -m benchmarks.peers`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.__main__ import main
from tests.benchmarks.peers.tiny import write_corpus

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_systems_are_trained_scored_and_timed_and_the_report_is_written(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "en_tiny")
    command = [sys.executable, "-m", "benchmarks.peers", "--systems", "crfsuite", "udpipe", "--rounds", "2"]
    command += ["--corpus", str(corpus), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "reports")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "reports" / "peers.json").read_text(encoding="utf-8"))
    assert set(report["systems"]) == {"crfsuite", "udpipe"}
    assert report["systems"]["crfsuite"]["scores"]["f1"] == 100
    assert report["systems"]["udpipe"]["sentences_per_second"] > 0
    assert len(report["systems"]["udpipe"]["speed"]["seconds"]) == 2
    assert "| CRFsuite " in (tmp_path / "reports" / "peers.md").read_text(encoding="utf-8")
    assert (tmp_path / "reports" / "peers.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_training_alone_writes_no_report(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "en_tiny")
    options = ["--corpus", str(corpus), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "reports")]
    assert main(["--train", "crfsuite", *options]) == 0
    assert (tmp_path / "run" / "crfsuite" / "trained.json").is_file()
    assert not (tmp_path / "reports").exists()


def test_a_corpus_that_is_not_there_is_an_error_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--corpus", "nowhere", "--run", str(tmp_path / "run")]) == 1
    assert "nowhere: no such corpus" in capsys.readouterr().err


def test_a_corpus_without_trees_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "en_tagged"
    corpus.mkdir()
    for split in ("train", "dev", "test"):
        (corpus / f"{split}.iob2").write_text("1\tAda\tB-PER\n2\tsleeps\tO\n\n", encoding="utf-8")
    assert main(["--corpus", str(corpus), "--run", str(tmp_path / "run")]) == 1
    assert "1 sentences of the train split have no trees" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_more_than_one_thread_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "OMP_NUM_THREADS=1" in capsys.readouterr().err
