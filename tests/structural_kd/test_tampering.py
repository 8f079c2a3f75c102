"""Damage to a bundle, by accident or on purpose: always a clear error that names the file or the field."""

import json
import os
import random
import re
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

import structural_kd
from export.model import TrainedModel, write_bundle
from export.write import write_manifest
from structural_kd.arrays import write_array
from structural_kd.graph_io import MODELS
from structural_kd.manifest import ENCODER, MANIFEST, MODEL, RELATIONS, TOKENIZER, Manifest, read_manifest
from tests.export.tiny_models import WORDS, bundle_of, card, encoder_folder, model, types, vectors
from train.models.card import EncoderUse
from train.models.encoders import load_encoder

NAMES = ("crf", "biaffine", "labeller", "teacher")
BUCKETS = len(vectors().subwords)  # type: ignore[arg-type]
LITTLE = 2**24
"""Bytes: far more than a tiny bundle needs."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger, both parsers, and a tagger over an encoder; they are never changed."""
    folder = tmp_path_factory.mktemp("bundles")
    for kind in NAMES[:-1]:
        bundle_of(folder / kind, kind)
    encoder = load_encoder(str(encoder_folder(folder / "encoder")))
    described = card("crf", role="teacher", encoder=EncoderUse("tiny", (-1,), 8, False))
    (folder / "teacher").mkdir()
    built = model(described)
    write_bundle(folder / "teacher", TrainedModel("t", "r", described, built, types(), vectors(), encoder))
    return folder


@pytest.fixture
def copy(bundles: Path, tmp_path: Path) -> Callable[[str], Path]:
    """copy("crf") is a bundle of one's own."""

    def one(name: str) -> Path:
        shutil.copytree(bundles / name, tmp_path / name)
        return tmp_path / name

    return one


# Damage that the hashes tell ---------------------------------------------------------------------------


# Together they have every kind of file.
@pytest.fixture(params=["biaffine", "teacher"])
def folder(request, copy) -> Path:
    return copy(request.param)


def _refused_by_name(folder: Path, path: Path) -> None:
    with pytest.raises(structural_kd.BundleError, match=re.escape(str(path))):
        structural_kd.load(folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _cut_or_longer(content: bytes) -> list[bytes]:
    half = len(content) // 2
    changed = [content[:0], content[:1], content[:half], content[half:], content[:-1]]
    return [*changed, content + b"\0", content + b"\n", b"\0" + content, content * 2]


def _flipped(content: bytes, place: int, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[place] ^= chance.choice([1 << chance.randrange(8), chance.randrange(1, 256)])
    return bytes(damaged)


def test_a_file_of_other_bytes_is_refused_by_name(folder):
    chance = random.Random(5)
    for path in _files(folder):
        if path.name == MANIFEST:
            continue
        content = path.read_bytes()
        places = [0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(20))]
        changed = [_flipped(content, place, chance) for place in places]
        for damaged in [*_cut_or_longer(content), *changed]:
            path.write_bytes(damaged)
            _refused_by_name(folder, path)
        path.write_bytes(content)


def test_a_manifest_of_other_bytes_is_refused_or_means_the_same(folder):
    path = folder / MANIFEST
    content, before = path.read_bytes(), read_manifest(folder)
    chance = random.Random(6)
    changed = [_flipped(content, place, chance) for place in range(len(content))]
    for damaged in [*_cut_or_longer(content), *changed]:
        path.write_bytes(damaged)
        try:
            found = read_manifest(folder)
        except structural_kd.BundleError as error:
            found, message = before, str(error)
            assert str(path) in message
        assert found == before


def test_a_file_that_is_missing_or_no_plain_file_is_refused_by_name(folder, tmp_path):
    away = tmp_path / "away"
    instead: dict[str, Callable[[Path], object]] = {
        "missing": lambda path: None,
        "folder": lambda path: path.mkdir(),
        "pipe": lambda path: os.mkfifo(path),
        "link": lambda path: path.symlink_to(away),
        "link to nothing": lambda path: path.symlink_to(tmp_path / "nothing"),
        "link to itself": lambda path: path.symlink_to(path.name),
        "endless": lambda path: path.symlink_to("/dev/zero"),
    }
    for path in _files(folder):
        for damage, put in instead.items():
            path.rename(away)
            put(path)
            _refused_by_name(folder, path)
            shutil.rmtree(path) if damage == "folder" else path.unlink(missing_ok=True)
            away.rename(path)


def test_anything_that_is_not_listed_is_refused_by_name(folder, tmp_path):
    extras: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(b""),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to(tmp_path),
        lambda path: path.symlink_to(folder / MODEL),
    ]
    for place in ("extra", ".hidden", "words/rows.npy.bak", "new/folder/file", "words/manifest.json"):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        for put in extras:
            put(path)
            _refused_by_name(folder, path)
            path.unlink()


