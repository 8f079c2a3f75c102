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
MIXED = ["Ada", "Emil", "Carl", "Gert", "Berta", "Frida", "Dora", "Hilde"]
"""All are of one length, and come in van der Corput's order."""

SHORT = {
    "--rounds": "1",
    "--duration": "1s",
    "--requests": "1",
    "--connections": "2 1",
    "--shares": "50",
    "--step": "1s",
    "--step-requests": "1",
}


def make_bundle(folder: Path, *, task: str = "ner", parameters: int = 1_000_000, **fake: Any) -> Path:
    folder.mkdir(parents=True)
    manifest = {
        "name": folder.name,
        "task": task,
        "parameters": parameters,
        "digest": f"12ab-{folder.name}",
        "fake": fake,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def command(folder: Path, teacher: Path, student: Path, *more: str) -> list[str]:
    texts = folder / "test.txt"
    texts.write_text("".join(f"{word} runs far .\n" for word in WORDS), encoding="utf-8")
    options = SHORT | {
        "--systems": "teacher student",
        "--teacher": str(teacher),
        "--student": str(student),
        "--texts": str(texts),
        "--out": str(folder / "reports"),
        "--rows": str(folder / "rows.jsonl"),
    }
    words = [word for option, value in options.items() for word in (option, *value.split())]
    serve = shlex.join([sys.executable, str(FAKE_SERVER)])
    return [sys.executable, "-m", "loadtest", *words, "--server-command", serve, *more]


def run(*arguments: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120)


def report_of(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "reports" / "table7.json").read_text(encoding="utf-8"))
    return read


def test_teacher_and_student_take_turns_with_the_same_requests_in_the_same_order(tmp_path: Path) -> None:
    journals = {system: tmp_path / f"{system}.journal" for system in ("teacher", "student")}
    teacher = make_bundle(
        tmp_path / "big", parameters=25_000_000, delay=0.05, journal=str(journals["teacher"])
    )
    student = make_bundle(tmp_path / "small", journal=str(journals["student"]))
    done = run(tmp_path, teacher, student, "--rounds", "2", "--connections", "1", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    turns = [line.split(": ")[1].split(" (")[0] for line in done.stdout.splitlines() if line.startswith("[")]
    assert turns == ["big", "small", "big", "small"]

    result = report_of(tmp_path)
    assert result["valid"]
    slow, fast = result["systems"]
    assert (slow["name"], fast["name"]) == ("big", "small")
    assert [(row["round"], row["sentences_a_request"]) for row in slow["closed"]] == [
        (1, 1), (1, 32), (2, 1), (2, 32),
    ]  # fmt: skip
    for row in slow["closed"]:
        assert 0 < row["sentences_per_second"] <= row["sentences_a_request"] / 0.05
        assert row["latency"]["p50"] >= 50
    assert result["http_vs_run_teacher"] > 1
    assert result["p99_ms_at_half"] > 0
    assert "http_vs_paper_shape" not in result
    for system, journal in ((slow, journals["teacher"]), (fast, journals["student"])):
        servers = journal.read_text(encoding="utf-8").splitlines()
        cores = {line.partition(" ")[2] for line in servers if line[0].isdigit()}
        assert len(cores) == 1
        assert json.loads(cores.pop()) == result["conditions"]["server_cores"]
        assert len([line for line in servers if line[0].isdigit()]) == 2
        singles = [line for line in servers[2:] if " " not in line]
        assert singles[:9] == [*MIXED, MIXED[0]]
        assert f"{' '.join(MIXED * 4)}" in servers
        steps = {step["sentences_a_request"] for step in system["steps"]}
        assert steps == {1, 32}

    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["row"] for row in rows].count("closed") == 8
    assert {row["run"] for row in rows} == {result["conditions"]["date"]}
    for name in ("table7.md", "table7.html", "table7.svg"):
        assert (tmp_path / "reports" / name).stat().st_size
    assert {path.suffix for path in (tmp_path / "reports").iterdir()} == {".json", ".md", ".html", ".svg"}
    assert "27.76" in done.stdout


