"""Whole runs of every pair of teacher and student, over a small corpus."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import torch

from tests.train.tiny import write_corpus, write_encoder, write_recipe, write_text, write_token_classifier
from train.__main__ import main
from train.distill.target_store import TargetStoreError
from train.recipe import RecipeError, Teacher, load_recipe
from train.run import prepare
from train.run import run as run_recipe
from train.splits import load_splits
from train.train_teachers import task_of, train_teachers

SIZES = {
    "hidden_size": 8,
    "arc_size": 8,
    "relation_size": 8,
    "steps": 4,
    "batch_tokens": 160,
    "evaluations": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    write_corpus(folder / "xx_tiny")
    write_corpus(folder / "yy_tiny")
    write_encoder(folder / "encoder")
    return folder


@pytest.fixture(autouse=True)
def _quietly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("STRUCTURAL_KD_CACHE", str(folder / "cache"))


def entities(teacher: Any, *students: str, **settings: Any) -> dict[str, Any]:
    return {"ner": {"teacher": teacher, "students": dict.fromkeys(students, SIZES), **settings}}


def trees(teacher: Any, *students: str) -> dict[str, Any]:
    return {"parse": {"teacher": teacher, "students": dict.fromkeys(students, SIZES)}}


def of(kind: str, **more: Any) -> dict[str, Any]:
    return {**SIZES, "kind": kind, **more}


def learn(*objectives: str, **more: Any) -> dict[str, Any]:
    return {"objectives": list(objectives), **more}


def run(folder: Path, out: Path, *more: str, **changes: Any) -> list[dict[str, Any]]:
    assert main([str(write_recipe(folder, **changes)), "--out", str(out), *more]) == 0
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def of_students(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(row["case"], row["objective"]) for row in rows if row["system"] == "student"}


CASES = {
    "1a and 2a, every objective": (
        entities(of("crf"), "crf", "softmax", token_teacher=of("softmax")),
        learn(
            *("none", "top1", "topk", "topwk", "posterior+topwk", "token", "structural"),
            *("none+top1", "structural+top1"),
        ),
        {
            *(
                (case, objective)
                for case in ("1a", "2a")
                for objective in (
                    *("none", "top1", "topk", "topwk", "structural"),
                    *("none+top1", "structural+top1"),
                )
            ),
            ("1a", "posterior+topwk"),
            ("2a", "token"),
        },
    ),
    "3": (
        entities(of("softmax"), "crf", "softmax"),
        learn("token", "token+top1", "structural"),
        {("3", "structural"), *(("token", name) for name in ("token", "token+top1", "structural"))},
    ),
    "4": (
        entities(of("span"), "softmax", "crf"),
        learn("topwk", "structural"),
        {(case, name) for case in ("4", "span-chain") for name in ("topwk", "structural")},
    ),
    "1b": (
        trees(of("biaffine"), "labeller", "biaffine"),
        learn("topk", "structural"),
        {(case, name) for case in ("1b", "1b-biaffine") for name in ("topk", "structural")},
    ),
    "2b": (
        trees(of("second_order"), "labeller", "biaffine"),
        learn("structural+top1"),
        {("2b", "structural+top1"), ("2b-biaffine", "structural+top1")},
    ),
    "matrix trees": (
        trees(of("matrix_tree"), "biaffine"),
        learn("top1", "structural"),
        {("matrix-tree", "top1"), ("matrix-tree", "structural")},
    ),
    "projective trees": (
        trees(of("projective_tree"), "biaffine"),
        learn("structural"),
        {("projective-tree", "structural")},
    ),
    "a mixture of taggers": (
        entities([of("crf"), of("span", seed=2), of("softmax")], "crf", "softmax"),
        learn("top1", "topwk", "structural"),
        {
            (case, name)
            for case in ("mixture-chain", "mixture-token")
            for name in ("top1", "topwk", "structural")
        },
    ),
    "a mixture of parsers": (
        trees([of("biaffine"), of("matrix_tree", seed=2)], "biaffine"),
        learn("structural"),
        {("mixture-heads", "structural")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_case_runs_and_its_rows_are_in_the_results(folder: Path, tmp_path: Path, name: str) -> None:
    tasks, distillation, expected = CASES[name]
    rows = run(folder, tmp_path / "run", tasks=tasks, distillation=distillation)
    assert of_students(rows) == expected
    main_metric = "f1" if "ner" in tasks else "las"
    scored = [row for row in rows if (row["split"], row["metric"]) == ("test", main_metric)]
    teachers = [row for row in scored if row["system"] == "teacher"]
    assert len(teachers) == (2 if "token" in distillation["objectives"] and name.startswith("1a") else 1)
    assert len(scored) == len(expected) + len(teachers)


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "jeffreys", "renyi"])
@pytest.mark.parametrize("tasks", [entities(of("crf"), "crf"), trees(of("biaffine"), "biaffine")])
def test_students_learn_by_every_divergence_from_the_store(
    folder: Path, tmp_path: Path, divergence: str, tasks: dict[str, Any]
) -> None:
    rows = run(
        folder, tmp_path / "run", tasks=tasks,
        distillation=learn("structural", divergence=divergence, temperature=2.0),
    )  # fmt: skip
    assert len(of_students(rows)) == 1


def test_tempered_marginals_are_for_token_students_and_are_refused_for_label_pairs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = learn("structural", temper="marginals", temperature=2.0)
    run(folder, tmp_path / "tokens", tasks=entities(of("crf"), "softmax"), distillation=local)
    recipe = write_recipe(folder, tasks=entities(of("crf"), "crf"), distillation=local)
    assert main([str(recipe), "--out", str(tmp_path / "pairs")]) == 2
    assert "allow_inconsistent: true" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="disagree"):
        run(
            folder, tmp_path / "anyway", tasks=entities(of("crf"), "crf"),
            distillation={**local, "allow_inconsistent": True},
        )  # fmt: skip


def test_crossfit_scores_each_fold_by_a_teacher_that_never_saw_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tasks, distillation = entities(of("crf"), "crf"), learn("structural")
    run(folder, out, tasks=tasks, distillation=distillation, targets={"crossfit": 3})
    folds = sorted(path.name for path in (out / "ner" / "teachers").iterdir())
    assert folds == ["fold-1-of-3", "fold-2-of-3", "fold-3-of-3"]
    seen = [
        json.loads((out / "ner" / "teachers" / fold / "model.json").read_text())["labelled"] for fold in folds
    ]
    assert seen == [16, 16, 16]  # of 24 labelled sentences


def test_crossfit_targets_are_those_of_the_fold_left_out(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(folder, tasks=entities(of("crf"), "crf"), targets={"crossfit": 3}))
    experiment = prepare(recipe, tmp_path, folder / "cache")
    teacher = Teacher(**of("crf"))
    task = task_of(experiment, "ner", [teacher])
    ensemble = train_teachers(experiment, task, [teacher]).ensemble
    labelled = experiment.splits.labelled
    groups = list(ensemble.groups(labelled))
    assert [len(group) for _, group in groups] == [8, 8, 8]
    assert all(len(models) == 1 and models[0] is not ensemble.members[0] for models, _ in groups)
    ((whole,), raw) = next(iter(ensemble.groups(experiment.splits.unlabelled)))
    assert whole is ensemble.members[0]
    assert len(raw) == 16


def test_a_token_student_belongs_to_its_softmax_teacher(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings: dict[str, Any] = {"distillation": learn("token")}
    run(folder, out, tasks=entities(of("crf"), "softmax", token_teacher=of("softmax")), **settings)
    rmtree(out / "ner" / "token_teacher")
    rmtree(out / "ner" / "token_targets")
    other = entities(of("crf"), "softmax", token_teacher=of("softmax", seed=5))
    recipe = write_recipe(folder, tasks=other, **settings)
    assert main([str(recipe), "--out", str(out), "--resume"]) == 1  # the student was taught by another


def test_the_token_teacher_is_crossfitted_as_well(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    rows = run(
        folder, out, tasks=entities(of("crf"), "softmax", token_teacher=of("softmax")),
        distillation=learn("token", "structural"), targets={"crossfit": 2},
    )  # fmt: skip
    assert len(list((out / "ner" / "token_teachers").iterdir())) == 2
    sizes = {row["value"] for row in rows if row["system"] == "teacher" and row["metric"] == "params"}
    alone = json.loads((out / "ner" / "teacher" / "model.json").read_text())["parameters"]
    assert alone in sizes  # the teachers of the folds are not counted


def test_a_teacher_that_does_not_fit_is_a_message(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_token_classifier(tmp_path / "model")
    tasks = entities({"kind": "transformers", "name": str(model)}, "crf")
    recipe = write_recipe(folder, tasks=tasks, distillation=learn("structural"))
    assert main([str(recipe), "--out", str(tmp_path / "run")]) == 1
    printed = capsys.readouterr().err
    assert "tasks.ner.teacher:" in printed
    assert "types:" in printed


def test_a_language_without_gold_is_an_error_before_its_teacher_is_trained(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_corpus(tmp_path / "zz_bare")
    for file in bare.iterdir():
        lines = [line.partition("NER=")[0] + "_" if line else "" for line in file.read_text().splitlines()]
        file.write_text("\n".join(lines) + "\n\n")
    recipe = write_recipe(
        folder,
        corpus=[str(folder / "xx_tiny"), str(bare)],
        tasks=entities(of("crf"), "crf", monolingual_teachers=True),
    )
    assert main([str(recipe), "--out", str(tmp_path / "run")]) == 1
    assert "no labelled sentence of zz_bare has entities" in capsys.readouterr().err


def test_targets_of_another_teacher_are_refused_when_a_run_goes_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tasks = entities(of("crf"), "crf")
    run(folder, out, tasks=tasks, distillation=learn("structural"))
    header = out / "ner" / "targets" / "LinearChain-T1" / "header.json"
    content = json.loads(header.read_text())
    header.write_text(json.dumps({**content, "teacher": "0" * 64}))
    recipe = write_recipe(folder, tasks=tasks, distillation=learn("structural"))
    with pytest.raises(TargetStoreError, match="store's teacher is 0000"):
        run_recipe(load_recipe(recipe), out)


def test_one_student_learns_from_a_teacher_for_each_corpus_and_is_scored_on_each(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    rows = run(
        folder, out,
        corpus=[str(folder / "xx_tiny"), str(folder / "yy_tiny")],
        tasks=entities(of("crf"), "crf", monolingual_teachers=True),
        distillation=learn("none", "structural"),
    )  # fmt: skip
    assert sorted(path.name for path in (out / "ner" / "teachers").iterdir()) == ["xx_tiny", "yy_tiny"]
    assert {row["split"] for row in rows} >= {"test", "test/xx_tiny", "test/yy_tiny"}
    assert {row["labelled"] for row in rows if row["system"] == "student"} == {48}
    assert "Test split of xx_tiny" in (out / "table.md").read_text()


def test_a_zero_shot_student_sees_no_label_of_the_target_and_is_chosen_by_its_teacher(
    folder: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "corpus": str(folder / "xx_tiny"),
        "target": str(folder / "yy_tiny"),
        "encoder": {"name": str(folder / "encoder"), "layers": [-1], "finetune": True},
        "tasks": entities(of("softmax", layers=0, reads_words=False), "crf", "softmax"),
        "distillation": learn("top1", "token", "structural+top1"),
    }
    splits = load_splits(load_recipe(write_recipe(folder, **changes)))
    student_train = splits.select(splits.student_train)
    assert len(student_train) == 40
    assert all(sentence.tags is None for sentence in [*student_train, *splits.select(splits.dev)])
    assert all(splits.corpora[splits.corpus_of[i]] == "yy_tiny" for i in splits.student_train)
    rows = run(folder, tmp_path / "run", **changes)
    students = [row for row in rows if row["system"] == "student"]
    assert {(row["labelled"], row["unlabelled"]) for row in students} == {(0, 40)}
    assert {row["metric"] for row in students if row["split"] == "dev"} == {"agreement"}
    assert {"f1", "precision", "recall"} <= {row["metric"] for row in students if row["split"] == "test"}
    assert {row["case"] for row in students} == {"3", "token"}


def test_a_downloaded_token_classifier_and_raw_text_are_enough_for_a_student(
    folder: Path, tmp_path: Path
) -> None:
    """The command as a user types it, with no corpus and no encoder of ours."""
    model = write_token_classifier(tmp_path / "model")
    recipe = tmp_path / "raw.yaml"
    recipe.write_text(
        f"text: {write_text(tmp_path / 'raw.txt', 60)}\n"
        "vectors: {dim: 8, epochs: 1, buckets: 500}\n"
        "distillation: {objectives: [top1, structural]}\n"
        "tasks:\n  ner:\n"
        f"    teacher: {{kind: transformers, name: {model}, types: {{PERSON: PER, MISC: null}}}}\n"
        "    students:\n"
        "      crf: {hidden_size: 8, steps: 10, batch_tokens: 160, evaluations: 2}\n"
    )
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "train", str(recipe), "--out", str(out)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert of_students(rows) == {("transformers-chain", "top1"), ("transformers-chain", "structural")}
    assert {row["metric"] for row in rows if row["split"] == "dev"} == {"agreement"}
    card = json.loads(next(out.glob("ner/students/*/model.json")).read_text())["card"]
    assert {label[2:] for label in card["labels"] if label != "O"} == {"LOC", "PER"}
    assert "agreement" in done.stdout


def test_a_teacher_may_read_what_the_students_read_and_no_encoder(folder: Path, tmp_path: Path) -> None:
    rows = run(
        folder, tmp_path / "run", encoder=None, tasks=trees(of("biaffine", reads_encoder=False), "labeller"),
        distillation=learn("structural"),
    )  # fmt: skip
    assert of_students(rows) == {("1b", "structural")}


def test_two_corpora_of_one_name_are_an_error(folder: Path) -> None:
    changes = {
        "corpus": [str(folder / "xx_tiny"), str(folder / "xx_tiny")],
        "tasks": entities(of("crf"), "crf"),
    }
    with pytest.raises(RecipeError, match="the same name"):
        load_splits(load_recipe(write_recipe(folder, **changes)))


def test_the_language_of_raw_text_is_the_recipes(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "raw.yaml"
    recipe.write_text(
        f"text: {write_text(tmp_path / 'raw.txt', 50)}\nlanguage: da\n"
        "distillation: {objectives: [structural]}\n"
        "tasks: {ner: {teacher: {kind: transformers, name: x}, students: {crf: {}}}}\n"
    )
    assert load_splits(load_recipe(recipe)).language == "da"


def test_too_little_raw_text_is_an_error(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "raw.yaml"
    recipe.write_text(
        f"text: {write_text(tmp_path / 'raw.txt', 5)}\n"
        "distillation: {objectives: [structural]}\n"
        "tasks: {ner: {teacher: {kind: transformers, name: x}, students: {crf: {}}}}\n"
    )
    with pytest.raises(RecipeError, match="has 5 sentences; at least 10"):
        load_splits(load_recipe(recipe))