# Damage under right hashes -----------------------------------------------------------------------------


def _seal(folder: Path, **changes: Any) -> None:
    """A manifest with the right hashes of the damaged files."""
    write_manifest(folder, replace(read_manifest(folder), **changes))


def _refused(folder: Path, message: str) -> None:
    """The bundle is refused with the message, and without much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(structural_kd.BundleError, match=message):
            structural_kd.load(folder)
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()


def _npy(header: str, data: bytes = b"\0" * 64, version: bytes = b"\x01\x00") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def _float_header(shape: str, *, descr: str = "'<f4'", fortran: bool = False) -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


ARRAYS = (
    "rows",
    "subwords",
    "projected",
    "projection_weight",
    "projection_bias",
    "character_embeddings",
    "character_kernel",
    "character_bias",
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a .npy file"),
        (b"PK\x03\x04" + b"\0" * 200, "not a .npy file"),
        (b"\x80\x04\x95cposix\nsystem\n.", "not a .npy file"),
        (_npy("{"), "not a .npy file"),
        (_npy("(" * 9000), "not a .npy file"),
        (_npy("[1," * 3000), "not a .npy file"),
        (_npy("__import__('os').abort()"), "not a .npy file"),
        (_npy(_float_header("(16,)"), version=b"\x02\x00"), "not a .npy file|version 1.0"),
        (_npy(_float_header("(1000000000000, 10)")), "64 bytes after the header"),
        (_npy(_float_header("(4294967296, 4294967296)")), "64 bytes after the header"),
        (_npy(_float_header("(18446744073709551616, 0)"), b""), "0 bytes after the header"),
        (_npy(_float_header("(-4, -4)")), "64 bytes after the header"),
        (_npy(_float_header("(17,)")), "64 bytes after the header"),
        (_npy(_float_header("(15,)")), "64 bytes after the header"),
        (_npy(_float_header("(4, 4)", fortran=True)), "C order"),
        (_npy(_float_header("(8,)", descr="'|O'")), "expected float32, found object"),
        (_npy(_float_header("(8,)", descr="'<f8'")), "expected float32, found float64"),
        (_npy(_float_header("(16,)", descr="'>f4'")), "expected float32, found >f4"),
        (_npy(_float_header("(16,)", descr="'<i4'")), "expected float32, found int32"),
        (_npy(_float_header("(16,)", descr="[('a', '<f4')]")), "expected float32"),
    ],
)
@pytest.mark.parametrize("array", ["rows", "character_kernel"])
def test_a_damaged_or_forged_array_file_is_refused_by_name(copy, array, content, message):
    folder = copy("crf")
    (folder / "words" / f"{array}.npy").write_bytes(content)
    _seal(folder)
    _refused(folder, rf"{array}\.npy: .*({message})")


def test_a_pickle_in_an_array_file_is_not_opened(copy, tmp_path):
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "opened",)

    folder = copy("crf")
    np.save(folder / "words" / "rows.npy", np.array([Bomb()] * 3, dtype=object), allow_pickle=True)
    _seal(folder)
    _refused(folder, r"rows\.npy: expected float32, found object")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("array", "value"), [*((array, np.nan) for array in ARRAYS), ("rows", np.inf), ("rows", -np.inf)]
)
def test_an_array_with_a_value_that_is_not_finite_is_refused_by_name(copy, array, value):
    folder = copy("crf")
    path = folder / "words" / f"{array}.npy"
    values = np.load(path)
    values.flat[-1] = value
    write_array(path, values)
    _seal(folder)
    _refused(folder, rf"{array}\.npy: a value is not finite")


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[None],
        lambda a: a[..., :-1],
        # Any number of subword buckets would be right.
        lambda a: np.concatenate([a, a]) if len(a) != BUCKETS else a[0],
        lambda a: a.reshape(-1)[:0],
        lambda a: a.reshape(-1)[0].reshape(()),
    ],
    ids=["one more axis", "narrower", "longer", "empty", "scalar"],
)
def test_an_array_of_another_shape_is_refused(copy, array, change):
    folder = copy("crf")
    path = folder / "words" / f"{array}.npy"
    write_array(path, change(np.load(path)))
    _seal(folder)
    _refused(folder, f"{folder / 'words'}: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", r"vocabulary\.json: "),
        ("{}", r"vocabulary\.json: expected a list of strings"),
        ("null", r"vocabulary\.json: expected a list of strings"),
        (json.dumps([*WORDS[:-1], 7]), r"vocabulary\.json: expected a list of strings"),
        (json.dumps([*WORDS[:-1], WORDS[0]]), "the vocabulary holds a word twice"),
        (json.dumps(WORDS[:-1]), "words, but rows of shape"),
        (json.dumps([*WORDS, "more"]), "words, but rows of shape"),
        ("[]", "words, but rows of shape"),
        ("[" * 100_000, r"vocabulary\.json: "),
        ("9" * 10_000, r"vocabulary\.json: "),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(copy, words, message):
    folder = copy("crf")
    (folder / "words" / "vocabulary.json").write_text(words)
    _seal(folder)
    _refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(min_n="2"), r"settings\.json: min_n: "),
        (lambda s: s.update(min_n=True), r"settings\.json: min_n: "),
        (lambda s: s.update(min_n=-1), r"settings\.json: min_n: "),
        (lambda s: s.update(min_n=10**12), r"settings\.json: min_n: "),
        (lambda s: s.update(max_n=10**4000), r"settings\.json: max_n: "),
        (lambda s: s.pop("min_n"), r"settings\.json: min_n: "),
        (lambda s: s.pop("subwords"), r"settings\.json: subwords: "),
        (lambda s: s.update(subwords="no"), r"settings\.json: subwords: "),
        (lambda s: s.pop("alphabet"), "embeddings: expected"),
        (lambda s: s.update(alphabet=7), r"settings\.json: alphabet"),
        (lambda s: s.update(alphabet=[1]), r"settings\.json: alphabet"),
        (lambda s: s.update(alphabet=[["a"]]), r"settings\.json: alphabet"),
        (lambda s: s["alphabet"].append("ab"), "alphabet is a list of distinct single characters"),
        (lambda s: s["alphabet"].append(s["alphabet"][0]), "alphabet is a list of distinct"),
        (lambda s: s["alphabet"].append("Ω"), "embeddings: expected"),
    ],
)
def test_word_settings_that_are_wrong_are_refused_by_name(copy, change, message):
    folder = copy("crf")
    path = folder / "words" / "settings.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))
    _seal(folder)
    _refused(folder, message)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"min_n":' * 100_000, "\xff"])
def test_word_settings_that_are_no_json_object_are_refused_by_name(copy, text):
    folder = copy("crf")
    (folder / "words" / "settings.json").write_bytes(text.encode("latin-1"))
    _seal(folder)
    _refused(folder, r"settings\.json: ")


# Another meaning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("crf", {"labels": ("O", "B-LOC", "LOC")}, "labels: "),
        ("crf", {"labels": ("O", "X-LOC")}, "labels: "),
        ("crf", {"labels": ("",)}, "labels: "),
        ("crf", {"task": "parse"}, "kind: 'crf' is not one of"),
        ("crf", {"kind": "biaffine", "task": "parse"}, r"relations\.onnx is not listed"),
        ("crf", {"task": "parse", "kind": "labeller", "relative_labels": ((0, "O"),)}, "no output 'heads'"),
        ("biaffine", {"task": "ner", "kind": "crf"}, "no output 'labels'"),
        ("labeller", {"relative_labels": ((0, "root"),)}, "'label_log_probs' has 16 values"),
        (
            "labeller",
            {"relative_labels": ((0, "root"), (0, "root"))},
            "relative_labels: a label is there twice",
        ),
        ("labeller", {"relative_labels": ((0, "nothing"),)}, "relative_labels: 'nothing'"),
        ("teacher", {"encoder": None}, "'encoded' has 8 values"),
    ],
)
def test_a_manifest_that_does_not_fit_its_files_is_refused_by_field(copy, name, changes, message):
    folder = copy(name)
    _seal(folder, **changes)
    _refused(folder, message)


@pytest.mark.parametrize(
    ("size", "value"), [("vector_size", 0), ("character_size", 1), ("projected_size", 2**62)]
)
def test_sizes_of_words_that_do_not_fit_are_refused(copy, size, value):
    folder = copy("crf")
    sizes: dict[str, Any] = {size: value}
    _seal(folder, words=replace(read_manifest(folder).words, **sizes))
    _refused(folder, "the manifest says WordSettings")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 9}, "'hidden' has 8 values"),
        ({"max_pieces": 2}, "max_pieces is 2"),
        ({"size": 2**63 - 1}, "'hidden' has 8 values"),
    ],
)
def test_settings_of_an_encoder_that_do_not_fit_are_refused(copy, changes, message):
    folder = copy("teacher")
    settings = read_manifest(folder).encoder
    assert settings is not None
    _seal(folder, encoder=replace(settings, **changes))
    _refused(folder, message)


# Another graph -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"not a graph", b"\x08\x0a\x3a\xff\xff\xff\xff\x0f"])
@pytest.mark.parametrize(
    ("name", "graph"), [("biaffine", MODEL), ("biaffine", RELATIONS), ("teacher", ENCODER)]
)
def test_a_file_that_is_no_graph_is_refused_by_name(copy, name, graph, content):
    folder = copy(name)
    (folder / graph).write_bytes(content)
    _seal(folder)
    _refused(folder, rf"{graph}: ")


@pytest.mark.parametrize(
    ("name", "graph", "instead"),
    [
        ("biaffine", MODEL, "biaffine/relations.onnx"),
        ("biaffine", MODEL, "labeller/model.onnx"),
        ("biaffine", RELATIONS, "biaffine/model.onnx"),
        ("crf", MODEL, "teacher/model.onnx"),
        ("crf", MODEL, "teacher/encoder.onnx"),
        ("teacher", MODEL, "crf/model.onnx"),
        ("teacher", ENCODER, "crf/model.onnx"),
    ],
)
def test_another_graph_in_a_graphs_place_is_refused_by_name(copy, bundles, name, graph, instead):
    folder = copy(name)
    shutil.copy(bundles / instead, folder / graph)
    _seal(folder)
    _refused(folder, rf"{graph}: ")


TYPES: dict[str, int] = {"tensor(float)": TensorProto.FLOAT, "tensor(int64)": TensorProto.INT64}


def _constant_graph(kind: str, **changes: tuple[int, int] | None) -> onnx.ModelProto:
    """A graph of a kind's signature that answers zeros; changes are (type, rank) by name, None: not there."""
    signature = MODELS[kind]
    inputs = {name: (TYPES[v.type], v.rank) for name, v in signature.inputs.items() if name != "encoded"}
    outputs = {name: (TYPES[v.type], v.rank) for name, v in signature.outputs.items()}
    for name, change in changes.items():
        group = outputs if name in outputs else inputs
        if change is None:
            del group[name]
        else:
            group[name] = change
    nodes = []
    for name, (kind_of, rank) in outputs.items():
        zeros = helper.make_tensor(name, kind_of, [1] * rank, [0])
        nodes.append(helper.make_node("Constant", [], [name], value=zeros))
    given = [
        helper.make_tensor_value_info(name, kind_of, [*"xyz"[: rank - 1], 56 if name == "rows" else "w"])
        for name, (kind_of, rank) in inputs.items()
    ]
    answers = [helper.make_tensor_value_info(name, t, [1] * rank) for name, (t, rank) in outputs.items()]
    body = helper.make_graph(nodes, "zeros", given, answers)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        *(
            (kind, {output: None}, f"has no output '{output}'")
            for kind in ("crf", "biaffine", "labeller")
            for output in MODELS[kind].outputs
        ),
        *(("crf", {name: None}, f"has no input '{name}'") for name in ("rows", "words", "lengths")),
        ("crf", {"labels": (TensorProto.INT32, 2)}, "output 'labels': expected tensor.int64. of rank 2"),
        ("biaffine", {"arc_log_probs": (TensorProto.FLOAT, 2)}, "output 'arc_log_probs': expected"),
        ("crf", {"rows": (TensorProto.FLOAT, 3)}, "input 'rows': expected"),
        ("crf", {"more": (TensorProto.FLOAT, 1)}, "input 'more' is unknown"),
    ],
)
def test_a_graph_that_reads_or_answers_something_else_is_refused_by_name(copy, kind, changes, message):
    folder = copy(kind)
    onnx.save(_constant_graph(kind, **changes), folder / MODEL)
    _seal(folder)
    _refused(folder, rf"model\.onnx: {message}")


