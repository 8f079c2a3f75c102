"""Frozen vectors against the fastText library, character features, and the table that serving reads."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from fasttext import FastText

from structural_kd.words import (
    CharacterConvolution,
    SubwordVectors,
    WordTable,
    character_ids,
    character_index,
    subword_buckets,
)

KNOWN = ["the", "cat", "naïve", "שלום", "日本語", "😀", "a", "10"]
UNKNOWN = [
    "cats",
    "Ünïcôdé",
    "שלומות",
    "日本",
    "x",
    "é",
    "<",
    ">",
    "naïve😀s",
    "antidisestablishmentarianism",
]


@pytest.fixture(scope="module", params=[(3, 6, 1000), (1, 3, 37), (2, 2, 5)], ids=str)
def library_model(request, tmp_path_factory):
    min_n, max_n, buckets = request.param
    text = tmp_path_factory.mktemp("fasttext") / "text.txt"
    text.write_text("\n".join([" ".join(KNOWN)] * 30), encoding="utf-8")
    return FastText.train_unsupervised(
        str(text), dim=8, epoch=2, minCount=1, bucket=buckets, minn=min_n, maxn=max_n, thread=1, verbose=0
    )


def subword_vectors_of(model) -> SubwordVectors:
    words = model.get_words()
    arguments = model.f.getArgs()
    return SubwordVectors(
        vocabulary=words,
        vectors=np.stack([model.get_word_vector(word) for word in words]),
        subwords=model.get_input_matrix()[len(words) :],
        min_n=arguments.minn,
        max_n=arguments.maxn,
    )


@pytest.mark.parametrize("word", KNOWN + UNKNOWN)
def test_a_word_has_the_vector_that_fasttext_gives_it(library_model, word):
    ours = subword_vectors_of(library_model).vector(word)
    np.testing.assert_allclose(ours, library_model.get_word_vector(word), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("word", KNOWN + UNKNOWN)
def test_a_word_has_the_subwords_that_fasttext_gives_it(library_model, word):
    known = len(library_model.get_words())
    buckets = library_model.f.getArgs().bucket
    _, rows = library_model.get_subwords(word)
    arguments = library_model.f.getArgs()
    ours = subword_buckets(word, buckets, arguments.minn, arguments.maxn)
    assert ours == [row - known for row in rows if row >= known]


@pytest.mark.parametrize("word", ["", "\ud800", "a\udfffb", "\x00", " "])
def test_any_string_has_a_vector(library_model, word):
    assert np.isfinite(subword_vectors_of(library_model).vector(word)).all()


def test_without_subwords_an_unknown_word_is_zero():
    vectors = SubwordVectors(["a"], np.ones((1, 3), np.float32), None, 0, 0)
    assert vectors.vector("a").tolist() == [1, 1, 1]
    assert vectors.vector("b").tolist() == [0, 0, 0]


@pytest.mark.parametrize("with_subwords", [True, False])
def test_saved_vectors_come_back_the_same(tmp_path, with_subwords):
    generator = np.random.default_rng(0)
    subwords = generator.normal(size=(7, 4)).astype(np.float32) if with_subwords else None
    vectors = SubwordVectors(
        ["a", "שלום", "\ud800"], generator.normal(size=(3, 4)).astype(np.float32), subwords, 3, 6
    )
    vectors.save(tmp_path / "vectors")
    loaded = SubwordVectors.load(tmp_path / "vectors")
    assert loaded.vocabulary == vectors.vocabulary
    for word in ["a", "שלום", "\ud800", "other"]:
        np.testing.assert_array_equal(loaded.vector(word), vectors.vector(word))
    assert not list(tmp_path.rglob("*.part"))


def test_vectors_that_do_not_fit_their_words_are_refused():
    with pytest.raises(ValueError, match="2 words, but vectors of shape"):
        SubwordVectors(["a", "b"], np.zeros((3, 4), np.float32), None, 3, 6)
    with pytest.raises(ValueError, match="a word twice"):
        SubwordVectors(["a", "a"], np.zeros((2, 4), np.float32), None, 3, 6)
    with pytest.raises(ValueError, match="differ in width"):
        SubwordVectors(["a"], np.zeros((1, 4), np.float32), np.zeros((5, 3), np.float32), 3, 6)


def test_vectors_of_another_type_are_refused_by_file_name(tmp_path):
    SubwordVectors(["a"], np.zeros((1, 4), np.float32), None, 3, 6).save(tmp_path)
    np.save(tmp_path / "vectors.npy", np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"vectors\.npy: expected float32, found float64"):
        SubwordVectors.load(tmp_path)


def test_characters_beyond_the_fortieth_do_not_count():
    index = character_index(["a", "b"])
    assert character_ids("a" * 40, index) == character_ids("a" * 40 + "b" * 9, index)
    assert len(character_ids("b" * 400, index)) == 42


def convolution(width: int = 3, seed: int = 0) -> CharacterConvolution:
    generator = np.random.default_rng(seed)
    alphabet = list("abcdeש")
    embeddings = generator.normal(size=(4 + len(alphabet), 5)).astype(np.float32)
    embeddings[0] = 0
    kernel = generator.normal(size=(7, 5, width)).astype(np.float32)
    return CharacterConvolution(alphabet, embeddings, kernel, generator.normal(size=7).astype(np.float32))


def convolve_by_hand(characters: CharacterConvolution, word: str) -> np.ndarray:
    ids = character_ids(word, character_index(characters.alphabet))
    width = characters.kernel.shape[2]
    best = np.full(len(characters.bias), -np.inf)
    for position in range(len(ids)):
        total = characters.bias.astype(float)
        for place in range(width):
            neighbour = position + place - width // 2
            if 0 <= neighbour < len(ids):
                total = total + characters.kernel[:, :, place] @ characters.embeddings[ids[neighbour]]
        best = np.maximum(best, total)
    return best


@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize("word", ["", "a", "abba", "שa?", "abcde" * 20, "\ud800"])
def test_character_features_are_the_maximum_of_a_convolution(width, word):
    characters = convolution(width)
    np.testing.assert_allclose(
        characters.features(word), convolve_by_hand(characters, word), rtol=1e-5, atol=1e-5
    )


def test_a_convolution_with_wrong_shapes_is_refused():
    good = convolution()
    with pytest.raises(ValueError, match=r"embeddings: expected \[9, c\]"):
        CharacterConvolution(good.alphabet[1:], good.embeddings, good.kernel, good.bias)
    with pytest.raises(ValueError, match="width has to be odd"):
        CharacterConvolution(good.alphabet, good.embeddings, good.kernel[:, :, :2], good.bias)
    with pytest.raises(ValueError, match=r"bias: expected \[7\]"):
        CharacterConvolution(good.alphabet, good.embeddings, good.kernel, good.bias[1:])
    with pytest.raises(ValueError, match="distinct single characters"):
        CharacterConvolution(["a", "a"], good.embeddings[:6], good.kernel, good.bias)


@pytest.fixture
def vectors() -> SubwordVectors:
    generator = np.random.default_rng(3)
    words = ["a", "bad", "cab", "שבת"]
    return SubwordVectors(
        words,
        generator.normal(size=(len(words), 6)).astype(np.float32),
        generator.normal(size=(50, 6)).astype(np.float32),
        3,
        5,
    )


SENTENCES = [["a", "bad", "cab"], ["dab", "שבת", "a", "unknown", "dab"], [], ["ebb"]]


def expected_row(vectors: SubwordVectors, word: str) -> np.ndarray:
    return np.concatenate([vectors.vector(word), convolution().features(word)])


def test_a_row_is_vector_and_character_features_of_known_and_unknown_words(vectors):
    table = WordTable.fold(vectors, convolution())
    for word in itertools.chain(*SENTENCES):
        assert table.row(word).dtype == np.float32
        np.testing.assert_array_equal(table.row(word), expected_row(vectors, word))


def test_folding_a_word_in_or_leaving_it_unknown_makes_no_difference(vectors):
    some = [word for words in SENTENCES for word in words if word not in vectors]
    folded = WordTable.fold(vectors, convolution(), words=[*vectors.vocabulary, *some])
    composed = WordTable.fold(vectors, convolution())
    for word in some:
        np.testing.assert_array_equal(folded.row(word), composed.row(word))


def test_a_saved_table_gives_the_same_rows(tmp_path, vectors):
    table = WordTable.fold(vectors, convolution())
    table.save(tmp_path / "words")
    loaded = WordTable.load(tmp_path / "words")
    assert loaded.size == table.size == 13
    for word in itertools.chain(*SENTENCES):
        np.testing.assert_array_equal(loaded.row(word), table.row(word))
    assert not any(path.suffix in {".pkl", ".pickle", ".part"} for path in (tmp_path / "words").iterdir())


def test_a_table_that_does_not_fit_its_vocabulary_is_refused(vectors):
    table = WordTable.fold(vectors, convolution())
    with pytest.raises(ValueError, match="4 words, but rows of shape"):
        WordTable(table.vocabulary, table.rows[1:], table.subwords, 3, 5, table.characters)
    with pytest.raises(ValueError, match="do not fit"):
        WordTable(table.vocabulary, table.rows[:, 1:], table.subwords, 3, 5, table.characters)
    with pytest.raises(ValueError, match="a word twice"):
        WordTable(["a", "b", "a", "c"], table.rows, table.subwords, 3, 5, table.characters)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, vectors, monkeypatch):
    vectors.save(tmp_path)
    before = (tmp_path / "vectors.npy").read_bytes()

    def fail(*arguments, **keywords):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        vectors.save(tmp_path)
    assert (tmp_path / "vectors.npy").read_bytes() == before
    assert not list(tmp_path.glob(".*part"))
