"""The whole command against a small server of its own: real sockets, real Locust."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE_SERVER = Path(__file__).with_name("fake_server.py")
WORDS = ["Ada", "Berta", "Carl", "Dora", "Emil", "Frida", "Gert", "Hilde"]


def make_bundle(folder: Path, *, task: str = "ner", parameters: int = 1_000_000, **fake: Any) -> Path:
    folder.mkdir(parents=True)
    manifest = {"name": folder.name, "task": task, "parameters": parameters, "fake": fake}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def command(folder: Path, teacher: Path, student: Path, *more: str) -> list[str]:
    texts = folder / "test.txt"
    texts.write_text("".join(f"{word} runs far .\n" for word in WORDS), encoding="utf-8")
    options = {
        "--teacher": teacher,
        "--student": student,
        "--texts": texts,
        "--out": folder / "reports",
        "--duration": "2s",
        "--warm-up": "1s",
        "--server-command": shlex.join([sys.executable, str(FAKE_SERVER)]),
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "loadtest", *words, *more]


def run(*arguments: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_teacher_and_student_are_measured_with_the_same_requests_in_the_same_order(tmp_path: Path) -> None:
    journals = {system: tmp_path / f"{system}.journal" for system in ("teacher", "student")}
    teacher = make_bundle(
        tmp_path / "big", parameters=25_000_000, delay=0.05, journal=str(journals["teacher"])
    )
    student = make_bundle(tmp_path / "small", journal=str(journals["student"]))
    done = run(tmp_path, teacher, student, "--batch", "2", "--users", "1")
    assert done.returncode == 0, done.stdout + done.stderr

    result = json.loads((tmp_path / "reports" / "table7.json").read_text(encoding="utf-8"))
    assert result["valid"]
    figures = result["tasks"]["ner"]
    slow, fast = figures["teacher"], figures["student"]
    assert (slow["bundle"], fast["bundle"]) == ("big", "small")
    assert 0 < slow["sentences_per_second"] <= 2 / 0.05  # one user, two sentences every 50 ms at best
    assert fast["sentences_per_second"] > slow["sentences_per_second"]
    assert slow["p50"] >= 50
    assert fast["p50"] <= fast["p95"] <= fast["p99"]
    assert figures["smaller"] == 25
    assert figures["faster"] == pytest.approx(
        fast["sentences_per_second"] / slow["sentences_per_second"], rel=1e-3
    )
    for row, journal in ((slow, journals["teacher"]), (fast, journals["student"])):
        received = journal.read_text(encoding="utf-8").splitlines()[1:]
        check, *load = received
        assert check == "Ada Berta"
        assert load[:5] == ["Ada Berta", "Carl Dora", "Emil Frida", "Gert Hilde", "Ada Berta"]
        assert row["requests"] <= len(load)
        assert row["sentences_per_second"] == pytest.approx(2 * row["requests_per_second"], rel=1e-2)

    markdown = (tmp_path / "reports" / "table7.md").read_text(encoding="utf-8")
    assert "| Teacher |" in markdown
    assert "not valid" not in markdown
    for page in ("table7.html", "locust-ner-teacher.html", "locust-ner-student.html"):
        assert "</html>" in (tmp_path / "reports" / page).read_text(encoding="utf-8")
    assert not list((tmp_path / "reports").glob("*.partial"))


def test_failed_requests_make_the_report_invalid_and_the_status_non_zero(tmp_path: Path) -> None:
    teacher = make_bundle(tmp_path / "big", task="parse")
    student = make_bundle(tmp_path / "small", task="parse", fail_every=4)
    done = run(tmp_path, teacher, student, "--batch", "2", "--duration", "1s", "--input", "texts")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "parse, student:" in done.stderr
    assert "status 500" in done.stderr
    result = json.loads((tmp_path / "reports" / "table7.json").read_text(encoding="utf-8"))
    assert not result["valid"]
    assert result["tasks"]["parse"]["student"]["failures"] > 0
    assert result["tasks"]["parse"]["teacher"]["failures"] == 0
    markdown = (tmp_path / "reports" / "table7.md").read_text(encoding="utf-8")
    assert markdown.index("not valid") < markdown.index("| Teacher")


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        ({"crash": "the model file is truncated"}, "    the model file is truncated"),
        ({"model": "another"}, "expected the model 'big', 'another' answered"),
        ({"fail_every": 1}, "status 500"),
    ],
)
def test_a_server_that_cannot_be_measured_is_an_error_and_leaves_no_report(
    tmp_path: Path, fake: dict[str, Any], message: str
) -> None:
    done = run(tmp_path, make_bundle(tmp_path / "big", **fake), make_bundle(tmp_path / "small"))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "reports" / "table7.json").exists()


def test_ctrl_c_stops_the_server_and_says_so(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    teacher = make_bundle(tmp_path / "big", journal=str(journal), delay=0.01)
    arguments = command(tmp_path, teacher, make_bundle(tmp_path / "small"), "--duration", "60s")
    process = subprocess.Popen(
        arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
        # A test run started in the background hands down an ignored SIGINT; a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        give_up = time.monotonic() + 60
        while not journal.exists() or len(journal.read_text(encoding="utf-8").splitlines()) < 4:
            assert time.monotonic() < give_up
            assert process.poll() is None
            time.sleep(0.05)
        server = int(journal.read_text(encoding="utf-8").splitlines()[0])
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_bundles_that_are_missing_or_do_not_pair_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    missing = run(tmp_path, tmp_path / "nowhere", make_bundle(tmp_path / "small"))
    assert missing.returncode == 2
    assert "make distill" in missing.stderr
    unpaired = run(tmp_path, make_bundle(tmp_path / "big", task="parse"), tmp_path / "small")
    assert unpaired.returncode == 2
    assert "no teacher for the task ner" in unpaired.stderr
