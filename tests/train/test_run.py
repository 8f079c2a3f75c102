import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tests.train.tiny import write_corpus, write_encoder, write_recipe
from train.__main__ import main
from train.batching import Dataset, TrainingBatch, TrainingSet
from train.corpora import Sentence, read_jsonl
from train.models.batch import Batch
from train.models.card import ModelCard, read_card
from train.models.words import WordTypes
from train.network import Network
from train.recipe import RecipeError, Training, load_recipe
from train.splits import load_splits, words_digest
from train.structs import TokenSoftmax
from train.tasks import TASKS, EntityTask, TrainingTask
from train.trainer import TrainingError, fit
from train.word_types import load_word_types

KEYS = {"task", "case", "system", "objective", "labelled", "unlabelled", "seed", "split", "metric", "value"}
CARD = ModelCard("ner", "softmax", "student", "xx", ("O",))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_corpus(folder / "xx_tiny")
    write_encoder(folder / "encoder")
    return folder


def command(recipe: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "train", str(recipe), "--out", str(out), *more]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "STRUCTURAL_KD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a run without its speeds, which differ from run to run."""
    lines = (out / "results.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["metric"] != "sent_per_s"]


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """A run of both tasks with every student, through the command."""
    out = folder / "finished"
    recipe = write_recipe(folder)
    done = subprocess.run(
        command(recipe, out), env=environment(folder / "cache"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (out / "printed.txt").write_text(done.stdout)
    return out


def test_a_run_writes_one_row_a_number_for_the_teacher_and_every_student(finished: Path) -> None:
    found = rows(finished)
    assert all(set(row) == KEYS for row in found)
    assert {(row["task"], row["case"], row["system"], row["objective"]) for row in found} == {
        ("ner", "1a", "teacher", "none"),
        ("parse", "1b-biaffine", "teacher", "none"),
        *(
            (task, case, "student", objective)
            for task, case in (("ner", "1a"), ("ner", "2a"), ("parse", "1b"), ("parse", "1b-biaffine"))
            for objective in ("none", "top1", "structural")
        ),
    }
    always = {"f1", "precision", "recall", "uas", "las", "agreement", "params", "lost_mass"}
    # None of these where there is nothing to divide by: no word is unseen, the teacher is no better.
    assert always <= {row["metric"] for row in found} <= always | {"kept", "gap"}
    unlabelled = {(row["objective"], row["unlabelled"]) for row in found if row["system"] == "student"}
    assert unlabelled == {("none", 0), ("top1", 16), ("structural", 16)}


def test_a_run_ends_with_a_table_and_leaves_the_files_for_export(finished: Path) -> None:
    printed = (finished / "printed.txt").read_text()
    lines = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines()]
    assert any(line[1:3] == ["ner", "teacher"] for line in lines)
    assert any(line[1:4] == ["parse", "structural", "1b-biaffine"] for line in lines)
    assert any(line[1:4] == ["parse", "alone", "1b-biaffine"] for line in lines)
    assert (finished / "examples.md").read_text() in printed
    assert re.search(r"^Encoder .*encoder: .+; SHA-256 [0-9a-f]{12}", printed, re.MULTILINE)
    assert len((finished / "test.txt").read_text().splitlines()) == 8
    for task in ("ner", "parse"):
        served = json.loads((finished / task / "served.json").read_text())["student"]
        assert (finished / task / served / "model.safetensors").exists()
    assert not list(finished.glob("**/*.part"))
    assert not list(finished.glob("**/checkpoint.pt"))


def test_a_run_killed_in_the_middle_goes_on_to_the_numbers_of_an_uninterrupted_one(
    finished: Path, folder: Path
) -> None:
    out = folder / "killed"
    recipe = write_recipe(folder)
    process = subprocess.Popen(
        command(recipe, out),
        env=environment(folder / "cache"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("*/students/*/checkpoint.pt")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no student began"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.stderr is not None
    process.stderr.read()  # ends when the last process that holds it, parent or child, is gone
    assert process.wait() == -signal.SIGKILL

    refused = main([str(recipe), "--out", str(out)])
    assert refused == 2
    done = subprocess.run(
        command(recipe, out, "--resume"), env=environment(folder / "cache"), capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert rows(out) == rows(finished)


def test_resuming_a_finished_run_with_another_seed_adds_only_that_seed(finished: Path, folder: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.glob("*/students/*/model.safetensors")}
    recipe = write_recipe(folder)
    done = subprocess.run(
        command(
            recipe, finished, "--resume", "--set", "seeds=[1,2]", "--set", "distillation.objectives=[none]"
        ),
        env=environment(folder / "cache"),
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert {row["seed"] for row in rows(finished)} == {1, 2}


def test_resuming_with_other_settings_is_an_error_that_names_the_changed_one(
    finished: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(folder)
    changed = ["--set", "tasks.ner.students.crf.steps=13", "--set", "tasks.parse.teacher.steps=13"]
    assert main([str(recipe), "--out", str(finished), "--resume", *changed]) == 1
    printed = capfd.readouterr().err
    assert "crf-none-seed1: training was" in printed
    assert "parse/teacher: training was" in printed


def test_a_teacher_can_fine_tune_its_encoder(folder: Path) -> None:
    short = {"steps": 4, "evaluations": 1}
    recipe = write_recipe(
        folder,
        encoder={"name": str(folder / "encoder"), "layers": [-1], "finetune": True, "learning_rate": 1e-3},
        tasks={"ner": {"teacher": short, "students": {"crf": short}}},
    )
    out = folder / "finetuned"
    assert main([str(recipe), "--out", str(out)]) == 0
    from safetensors.torch import load_file

    before = load_file(folder / "encoder" / "model.safetensors")
    after = load_file(out / "ner" / "teacher" / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    moved = [key for key in after if key.endswith(name)]
    assert len(moved) == 1
    assert not torch.equal(after[moved[0]], before[name])


def test_sentences_outside_the_labelled_ones_lose_their_labels(folder: Path) -> None:
    splits = load_splits(load_recipe(write_recipe(folder)))
    assert len(splits.select(splits.labelled)) == 24
    assert all(s.tags is None and s.heads is None for s in splits.select(splits.unlabelled))
    assert sorted([*splits.labelled, *splits.unlabelled]) == list(range(40))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"labelled": 41}, "labelled: 41 .* has 40"), ({"unlabelled": 17}, "unlabelled: 17 .* there are 16")],
)
def test_more_sentences_than_there_are_is_an_error(
    folder: Path, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_splits(load_recipe(write_recipe(folder, **changes)))


def test_vectors_of_the_corpus_do_not_change_with_the_amount_of_unlabelled_text(folder: Path) -> None:
    made = {}
    for text in ("corpus", "taught"):
        for unlabelled in (4, 16):
            vectors = {"from": "text", "dim": 8, "epochs": 2, "buckets": 500, "text": text}
            recipe = load_recipe(write_recipe(folder, unlabelled=unlabelled, vectors=vectors))
            words = folder / "vectors" / f"{text}-{unlabelled}"
            load_word_types(recipe, load_splits(recipe), words)
            made[text, unlabelled] = (words / "made_of.sha256").read_text()
    assert made["corpus", 4] == made["corpus", 16]
    assert made["taught", 4] != made["taught", 16]


def test_zero_shot_keeps_all_text_of_the_target_whatever_the_students_learn_from(
    folder: Path, tmp_path: Path
) -> None:
    target = write_corpus(tmp_path / "yy_tiny")
    words = set()
    for unlabelled in (4, 16):
        recipe = write_recipe(
            folder,
            target=str(target),
            unlabelled=unlabelled,
            distillation={"objectives": ["structural"]},
        )
        splits = load_splits(load_recipe(recipe))
        words.add(words_digest(splits.sentences))
        assert len(splits.unlabelled) == unlabelled
        assert len(splits.raw) == 40
        assert splits.student_train == splits.unlabelled
        assert all(s.tags is None for s in splits.select(splits.raw))
    assert len(words) == 1


def test_every_model_leaves_its_counts_of_each_test_sentence(finished: Path) -> None:
    for file in finished.glob("*/students/*/model.json"):
        card, about = read_card(file.parent)
        task: TrainingTask = TASKS[card.task](card.labels)
        with np.load(file.parent / "counts.npz", allow_pickle=False) as counts:
            assert set(counts.files) == {"dev", "test"}
            assert counts["test"].shape == (8, 3)
            for split in counts.files:
                scores = task.scores_of(counts[split])
                assert scores == pytest.approx({name: about["scores"][split][name] for name in scores})


def test_predictions_for_the_test_split_are_kept_and_agreement_is_with_the_teachers(finished: Path) -> None:
    gold = read_jsonl(finished / "test.jsonl")
    for file in finished.glob("*/students/*/model.json"):
        card, about = read_card(file.parent)
        task: TrainingTask = TASKS[card.task](card.labels)
        teacher = read_jsonl(finished / card.task / "teacher_predictions.jsonl")
        own = read_jsonl(file.parent / "predictions.jsonl")
        assert [s.words for s in own] == [s.words for s in teacher] == [s.words for s in gold]
        predicted: list[Any] = [
            list(s.tags or ()) if card.task == "ner" else (s.heads, s.deprels) for s in own
        ]
        for name, wanted in ((task.metric, gold), ("agreement", teacher)):
            score = task.scores_of(task.counts(wanted, predicted))[task.metric]
            assert score == pytest.approx(about["scores"]["test"][name])


def test_labels_in_raw_json_lines_are_not_looked_at(folder: Path) -> None:
    text = folder / "more.jsonl"
    text.write_text('{"tokens": ["Ada", "sees", "Rome"], "tags": ["S-PER", "O", "S-LOC"]}\n')
    splits = load_splits(load_recipe(write_recipe(folder, text=str(text))))
    assert splits.sentences[-1].words == ("Ada", "sees", "Rome")
    assert splits.sentences[-1].tags is None
    assert len(splits.sentences) - 1 in splits.unlabelled


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "no labelled sentence of xx_bare has entities"),
        ("dev", "no dev sentence of xx_bare has entities"),
    ],
)
def test_a_task_without_gold_is_an_error_before_anything_is_trained(
    folder: Path, tmp_path: Path, split: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "xx_bare")
    file = corpus / f"{split}.conllu"
    lines = [line.partition("NER=")[0] + "_" if line else "" for line in file.read_text().splitlines()]
    file.write_text("\n".join(lines) + "\n\n")
    recipe = write_recipe(folder, corpus=str(corpus))
    assert main([str(recipe), "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "words").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"name": "ENCODER", "layers": [-4]}}, "encoder.layers: .* has hidden states 0 to 2"),
        ({"vectors": {"load": "no/such.vec"}}, r"vectors\.load: .*no/such\.vec"),
    ],
)
def test_settings_that_do_not_fit_their_files_are_errors_of_the_recipe(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "encoder" in changes:
        changes["encoder"]["name"] = str(folder / "encoder")
    recipe = write_recipe(folder, **changes)
    assert main([str(recipe), "--out", str(tmp_path / "out")]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_missing_corpus_is_an_error_without_a_traceback(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(folder, corpus=str(tmp_path / "nowhere"))
    assert main([str(recipe), "--out", str(tmp_path / "out")]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(tmp_path: Path) -> None:
    sentences = [Sentence(("a",) * length) for length in (1, 2, 3, 4)]
    data = training_set(sentences)

    def loss(scores: TokenSoftmax, batch: TrainingBatch, _progress: float) -> Tensor:
        value = scores.scores.sum()
        return value / 0 * 0 if 3 in batch.numbers else value

    training = Training(steps=4, batch_tokens=2, learning_rate=0.1, evaluations=1)
    with pytest.raises(TrainingError, match=r"tiny: the loss is nan at step \d of 4, on sentences \[.*3.*\]"):
        fit(
            Scores(),
            Network(CARD, training, 0, {}, tmp_path, "tiny"),
            data,
            loss=loss,  # type: ignore[arg-type]
            dev_score=lambda _: 0.0,
            accelerator=Accelerator(cpu=True),
        )


class Scores(nn.Module):
    """A softmax tagger that reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.ones(1))

    def forward(self, batch: Batch) -> TokenSoftmax:
        return TokenSoftmax(self.scores.expand(*batch.words.shape, 1), batch.lengths)


def training_set(sentences: list[Sentence]) -> TrainingSet:
    types = WordTypes(["a"], torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.int64), [])
    dataset = Dataset(sentences, types)
    return TrainingSet(
        dataset, EntityTask(["O"]), lambda g: g.permutation(len(sentences)), torch.device("cpu")
    )


def test_batches_are_the_same_for_the_same_seed_and_cover_every_sentence_in_an_epoch() -> None:
    data = training_set([Sentence(("a",) * (1 + i % 7)) for i in range(100)])

    sizes = accumulate(len(batch.numbers) for batch in data.batches(24, 1))
    epoch = next(count for count, seen in enumerate(sizes, 1) if seen == 100)

    def batches(seed: int, first: int = 0) -> list[list[int]]:
        return [batch.numbers for batch in islice(data.batches(24, seed, first=first), epoch - first)]

    assert all(len(batch) * max(1 + i % 7 for i in batch) <= 24 for batch in batches(1))
    assert batches(1) == batches(1)
    assert batches(1) != batches(2)
    assert batches(1, first=5) == batches(1)[5:]  # as a resumed run asks for them
    assert sorted(number for batch in batches(1) for number in batch) == list(range(100))
