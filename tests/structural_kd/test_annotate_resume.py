"""Bulk annotation that is interrupted: killed, stopped, without a reader, without room; and gone on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from structural_kd.annotate.shards import ResumeError, Shards
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
    """Runs the command with fakes; `env` may hold SIGNAL and SHARD_BYTES."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more.pop("env", {})}
    return subprocess.run(
        [*COMMAND, *map(str, options)],
        cwd=ROOT,
        env=environment,
        check=False,
        # Whoever runs the tests in the background may have SIGINT ignored, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **{"capture_output": True, **more},
    )


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
    given, complete, pieces = tmp_path / name, tmp_path / "complete", tmp_path / "pieces"
    given.write_text(content, encoding="utf-8")
    arguments: tuple[str | Path, ...] = ("--bundle", ner, "--input", given, *options)
    uninterrupted = run(*arguments, "--output", complete)
    assert uninterrupted.returncode == status
    shards = []
    for window, size in [("1", "1"), ("3", "1"), ("4", "3000"), ("6", "1")]:
        environment = {"SIGNAL": f"9@{window}", "SHARD_BYTES": size}
        killed = run(*arguments, "--output", pieces, "--resume", env=environment)
        assert killed.returncode == -signal.SIGKILL
        assert not pieces.exists()
        shards.append(len(list((tmp_path / "pieces.parts").glob("[0-9]*"))))
        (tmp_path / "pieces.parts" / f"{shards[-1]:05}").write_bytes(b"left of an unfinished shard")
    assert shards[0] == 0
    assert shards[1] < shards[3]
    last = run(*arguments, "--output", pieces, "--resume")
    assert last.returncode == status
    assert pieces.read_bytes() == complete.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["ner", name, "complete", "pieces"])
    if status:
        assert last.stderr.splitlines()[-1] == uninterrupted.stderr.splitlines()[-1]


def test_a_run_goes_on_from_a_pipe_that_begins_again(tmp_path: Path, ner: Path) -> None:
    content = JSONL.encode()
    complete = run("--bundle", ner, input=content).stdout
    output = ("--output", tmp_path / "out")
    environment = {"SIGNAL": "9@5"}
    assert run("--bundle", ner, *output, input=content, env=environment).returncode == -signal.SIGKILL
    assert run("--bundle", ner, *output, "--resume", input=content).returncode == 1
    assert (tmp_path / "out").read_bytes() == complete


def test_ctrl_c_stops_with_advice_and_an_earlier_output_stays_until_the_new_one_is_complete(
    tmp_path: Path, ner: Path, jsonl: Path
) -> None:
    output = tmp_path / "out"
    output.write_text("old")
    arguments = ("--bundle", ner, "--input", jsonl, "--output", output)
    stopped = run(*arguments, env={"SIGNAL": "2@4"})
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1].endswith(b"the same command with --resume goes on")
    assert output.read_text() == "old"
    assert run(*arguments).returncode == 2
    resumed = run(*arguments, "--resume")
    assert resumed.returncode == 1
    assert b"annotate: going on after " in resumed.stderr
    to_stdout = run("--bundle", ner, "--input", jsonl, env={"SIGNAL": "2@99"})
    assert output.read_bytes() == to_stdout.stdout


def test_ctrl_c_before_the_first_shard_leaves_nothing(tmp_path: Path, ner: Path, jsonl: Path) -> None:
    environment = {"SIGNAL": "2@2", "SHARD_BYTES": "1000000"}
    run("--bundle", ner, "--input", jsonl, "--output", tmp_path / "out", env=environment)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "ner"]


def test_ctrl_c_says_that_stdout_cannot_be_gone_on_with(ner: Path, jsonl: Path) -> None:
    stopped = run("--bundle", ner, "--input", jsonl, env={"SIGNAL": "2@4"})
    assert stopped.returncode == 130
    assert b"stdout cannot be gone on with" in stopped.stderr
    assert all(json.loads(line) for line in stopped.stdout.splitlines())


