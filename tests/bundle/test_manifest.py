"""A bundle that is not exactly as it was written is refused, and the file is named."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bundle
from bundle.manifest import FORMAT_VERSION, MANIFEST, read_manifest
from bundle.words import WordTable
from tests.export.tiny_models import bundle_of

FILES = (
    "model.onnx",
    "relations.onnx",
    "words/character_bias.npy",
    "words/character_embeddings.npy",
    "words/character_kernel.npy",
    "words/rows.npy",
    "words/settings.json",
    "words/subwords.npy",
    "words/vocabulary.json",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "parse"
    bundle_of(folder, "biaffine")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(written, tmp_path / "parse")
    return tmp_path / "parse"


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads((folder / MANIFEST).read_text())
    change(fields)
    (folder / MANIFEST).write_text(json.dumps(fields))


def test_a_bundle_lists_every_file_and_loads(written):
    manifest = read_manifest(written)
    assert sorted(manifest.files) == sorted(FILES)
    assert bundle.load(written).manifest == manifest


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["flip", "truncate", "append", "delete", "link"])
def test_a_harmed_file_is_refused_by_name(folder, name, harm):
    path = folder / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "truncate":
        path.write_bytes(content[:-1])
    elif harm == "append":
        path.write_bytes(content + b"\0")
    elif harm == "delete":
        path.unlink()
    else:
        path.rename(folder.parent / "elsewhere")
        path.symlink_to(folder.parent / "elsewhere")
    with pytest.raises(bundle.BundleError, match=name):
        bundle.load(folder)


def test_a_linked_folder_inside_a_bundle_is_refused(folder):
    os.rename(folder / "words", folder.parent / "words")
    (folder / "words").symlink_to(folder.parent / "words")
    with pytest.raises(bundle.BundleError, match="leads out of the bundle"):
        bundle.load(folder)


def test_a_file_that_is_not_listed_is_refused_by_name(folder):
    (folder / "words" / "extra.npy").write_bytes(b"")
    with pytest.raises(bundle.BundleError, match=r"extra\.npy.*not listed"):
        bundle.load(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "words/../../secret", "words\\rows.npy", "./model.onnx", ""]
)
def test_a_path_out_of_the_bundle_is_refused(folder, name):
    (folder.parent / "secret").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    _edit(folder, lambda fields: fields["files"].update({name: {"sha256": empty, "size": 0}}))
    with pytest.raises(bundle.BundleError, match="not a path inside the bundle"):
        bundle.load(folder)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, None, "1", True])
def test_another_format_version_is_refused(folder, version):
    _edit(folder, lambda fields: fields.update(format_version=version))
    with pytest.raises(bundle.BundleError, match="format_version"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("task"), "task: missing"),
        (lambda f: f.update(colour="red"), "colour: unknown field"),
        (lambda f: f.update(task="chunk"), "task: expected one of ner, parse"),
        (lambda f: f.update(kind="crf"), "kind: 'crf' is not one of"),
        (lambda f: f.update(labels="det"), "labels: expected a list"),
        (lambda f: f.update(labels=["det", 3]), r"labels\[1\]: expected str"),
        (lambda f: f.update(labels=["det", "det"]), "a label is there twice"),
        (lambda f: f.update(labels=[]), "labels: none"),
        (lambda f: f.update(parameters=-1), "parameters: -1 is negative"),
        (lambda f: f.update(parameters=1.5), "parameters: expected int"),
        (lambda f: f.update(scores={"dev": {"las": "high"}}), r"scores\.dev\.las: expected float"),
        (lambda f: f.update(relative_labels=[[1, "det"]]), "relative_labels"),
        (lambda f: f["words"].pop("vector_size"), r"words\.vector_size: missing"),
        (lambda f: f["words"].update(vector_size=7), "the manifest says"),
        (lambda f: f["provenance"].update(seed="one"), r"provenance\.seed: expected int"),
        (lambda f: f["files"].pop("model.onnx"), r"model\.onnx is not listed"),
        (lambda f: f["files"].pop("relations.onnx"), r"relations\.onnx is not listed"),
        (lambda f: f["files"].pop("words/rows.npy"), r"rows\.npy.*not listed"),
        (lambda f: f["files"].update({MANIFEST: f["files"]["model.onnx"]}), "cannot list itself"),
        (lambda f: f.update(encoder={"name": "x"}), r"encoder\.\w+: missing"),
    ],
)
def test_a_wrong_field_is_refused_by_name(folder, change, message):
    _edit(folder, change)
    with pytest.raises(bundle.BundleError, match=message):
        bundle.load(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format_version": 1', "\xff", "[" * 100_000, "9" * 5000]
)
def test_a_manifest_that_is_no_json_object_is_refused(folder, text):
    (folder / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(bundle.BundleError, match=MANIFEST):
        bundle.load(folder)


def test_a_bundle_that_is_replaced_while_it_loads_is_refused(folder, monkeypatch):
    load = WordTable.load

    def replaced_meanwhile(words: Path) -> WordTable:
        _edit(folder, lambda fields: fields["provenance"].update(seed=99))
        return load(words)

    monkeypatch.setattr(WordTable, "load", replaced_meanwhile)
    with pytest.raises(bundle.BundleError, match="replaced while it was loaded"):
        bundle.load(folder)


def test_a_folder_without_a_manifest_says_how_to_write_one(tmp_path):
    with pytest.raises(bundle.BundleError, match="python -m export"):
        bundle.load(tmp_path / "nothing")
