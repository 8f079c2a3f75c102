"""Word vectors of a corpus on disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from train.models import feature_store
from train.models.encoders import encode
from train.models.feature_store import FeatureStore, frozen_features

SENTENCES = [["the", "cat"], ["a", "longer", "sentence", "about", "it"], ["one"], ["x", "yz"] * 20]


def test_features_are_kept_in_order_and_computed_once(encoder, tmp_path, monkeypatch):
    store = frozen_features(encoder, SENTENCES, tmp_path, batch_pieces=16)
    assert len(store) == 4
    assert store.features.shape == (48, 16)
    assert store.features.dtype == np.float16
    for place, expected in enumerate(encode(encoder, SENTENCES)):
        np.testing.assert_allclose(store.rows(place), expected.numpy(), rtol=2e-3, atol=2e-3)
    monkeypatch.setattr(feature_store, "encode", None)  # a second computation would fail
    again = frozen_features(encoder, SENTENCES, tmp_path)
    assert again.path == store.path
    np.testing.assert_array_equal(again.features, store.features)


def test_other_words_layers_precision_or_encoder_are_other_features(encoder, tmp_path):
    paths = {
        frozen_features(encoder, SENTENCES, tmp_path).path,
        frozen_features(encoder, SENTENCES[1:], tmp_path).path,
        frozen_features(encoder, [["the cat"], *SENTENCES[1:]], tmp_path).path,
        frozen_features(encoder, SENTENCES, tmp_path, layers=(-1,)).path,
        frozen_features(encoder, SENTENCES, tmp_path, precision="bfloat16").path,
        frozen_features(replace(encoder, digest="other"), SENTENCES, tmp_path).path,
    }
    assert len(paths) == 6


def test_bfloat16_is_near_float32(encoder, tmp_path):
    exact = frozen_features(encoder, SENTENCES, tmp_path).features.astype(float)
    near = frozen_features(encoder, SENTENCES, tmp_path, precision="bfloat16")
    assert 0 < np.abs(near.features - exact).max() < 0.2 * np.abs(exact).max()


def test_a_run_that_fails_leaves_nothing_behind(encoder, tmp_path, monkeypatch):
    calls = []

    def fail_the_second_time(*arguments, **keywords):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return encode(*arguments, **keywords)

    monkeypatch.setattr(feature_store, "encode", fail_the_second_time)
    with pytest.raises(KeyboardInterrupt):
        frozen_features(encoder, SENTENCES, tmp_path, batch_pieces=16)
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_float16_are_an_error(encoder, tmp_path):
    with torch.no_grad():
        encoder.model.encoder.layer[2].output.LayerNorm.bias.fill_(1e6)
    with pytest.raises(FloatingPointError, match="beyond float16"):
        frozen_features(encoder, SENTENCES, tmp_path, layers=(-1,))
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_words_has_an_empty_store(encoder, tmp_path):
    store = frozen_features(encoder, [[], []], tmp_path)
    assert [store.rows(place).shape for place in range(len(store))] == [(0, 16), (0, 16)]


def test_a_store_whose_files_disagree_is_refused(encoder, tmp_path):
    store = frozen_features(encoder, SENTENCES, tmp_path)
    np.save(store.path / "features.npy", np.zeros((3, 16), np.float16))
    with pytest.raises(ValueError, match="3 rows, but offsets up to 48"):
        FeatureStore.open(store.path)


def test_progress_goes_to_stderr(encoder, tmp_path, capsys):
    frozen_features(encoder, SENTENCES, tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pieces" in captured.err


def test_an_unknown_precision_is_refused(encoder, tmp_path):
    with pytest.raises(ValueError, match="expected float32 or bfloat16"):
        frozen_features(encoder, SENTENCES, tmp_path, precision="int8")
