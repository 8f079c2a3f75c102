"""Bulk annotation that is interrupted: killed, stopped, without a reader, without room; and gone on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from structural_kd.annotate.partial import PartialFile, Progress, ResumeError
from tests.structural_kd.annotation_fakes import fake_bundle

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tests.structural_kd.annotation_fakes", "annotate", "--window-tokens=40"]

JSONL = "".join(
    "bad\n" if i % 17 == 5 else json.dumps({"id": i, "tokens": [f"W{i}", *["ä"] * (i % 9)]}) + "\n"
    for i in range(150)
)
CONLLU = "".join(
    f"# sent_id = {i}\n"
    + "".join(f"{n}\tW{i}" + "\t_" * (8 - (i % 17 == 5)) + "\n" for n in range(1, 2 + i % 9))
    + "\n"
    for i in range(150)
)
TOKENS = "".join(f"W{i} {'ä ' * (i % 9)}\n" for i in range(150))


def run(*options: str | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more.pop("env", {})}
    options_ = [str(option) for option in options]
    return subprocess.run(
        [*COMMAND, *options_],
        cwd=ROOT,
        env=environment,
        check=False,
        preexec_fn=_hear_interrupts,
        **{"capture_output": True, **more},
    )


def _hear_interrupts() -> None:
    """Whoever runs the tests in the background may have SIGINT ignored, which is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def ner(tmp_path: Path) -> Path:
    return fake_bundle(tmp_path / "ner", "ner")


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text(JSONL, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "options", "status"),
    [
        ("in.jsonl", JSONL, (), 1),
        ("in.conllu", CONLLU, (), 1),
        ("in", TOKENS, ("--input-format=tokens", "--output-format=text"), 0),
    ],
)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    tmp_path: Path, ner: Path, name: str, content: str, options: tuple[str, ...], status: int
) -> None:
    given, whole, pieces = tmp_path / name, tmp_path / "whole", tmp_path / "pieces"
    given.write_text(content, encoding="utf-8")
    arguments: tuple[str | Path, ...] = ("--bundle", ner, "--input", given, *options)
    uninterrupted = run(*arguments, "--output", whole)
    assert uninterrupted.returncode == status
    for calls, late in [("1", "0"), ("3", "0"), ("4", "3600"), ("2", "0"), ("6", "0")]:
        environment = {"SIGNAL": f"9@{calls}", "SECONDS_BETWEEN_CHECKPOINTS": late}
        killed = run(*arguments, "--output", pieces, "--resume", env=environment)
        assert killed.returncode == -signal.SIGKILL
        assert not pieces.exists()
        with (tmp_path / "pieces.part").open("ab") as part:
            part.write('{"id":77,"tokens":["ä'.encode()[:-1])
    last = run(*arguments, "--output", pieces, "--resume")
    assert last.returncode == status
    assert pieces.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["ner", name, "whole", "pieces"])
    if status:
        assert last.stderr.splitlines()[-1] == uninterrupted.stderr.splitlines()[-1]


def test_a_run_goes_on_from_a_pipe_that_begins_again(tmp_path: Path, ner: Path) -> None:
    content = JSONL.encode()
    whole = run("--bundle", ner, input=content).stdout
    output = ("--output", tmp_path / "out")
    environment = {"SIGNAL": "9@5"}
    assert run("--bundle", ner, *output, input=content, env=environment).returncode == -signal.SIGKILL
    assert run("--bundle", ner, *output, "--resume", input=content).returncode == 1
    assert (tmp_path / "out").read_bytes() == whole


def test_ctrl_c_stops_with_advice_and_the_run_can_go_on(tmp_path: Path, ner: Path, jsonl: Path) -> None:
    arguments = ("--bundle", ner, "--input", jsonl, "--output", tmp_path / "out")
    stopped = run(*arguments, env={"SIGNAL": "2@4"})
    assert stopped.returncode == 130
    last = stopped.stderr.decode().splitlines()[-1]
    assert last == "annotate: interrupted; the same command with --resume goes on"
    assert run(*arguments).returncode == 2
    resumed = run(*arguments, "--resume")
    assert resumed.returncode == 1
    assert b"annotate: going on after " in resumed.stderr
    assert (tmp_path / "out").read_bytes() == run("--bundle", ner, "--input", jsonl).stdout


def test_ctrl_c_says_that_stdout_cannot_be_gone_on_with(ner: Path, jsonl: Path) -> None:
    stopped = run("--bundle", ner, "--input", jsonl, env={"SIGNAL": "2@4"})
    assert stopped.returncode == 130
    assert stopped.stderr.endswith(
        b"interrupted; what went to stdout cannot be gone on with, --output FILE can\n"
    )
    assert all(json.loads(line) for line in stopped.stdout.splitlines())