@pytest.mark.parametrize("kind", ["crf", "biaffine"])
def test_a_graph_that_cannot_answer_is_refused(copy, kind):
    folder = copy(kind)
    graph = _constant_graph(kind)
    if kind == "biaffine":  # as wide as the relations' graph reads
        for output in graph.graph.output:
            if output.name in ("dependents", "governors"):
                output.type.tensor_type.shape.dim[1].dim_value = 6
        for node in graph.graph.node:
            if node.output[0] in ("dependents", "governors"):
                node.attribute[0].t.CopyFrom(helper.make_tensor("", TensorProto.FLOAT, [1, 6], [0.0] * 6))
    onnx.save(graph, folder / MODEL)
    _seal(folder)
    _refused(folder, r"model\.onnx: cannot answer")


@pytest.mark.parametrize("where", ["beside", "absolute", "working folder", "inside", "linked"])
def test_weights_outside_of_a_graphs_file_are_not_read(copy, tmp_path, monkeypatch, where):
    folder = copy("crf")
    graph = onnx.load(folder / MODEL)
    tensor = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    assert tensor.raw_data
    # The right weights: a graph that could read them would load.
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
    location = "secret.bin"
    if where == "beside":
        location = "../secret.bin"
    elif where == "absolute":
        location = str(tmp_path / "secret.bin")
    elif where == "working folder":
        monkeypatch.chdir(tmp_path)
    else:
        shutil.copy(tmp_path / "secret.bin", folder / "secret.bin")
    if where == "linked":
        os.link(tmp_path / "secret.bin", folder / "linked.bin")
        location = "linked.bin"
    set_external_data(tensor, location, offset=0, length=len(tensor.raw_data))
    tensor.ClearField("raw_data")
    (folder / MODEL).write_bytes(graph.SerializeToString())
    _seal(folder)
    _refused(folder, r"model\.onnx: .*([Ee]xternal|cannot open)")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "\xff", '{"version": "1.0", "model": null}', "[" * 10_000, "{" * 10]
)
def test_a_tokenizer_that_cannot_be_read_is_refused_by_name(copy, text):
    folder = copy("teacher")
    (folder / TOKENIZER).write_bytes(text.encode("latin-1"))
    _seal(folder)
    _refused(folder, r"tokenizer\.json: cannot be read")


