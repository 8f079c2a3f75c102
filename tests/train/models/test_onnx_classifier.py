"""ONNX token classifiers as teachers: the same chain as safetensors give, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper

from tests.train.models.small_bert import SIZES, letters_tokenizer, write_bert
from tests.train.wheels import install
from train.models import encoder_places, onnx_classifier
from train.models.batch import Batch
from train.models.encoder_places import EncoderNotFoundError, EncoderWheel, find_encoder
from train.models.token_classifier import TokenClassifier, load_token_classifier

LABELS = ["O", "B-A", "I-A", "B-B", "I-B"]
SENTENCES = [("abc",), ("de", "f"), ("ab", "z", "cde", "q"), ("x", "abcdefgh", "y"), ("a",) * 30]
SCALE = np.float32(1 / 40)
TABLE = np.random.default_rng(0).integers(-120, 120, (60, len(LABELS))).astype(np.int8)


def write_graph(
    path: Path,
    *,
    inputs: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"),
    output: str = "logits",
    labels: int = len(LABELS),
    pooled: bool = False,
) -> None:
    """A quantised graph in which a piece's scores are its own and those of all pieces of its window."""
    nodes = [
        helper.make_node("DequantizeLinear", ["table", "scale"], ["weights"]),
        helper.make_node("Gather", ["weights", "input_ids"], ["own"]),  # [W, p, M]
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),  # [W, p, 1]
        helper.make_node("Mul", ["own", "column"], ["inside"]),
        helper.make_node("ReduceSum", ["inside", "pieces"], ["all"], keepdims=0 if pooled else 1),
        helper.make_node("Identity", ["all"], [output])
        if pooled
        else helper.make_node("Add", ["own", "all"], [output]),
    ]
    free = ["windows", "pieces"]
    graph = helper.make_graph(
        nodes,
        "scores",
        [helper.make_tensor_value_info(name, TensorProto.INT64, free) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None if pooled else [*free, labels])],
        [
            numpy_helper.from_array(np.resize(TABLE, (60, labels)), "table"),
            numpy_helper.from_array(np.array(SCALE), "scale"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "pieces"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)


def write_folder(folder: Path, *, labels: Sequence[str] | None = LABELS, **settings: Any) -> Path:
    """What stands beside a graph."""
    named = {} if labels is None else {"id2label": dict(enumerate(labels))}
    config = transformers.BertConfig(**{**SIZES, "max_position_embeddings": 16, **named, **settings})
    config.architectures = ["BertForTokenClassification"]
    config.save_pretrained(folder)
    letters_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def classifier_folder(tmp_path):
    folder = write_folder(tmp_path / "model")
    write_graph(folder / "onnx" / "model_q4.onnx")
    return folder


def batch_of(sentences: Sequence[Sequence[str]]) -> Batch:
    lengths = torch.tensor([len(words) for words in sentences])
    words = torch.zeros(len(sentences), int(lengths.max()), dtype=torch.int64)
    return Batch(words, lengths, tuple(map(tuple, sentences)))


def scores_by_hand(model: TokenClassifier, words: Sequence[str]) -> torch.Tensor:
    """Log-probabilities [n, M] at the first letter of each word; one window."""
    ids, first = [2], []
    for word in words:
        first.append(len(ids))
        ids += model.tokenizer.encode(word, add_special_tokens=False).ids
    own = TABLE[[*ids, 3]].astype(np.float32) * SCALE  # [p, M]
    return torch.from_numpy((own + own.sum(0))[first]).log_softmax(-1)


@pytest.mark.parametrize("pieces", [4, 512])
def test_scores_are_the_graphs_at_first_pieces_however_many_windows_a_run_takes(
    pieces, classifier_folder, monkeypatch
):
    monkeypatch.setattr(onnx_classifier, "PIECES_A_RUN", pieces)
    model = load_token_classifier(str(classifier_folder), None)
    assert model.scheme == "iob2"
    found = model.scores(SENTENCES[:4])
    for row, words in enumerate(SENTENCES[:4]):
        torch.testing.assert_close(
            found[row, : len(words)], scores_by_hand(model, words), atol=1e-4, rtol=1e-4
        )


def test_a_sentence_that_is_longer_than_the_window_is_read_in_several(classifier_folder):
    model = load_token_classifier(str(classifier_folder), None)
    assert model.max_pieces == 16
    chain = model(batch_of(SENTENCES))
    assert model.decode(chain).shape == (len(SENTENCES), 30)
    # Windows of 14 words without the special pieces: the scores of the first do not depend on the others.
    torch.testing.assert_close(model.scores(SENTENCES[4:])[0, :14], model.scores([("a",) * 14])[0])


def test_the_chain_is_the_one_of_the_same_scores_in_torch(classifier_folder, tmp_path):
    model = load_token_classifier(str(classifier_folder), None)

    class Same(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            own = torch.from_numpy(TABLE)[input_ids].float() * float(SCALE)
            everywhere = (own * attention_mask[..., None]).sum(1, keepdim=True)
            return transformers.modeling_outputs.TokenClassifierOutput(logits=own + everywhere)

    chain = model(batch_of(SENTENCES))
    model.model = Same()
    in_torch = model(batch_of(SENTENCES))
    torch.testing.assert_close(chain.log_partition(), in_torch.log_partition(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(chain.marginals().tokens, in_torch.marginals().tokens, atol=1e-4, rtol=1e-4)


def test_a_graph_may_lie_at_the_top_and_lack_optional_inputs(tmp_path):
    folder = write_folder(tmp_path / "model")
    write_graph(folder / "model.onnx", inputs=("input_ids", "attention_mask"))
    assert load_token_classifier(str(folder), None).labels[0] == "O"


def test_safetensors_come_first_unless_the_graph_is_named(tmp_path):
    folder = write_bert(
        tmp_path / "model", transformers.BertForTokenClassification, id2label=dict(enumerate(LABELS))
    )
    write_graph(folder / "onnx" / "model.onnx")
    in_torch = load_token_classifier(str(folder), None)
    assert isinstance(in_torch.model, transformers.BertForTokenClassification)
    named = load_token_classifier(str(folder / "onnx" / "model.onnx"), None)
    assert isinstance(named.model, onnx_classifier.OnnxClassifier)
    assert named.parameter_count == in_torch.parameter_count
    assert named.digest != in_torch.digest


def test_several_graphs_are_an_error_that_names_them_and_one_can_be_named(classifier_folder):
    write_graph(classifier_folder / "onnx" / "model.onnx")
    with pytest.raises(ValueError, match=r"onnx/model\.onnx, onnx/model_q4\.onnx"):
        load_token_classifier(str(classifier_folder), None)
    load_token_classifier(str(classifier_folder / "onnx" / "model_q4.onnx"), None)


def test_a_graph_in_the_local_cache_is_found_by_its_name(classifier_folder, cached):
    cached("somebody/tagger", classifier_folder)
    found = find_encoder("somebody/tagger/onnx/model_q4.onnx", formats=encoder_places.CLASSIFIERS)
    assert found.kind == "cache"
    assert found.onnx is not None
    with pytest.raises(EncoderNotFoundError, match=r"has no onnx/other\.onnx; it has onnx/model_q4\.onnx"):
        load_token_classifier("somebody/tagger/onnx/other.onnx", None)


def test_a_wheel_with_a_graph_is_read_by_classifiers_alone(classifier_folder, monkeypatch, tmp_path):
    content = (classifier_folder / "onnx" / "model_q4.onnx").read_bytes()
    file = install(tmp_path / "site", monkeypatch, "tags-wheel", "tags_wheel/m/onnx/model_q4.onnx", content)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "site/tags_wheel/m" / name).write_bytes((classifier_folder / name).read_bytes())
    monkeypatch.setitem(encoder_places.WHEELS, "somebody/tagger", EncoderWheel(file, "4-bit"))
    assert find_encoder("somebody/tagger", formats=encoder_places.CLASSIFIERS).kind == "wheel"
    assert load_token_classifier("somebody/tagger", None).scheme == "iob2"
    with pytest.raises(EncoderNotFoundError, match="no wheel is known"):
        find_encoder("somebody/tagger")


def test_a_graph_that_scores_no_tokens_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    write_graph(folder / "model.onnx", pooled=True)
    with pytest.raises(ValueError, match=r"model\.onnx has no output logits of rank 3"):
        load_token_classifier(str(folder), None)


def test_a_graph_with_another_output_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    write_graph(folder / "model.onnx", output="last_hidden_state")
    with pytest.raises(ValueError, match="last_hidden_state of rank 3"):
        load_token_classifier(str(folder), None)


def test_a_graph_of_another_number_of_labels_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    write_graph(folder / "model.onnx", labels=7)
    with pytest.raises(ValueError, match=r"scores 7 labels, and id2label in config\.json names 5"):
        load_token_classifier(str(folder), None)


def test_a_graph_with_inputs_that_nothing_is_known_for_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    write_graph(folder / "model.onnx", inputs=("input_ids", "attention_mask", "bbox"))
    with pytest.raises(ValueError, match="has the inputs bbox"):
        load_token_classifier(str(folder), None)


def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path):
    folder = write_folder(tmp_path / "model")
    (folder / "model.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"model\.onnx can not be opened"):
        load_token_classifier(str(folder), None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "does not name its labels"), (["O", "B-A", "I-A", "X-B", "E-C"], "is none of the scheme")],
)
def test_labels_that_nothing_can_read_are_refused(labels, message, tmp_path):
    more = {"num_labels": 5} if labels is None else {}
    folder = write_folder(tmp_path / "model", labels=labels, **more)
    write_graph(folder / "model.onnx")
    with pytest.raises(ValueError, match=message):
        load_token_classifier(str(folder), None)