@pytest.fixture
def interrupted(tmp_path: Path, ner: Path, jsonl: Path) -> Path:
    output = tmp_path / "out"
    killed = run("--bundle", ner, "--input", jsonl, "--output", output, env={"SIGNAL": "9@5"})
    assert killed.returncode == -signal.SIGKILL
    return output


def refused(*options: str | Path) -> str:
    found = run(*options)
    assert found.returncode == 2
    return found.stderr.decode().splitlines()[-1]


def test_what_is_not_the_interrupted_run_is_refused_and_leaves_it_as_it_is(
    tmp_path: Path, ner: Path, jsonl: Path, interrupted: Path
) -> None:
    part, sidecar = tmp_path / "out.part", tmp_path / "out.part.json"
    before = part.read_bytes()
    other_bundle = fake_bundle(tmp_path / "other", "ner")
    other_input, shorter = tmp_path / "other.jsonl", tmp_path / "shorter.jsonl"
    other_input.write_text(JSONL.replace("W1", "X1"), encoding="utf-8")
    shorter.write_text(JSONL[:30], encoding="utf-8")
    output = ("--output", interrupted)
    same = ("--bundle", ner, "--input", jsonl, *output)
    resume = (*same, "--resume")
    assert "go on with it with --resume, or delete it" in refused(*same)
    assert "had bundles" in refused("--bundle", other_bundle, "--input", jsonl, *output, "--resume")
    assert "had output_format 'jsonl', this one has 'conllu'" in refused(*resume, "--output-format=conllu")
    assert "had window_tokens 40, this one has 50" in refused(*resume, "--window-tokens=50")
    assert "are not those that were annotated" in refused(
        "--bundle", ner, "--input", other_input, *output, "--resume"
    )
    assert "it ends after 30 bytes" in refused("--bundle", ner, "--input", shorter, *output, "--resume")
    written = json.loads(sidecar.read_text())["output_bytes"]
    assert part.read_bytes()[:written] == before[:written]
    part.write_bytes(b"X" + before[1:])
    assert "changed since its run was interrupted" in refused(*resume)
    part.write_bytes(before[: written - 1])
    assert f"its run had written {written:,}" in refused(*resume)
    part.write_bytes(before)
    checkpoint = sidecar.read_bytes()
    sidecar.write_text('{"progress": 3}')
    assert "not what a run writes" in refused(*resume)
    sidecar.unlink()
    assert "out.part.json: missing" in refused(*resume)
    sidecar.write_bytes(checkpoint)
    assert run(*resume).returncode == 1
    assert interrupted.read_bytes() == run("--bundle", ner, "--input", jsonl).stdout
    assert "complete, there is no out.part" in refused(*resume)


def test_a_finished_output_is_replaced_only_when_the_new_one_is_complete(
    tmp_path: Path, ner: Path, jsonl: Path
) -> None:
    output = tmp_path / "out"
    output.write_text("old")
    arguments = ("--bundle", ner, "--input", jsonl, "--output", output)
    run(*arguments, env={"SIGNAL": "9@5"})
    assert output.read_text() == "old"
    assert run(*arguments, "--resume").returncode == 1
    assert len(output.read_text().splitlines()) == 150


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    first = PartialFile(tmp_path / "out", {}, resume=False)
    with pytest.raises(ResumeError, match="another run is writing it"):
        PartialFile(tmp_path / "out", {}, resume=True)
    first.write(b"all\n", Progress())
    first.finish()
    assert (tmp_path / "out").read_bytes() == b"all\n"


def test_a_reader_that_leaves_ends_the_run_quietly(ner: Path, jsonl: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    found = run(
        "--bundle", ner, "--input", jsonl, capture_output=False, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert found.returncode == 141
    assert all(line.startswith(str(jsonl).encode()) for line in found.stderr.splitlines())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_said(ner: Path, jsonl: Path) -> None:
    with open("/dev/full", "wb") as full:
        found = run(
            "--bundle", ner, "--input", jsonl, capture_output=False, stdout=full, stderr=subprocess.PIPE
        )
    assert found.returncode == 3
    assert b"annotate: stopped: [Errno 28] No space left on device" in found.stderr


def test_progress_is_shown_where_it_is_asked_for(tmp_path: Path, ner: Path, jsonl: Path) -> None:
    size = f"{len(JSONL.encode()) / 1000:.2f}k"
    assert b"sentences/s" not in run("--bundle", ner, "--input", jsonl).stderr
    with jsonl.open("rb") as redirected:
        shown = run("--bundle", ner, "--progress", stdin=redirected).stderr.decode()
    last = shown.replace("\r", "\n").split("<stdin>: ")[-1]
    assert f"{size}/{size}" in last
    assert "100%" in last
    assert "sentences/s" in last
    assert "%" not in run("--bundle", ner, "--progress", input=JSONL.encode()).stderr.decode()
