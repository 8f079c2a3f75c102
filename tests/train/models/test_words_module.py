"""The torch module of word features, and its twin in numpy."""

import numpy as np
import pytest
import torch

from structural_kd.words import SubwordVectors, WordTable
from train.models.words import WordFeatures, WordTypes, alphabet_of

SENTENCES = [["the", "cat", "sat"], ["שלום", "a", "the", "extraordinarily"], ["x" * 60]]
WORDS = [word for words in SENTENCES for word in words]


@pytest.fixture
def vectors() -> SubwordVectors:
    generator = np.random.default_rng(0)
    return SubwordVectors(
        ["the", "cat"],
        generator.normal(size=(2, 6)).astype(np.float32),
        generator.normal(size=(40, 6)).astype(np.float32),
        3,
        6,
    )


@pytest.fixture
def types(vectors) -> WordTypes:
    return WordTypes.build(WORDS, vectors, alphabet_of(WORDS, min_count=2))


def batch(types: WordTypes) -> torch.Tensor:
    ids = torch.zeros(len(SENTENCES), 4, dtype=torch.long)
    for row, words in enumerate(SENTENCES):
        ids[row, : len(words)] = torch.from_numpy(types.ids(words))
    return ids


def features(types: WordTypes, **settings) -> WordFeatures:
    torch.manual_seed(0)
    return WordFeatures(types, **{"character_dim": 5, "character_features": 7, **settings})


def test_an_alphabet_holds_the_characters_that_are_frequent_enough():
    assert alphabet_of(["abc", "ab", "ש"]) == ["a", "b", "c", "ש"]
    assert alphabet_of(["abc", "ab", "ש"], min_count=2) == ["a", "b"]


def test_word_types_are_distinct_words_and_id_0_is_padding(types, vectors):
    assert len(types) == 8
    assert types.ids(["the", "cat", "the"]).tolist() == [1, 2, 1]
    assert types.ids(["the"]).dtype == np.int64
    assert types.vectors.dtype == torch.float32
    assert types.characters.dtype == torch.int64
    assert types.characters.shape == (8, 42)
    assert not types.vectors[0].any()
    assert not types.characters[0].any()
    np.testing.assert_array_equal(types.vectors[types.ids(["sat"])[0]], vectors.vector("sat"))


def test_a_word_that_was_not_there_is_named(types):
    with pytest.raises(KeyError, match="absent"):
        types.ids(["the", "absent"])


def test_features_have_a_vector_and_character_features_and_padding_is_zero(types):
    module = features(types)
    ids = batch(types)
    rows = module(ids)
    assert rows.shape == (3, 4, 13)
    assert module.output_size == 13
    torch.testing.assert_close(rows[..., :6], types.vectors[ids], rtol=0, atol=0)
    assert not rows[ids == 0].any()
    assert rows[ids != 0][:, 6:].abs().min() > 0


def test_a_words_features_do_not_depend_on_the_batch(types):
    module = features(types)
    ids = batch(types)
    together = module(ids)
    for row, column in torch.nonzero(ids).tolist():
        alone = module(ids[row : row + 1, column : column + 1])[0, 0]
        torch.testing.assert_close(alone, together[row, column], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_table_that_serving_reads_gives_the_same_features(types, vectors, width):
    module = features(types, width=width)
    with torch.no_grad():
        module.embedding.weight[0] = 9  # what stands beyond a word's ends is learnt
        expected = module(batch(types)).numpy()
    table = WordTable.fold(vectors, module.convolution())
    for sentence, words in enumerate(SENTENCES):
        rows = np.stack([table.row(word) for word in words])
        np.testing.assert_allclose(rows, expected[sentence, : len(words)], rtol=1e-5, atol=1e-6)


def test_characters_get_a_gradient_and_vectors_none(types):
    module = features(types)
    module(batch(types)).sum().backward()
    assert {name for name, _ in module.named_parameters()} == {
        "embedding.weight",
        "character_convolution.weight",
        "character_convolution.bias",
    }
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_the_state_dict_leaves_the_data_out(types, vectors):
    module = features(types)
    assert not {"vectors", "characters"} & module.state_dict().keys()
    more = WordTypes.build([*WORDS, "more", "words"], vectors, types.alphabet)
    other = WordFeatures(more, character_dim=5, character_features=7)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(batch(more)), module(batch(types)), rtol=0, atol=0)


def test_the_numpy_weights_are_a_copy(types):
    module = features(types)
    convolution = module.convolution()
    before = convolution.features("cat")
    with torch.no_grad():
        module.character_convolution.weight.zero_()
    np.testing.assert_array_equal(convolution.features("cat"), before)
    np.testing.assert_allclose(
        module.convolution().features("cat"), module.character_convolution.bias.detach().numpy(), rtol=1e-6
    )


def test_an_even_width_is_refused(types):
    with pytest.raises(ValueError, match="odd"):
        WordFeatures(types, width=2)


def test_an_empty_batch_has_no_features(types):
    assert features(types)(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0, 13)
