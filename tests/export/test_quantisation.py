"""int8 bundles: their loss is measured, written down, and refused beyond the bound."""

import re
from pathlib import Path

import onnx
import pytest

import structural_kd
from export.__main__ import main
from export.model import export_model
from export.products import PRODUCTS
from export.quantisation import QuantisationError, check_loss, check_quantised, measure_loss
from structural_kd.manifest import MODEL
from tests.export.tiny_models import CONTEXTS, KINDS, bundle_of, card, run_folder, sentences
from train.corpora import Sentence, write_conll, write_conllu

RECIPE = """\
corpus: {corpus}
language: en
distillation:
  objectives: [none]
tasks:
  {task}:
    teacher: {{steps: 1, reads_encoder: false}}
    students:
      {kind}: {{steps: 1}}
"""


STUDENTS = [*((kind, "lstm") for kind in KINDS), ("crf", "convolution"), ("biaffine", "convolution")]
every_student = pytest.mark.parametrize("run", STUDENTS, indirect=True, ids=" ".join)


@pytest.fixture(autouse=True)
def _few_random_inputs(monkeypatch):
    monkeypatch.setattr("export.model.RANDOM_INPUTS", 64)


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run whose student is right about every word of its corpus, so that int8 can only lose."""
    kind, context = getattr(request, "param", ("crf", "lstm"))
    task = "ner" if kind in ("crf", "softmax") else "parse"
    bundle_of(tmp_path / "exact", kind, **CONTEXTS[context])
    predictor = structural_kd.load(tmp_path / "exact")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for seed, split in enumerate(("train", "dev", "test")):
        words = sentences(60, seed=seed)
        results = predictor.predict(words)
        if task == "ner":
            gold = [Sentence(tuple(w), tags=tuple(r.tags)) for w, r in zip(words, results, strict=True)]
            write_conll(corpus / f"{split}.conll", gold)
        else:
            gold = [
                Sentence(tuple(w), heads=tuple(r.heads), deprels=tuple(r.deprels))
                for w, r in zip(words, results, strict=True)
            ]
            write_conllu(corpus / f"{split}.conllu", gold)
    folder = run_folder(tmp_path / "run", {task: kind}, **CONTEXTS[context])
    (folder / "recipe.yaml").write_text(RECIPE.format(corpus=corpus, task=task, kind=kind))
    return folder


def task_of(run: Path) -> str:
    return "ner" if (run / "ner").exists() else "parse"


@every_student
def test_the_loss_of_an_int8_bundle_on_dev_and_test_is_in_its_manifest(run, tmp_path, capsys):
    task = task_of(run)
    assert main([str(run), "--precision", "int8", "--most-loss", "100", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    metric = "F1" if task == "ner" else "LAS"
    assert f"int8 ({metric}: dev -" in printed or f"int8 ({metric}: dev +" in printed
    manifest = structural_kd.load(tmp_path / "out" / f"{task}-int8").manifest
    assert manifest.precision == "int8"
    assert manifest.name == f"run-{task}-student-int8"
    assert manifest.quantisation.bound == 100
    assert set(manifest.quantisation.loss) == {"dev", "test"}
    assert all(metric.lower() in losses for losses in manifest.quantisation.loss.values())
    assert all(0 <= losses[metric.lower()] < 30 for losses in manifest.quantisation.loss.values())


def test_a_bundle_that_loses_more_than_the_bound_is_not_written(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("export.products.WEIGHT_LEVELS", 1)
    assert main([str(run), "--precision", "int8", "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().err
    assert "allowed are 0.5; serve the fp32 bundle, or allow more with --most-loss" in printed
    assert not list((tmp_path / "out").iterdir())


@every_student
def test_a_graph_that_is_not_int8_is_not_written_as_int8(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PRODUCTS, "int8", PRODUCTS["fp32"])
    assert main([str(run), "--precision", "int8", "--out", str(tmp_path / "out")]) == 1
    assert re.search("0 products of integers and [23] of floats", capsys.readouterr().err)
    assert not list((tmp_path / "out").iterdir())


def test_the_loss_is_the_difference_of_the_scores(run, tmp_path):
    task = task_of(run)
    export_model(run, task, "student", tmp_path / "fp32")
    export_model(run, task, "student", tmp_path / "int8", precision="int8", most_loss=100)
    exact, rounded = structural_kd.load(tmp_path / "fp32"), structural_kd.load(tmp_path / "int8")
    again = measure_loss(run, task, exact, rounded)
    assert again == rounded.manifest.quantisation.loss
    assert all(
        value == 0 for split in measure_loss(run, task, exact, exact).values() for value in split.values()
    )
    check_quantised(onnx.load(tmp_path / "int8" / MODEL), card("crf"))


def test_a_loss_on_any_split_counts():
    check_loss({"dev": {"f1": 0.5}, "test": {"f1": -1.0}}, "ner", 0.5)
    with pytest.raises(QuantisationError, match=r"0\.60 points of F1 on test, allowed are 0\.5"):
        check_loss({"dev": {"f1": 0.0}, "test": {"f1": 0.6}}, "ner", 0.5)


def test_without_its_corpus_a_run_has_no_int8_bundle(run, tmp_path, capsys):
    (run / "recipe.yaml").unlink()
    assert main([str(run), "--precision", "int8", "--out", str(tmp_path / "out")]) == 1
    assert "the run's corpus, which cannot be read" in capsys.readouterr().err
