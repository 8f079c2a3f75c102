"""The whole command against a small server of its own: real sockets, real Locust."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest import plan
from loadtest.__main__ import main
from loadtest.plan import BATCH, SINGLE, ClosedPlan, OpenPlan, Plan, Window

ROOT = Path(__file__).resolve().parents[2]
FAKE_SERVER = Path(__file__).with_name("fake_server.py")
WORDS = ["Ada", "Berta", "Carl", "Dora", "Emil", "Frida", "Gert", "Hilde"]
MIXED = ["Ada", "Emil", "Carl", "Gert", "Berta", "Frida", "Dora", "Hilde"]
"""All are of one length, and come in van der Corput's order."""

WINDOW = Window(warm_up=0.1, longest_warm_up=5.0, duration=0.5, requests=1, longest=10.0)
STEPS = OpenPlan(SINGLE, (50,), step=1.0, requests=1, longest_step=20.0, objective_ms=50.0)
SHORT = Plan(
    rounds=1,
    closed_loops=(ClosedPlan(SINGLE, 2, WINDOW), ClosedPlan(BATCH, 1, WINDOW)),
    open_loops=dict.fromkeys(("teacher", "student"), (STEPS, replace(STEPS, size=BATCH))),
    checked_sentences=8,
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A whole load test in seconds, which leaves the signals of this process alone."""
    monkeypatch.setattr(plan, "FULL", SHORT)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


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


def arguments(folder: Path, teacher: Path, student: Path, *more: str) -> list[str]:
    texts = folder / "test.txt"
    texts.write_text("".join(f"{word} runs far .\n" for word in WORDS), encoding="utf-8")
    bundles = ["--systems", "teacher", "student", "--teacher", str(teacher), "--student", str(student)]
    serve = shlex.join([sys.executable, str(FAKE_SERVER)])
    files = ["--texts", str(texts), "--out", str(folder / "reports"), "--server-command", serve]
    return [*bundles, *files, *more]


def report_of(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "reports" / "table7.json").read_text(encoding="utf-8"))
    return read


def test_teacher_and_student_take_turns_with_the_same_requests_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one_client = (ClosedPlan(SINGLE, 1, WINDOW), ClosedPlan(BATCH, 1, WINDOW))
    monkeypatch.setattr(plan, "FULL", replace(SHORT, rounds=2, closed_loops=one_client))
    journals = {system: tmp_path / f"{system}.journal" for system in ("teacher", "student")}
    teacher = make_bundle(
        tmp_path / "big", parameters=25_000_000, delay=0.05, journal=str(journals["teacher"])
    )
    student = make_bundle(tmp_path / "small", journal=str(journals["student"]))
    assert main(arguments(tmp_path, teacher, student)) == 0
    printed = capsys.readouterr().out
    assert [line.split(": ")[1] for line in printed.splitlines() if line.startswith("[")] == [
        "big", "small", "big", "small",
    ]  # fmt: skip
    assert "27.76" in printed

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
        lines = journal.read_text(encoding="utf-8").splitlines()
        servers = [line for line in lines if line[0].isdigit()]
        assert len(servers) == 2
        cores = {line.partition(" ")[2] for line in servers}
        assert cores == {str(result["conditions"]["server_cores"])}
        singles = [line for line in lines[2:] if " " not in line]
        assert singles[:9] == [*MIXED, MIXED[0]]
        assert " ".join(MIXED * 4) in lines
        assert {step["sentences_a_request"] for step in system["steps"]} == {1, 32}
    written = {path.suffix: path.stat().st_size for path in (tmp_path / "reports").iterdir()}
    assert written.keys() == {".json", ".md", ".html", ".svg"}
    assert all(written.values())


def test_a_failed_request_makes_the_report_invalid_and_the_status_non_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "FULL", replace(SHORT, open_loops={}))
    teacher = make_bundle(tmp_path / "big", task="parse", few_every=4)
    student = make_bundle(tmp_path / "small", task="parse", fail_every=4)
    assert main(arguments(tmp_path, teacher, student)) == 1
    errors = capsys.readouterr().err.splitlines()
    assert any("parse, teacher" in line and "results for" in line for line in errors)
    assert any("parse, student" in line and "status 500" in line for line in errors)
    result = report_of(tmp_path)
    assert not result["valid"]
    assert all(sum(row["failures"] for row in system["closed"]) for system in result["systems"])
    markdown = (tmp_path / "reports" / "table7.md").read_text(encoding="utf-8")
    assert markdown.index("not valid") < markdown.index("|")


def test_a_server_that_refuses_at_saturation_only_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = replace(STEPS, percents=(25, 200), step=2.0)
    monkeypatch.setattr(plan, "FULL", replace(SHORT, open_loops={"student": (flood,)}))
    teacher = make_bundle(tmp_path / "big", delay=0.02)
    student = make_bundle(tmp_path / "small", delay=0.02, refuse=20)
    assert main(arguments(tmp_path, teacher, student)) == 0
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
    tmp_path: Path, fake: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    big, small = make_bundle(tmp_path / "big", **fake), make_bundle(tmp_path / "small")
    assert main(arguments(tmp_path, big, small)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "reports").exists()


def test_ctrl_c_stops_the_server_and_says_so(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    teacher = make_bundle(tmp_path / "big", journal=str(journal), delay=0.01)
    words = arguments(tmp_path, teacher, make_bundle(tmp_path / "small"))
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest", *words], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
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
    assert not (tmp_path / "reports").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_missing_inputs_are_errors_that_name_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big, small = make_bundle(tmp_path / "big"), make_bundle(tmp_path / "small")
    assert main(arguments(tmp_path, big, small, "--server-command", "no-such-server")) == 2
    assert "no-such-server" in capsys.readouterr().err
    assert main(arguments(tmp_path, tmp_path / "nowhere", small)) == 2
    assert "python -m export" in capsys.readouterr().err
    parser = make_bundle(tmp_path / "parser", task="parse")
    assert main(arguments(tmp_path, parser, small)) == 2
    assert "no teacher for the task ner" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(arguments(tmp_path, big, small, "--paper-shape", "somewhere"))
    assert ended.value.code == 2
    assert "--paper-shape is given, but --systems leaves it out" in capsys.readouterr().err


def test_a_report_is_drawn_anew_and_a_file_that_is_none_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ROOT / "reports" / "table7.json"
    valid = json.loads(file.read_text(encoding="utf-8"))["valid"]
    assert main(["--redraw", str(file), "--out", str(tmp_path)]) == (0 if valid else 1)
    for name in ("table7.json", "table7.md"):  # pictures may differ in a last digit between machines
        again = (tmp_path / name).read_text(encoding="utf-8")
        assert again == (ROOT / "reports" / name).read_text(encoding="utf-8"), name
    assert main(["--redraw", str(ROOT / "reports" / "chaos.json"), "--out", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "chaos.json: no report of a load test" in errors
    assert "conditions" in errors


def test_the_command_has_examples_and_exit_statuses_in_its_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    for word in ("--quick", "examples:", "Exit status"):
        assert word in done.stdout