@pytest.mark.parametrize(
    ("fake", "reason"), [({"fail_every": 4}, "status 500"), ({"few_every": 4}, "results for")]
)
def test_a_failed_request_makes_the_report_invalid_and_the_status_non_zero(
    tmp_path: Path, fake: dict[str, int], reason: str
) -> None:
    teacher = make_bundle(tmp_path / "big", task="parse")
    student = make_bundle(tmp_path / "small", task="parse", **fake)
    done = run(tmp_path, teacher, student, "--input", "texts")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "parse, student" in done.stderr
    assert reason in done.stderr
    result = report_of(tmp_path)
    assert not result["valid"]
    big, small = result["systems"]
    assert sum(row["failures"] for row in small["closed"]) > 0
    assert sum(row["failures"] for row in big["closed"] + big["steps"]) == 0
    markdown = (tmp_path / "reports" / "table7.md").read_text(encoding="utf-8")
    assert markdown.index("not valid") < markdown.index("|")


def test_a_server_that_refuses_at_saturation_only_is_no_failure(tmp_path: Path) -> None:
    teacher = make_bundle(tmp_path / "big", delay=0.02)
    student = make_bundle(tmp_path / "small", delay=0.02, refuse=20)
    done = run(tmp_path, teacher, student, "--connections", "2", "1", "--shares", "25", "200", "--step", "2s")
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = report_of(tmp_path)["systems"][1]["steps"]
    assert last["refused"] > 0
    assert last["failures"] == 0
    assert last["completed_per_second"] <= 1.1 / 0.02


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        ({"crash": "the model file is truncated"}, "    the model file is truncated"),
        ({"model": "another"}, "expected 'big' for ner alone"),
        ({"version": "77"}, "has the version '77'"),
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


def test_ctrl_c_stops_the_server_says_so_and_keeps_the_rows(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    teacher = make_bundle(tmp_path / "big", journal=str(journal), delay=0.01)
    arguments = command(tmp_path, teacher, make_bundle(tmp_path / "small"), "--duration", "60s")
    process = subprocess.Popen(
        arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
        # A test run started in the background hands down an ignored SIGINT; a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    give_up = time.monotonic() + 60
    while not journal.exists() or len(journal.read_text(encoding="utf-8").splitlines()) < 20:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.1)
    server = int(journal.read_text(encoding="utf-8").split()[0])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in errors
    assert "rows.jsonl" in errors
    assert not (tmp_path / "reports").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_a_server_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    big, small = make_bundle(tmp_path / "big"), make_bundle(tmp_path / "small")
    done = run(tmp_path, big, small, "--server-command", "no-such-server")
    assert done.returncode == 2
    assert "no-such-server" in done.stderr
    assert "Traceback" not in done.stderr


def test_bundles_that_are_missing_or_do_not_pair_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    missing = run(tmp_path, tmp_path / "nowhere", make_bundle(tmp_path / "small"))
    assert missing.returncode == 2
    assert "python -m export" in missing.stderr
    unpaired = run(tmp_path, make_bundle(tmp_path / "big", task="parse"), tmp_path / "small")
    assert unpaired.returncode == 2
    assert "no teacher for the task ner" in unpaired.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--duration", "0s"], "expected whole seconds"),
        (["--rounds", "0"], "expected a number from 1"),
        (["--paper-shape", "somewhere"], "--paper-shape is given, but --systems leaves it out"),
        (["--duration", "120s"], "more than --longest, 120s: raise that too"),
        (["--quick"], "--quick has its own --rounds: leave one of them out"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, option: list[str], message: str) -> None:
    done = run(tmp_path, tmp_path / "big", tmp_path / "small", *option)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_report_is_drawn_anew_and_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    reports = ROOT / "reports" / "table7.json"
    known = json.loads(reports.read_text(encoding="utf-8"))
    options = [sys.executable, "-m", "loadtest", "--out", str(tmp_path / "again"), "--redraw"]
    done = subprocess.run([*options, str(reports)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if known["valid"] else 1), done.stderr
    for name in ("table7.json", "table7.md"):  # pictures may differ in a last digit between machines
        again = (tmp_path / "again" / name).read_text(encoding="utf-8")
        assert again == (ROOT / "reports" / name).read_text(encoding="utf-8"), name
    assert {path.suffix for path in (tmp_path / "again").iterdir()} == {".json", ".md", ".html", ".svg"}
    other = ROOT / "reports" / "chaos.json"
    done = subprocess.run([*options, str(other)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no report of a load test" in done.stderr


def test_the_help_teaches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    for word in ("--quick", "two minutes", "examples:", "Exit status", "runs/loadtest/rows.jsonl"):
        assert word in done.stdout
