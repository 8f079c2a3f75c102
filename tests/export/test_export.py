"""The command, and what it refuses to write."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import structural_kd
from export.__main__ import main
from export.model import GRAPHS, TrainedModel, export_model, load_from_run, write_bundle
from export.parity import ParityError, on_random_inputs, on_sentences
from export.products import PRODUCTS
from export.write import new_bundle, write_manifest
from structural_kd.manifest import MANIFEST, MODEL, describe_file, read_manifest
from tests.export.tiny_models import (
    CONTEXTS,
    KINDS,
    WORDS,
    bundle_of,
    card,
    encoder_folder,
    model,
    run_folder,
    sentences,
    types,
    vectors,
)
from train.model_kinds import STUDENTS
from train.models.card import EncoderUse
from train.models.encoders import TokenEncoder, load_encoder


@pytest.mark.parametrize("context", ["lstm", "convolution"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_answers_as_torch_on_random_inputs_and_on_words(tmp_path, kind, context):
    built = bundle_of(tmp_path / kind, kind, **CONTEXTS[context])
    predictor = structural_kd.load(tmp_path / kind)
    assert on_random_inputs(built, predictor, count=100).sentences == 100
    parity = on_sentences(built, predictor, sentences(40), types())
    assert parity.sentences == 40
    assert parity.difference < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_with_a_changed_weight_is_refused(tmp_path, kind):
    folder = tmp_path / kind
    built = bundle_of(folder, kind)
    graph = onnx.load(folder / MODEL)
    # The weights that act on every output lie in the recurrent layer.
    loop = next(node for node in graph.graph.node if node.op_type == "Loop").attribute[0].g
    tensor = next(t for t in loop.initializer if list(t.dims) == [7, 28])
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[:, :3] += 0.3
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(graph, folder / MODEL)
    _seal_again(folder)
    with pytest.raises(ParityError, match=r"worse by|differs by|entity at"):
        on_random_inputs(built, structural_kd.load(folder), count=200)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_of_convolutions_with_a_changed_weight_is_refused(tmp_path, kind):
    folder = tmp_path / kind
    built = bundle_of(folder, kind, **CONTEXTS["convolution"])
    graph = onnx.load(folder / MODEL)
    tensor = next(t for t in graph.graph.initializer if list(t.dims) == [21, 7])  # of a convolution
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[7:14] += 0.3
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(graph, folder / MODEL)
    _seal_again(folder)
    with pytest.raises(ParityError, match=r"worse by|differs by|entity at"):
        on_random_inputs(built, structural_kd.load(folder), count=200)


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_answer_alike_alone_in_mixed_batches_and_sorted(tmp_path, kind):
    bundle_of(tmp_path / kind, kind, **CONTEXTS["convolution"])
    texts = sentences(40, longest=30)
    alone = structural_kd.load(tmp_path / kind, batch_tokens=1).predict(texts)
    ordered = structural_kd.load(tmp_path / kind).predict(texts)
    predictor = structural_kd.load(tmp_path / kind)
    mixed = predictor.batch(texts)
    together = predictor.decode(predictor.run(mixed), mixed.lengths)
    for one, two, three in zip(alone, ordered, together, strict=True):
        if predictor.manifest.task == "ner":
            assert one.tags == two.tags == three.tags
            scores = [[entity.score for entity in result.entities] for result in (one, two, three)]
        else:
            assert (one.heads, one.deprels) == (two.heads, two.deprels) == (three.heads, three.deprels)
            scores = [result.scores for result in (one, two, three)]
        np.testing.assert_allclose(scores[1:], [scores[0]] * 2, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder": EncoderUse("tiny", (-1,), 8, False), **CONTEXTS["convolution"]}, "context: lstm"),
        ({"layers": 0}, "layers: 1"),
    ],
)
def test_a_context_without_a_graph_is_refused_with_the_remedy(changes, reason):
    with pytest.raises(ValueError, match=reason):
        GRAPHS["crf"][MODEL](model(card("crf", **changes)), PRODUCTS["fp32"])


def test_a_changed_word_table_is_refused(tmp_path):
    built = bundle_of(tmp_path / "ner", "crf")
    words = tmp_path / "ner" / "words"
    projected, weight = np.load(words / "projected.npy"), np.load(words / "projection_weight.npy")
    np.save(words / "projected.npy", projected[::-1])
    _seal_again(tmp_path / "ner")
    with pytest.raises(structural_kd.BundleError, match="is not the projection of the word's row"):
        structural_kd.load(tmp_path / "ner")
    # Wrong everywhere, so that the table itself has no contradiction.
    np.save(words / "projected.npy", -projected)
    np.save(words / "projection_weight.npy", -weight)
    np.save(words / "projection_bias.npy", -np.load(words / "projection_bias.npy"))
    _seal_again(tmp_path / "ner")
    with pytest.raises(ParityError):
        on_sentences(built, structural_kd.load(tmp_path / "ner"), sentences(40), types())


def test_an_export_that_differs_from_torch_leaves_the_old_bundle_in_place(tmp_path, monkeypatch):
    run = run_folder(tmp_path / "run", {"ner": "crf"})
    export_model(run, "ner", "student", tmp_path / "out" / "ner")
    before = describe_file(tmp_path / "out" / "ner" / MANIFEST)
    gates = "export.lstm._gates"
    from export import lstm

    right = lstm._gates
    monkeypatch.setattr(gates, lambda values: right(values) * np.float32(1.01))
    assert main([str(run), "--out", str(tmp_path / "out")]) == 1
    assert describe_file(tmp_path / "out" / "ner" / MANIFEST) == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ner"]


def test_the_command_writes_a_bundle_for_each_task_and_prints_a_table(tmp_path, capsys):
    run = run_folder(tmp_path / "tiny", {"ner": "crf", "parse": "biaffine"})
    assert main([str(run), "--out", str(tmp_path / "bundles")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("1000 of 1000 equal") == 2
    assert printed.count("60 of 60 equal") == 2
    for task, kind in (("ner", "crf"), ("parse", "biaffine")):
        manifest = structural_kd.load(tmp_path / "bundles" / task).manifest
        assert (manifest.task, manifest.kind, manifest.name) == (task, kind, f"tiny-{task}-student")
        assert manifest.scores["test"] == {"f1": 80.5}
        assert manifest.provenance.objective == "structural"
        assert "torch" in manifest.provenance.versions


def test_the_scores_of_a_student_say_what_it_keeps_of_its_teacher(tmp_path):
    run = run_folder(tmp_path / "tiny", {"ner": "crf"})
    student = run / "ner" / "students" / "crf-structural-seed1"
    about = json.loads((student / "model.json").read_text())
    about |= {"case": "1a", "labelled": 1, "unlabelled": 1, "parameters": 1, "sentences_per_second": 1.0}
    (student / "model.json").write_text(json.dumps(about))
    row = {"task": "ner", "case": "1a", "system": "student", "objective": "structural", "split": "test"}
    values = [(1, "f1", 80.5), (1, "kept", 96.25), (1, "gap", -4.0), (2, "kept", 1.0)]
    rows = [{**row, "seed": seed, "metric": metric, "value": value} for seed, metric, value in values]
    (run / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert load_from_run(run, "ner", "student").about["scores"] == {
        "dev": {"f1": 81.25},
        "test": {"f1": 80.5, "kept": 96.25, "gap": -4.0},
    }


def test_the_parameters_count_the_word_vectors_and_subwords_too(tmp_path):
    built = bundle_of(tmp_path / "ner", "crf")
    manifest = structural_kd.load(tmp_path / "ner").manifest
    trained = sum(weight.numel() for weight in built.parameters())
    assert manifest.trainable_parameters == trained
    assert manifest.parameters == trained + 6 * len(WORDS) + 6 * 50


def test_a_run_without_the_model_is_an_error_that_names_the_remedy(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert "python -m train" in capsys.readouterr().err
    run = run_folder(tmp_path / "run", {"ner": "crf"})
    assert main([str(run), "--teachers", "--out", str(tmp_path / "out")]) == 2
    assert "teacher" in capsys.readouterr().err
    assert not (tmp_path / "out" / "ner").exists()


def test_every_kind_of_student_has_a_graph():
    assert {kind for kinds in STUDENTS.values() for kind in kinds} == set(GRAPHS)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        *(
            (kind, "has no graph; crf, softmax, biaffine, labeller")
            for kind in ("span", "second_order", "matrix_tree")
        ),
        ("transformers", "model.json: card.kind: "),  # used as it is, never trained: no card can be of it
    ],
)
def test_a_kind_of_teacher_without_a_graph_is_refused_by_name(tmp_path, capsys, kind, reason):
    run = run_folder(tmp_path / "run", {"ner": "crf"})
    student = run / "ner" / "students" / "crf-structural-seed1" / "model.json"
    about = json.loads(student.read_text())
    about["card"]["kind"] = kind
    student.write_text(json.dumps(about))
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert kind in error


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path):
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="no bundle to replace"), new_bundle(tmp_path / "ner"):
        pass
    assert (tmp_path / "ner" / "thesis.tex").read_text() == "years of work"


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def write() -> None:
        with new_bundle(tmp_path / "ner") as place:
            (place / "half").write_text("")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "finetuned"), [("crf", True), ("biaffine", False)])
def test_a_teacher_is_a_bundle_of_the_same_kind_with_its_encoder(tmp_path, kind, finetuned):
    encoder = load_encoder(str(encoder_folder(tmp_path / "encoder")))
    use = EncoderUse("tiny", (-2, -1), 8, finetuned)
    described = card(kind, role="teacher", encoder=use, layers=2)
    tuned = TokenEncoder(encoder, layers=use.layers) if finetuned else None
    built = model(described, encoder=tuned)
    (tmp_path / "teacher").mkdir()
    write_bundle(tmp_path / "teacher", TrainedModel("t", "r", described, built, types(), vectors(), encoder))
    predictor = structural_kd.load(tmp_path / "teacher")
    on_random_inputs(built, predictor, count=50)
    # Longer than the encoder's positions: several windows.
    parity = on_sentences(built, predictor, sentences(30, longest=40), types(), encoder)
    assert parity.sentences == 30
    settings = predictor.manifest.encoder
    assert settings is not None
    assert (settings.layers, settings.size, settings.finetuned) == ((-2, -1), 8, finetuned)
    assert predictor.manifest.parameters > sum(weight.numel() for weight in encoder.model.parameters())


def _seal_again(folder: Path) -> None:
    """Brings the manifest's hashes up to date, as someone who forges a bundle would."""
    write_manifest(folder, replace(read_manifest(folder), files={}))
