"""What lies under a model's scores: words, an encoder or both, with or without a BiLSTM; and its card."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structural_kd.labels import bioes_labels
from structural_kd.words import SubwordVectors
from tests.train.tiny import write_encoder
from train.models.batch import Batch, pad_rows
from train.models.card import EncoderUse, ModelCard, build_model, load_trained, read_card, save_trained
from train.models.encoders import TokenEncoder, encode, load_encoder
from train.models.lstm import SentenceLSTM
from train.models.representation import Representation
from train.models.words import WordFeatures, WordTypes

SENTENCES = (("Ada", "sees", "Rome"), ("Kurt", "."))
LABELS = tuple(bioes_labels(["LOC", "PER"]))


@pytest.fixture(scope="module")
def types() -> WordTypes:
    words = [word for sentence in SENTENCES for word in sentence]
    rows = torch.randn(len(words), 6, generator=torch.Generator().manual_seed(1)).numpy()
    return WordTypes.build(words, SubwordVectors(words, rows, None, 0, 0), sorted(set("".join(words))))


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture
def batch(types, encoder_folder) -> Batch:
    return Batch(
        words=pad_rows([torch.from_numpy(types.ids(sentence)) for sentence in SENTENCES]),
        lengths=torch.tensor([3, 2]),
        sentences=SENTENCES,
        encoded=pad_rows(encode(load_encoder(str(encoder_folder)), SENTENCES, layers=(-1,))),
    )


def card(**changes) -> ModelCard:
    plain = ModelCard("ner", "softmax", "teacher", "xx", LABELS, hidden_size=5, arc_size=4)
    return replace(plain, **changes)


def use(folder: Path, *, finetuned: bool) -> EncoderUse:
    return EncoderUse(str(folder), (-1,), 16, finetuned)


def test_the_size_depends_on_features_and_layers(types):
    words = WordFeatures(types, character_features=7)
    sizes = {"hidden_size": 5, "dropout": 0.0}
    assert Representation(words, layers=1, **sizes).output_size == 10
    assert Representation(words, layers=0, **sizes).output_size == 13
    assert Representation(words, encoded_size=16, layers=0, **sizes).output_size == 29
    assert Representation(None, encoded_size=16, layers=0, **sizes).output_size == 16
    assert Representation(None, encoded_size=16, layers=2, **sizes).output_size == 10


def test_a_model_that_reads_nothing_is_an_error(types):
    with pytest.raises(ValueError, match="neither words nor an encoder"):
        build_model(card(reads_words=False), types)


def test_without_words_and_layers_the_scores_are_linear_in_the_encoder(types, batch, encoder_folder):
    settings = {"encoder": use(encoder_folder, finetuned=False), "reads_words": False, "layers": 0}
    model = build_model(card(**settings), types).eval()
    assert model.representation.words is None
    assert sorted(name for name, _ in model.named_parameters()) == ["emissions.bias", "emissions.weight"]
    torch.testing.assert_close(model(batch).scores, model.emissions(batch.encoded))


def test_a_model_without_words_does_not_depend_on_word_ids(types, batch, encoder_folder):
    model = build_model(card(encoder=use(encoder_folder, finetuned=False), reads_words=False), types).eval()
    unknown = replace(batch, words=torch.zeros_like(batch.words))
    torch.testing.assert_close(model(batch).scores, model(unknown).scores)


def test_without_layers_dropout_falls_on_the_features_alike_at_every_token(batch):
    representation = Representation(None, encoded_size=16, hidden_size=1, layers=0, dropout=0.5).train()
    torch.manual_seed(0)
    kept = representation(batch) / batch.encoded  # [B, n, 16] 0 or 2
    first = kept[0, 0]
    assert set(first.tolist()) == {0.0, 2.0}
    torch.testing.assert_close(kept[0], first.expand(3, -1))
    torch.testing.assert_close(representation.eval()(batch), batch.encoded)


def test_missing_features_are_an_error(types, batch, encoder_folder):
    model = build_model(card(encoder=use(encoder_folder, finetuned=False)), types)
    with pytest.raises(ValueError, match="reads encoder features"):
        model(replace(batch, encoded=None))


@pytest.mark.parametrize("kind", ["crf", "softmax", "span"])
def test_a_fine_tuned_teacher_without_words_trains_its_encoder_and_comes_back_from_disk(
    kind, types, batch, encoder_folder, tmp_path
):
    settings = {
        "kind": kind,
        "encoder": use(encoder_folder, finetuned=True),
        "reads_words": False,
        "layers": 0,
    }
    tuned = TokenEncoder(load_encoder(str(encoder_folder)), layers=(-1,))
    model = build_model(card(**settings), types, tuned).train()
    batch = replace(batch, encoded=None)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    gold = torch.tensor([[LABELS.index("S-PER"), 0, LABELS.index("S-LOC")], [LABELS.index("S-PER"), 0, 0]])
    before = tuned.model.embeddings.word_embeddings.weight.detach().clone()
    for _ in range(60):
        optimiser.zero_grad()
        (-model(batch).log_prob(gold)).mean().backward()
        optimiser.step()
    assert (tuned.model.embeddings.word_embeddings.weight != before).any()
    model.eval()
    assert model.decode(model(batch)).tolist() == gold.tolist()
    save_trained(tmp_path / "teacher", model, card(**settings))
    again = load_trained(
        tmp_path / "teacher", types, TokenEncoder(load_encoder(str(encoder_folder)), layers=(-1,))
    )
    torch.testing.assert_close(again(batch).potentials, model(batch).potentials)


@pytest.mark.parametrize("kind", ["crf", "softmax", "span"])
def test_a_teacher_with_frozen_features_learns(kind, types, batch, encoder_folder):
    model = build_model(card(kind=kind, encoder=use(encoder_folder, finetuned=False)), types).train()
    assert model.representation.encoder is None
    assert model.representation.encoded_size == 16
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    gold = torch.tensor([[LABELS.index("B-PER"), LABELS.index("E-PER"), 0], [0, LABELS.index("S-LOC"), 0]])
    for _ in range(60):
        optimiser.zero_grad()
        (-model(batch).log_prob(gold)).mean().backward()
        optimiser.step()
    model.eval()
    assert model.decode(model(batch)).tolist() == gold.tolist()


def test_a_card_from_before_words_were_optional_reads_words(types, tmp_path):
    save_trained(tmp_path, build_model(card(), types), card())
    about = json.loads((tmp_path / "model.json").read_text())
    del about["card"]["reads_words"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert read_card(tmp_path)[0] == card()
    assert load_trained(tmp_path, types).representation.words is not None


def test_a_card_from_before_convolutions_and_distances_is_of_a_bilstm_without_distances(types, tmp_path):
    parser = card(kind="biaffine")
    save_trained(tmp_path, build_model(parser, types), parser)
    about = json.loads((tmp_path / "model.json").read_text())
    for field in ("context", "dilations", "arc_distance"):
        del about["card"][field]
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert read_card(tmp_path)[0] == parser
    loaded = load_trained(tmp_path, types)
    assert isinstance(loaded.representation.context, SentenceLSTM)
    assert not loaded.arc_distance
