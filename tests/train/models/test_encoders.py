"""Loading encoders, and the word vectors that they give."""

import pytest
import torch
import transformers

from tests.train.models.small_bert import SIZES, copy_files, letters_tokenizer
from train.models.encoders import TokenEncoder, encode, load_encoder

SENTENCES = [["the", "cat"], ["a", "longer", "sentence", "about", "it"], ["one"], ["x", "yz"] * 20]


def test_a_folder_is_loaded_for_evaluation_without_pooler_or_truncation(folder, encoder):
    assert encoder.hidden_size == 16
    assert encoder.max_pieces == 32
    assert encoder.model.pooler is None
    assert not encoder.model.training
    assert encoder.tokenizer.truncation is None
    assert all(parameter.dtype == torch.float32 for parameter in encoder.model.parameters())


def test_the_digest_follows_the_weights_and_the_tokenizer(folder, encoder, tmp_path):
    copy_files(folder, tmp_path)
    assert load_encoder(str(tmp_path)).digest == encoder.digest
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace('"##z"', '"##ß"'), encoding="utf-8")
    assert load_encoder(str(tmp_path)).digest != encoder.digest


def test_roberta_has_fewer_positions_than_its_table_and_no_token_types(tmp_path):
    torch.manual_seed(0)
    config = transformers.RobertaConfig(**SIZES, pad_token_id=0, type_vocab_size=1)
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    letters_tokenizer().save(str(tmp_path / "tokenizer.json"))
    encoder = load_encoder(str(tmp_path))
    assert encoder.max_pieces == 31
    vectors = encode(encoder, [["ab"] * 40], layers=(-1,))
    assert vectors[0].shape == (40, 16)


def word_vectors_by_hand(encoder, words, layers) -> torch.Tensor:
    pieces = [encoder.tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    ids = torch.tensor([[2, *[piece for found in pieces for piece in found], 3]])
    with torch.no_grad():
        states = encoder.model(ids, output_hidden_states=True).hidden_states
    hidden = sum(states[layer][0] for layer in layers) / len(layers)
    place, rows = 1, []
    for found in pieces:
        rows.append(hidden[place : place + len(found)].mean(0))
        place += len(found)
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [(-1,), (0,), (-4, -3, -2, -1), (1, 3)])
def test_word_vectors_are_means_over_layers_and_pieces(encoder, layers):
    sentences = [words for words in SENTENCES if sum(map(len, words)) <= 30]
    for words, vectors in zip(sentences, encode(encoder, sentences, layers=layers), strict=True):
        torch.testing.assert_close(
            vectors, word_vectors_by_hand(encoder, words, layers), rtol=1e-4, atol=1e-5
        )


def test_a_sentence_longer_than_the_encoder_gets_a_vector_for_every_word(encoder):
    words = ["abc", "de"] * 30
    (vectors,) = encode(encoder, [words])
    assert vectors.shape == (60, 16)
    assert torch.isfinite(vectors).all()
    first = words[:12]  # 30 pieces, which is all that fits beside the two special ones
    torch.testing.assert_close(vectors[:12], encode(encoder, [first])[0], rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_not_there_is_an_error(encoder):
    for layers in [(4,), (-5,), ()]:
        with pytest.raises(ValueError, match="hidden states 0 to 3"):
            encode(encoder, SENTENCES, layers=layers)


def test_empty_sentences_have_no_vectors(encoder):
    assert [vectors.shape for vectors in encode(encoder, [[], []])] == [(0, 16)] * 2
    assert encode(encoder, []) == []
    assert TokenEncoder(encoder)([[], []]).shape == (2, 0, 16)
    assert [len(vectors) for vectors in encode(encoder, [[], ["a"]])] == [0, 1]


# Fine-tuning


def test_fine_tuning_starts_from_the_frozen_vectors(encoder):
    module = TokenEncoder(encoder, layers=(-2, -1)).eval()
    vectors = module(SENTENCES)
    assert vectors.shape == (4, 40, 16)
    assert module.output_size == 16
    for row, expected in zip(vectors, encode(encoder, SENTENCES, layers=(-2, -1)), strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-5, atol=1e-6)
        assert not row[len(expected) :].any()


def test_fine_tuning_reaches_every_weight_of_the_layers_used(encoder):
    module = TokenEncoder(encoder).train()
    (module(SENTENCES) ** 2).sum().backward()
    silent = [name for name, weight in module.named_parameters() if weight.grad is None]
    assert silent == []
