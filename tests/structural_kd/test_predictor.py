"""Predictors: results in the order of the sentences, whatever the batches and the threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import structural_kd
from structural_kd.batches import PADDED_A_TOKEN, length_batches
from structural_kd.encoder import PieceEncoder
from structural_kd.labels import spans_from_bioes
from structural_kd.manifest import EncoderFeatures
from structural_kd.trees import is_tree
from tests.export.tiny_models import KINDS, bundle_of, sentences


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for kind in KINDS:
        bundle_of(folder / kind, kind)
    return folder


def _same(found: list, expected: list) -> bool:
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, structural_kd.ParsedSentence):
            if (one.heads, one.deprels) != (other.heads, other.deprels):
                return False
            scores = zip(one.scores, other.scores, strict=True)
        else:
            if one.tags != other.tags:
                return False
            scores = zip((e.score for e in one.entities), (e.score for e in other.entities), strict=True)
        if any(abs(a - b) > 1e-6 for a, b in scores):
            return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_are_answered_in_their_order_and_alone_as_together(bundles, kind):
    predictor = structural_kd.load(bundles / kind, batch_tokens=40)
    texts = sentences(30)
    together = predictor.predict(texts)
    assert _same(together, [predictor.predict([words])[0] for words in texts])
    assert _same(together, structural_kd.load(bundles / kind, batch_tokens=1).predict(texts))


@pytest.mark.parametrize("texts", ["sola luna", ["sola luna"], [["sola"], "luna"]])
def test_a_string_in_place_of_words_is_an_error(bundles, texts):
    with pytest.raises(TypeError, match="lists of words"):
        structural_kd.load(bundles / "crf").predict(texts)


@pytest.mark.parametrize("kind", ["crf", "softmax"])
def test_entities_are_those_of_the_tags_with_a_probability(bundles, kind):
    entities = 0
    for words, result in zip(
        sentences(50), structural_kd.load(bundles / kind).predict(sentences(50)), strict=True
    ):
        assert len(result.tags) == len(words)
        assert spans_from_bioes(result.tags) == [(e.label, e.start, e.end) for e in result.entities]
        assert all(0 < entity.score <= 1 for entity in result.entities)
        entities += len(result.entities)
    assert entities > 20


@pytest.mark.parametrize("kind", ["biaffine", "labeller"])
def test_every_parse_is_a_tree_with_one_root(bundles, kind):
    texts = sentences(60, longest=25)
    for words, result in zip(texts, structural_kd.load(bundles / kind).predict(texts), strict=True):
        assert is_tree(result.heads)
        assert len(result.heads) == len(result.deprels) == len(result.scores) == len(words)
        assert all(0 <= score <= 1 for score in result.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_no_sentences_give_no_results_and_an_empty_sentence_an_empty_one(bundles, kind):
    predictor = structural_kd.load(bundles / kind)
    assert predictor.predict([]) == []
    first, second, third = predictor.predict([[], ["sola"], []])
    assert first == third
    assert not any(getattr(first, field) for field in type(first).__slots__)
    assert second == predictor.predict([["sola"]])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_long_and_odd_words_are_answered(bundles, kind):
    words = ["unseen", "", "\ud800", "word " * 1000, "日本", "\0"]
    (result,) = structural_kd.load(bundles / kind).predict([words])
    assert len(getattr(result, "tags", None) or result.heads) == len(words)


@pytest.mark.parametrize("kind", KINDS)
def test_several_threads_get_what_one_gets(bundles, kind):
    predictor = structural_kd.load(bundles / kind)
    texts = sentences(40, seed=3)
    expected = predictor.predict(texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            _same(found, expected) for found in pool.map(lambda _: predictor.predict(texts), range(12))
        )


def test_batches_keep_to_their_budget_and_hold_each_sentence_once():
    lengths = [5, 0, 700, 3, 30, 30, 21, 0, *[1] * 40, 63]
    batches = list(length_batches(lengths, 64))
    assert sorted(i for batch in batches for i in batch) == [i for i, n in enumerate(lengths) if n]
    for batch in batches:
        inside = [lengths[i] for i in batch]
        assert len(batch) == 1 or sum(inside) <= 64
        assert len(batch) == 1 or len(batch) * max(inside) <= PADDED_A_TOKEN * 64


class PieceNumbers:
    """In place of an encoder's graph: the hidden state of a piece is its number."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, *, ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        self.shapes.append(ids.shape)
        return {"hidden": (ids * mask)[..., None].astype(np.float32)}


def test_an_encoder_reads_many_windows_in_several_runs(tmp_path, monkeypatch):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, **{str(i): i for i in range(1, 10)}}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    graph: Any = PieceNumbers()
    settings = EncoderFeatures("digits", (-1,), 1, max_pieces=8, finetuned=False)
    encoder = PieceEncoder(tmp_path / "tokenizer.json", graph, settings)
    monkeypatch.setattr("structural_kd.encoder.PIECES_A_RUN", 30)
    features = encoder.features([["1234567", "19"], ["2", "46"] * 40, ["5"]])
    assert [len(rows) for rows in features] == [2, 80, 1]
    assert np.concatenate(features)[:, 0].tolist() == [4.0, 5.0, *[2.0, 5.0] * 40, 5.0]
    assert len(graph.shapes) > 1
    assert all(windows * pieces <= 30 for windows, pieces in graph.shapes)


def test_a_predictor_is_shown_with_its_manifest(bundles):
    manifest = structural_kd.load(bundles / "crf").manifest
    assert (manifest.task, manifest.role, manifest.language) == ("ner", "student", "en")
    assert manifest.labels[0] == "O"


def test_a_budget_of_no_tokens_is_an_error(bundles):
    with pytest.raises(ValueError, match="batch_tokens"):
        structural_kd.load(bundles / "crf", batch_tokens=0)