def refused(*options: str | Path) -> str:
    found = run(*options)
    assert found.returncode == 2
    return found.stderr.decode().splitlines()[-1]


def test_another_run_than_the_interrupted_one_is_refused_and_changes_nothing(
    tmp_path: Path, ner: Path, jsonl: Path
) -> None:
    output = ("--output", tmp_path / "out")
    same = ("--bundle", ner, "--input", jsonl, *output)
    assert run(*same, env={"SIGNAL": "9@5"}).returncode == -signal.SIGKILL
    folder = tmp_path / "out.parts"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other_bundle = fake_bundle(tmp_path / "other", "ner")
    other_input, shorter = tmp_path / "other.jsonl", tmp_path / "shorter.jsonl"
    other_input.write_text(JSONL.replace("W1", "X1"), encoding="utf-8")
    shorter.write_text(JSONL[:30], encoding="utf-8")
    resume = (*same, "--resume")
    assert "go on with it with --resume, or delete it" in refused(*same)
    assert "had bundles" in refused("--bundle", other_bundle, "--input", jsonl, *output, "--resume")
    assert "had output_format 'jsonl', this one has 'conllu'" in refused(*resume, "--output-format=conllu")
    assert "had window_tokens 40, this one has 50" in refused(*resume, "--window-tokens=50")
    assert "other.jsonl: not the input of the interrupted run" in refused(
        "--bundle", ner, "--input", other_input, *output, "--resume"
    )
    assert "it ends after 30 bytes" in refused("--bundle", ner, "--input", shorter, *output, "--resume")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    for damage in (b"", None):
        shard = folder / "00001"
        shard.unlink() if damage is None else shard.write_bytes(damage)
        assert str(folder) in refused(*resume)
        shard.write_bytes(before["00001"])
    (folder / "state.json").write_text('{"progress": 3}')
    assert "state.json: not what a run leaves" in refused(*resume)
    (folder / "state.json").write_bytes(before["state.json"])
    assert run(*resume).returncode == 1
    assert "complete, there is no out.parts" in refused(*resume)


def test_a_slow_run_loses_half_a_minute_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 29.0, 30.0, 30.0])
    monkeypatch.setattr("structural_kd.annotate.shards.time.monotonic", times.__next__)
    output = Shards(tmp_path / "out", {}, resume=False)
    output.write(b"first\n")
    assert not (tmp_path / "out.parts" / "00000").exists()
    output.write(b"second\n")
    assert (tmp_path / "out.parts" / "00000").read_bytes() == b"first\nsecond\n"
    output.close()


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    first = Shards(tmp_path / "out", {}, resume=False)
    with pytest.raises(ResumeError, match="another run is writing it"):
        Shards(tmp_path / "out", {}, resume=True)
    first.write(b"all\n")
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
def test_a_full_disk_is_reported(ner: Path, jsonl: Path) -> None:
    with open("/dev/full", "wb") as full:
        found = run(
            "--bundle", ner, "--input", jsonl, capture_output=False, stdout=full, stderr=subprocess.PIPE
        )
    assert found.returncode == 3
    assert b"annotate: stopped: [Errno 28] No space left on device" in found.stderr


def test_progress_is_shown_where_it_is_asked_for(ner: Path, jsonl: Path) -> None:
    size = f"{len(JSONL.encode()) / 1000:.2f}k"
    assert b"sentences/s" not in run("--bundle", ner, "--input", jsonl).stderr
    with jsonl.open("rb") as redirected:
        shown = run("--bundle", ner, "--progress", stdin=redirected).stderr.decode()
    last = shown.replace("\r", "\n").split("<stdin>: ")[-1]
    assert f"{size}/{size}" in last
    assert "sentences/s" in last
    assert "%" not in run("--bundle", ner, "--progress", input=JSONL.encode()).stderr.decode()
