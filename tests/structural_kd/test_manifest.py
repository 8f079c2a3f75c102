"""A bundle that is not exactly as it was written is refused, and the file is named."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import structural_kd
from structural_kd.manifest import FORMAT_VERSION, MANIFEST, describe_bytes, read_manifest
from structural_kd.word_projection import ProjectedWords
from tests.export.tiny_models import bundle_of

FILES = (
    "model.onnx",
    "relations.onnx",
    "words/character_bias.npy",
    "words/character_embeddings.npy",
    "words/character_kernel.npy",
    "words/projected.npy",
    "words/projection_bias.npy",
    "words/projection_weight.npy",
    "words/rows.npy",
    "words/settings.json",
    "words/subwords.npy",
    "words/vocabulary.json",
)
ENCODER = {"name": "tiny", "layers": [-1], "size": 8, "max_pieces": 40, "finetuned": False}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "parse"
    bundle_of(folder, "biaffine")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "parse")
    return tmp_path / "parse"


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes fields and seals the manifest again, as someone who forges a bundle would."""
    fields = json.loads((folder / MANIFEST).read_text())
    change(fields)
    canonical = json.dumps(fields | {"digest": ""}, sort_keys=True, separators=(",", ":"))
    if "digest" in fields:
        fields["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(fields))


def test_a_bundle_lists_every_file_and_loads(written):
    manifest = read_manifest(written)
    assert sorted(manifest.files) == sorted(FILES)
    assert structural_kd.load(written).manifest == manifest


def test_a_manifest_that_was_changed_without_a_new_digest_is_refused(folder):
    fields = json.loads((folder / MANIFEST).read_text())
    fields["scores"]["dev"]["f1"] = 99.0
    (folder / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(structural_kd.BundleError, match=r"manifest\.json: digest"):
        structural_kd.load(folder)


def test_a_linked_folder_inside_a_bundle_is_refused(folder):
    os.rename(folder / "words", folder.parent / "words")
    (folder / "words").symlink_to(folder.parent / "words")
    with pytest.raises(structural_kd.BundleError, match="leads out of the bundle"):
        structural_kd.load(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "words/../../secret",
        "words/..",
        "words/.hidden",
        "words\\rows.npy",
        "./model.onnx",
        "words//rows.npy",
        "words/rows.npy/",
        "model.onnx\0",
        "model.onnx\n",
        "C:secret",
        "~/secret",
        "schön.npy",
        "\ud800",
        "a" * 300,
        "a/" * 3000 + "a",
        "",
    ],
)
def test_a_path_out_of_the_bundle_is_refused(folder, name):
    (folder.parent / "secret").write_bytes(b"")
    entry = {"sha256": describe_bytes(b"").sha256, "size": 0}
    _edit(folder, lambda fields: fields["files"].update({name: entry}))
    with pytest.raises(
        structural_kd.BundleError, match=r"manifest\.json: .*(not a path inside|surrogate|escape)"
    ):
        structural_kd.load(folder)


@pytest.mark.parametrize(
    "version", [FORMAT_VERSION + 1, 1, 0, None, str(FORMAT_VERSION), float(FORMAT_VERSION), True, [], {}]
)
def test_another_format_version_is_refused(folder, version):
    _edit(folder, lambda fields: fields.update(format_version=version))
    with pytest.raises(structural_kd.BundleError, match="format_version"):
        structural_kd.load(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: f.pop("task"), "task: "),
        (lambda f: f.update(colour="red"), "colour: "),
        (lambda f: f.update(task="chunk"), "task: .*'ner' or 'parse'"),
        (lambda f: f.update(kind="crf"), "kind: 'crf' is not one of"),
        (lambda f: f.update(labels="det"), "labels: "),
        (lambda f: f.update(labels=["det", 3]), r"labels\[1\]: "),
        (lambda f: f.update(labels=["det", "det"]), "labels: a label is there twice"),
        (lambda f: f.update(labels=[]), "labels: none"),
        (lambda f: f.update(parameters=-1), "parameters: .*-1"),
        (lambda f: f.update(parameters=1.5), "parameters: .*1.5"),
        (lambda f: f.update(parameters=1.0), "parameters: .*1.0"),
        (lambda f: f.update(parameters="1"), "parameters: .*'1'"),
        (lambda f: f.update(parameters=2**63), "parameters: "),
        (lambda f: f.update(parameters=10**4000), "parameters: "),
        (lambda f: f.update(scores={"dev": {"las": "80.0"}}), r"scores\.dev\.las: "),
        (lambda f: f.update(scores={"dev": {"las": True}}), r"scores\.dev\.las: "),
        (lambda f: f["scores"]["dev"].update(las=10**400), r"scores\.dev\.las: "),
        (lambda f: f.update(relative_labels=[[1, "det"]]), "relative_labels: "),
        (lambda f: f.update(relative_labels=[[10**30, "det"]]), r"relative_labels\[0\]\[0\]: "),
        (lambda f: f.update(relative_labels=[[1]]), r"relative_labels\[0\]"),
        (lambda f: f["words"].pop("vector_size"), r"words\.vector_size: "),
        (lambda f: f["words"].update(vector_size=7), "words: .*the manifest says"),
        (lambda f: f["words"].update(projected_size=-56), r"words\.projected_size: .*-56"),
        (lambda f: f["words"].update(vector_size=True), r"words\.vector_size: .*True"),
        (lambda f: f["words"].update(colour=1), r"words\.colour: "),
        (lambda f: f.update(precision="int4"), "precision: "),
        (lambda f: f.update(precision="int8"), "quantisation: does not fit precision 'int8'"),
        (lambda f: f.update(quantisation={"loss": {}, "bound": 1.0}), "quantisation: does not fit"),
        (lambda f: f["files"]["model.onnx"].update(size=-1), r"files\.model\.onnx\.size: .*-1"),
        (lambda f: f["files"]["model.onnx"].update(size=10**15), r"model\.onnx: \d+ bytes, manifest\.json"),
        (lambda f: f["files"]["model.onnx"].update(sha256=None), r"files\.model\.onnx\.sha256: "),
        (lambda f: f["files"].update({"Model.onnx": f["files"]["model.onnx"]}), "differ in case alone"),
        (lambda f: f["files"].update({"MANIFEST.json": f["files"]["model.onnx"]}), "cannot list itself"),
        (lambda f: f["files"].update({MANIFEST: f["files"]["model.onnx"]}), "cannot list itself"),
        (lambda f: f["provenance"].update(seed="one"), r"provenance\.seed: "),
        (lambda f: f["files"].pop("model.onnx"), r"model\.onnx is not listed"),
        (lambda f: f["files"].pop("relations.onnx"), r"relations\.onnx is not listed"),
        (lambda f: f["files"].pop("words/rows.npy"), r"rows\.npy.*not listed"),
        (lambda f: f.update(encoder={"name": "x"}), r"encoder\.\w+: "),
        (lambda f: f.update(encoder=[]), "encoder: "),
        (lambda f: f.update(encoder={**ENCODER, "size": 0}), r"encoder\.size: "),
        (lambda f: f.update(encoder={**ENCODER, "max_pieces": 0}), r"encoder\.max_pieces: "),
        (lambda f: f.pop("digest"), "digest: "),
    ],
)
def test_a_wrong_field_is_refused_by_name(folder, change, named):
    _edit(folder, change)
    with pytest.raises(structural_kd.BundleError, match=named):
        structural_kd.load(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format_version": 2',
        "\xff",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        "NaN",
    ],
)
def test_a_manifest_that_is_no_json_object_is_refused(folder, text):
    (folder / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(structural_kd.BundleError, match=MANIFEST):
        structural_kd.load(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999"])
def test_a_number_that_is_not_finite_is_refused(folder, number):
    text = (folder / MANIFEST).read_text()
    assert text.count("80.0") == 1
    (folder / MANIFEST).write_text(text.replace("80.0", number))
    with pytest.raises(
        structural_kd.BundleError, match=rf"manifest\.json: .*({number.strip('-')}|scores\.dev\.f1)"
    ):
        structural_kd.load(folder)


@pytest.mark.parametrize("field", ["task", "f1", "model.onnx", "sha256"])
def test_a_field_that_is_there_twice_is_refused_by_name(folder, field):
    text = (folder / MANIFEST).read_text()
    key = f'"{field}":'
    start = text.index(key)
    end = text.index("}" if field == "model.onnx" else "\n", start) + 1
    again = text[start:end].rstrip().rstrip(",")
    (folder / MANIFEST).write_text(f"{text[:start]}{again}, {text[start:]}")
    with pytest.raises(structural_kd.BundleError, match=rf"manifest\.json: .*'{field}' is there twice"):
        structural_kd.load(folder)


def test_a_manifest_of_another_encoding_or_far_too_large_is_refused(folder):
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text, encoding="utf-16")
    with pytest.raises(structural_kd.BundleError, match=r"manifest\.json: not JSON"):
        structural_kd.load(folder)
    (folder / MANIFEST).write_text(text)
    os.truncate(folder / MANIFEST, 2**40)
    with pytest.raises(structural_kd.BundleError, match=r"manifest\.json: 1099511627776 bytes"):
        structural_kd.load(folder)


def test_white_space_in_a_manifest_means_nothing(folder):
    before = read_manifest(folder)
    fields = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(fields, indent=7))
    assert structural_kd.load(folder).manifest == before


def test_a_bundle_that_is_replaced_while_it_loads_is_refused(folder, monkeypatch):
    load = ProjectedWords.load

    def replaced_meanwhile(words: Path) -> ProjectedWords:
        _edit(folder, lambda fields: fields["provenance"].update(seed=99))
        return load(words)

    monkeypatch.setattr(ProjectedWords, "load", replaced_meanwhile)
    with pytest.raises(structural_kd.BundleError, match="replaced while it was loaded"):
        structural_kd.load(folder)


def test_a_folder_without_a_manifest_says_how_to_write_one(tmp_path):
    with pytest.raises(structural_kd.BundleError, match="python -m export"):
        structural_kd.load(tmp_path / "nothing")