def test_a_tokenizer_that_lost_any_part_is_refused_or_answers(copy):
    """Whatever a tokenizer lacks, a load ends in a bundle or a `BundleError`, never in a panic."""
    folder = copy("teacher")
    content = (folder / TOKENIZER).read_text()
    fields = json.loads(content)
    model_fields = {
        f"model.{name}": {**fields, "model": _without(fields["model"], name)} for name in fields["model"]
    }
    damaged = {name: _without(fields, name) for name in fields} | model_fields
    special = {**fields["post_processor"], "special_tokens": {}}
    damaged["special pieces without a number"] = {**fields, "post_processor": special}  # tokenizers panics
    damaged["no pieces"] = {**fields, "model": {**fields["model"], "vocab": []}}
    refused = []
    for changed in damaged.values():
        (folder / TOKENIZER).write_text(json.dumps(changed))
        _seal(folder)
        try:
            assert len(structural_kd.load(folder).predict([["sola", "?"]])[0].tags) == 2
        except structural_kd.BundleError as error:
            refused.append(str(error))
    assert len(refused) >= 3
    # A tokenizer whose pieces the encoder does not have is told by the encoder.
    assert all(re.search(r"tokenizer\.json: cannot be read|encoder\.onnx: cannot answer", m) for m in refused)


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def test_a_graph_that_changes_after_it_was_verified_is_refused(copy, monkeypatch):
    from structural_kd import predictor

    folder = copy("crf")
    verify = predictor.verify_files

    def changed_after(place: Path, manifest: Manifest) -> None:
        verify(place, manifest)
        content = bytearray((place / MODEL).read_bytes())
        content[-1] ^= 1
        (place / MODEL).write_bytes(content)

    monkeypatch.setattr(predictor, "verify_files", changed_after)
    _refused(folder, r"model\.onnx: SHA-256 is")
