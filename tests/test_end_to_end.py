"""From a corpus to HTTP answers: train, export, serve, ask."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import structural_kd
from structural_kd.trees import is_tree
from tests.train.tiny import sentence, write_corpus, write_encoder, write_recipe

STEPS = {
    "hidden_size": 32,
    "arc_size": 16,
    "relation_size": 16,
    "steps": 200,
    "learning_rate": 5e-3,
    "batch_tokens": 160,
    "evaluations": 2,
}


def run(*arguments: str, cache: Path) -> str:
    environment = {**os.environ, "STRUCTURAL_KD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of students and teachers that have learnt a small language."""
    folder = tmp_path_factory.mktemp("end_to_end")
    write_corpus(folder / "xx_tiny")
    write_encoder(folder / "encoder")
    recipe = write_recipe(
        folder,
        distillation={"objectives": ["structural"]},
        tasks={
            "ner": {"teacher": STEPS, "students": {"crf": STEPS}},
            "parse": {"teacher": STEPS, "students": {"biaffine": STEPS}},
        },
    )
    run("-m", "train", str(recipe), "--out", str(folder / "run"), cache=folder)
    run("-m", "export", str(folder / "run"), "--out", str(folder / "bundles"), cache=folder)
    run(
        "-m",
        "export",
        str(folder / "run"),
        "--teachers",
        "--out",
        str(folder / "bundles/teachers"),
        cache=folder,
    )
    return folder / "bundles"


@pytest.fixture(scope="module")
def url(bundles: Path) -> Iterator[str]:
    """A server over the students, started as a user starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "serve", "--bundles", str(bundles), "--port", str(port), "--workers", "1"],
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not come up"
            try:
                if httpx.get(f"{address}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_the_student_over_http_gives_the_labels_of_the_corpus(url: str) -> None:
    right = total = 0
    for number in range(48, 56):
        rows = sentence(number)
        words = [word for word, *_ in rows]
        gold = {(i, tag.partition("-")[2]) for i, (*_, tag) in enumerate(rows) if tag != "O"}
        answer = httpx.post(f"{url}/ner", json={"sentences": [words]}).json()
        found = {(e["start"], e["label"]) for e in answer["results"][0]["entities"]}
        right += len(gold & found)
        total += len(gold | found)
    assert right / total > 0.8


def test_raw_text_comes_back_with_exact_offsets_and_trees(url: str) -> None:
    text = "Ada of Rome visits Oslo .\n\nKurt  sees Grace ."
    answer = httpx.post(f"{url}/ner", json={"texts": [text, ""]}).json()
    assert answer["model"] == "ner"
    assert len(answer["results"]) == 2
    assert answer["results"][1]["tokens"] == []
    for entity in answer["results"][0]["entities"]:
        assert text[entity["start_char"] : entity["end_char"]] == entity["text"]
        assert 0 < entity["score"] <= 1
    tree = httpx.post(f"{url}/parse", json={"texts": [text]}).json()["results"][0]
    assert len(tree["sentences"]) == 2
    for place in tree["sentences"]:
        heads = tree["heads"][place["start"] : place["end"]]
        assert is_tree([head - place["start"] if head else 0 for head in heads])
    conllu = httpx.post(f"{url}/parse", json={"texts": [text]}, headers={"Accept": "text/x-conllu"})
    assert conllu.headers["content-type"].startswith("text/x-conllu")
    assert conllu.text.count("\n\n") == 2


def test_info_names_the_models_and_the_scores_they_were_exported_with(url: str) -> None:
    models = {model["name"]: model for model in httpx.get(f"{url}/info").json()["models"]}
    assert set(models) == {"ner", "parse"}
    assert models["ner"]["role"] == "student"


def test_teachers_are_bundles_that_the_same_code_runs(bundles: Path) -> None:
    for task in ("ner", "parse"):
        teacher, student = structural_kd.load(bundles / "teachers" / task), structural_kd.load(bundles / task)
        assert teacher.manifest.role == "teacher"
        assert teacher.manifest.parameters > student.manifest.parameters
        words = [["Ada", "visits", "Oslo", "."], [], ["Unseen", "Zürich", "."]]
        assert [type(r) for r in teacher.predict(words)] == [type(r) for r in student.predict(words)]


def test_the_manifest_says_where_the_student_comes_from(bundles: Path) -> None:
    manifest = json.loads((bundles / "ner" / "manifest.json").read_text())
    assert manifest["provenance"]["objective"] == "structural"
    assert manifest["scores"]["test"]["f1"] > 50
